"""The demo's parts, one by one: latencies, the story, hits, the board, sources and interrupts."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from infra.demo import board as steps
from infra.demo.board import NOTE_S, Board
from infra.demo.feed import WatchedProducer
from infra.demo.interrupts import Interrupts
from infra.demo.latency import Latencies
from infra.demo.personal import Personal
from infra.demo.source import FILE_HISTORY_SHARE, HISTORY_CLICKS, from_file, simulated
from infra.demo.story import EVENTS_MIN, OFFERS_MIN, SILENT_S, Hits, Offer, Story
from infra.demo.training import Training
from schemas.clicks import RawClick
from schemas.codec import Codec
from schemas.errors import SourceError

POPULAR = Offer("popular", "popular", ("i1", "i2"))
PERSONAL = Offer("model", "demo@1", ("i3",))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# -- latencies


def test_quantiles_of_nothing_are_none() -> None:
    assert Latencies().overall() is None
    assert Latencies().recent() is None


def test_quantiles_are_right_to_a_percent() -> None:
    rng = random.Random(1)
    values = [rng.lognormvariate(2.0, 1.0) for _ in range(1_999)]
    found = Latencies()
    for value in values:
        found.add(value)
    overall, recent = found.overall(), found.recent()
    assert overall is not None
    assert recent is not None
    for q, rough, exact in (
        (0.5, overall.p50_ms, recent.p50_ms),
        (0.95, overall.p95_ms, recent.p95_ms),
        (0.99, overall.p99_ms, recent.p99_ms),
    ):
        wanted = float(np.quantile(values, q, method="inverted_cdf"))
        assert exact == wanted
        assert rough == pytest.approx(wanted, rel=0.01)


def test_a_latency_of_nothing_or_of_ages_is_counted_too() -> None:
    found = Latencies()
    for value in (0.0, -1.0, 1e12):
        found.add(value)
    overall = found.overall()
    assert overall is not None
    assert overall.count == 3


# -- the story


def test_before_and_now_are_of_the_same_shopper() -> None:
    story = Story("ann")
    story.clicked("ann", "i9", "view", 1, 0.0)
    story.offered("ann", POPULAR)
    story.offered("bob", PERSONAL)
    assert (story.view().before, story.view().now) == (None, POPULAR)
    story.offered("ann", PERSONAL)
    assert (story.view().before, story.view().now) == (POPULAR, PERSONAL)


def test_a_view_of_what_was_just_offered_is_marked() -> None:
    story = Story("ann")
    story.offered("ann", POPULAR)
    for item, kind in (("i2", "view"), ("i2", "cart"), ("i7", "view"), ("i1", "impression")):
        story.clicked("ann", item, kind, 1, 0.0)
    events = [(event.item, event.kind, event.offered) for event in story.view().events]
    assert events == [("i2", "view", True), ("i2", "cart", False), ("i7", "view", False)]


def test_it_turns_to_one_with_a_past_when_its_shopper_is_silent() -> None:
    story = Story("ann")
    story.clicked("ann", "i1", "view", 1, 0.0)
    story.offered("bob", POPULAR)
    for at in range(EVENTS_MIN):
        story.clicked("bob", f"i{at}", "view", at, 1.0 + at / 10)
    assert story.view().shopper == "ann"
    story.clicked("carol", "i1", "view", 9, SILENT_S + 0.1)
    assert story.view().shopper == "ann"
    story.clicked("bob", "i9", "view", 9, SILENT_S + 0.2)
    view = story.view()
    assert view.shopper == "bob"
    assert len(view.events) == EVENTS_MIN + 1
    assert view.now == POPULAR


def test_without_a_chosen_shopper_it_is_the_first_who_clicks() -> None:
    story = Story()
    assert story.view().shopper == ""
    story.clicked("bob", "i1", "view", 1, 0.0)
    assert story.view().shopper == "bob"


def test_hits_are_counted_by_the_tier_that_offered() -> None:
    hits = Hits()
    for at in range(2 * OFFERS_MIN):
        hits.offered("ann", POPULAR)
        hits.clicked("ann", "i1" if at % 2 else "i9", "view")
        # Without an offer in between it counts for nobody.
        hits.clicked("ann", "i1", "view")
    hits.offered("ann", PERSONAL)
    hits.clicked("ann", "i3", "view")
    (rate,) = hits.rates()
    assert (rate.tier, rate.views, rate.share) == ("popular", 2 * OFFERS_MIN, 0.5)


# -- the board


def click(number: int, user: str = "ann", item: str = "i1") -> RawClick:
    return RawClick(str(number).encode(), b"", user.encode(), item.encode(), 0, 1_770_000_000_000)


def answer(user: str = "ann", tier: str = "popular") -> dict[str, Any]:
    return {"tier": tier, "model": f"{tier}@1", "item_ids": ["i1"], "user_id": user}


def test_board_matches_answers_with_clicks() -> None:
    clock = Clock()
    board = Board(clock, 90.0, (steps.FIRST, steps.PERSONAL))
    board.sent(click(1))
    board.sent(click(2))
    board.received(b"1", answer(), clock.now + 0.010)
    board.received(b"1", answer(), clock.now + 0.020)
    board.received(b"7", answer(), clock.now)
    snapshot = board.snapshot()
    assert (snapshot.sent, snapshot.answered, snapshot.waiting) == (2, 1, 1)
    assert board.others() == 2
    assert snapshot.recent is not None
    assert snapshot.recent.p50_ms == pytest.approx(10.0)
    assert [step.at_s for step in snapshot.steps] == [10.0, None]
    clock.now = 105.0
    board.received(b"2", answer(tier="model"), clock.now)
    first, personal = board.snapshot().steps
    assert (first.at_s, personal.at_s, personal.detail) == (10.0, 15.0, "model@1")
    assert board.snapshot().by_tier == {"popular": 1, "model": 1}


def test_a_note_is_shown_for_a_while_and_kept() -> None:
    clock = Clock()
    board = Board(clock, 100.0, ())
    board.note("something happened")
    assert board.snapshot().note == "something happened"
    clock.now += NOTE_S
    assert board.snapshot().note == ""
    assert board.notes() == ["something happened"]


def test_rates_are_of_the_last_seconds() -> None:
    clock = Clock()
    board = Board(clock, 100.0, ())
    for second in range(10):
        for number in range(10 if second < 5 else 20):
            board.sent(click(100 * second + number))
        clock.now += 1.0
        rate = board.snapshot().clicks_per_s
    assert rate == pytest.approx(20.0)


def test_a_click_that_is_handed_over_again_is_told_once() -> None:
    codec = Codec.from_lock()
    record = {
        "event_id": "01a1fd6a-977b-7c03-9f2e-8dc2813de165",
        "user_id": "ann",
        "item_id": "i1",
        "event_type": "view",
        "ts": 1_770_000_000_000,
    }
    value = codec.encode("Click", record)
    told: list[RawClick] = []

    class Full:
        def produce(self, *given: object) -> None:
            raise BufferError

    producer = WatchedProducer(Full(), codec, told.append)
    for _ in range(2):
        with pytest.raises(BufferError):
            producer.produce("clicks", value, b"ann", -1, None)
    assert [one.item_id for one in told] == [b"i1"]


# -- sources


def test_the_simulated_history_comes_before_what_is_live() -> None:
    source = simulated(50, 100, 1, 200.0)
    assert len(source.history) == HISTORY_CLICKS
    live = next(source.live(lambda: False))
    assert int(live.row[0]) == HISTORY_CLICKS
    assert int(live.ts[0]) >= int(source.history.ts[-1])
    assert source.shopper in set(source.history.user_id.to_pylist())
    assert len(list(source.items(0))) == 100


def write(path: Path, rows: int) -> Path:
    lines = [f"u{row % 5},i{row % 7},{1_770_000_000 + rows - row}" for row in range(rows)]
    path.write_text("\n".join(["user_id,item_id,ts", *lines]) + "\n")
    return path


def test_a_file_is_cut_into_history_and_live_in_the_order_of_time(tmp_path: Path) -> None:
    source = from_file(write(tmp_path / "c.csv", 90), None, 200.0, train=True)
    assert len(source.history) == int(90 * FILE_HISTORY_SHARE)
    turns = iter([True, False])
    rounds = list(source.live(lambda: next(turns)))
    assert [len(one) for one in rounds] == [30, 30]
    assert int(rounds[0].ts.min()) >= int(source.history.ts.max())


def test_without_training_all_of_a_file_is_live(tmp_path: Path) -> None:
    source = from_file(write(tmp_path / "c.csv", 90), None, 200.0, train=False)
    assert len(source.history) == 0
    assert [len(one) for one in source.live(lambda: False)] == [90]


def test_a_file_without_clicks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no clicks"):
        from_file(write(tmp_path / "c.csv", 0), None, 200.0, train=True)


# -- the model's way


class Lines:
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def tick(self) -> None:
        pass

    def say(self, line: str) -> None:
        self.said.append(line)

    def warn(self, line: str) -> None:
        self.warned.append(line)


class FakeTraining(Training):
    """Runs as long as the test says, and ends as it says."""

    state = "running"

    def start(self) -> None:
        pass

    def running(self) -> bool:
        return self.state == "running"

    def done(self) -> bool:
        return self.state == "done"

    def reason(self) -> str:
        return "too few clicks"


def personal(
    tmp_path: Path, missing: list[str], made: list[FakeTraining] | None = None
) -> tuple[Personal, Board, Lines]:
    board = Board(Clock(), 100.0, (steps.FIRST, steps.TRAINED, steps.PERSONAL))
    lines = Lines()

    def open_training(*given: Any) -> Training:
        training = FakeTraining(*given)
        assert made is not None
        made.append(training)
        return training

    return Personal(board, lines, tmp_path, Clock(), lambda: missing, open_training), board, lines


def names(board: Board) -> list[str]:
    return [step.name for step in board.snapshot().steps]


def test_without_torch_it_says_so_and_expects_no_personal_offer(tmp_path: Path) -> None:
    model, board, lines = personal(tmp_path, ["torch"])
    model.start(tmp_path / "history.parquet", 30_000, Interrupts())
    (line,) = lines.warned
    assert "torch" in line
    assert "`train` extra" in line
    assert names(board) == [steps.FIRST]
    assert not model.coming()


def test_a_training_that_fails_is_told_with_its_reason(tmp_path: Path) -> None:
    made: list[FakeTraining] = []
    model, board, lines = personal(tmp_path, [], made)
    model.start(tmp_path / "history.parquet", 30_000, Interrupts())
    model.tick()
    assert model.coming()
    assert "training a model on 30,000 clicks" in board.snapshot().activity
    made[0].state = "failed"
    model.tick()
    assert not model.coming()
    assert lines.warned == ["training failed: too few clicks; popular offers stay"]
    assert names(board) == [steps.FIRST]


def test_a_model_waits_until_popular_offers_were_seen(tmp_path: Path) -> None:
    made: list[FakeTraining] = []
    model, board, lines = personal(tmp_path, [], made)
    model.start(tmp_path / "history.parquet", 30_000, Interrupts())
    made[0].state = "done"
    model.tick()
    trained = board.step(steps.TRAINED)
    assert trained is not None
    assert trained.at_s is not None
    assert model.coming()
    assert lines.warned == []


# -- interrupts


def test_a_signal_interrupts_once_and_not_while_held() -> None:
    before = signal.getsignal(signal.SIGTERM)
    reached = []

    def start_something(interrupts: Interrupts) -> None:
        with interrupts.held():
            signal.raise_signal(signal.SIGTERM)
            reached.append("noted")

    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            start_something(interrupts)
        # The end has begun; whoever cleans up is left alone.
        signal.raise_signal(signal.SIGINT)
    assert reached == ["noted"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_after_the_end_no_signal_interrupts() -> None:
    with Interrupts() as interrupts:
        interrupts.end()
        signal.raise_signal(signal.SIGINT)
