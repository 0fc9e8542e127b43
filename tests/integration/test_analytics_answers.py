"""Answers of the real ClickHouse, embedded, beside polars' on the same small and random histories."""

from __future__ import annotations

import json
import math
import random
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import analytics_oracle as oracle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.analytics.catalog import QUESTIONS
from infra.analytics.dashboards import EARNINGS
from infra.analytics.free import run_statement
from infra.analytics.period import parse_period
from infra.analytics.question import Answer, Request, ask
from infra.commands.analytics import default_request
from infra.warehouse.engine import WriteEngine
from infra.warehouse.migrate import migrate
from infra.warehouse.store import Store, closing, make_read_only, open_folder, warehouse_folder
from schemas.errors import WarehouseError
from streams.settings import load_settings

MINUTE_MS: Final = 60_000
WINDOW_MS: Final = 30 * MINUTE_MS
BASE_MS: Final = 1_767_222_000_000  # A quarter of an hour before a new week, month and year, UTC.
ALL: Final = parse_period("all", "", 0)
# One engine serves all examples, which the fixture's scope says.
PROPERTY: Final = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TIMES: Final = ("ts", "clicked_at", "features_as_of", "scored_at", "kafka_time")
Row = dict[str, Any]


class Bench:
    """A warehouse that is emptied and filled again for each history."""

    def __init__(self, client: Any, store: Store) -> None:
        self.client = client
        self.store = store

    def fill(self, clicks: list[Row], answers: list[Row]) -> None:
        for table, rows in (("clicks", clicks), ("recommendations", answers)):
            self.client.command(f"TRUNCATE TABLE {table}")
            if rows:
                block = "\n".join(json.dumps(_with_times(row)) for row in rows).encode()
                self.client.raw_insert(table, list(rows[0]), block, fmt="JSONEachRow")

    def ask(self, name: str, **options: Any) -> Answer:
        return ask(self.store, QUESTIONS[name], Request(**({"period": ALL} | options)))


def _with_times(row: Row) -> Row:
    """Milliseconds as ClickHouse's JSON wants them: seconds with a fraction."""
    times = {name: row[name] for name in TIMES if name in row}
    return row | {name: f"{ms // 1000}.{ms % 1000:03d}" for name, ms in times.items()}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = load_settings(home=tmp_path_factory.mktemp("analytics"))
    folder = warehouse_folder(made)
    folder.mkdir()
    writing = open_folder(folder, made.warehouse_database, create=True)
    with closing(writing):
        migrate(WriteEngine(writing, "the test's warehouse"))
        reading = open_folder(folder, made.warehouse_database)
        with closing(reading):
            make_read_only(reading)
            yield Bench(writing, Store(reading, "the test's warehouse"))


# Times around what matters: the same moment, the window's end and just after it, minutes, weeks.
MOMENTS: Final = st.one_of(
    st.integers(0, 90 * MINUTE_MS),
    st.sampled_from(
        [0, 1, WINDOW_MS - 1, WINDOW_MS, WINDOW_MS + 1, 2 * WINDOW_MS, 2 * WINDOW_MS + 1]
    ),
    st.integers(0, 5).map(lambda week: week * 7 * 24 * 60 * MINUTE_MS),
)
ITEMS: Final = ("a", "b", "c", "")


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Clicks and answers as the sink writes them, some of them twice, and answers late or missing."""
    clicks, answers = [], []
    for index in range(draw(st.integers(0, 14))):
        click = _click(
            index,
            user=draw(st.sampled_from(["ann", "bob", "eve"])),
            item=draw(st.sampled_from(ITEMS)),
            kind=draw(
                st.sampled_from(["view", "cart", "purchase", "impression", "remove", "search"])
            ),
            ts=BASE_MS + draw(MOMENTS),
            session=draw(st.sampled_from(["", "", "s1", "s2"])),
            price=draw(st.sampled_from([None, 1.5, 20.0])),
            quantity=draw(st.sampled_from([None, 1, 3])),
        )
        clicks.append(click)
        if draw(st.booleans()):
            answer = _answer(
                click,
                draw(st.lists(st.sampled_from("abc"), unique=True)),
                draw(st.integers(-5, 90_000)),
            )
            answers.append(answer)
            if draw(st.booleans()):
                # Answered again after a kill, with other items, perhaps on another day.
                again = _answer(click, draw(st.lists(st.sampled_from("abc"), unique=True)), 100_000)
                days = draw(st.integers(0, 2)) * 86_400_000
                answers.append(
                    again
                    | {"kafka_offset": 1000 + index, "kafka_time": answer["kafka_time"] + days}
                )
        if draw(st.booleans()):
            clicks.append(click | {"kafka_offset": 1000 + index})
    return clicks, answers


def _click(
    index: int,
    user: str,
    item: str,
    kind: str,
    ts: int,
    session: str,
    price: float | None,
    quantity: int | None,
) -> Row:
    return {
        "event_id": str(uuid.UUID(int=index + 1)), "user_id": user, "item_id": item, "event_type": kind, "ts": ts,
        "session_id": session, "price": price, "quantity": quantity, "region": "east", "sink": "east",
        "kafka_topic": "clicks", "kafka_offset": index, "kafka_time": ts + 7 * index % 5, "batch": 1,
    }  # fmt: skip


def _answer(click: Row, items: list[str], latency_ms: int) -> Row:
    pick = uuid.UUID(click["event_id"]).int
    return {
        "event_id": click["event_id"], "user_id": click["user_id"], "item_ids": items, "scores": [1.0] * len(items),
        "model": f"m{pick % 2}", "arm": "ab"[pick % 2], "tier": "model", "clicked_at": click["ts"], "features_as_of": click["ts"],
        "scored_at": click["kafka_time"] + latency_ms, "region": "east", "sink": "east", "kafka_topic": "recommendations",
        "kafka_offset": click["kafka_offset"], "kafka_time": click["kafka_time"] + latency_ms, "batch": 1,
    }  # fmt: skip


def frames(history: tuple[list[Row], list[Row]]) -> tuple[Any, Any]:
    clicks, answers = history
    shown = [{name: row[name] for name in oracle.ANSWERS} for row in answers]
    made = [
        {name: row["kafka_time" if name == "kafka_ms" else name] for name in oracle.CLICKS}
        for row in clicks
    ]
    return oracle.clicks_of(made), oracle.answers_of(shown)


def same(found: list[Row], expected: list[Row]) -> None:
    assert [
        {
            name: pytest.approx(value) if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in expected
    ] == found


@PROPERTY
@given(histories())
def test_click_through_is_that_of_an_independent_computation(
    warehouse: Bench, history: tuple[list[Row], list[Row]]
) -> None:
    warehouse.fill(*history)
    for by in ((), ("model", "arm"), ("position",), ("arm", "position")):
        found = warehouse.ask("ctr", by=by)
        same(found.records(), oracle.ctr(*frames(history), by, WINDOW_MS))


@PROPERTY
@given(histories())
def test_conversion_credits_each_purchase_once(
    warehouse: Bench, history: tuple[list[Row], list[Row]]
) -> None:
    warehouse.fill(*history)
    (found,) = warehouse.ask("conversion").records()
    expected = oracle.conversion(*frames(history), WINDOW_MS)
    assert {name: found[name] for name in expected} == expected
    for by in (("arm",), ("position",)):
        split = warehouse.ask("conversion", by=by).records()
        assert sum(row["purchases"] for row in split) == expected["purchases"]
        assert sum(row["revenue"] for row in split) == pytest.approx(expected["revenue"])


@PROPERTY
@given(histories(), st.sampled_from([WINDOW_MS, 24 * 60 * MINUTE_MS]))
def test_the_funnel_is_that_of_an_independent_computation(
    warehouse: Bench, history: tuple[list[Row], list[Row]], window_ms: int
) -> None:
    warehouse.fill(*history)
    clicks, _ = frames(history)
    for steps in (("impression", "view", "cart", "purchase"), ("view", "purchase")):
        found = warehouse.ask("funnel", steps=steps, window_ms=window_ms)
        # An empty warehouse has no funnel at all.
        counts = found.column("users") or [0] * len(steps)
        assert counts == oracle.funnel(clicks, steps, window_ms)


@PROPERTY
@given(histories())
def test_retention_is_that_of_an_independent_computation(
    warehouse: Bench, history: tuple[list[Row], list[Row]]
) -> None:
    warehouse.fill(*history)
    same(warehouse.ask("retention").records(), oracle.retention(frames(history)[0]))


@PROPERTY
@given(histories())
def test_sessions_are_those_of_an_independent_computation(
    warehouse: Bench, history: tuple[list[Row], list[Row]]
) -> None:
    warehouse.fill(*history)
    clicks, _ = frames(history)
    (found,) = warehouse.ask("sessions", by=()).records()
    if not clicks.height:
        assert found["sessions"] == 0
        return
    expected = oracle.sessions(clicks, WINDOW_MS)
    same([{name: found[name] for name in expected}], [expected])
    split = warehouse.ask("sessions", by=("day", "told_by")).records()
    assert sum(row["sessions"] for row in split) == found["sessions"]


@PROPERTY
@given(histories())
def test_latency_is_that_of_an_independent_computation(
    warehouse: Bench, history: tuple[list[Row], list[Row]]
) -> None:
    warehouse.fill(*history)
    found = [
        row | {"minute": round(row["minute"].timestamp() * 1000)}
        for row in warehouse.ask("latency", by=("minute",)).records()
    ]
    expected = oracle.latency(*frames(history))
    assert len(found) == len(expected)
    same([{name: row[name] for name in expected[0]} for row in found] if expected else [], expected)


def test_a_busy_day_of_many_shoppers_too(warehouse: Bench) -> None:
    """Sizes at which ClickHouse works in several blocks and threads."""
    rng = random.Random(5)
    clicks = [
        _click(index, f"u{rng.randrange(900)}", f"i{rng.randrange(40)}", rng.choice(["view", "cart", "purchase", "impression"]),
               BASE_MS + rng.randrange(86_400_000), rng.choice(["", f"s{rng.randrange(3)}"]), 2.5, 2)
        for index in range(20_000)
    ]  # fmt: skip
    answers = [
        _answer(click, rng.sample([f"i{n}" for n in range(40)], 6), rng.randrange(200))
        for click in clicks
    ]
    history = (clicks, answers)
    warehouse.fill(*history)
    made = frames(history)
    same(
        warehouse.ask("ctr", by=("arm", "position")).records(),
        oracle.ctr(*made, ("arm", "position"), WINDOW_MS),
    )
    steps = ("impression", "view", "cart", "purchase")
    assert warehouse.ask("funnel", steps=steps).column("users") == oracle.funnel(
        made[0], steps, WINDOW_MS
    )
    (found,) = warehouse.ask("sessions").records()
    expected = oracle.sessions(made[0], WINDOW_MS)
    same([{name: found[name] for name in expected}], [expected])
    assert warehouse.ask("conversion").records()[0]["revenue"] == pytest.approx(
        oracle.conversion(*made, WINDOW_MS)["revenue"]
    )


def test_the_aggregates_answer_as_the_events_do(warehouse: Bench) -> None:
    """Nothing is repeated here, so that both count the same."""
    for table in ("clicks_hour", "items_hour", "answers_minute", "answers_hour"):
        warehouse.client.command(f"TRUNCATE TABLE {table}")
    rng = random.Random(6)
    clicks = [
        _click(index, f"u{rng.randrange(50)}", f"i{rng.randrange(30)}", rng.choice(["view", "purchase"]), BASE_MS + index * 1000, "", 2.0, 1)
        for index in range(3_000)
    ]  # fmt: skip
    answers = [
        _answer(click, rng.sample([f"i{n}" for n in range(40)], 5), rng.randrange(200))
        for click in clicks
    ]
    warehouse.fill(clicks, answers)
    slow, fast = (warehouse.ask("popular", fast=fast, by=("hour",)) for fast in (False, True))
    assert slow == fast
    slow, fast = (warehouse.ask("coverage", fast=fast, by=("model",)) for fast in (False, True))
    assert slow.column("answers") == fast.column("answers")
    assert slow.column("coverage") == pytest.approx(fast.column("coverage"), rel=0.02)
    fast = warehouse.ask("latency", fast=True, by=("minute",))
    assert sum(fast.column("answers")) == 3_000
    assert all(0 <= p50 <= 210 for p50 in fast.column("ms_p50"))


def test_diversity_is_that_of_the_counts(warehouse: Bench) -> None:
    clicks = [
        _click(index, "ann", "a", "view", BASE_MS + index, "", None, None) for index in range(4)
    ]
    warehouse.fill(
        clicks,
        [
            _answer(click, list(items), 5)
            for click, items in zip(clicks, ["abc", "ab", "ad", "a"], strict=True)
        ],
    )
    (found,) = warehouse.ask("diversity").records()
    shares = [4 / 8, 2 / 8, 1 / 8, 1 / 8]
    assert (found["places"], found["items"], found["top_10"]) == (8, 4, 1.0)
    assert found["items_effective"] == pytest.approx(
        math.exp(-sum(p * math.log(p) for p in shares))
    )
    assert found["gini"] == pytest.approx(sum(abs(p - q) for p in shares for q in shares) / (2 * 4))
    split = warehouse.ask("diversity", by=("model", "hour", "day")).records()
    assert [(row["model"], row["places"], row["items"]) for row in split] == [
        ("m0", 3, 2),
        ("m1", 5, 4),
    ]
    assert split[0]["hour"] == datetime.fromtimestamp(BASE_MS // 3_600_000 * 3600, UTC)


def test_periods_cut_at_the_millisecond(warehouse: Bench) -> None:
    click = _click(0, "ann", "a", "view", BASE_MS, "", None, None)
    warehouse.fill(
        [click, _click(1, "ann", "a", "view", BASE_MS + 1000, "", None, None)],
        [_answer(click, ["a"], 5)],
    )
    begin = datetime.fromtimestamp(BASE_MS / 1000, UTC)
    for since, until, expected in [
        (begin.isoformat(), "", 1),
        (begin.replace(microsecond=1000).isoformat(), "", 0),
        ("2020-01-01", begin.isoformat(), 0),
    ]:
        (found,) = warehouse.ask("ctr", period=parse_period(since, until, BASE_MS + 5000)).records()
        # An act after the period's end still counts for an answer within it.
        assert (found["answers"], found["clicked"]) == (expected, expected)


def test_every_question_answers_an_empty_and_a_small_warehouse(warehouse: Bench) -> None:
    click = _click(0, "ann", "a", "view", BASE_MS, "s", None, None)
    for history in (([], []), ([click], [_answer(click, ["a", "b"], 5)])):
        warehouse.fill(*history)
        for name, question in QUESTIONS.items():
            usual = default_request(question)
            for by in {(), usual.by, *((one,) for one in question.dimensions)}:
                answer = warehouse.ask(name, by=by, steps=usual.steps)
                assert set(by) <= set(answer.columns), (name, by)
                if question.compose_fast is not None and set(by) <= set(question.fast_dimensions):
                    assert set(by) <= set(warehouse.ask(name, by=by, fast=True).columns)


def test_the_dashboards_questions_run(warehouse: Bench) -> None:
    """Each with Grafana's macro replaced as its data source replaces it."""
    click = _click(0, "ann", "a", "view", BASE_MS, "s", None, None)
    warehouse.fill([click], [_answer(click, ["a", "b"], 5)])
    for title, _, line, query in EARNINGS:
        macro = re.compile(r"\$__timeFilter\((\w+)\)")
        found = warehouse.store.query(macro.sub(r"\1 >= toDateTime(0) AND \1 <= now()", query))
        assert not line or found.column_names[0] == "time", title


def test_too_many_rows_are_cut_and_said_to_be(warehouse: Bench) -> None:
    clicks = [
        _click(index, "ann", f"i{index}", "view", BASE_MS + index * 3_600_000, "", None, None)
        for index in range(5)
    ]
    warehouse.fill(clicks, [])
    most = warehouse.ask("popular", limit=3)
    assert (len(most.rows), most.truncated) == (3, True)
    assert not warehouse.ask("popular", limit=5).truncated
    hours = warehouse.ask("popular", by=("hour",), limit=5).column("hour")
    answers = [_answer(click, ["a"], 5) for click in clicks]
    warehouse.fill(clicks, answers)
    assert warehouse.ask("ctr", by=("hour",), limit=2).column("hour") == hours[-2:]


def test_statements_only_read(warehouse: Bench, tmp_path: Path) -> None:
    warehouse.fill([_click(0, "ann", "a", "view", BASE_MS, "", None, None)], [])
    answer = run_statement(
        warehouse.store,
        "SELECT event_id, toStartOfHour(ts) AS hour, ts, item_id FROM clicks FINAL; ",
        10,
    )
    (row,) = answer.records()
    assert row["event_id"] == uuid.UUID(int=1)
    assert row["hour"] == datetime.fromtimestamp((BASE_MS // 3_600_000) * 3600, UTC)
    assert row["item_id"] == "a"
    # The session itself refuses, whatever gets past the check of the words.
    for statement in (
        "INSERT INTO clicks (user_id) VALUES ('x')",
        "DROP TABLE clicks",
        f"CREATE TABLE x ENGINE = File(CSV, '{tmp_path}/x') AS SELECT 1",
    ):
        with pytest.raises(WarehouseError, match="readonly"):
            warehouse.store.query(statement)
    with pytest.raises(WarehouseError, match="colour"):
        run_statement(warehouse.store, "SELECT colour FROM clicks", 10)
