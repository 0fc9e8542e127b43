"""The sink against a scripted Kafka and a scripted ClickHouse: it dies and fails at any step.

The scripted ClickHouse keeps a row for each record that was inserted, so a repetition shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.warehouse.journal import Entry, Journal, Place
from infra.warehouse.sink import Sink
from schemas.errors import WarehouseAwayError, WarehouseError

ROUTES = {"clicks": "clicks", "west.clicks": "clicks", "recommendations": "recommendations"}


class Died(BaseException):
    """The process is killed here."""


@dataclass(frozen=True)
class Message:
    """A record of the scripted Kafka."""

    place: Place
    at: int

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def offset(self) -> int:
        return self.at

    def __len__(self) -> int:
        return 100


class Kafka:
    """Partitions of some length, read in steps of a few records."""

    def __init__(self, lengths: Mapping[Place, int], step: int) -> None:
        self.lengths = dict(lengths)
        self.step = step
        self.positions: dict[Place, int] = {}
        self.paused = False
        self.committed: dict[Place, int] = {}

    def places(self, topics: Any) -> list[Place]:
        return [place for place in self.lengths if place[0] in set(topics)]

    def watermarks(self, place: Place) -> tuple[int, int]:
        return 0, self.lengths[place]

    def assign(self, offsets: Mapping[Place, int]) -> None:
        self.positions = dict(offsets)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def take(self, count: int, timeout_s: float) -> tuple[list[Message], set[Place]]:
        found: list[Message] = []
        ended = set()
        for place, at in self.positions.items():
            end = min(at + self.step, self.lengths[place])
            found += [Message(place, n) for n in range(at, end)]
            self.positions[place] = end
            if end == self.lengths[place]:
                ended.add(place)
        return found, ended

    def read_again(self, ranges: Mapping[Place, tuple[int, int]]) -> dict[Place, list[Message]]:
        return {
            place: [Message(place, n) for n in range(first, end)]
            for place, (first, end) in ranges.items()
        }

    def commit(self, ends: Mapping[Place, int]) -> None:
        self.committed |= ends


@dataclass
class ClickHouse:
    """Journal rows, and the rows of each table; `script` is asked before each step for a fault."""

    script: list[str] = field(default_factory=list)
    journal: list[tuple[Any, ...]] = field(default_factory=list)
    rows: Counter[tuple[str, Place, int]] = field(default_factory=Counter)

    def step(self) -> str:
        fault = self.script.pop(0) if self.script else "fine"
        if fault == "die-before":
            raise Died
        if fault == "away-before":
            raise WarehouseAwayError("no answer")
        return fault

    @staticmethod
    def after(fault: str) -> None:
        if fault == "die-after":
            raise Died
        if fault == "away-after":
            raise WarehouseAwayError("the answer was lost")


class Books:
    """The journal's two statements."""

    def __init__(self, house: ClickHouse) -> None:
        self.house = house

    def command(self, sql: str, parameters: dict[str, Any] | None = None) -> None:
        assert parameters is not None
        fault = self.house.step()
        ranges = {
            (topic, partition): (first, end)
            for topic, partition, first, end in zip(
                parameters["topics"],
                parameters["partitions"],
                parameters["firsts"],
                parameters["ends"],
                strict=True,
            )
        }
        self.house.journal.append((parameters["target"], parameters["batch"], ranges))
        self.house.after(fault)

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        newest: dict[str, tuple[int, dict[Place, tuple[int, int]]]] = {}
        for target, batch, ranges in self.house.journal:
            if batch > newest.get(target, (0, {}))[0]:
                newest[target] = batch, ranges
        return [
            (
                target,
                batch,
                (
                    [topic for topic, _ in ranges],
                    [partition for _, partition in ranges],
                    [first for first, _ in ranges.values()],
                    [end for _, end in ranges.values()],
                ),
            )
            for target, (batch, ranges) in newest.items()
        ]


class Loading:
    """Inserts all or, killed half-way, a half; settling completes what is missing."""

    def __init__(self, house: ClickHouse, table: str) -> None:
        self.house, self.table = house, table

    def _keys(self, records: Mapping[Place, Sequence[Message]]) -> list[tuple[str, Place, int]]:
        return [(self.table, place, one.at) for place, found in records.items() for one in found]

    def insert(self, entry: Entry, records: Mapping[Place, Sequence[Message]]) -> None:
        fault = self.house.step()
        keys = self._keys(records)
        self.house.rows.update(keys[: len(keys) // 2] if fault.endswith("half") else keys)
        self.house.after(
            fault.removesuffix("-half") + "-after" if fault.endswith("half") else fault
        )

    def settle(self, entry: Entry, records: Mapping[Place, Sequence[Message]]) -> None:
        fault = self.house.step()
        self.house.rows.update(key for key in self._keys(records) if not self.house.rows[key])
        self.house.after(fault)


def run(kafka: Kafka, house: ClickHouse) -> Sink:
    """One life of a sink, until it has everything; `Died` when it is killed."""
    kafka.paused = False  # a new process has a consumer of its own
    sink = Sink(
        kafka,
        Journal(Books(house), "east", shared=False),
        {table: Loading(house, table) for table in set(ROUTES.values())},  # type: ignore[misc]
        ROUTES,
        linger_s=0.0,
        clock=lambda: 0.0,
        sleep=lambda seconds: None,
    )
    sink.start(lambda: False)
    sink.drain(lambda: False)
    return sink


FAULTS = ("fine", "die-before", "die-after", "die-half", "away-before", "away-after", "away-half")


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(sorted(ROUTES)), st.integers(0, 2)),
        st.integers(0, 40),
        max_size=5,
    ),
    st.integers(1, 15),
    st.lists(st.sampled_from(FAULTS), max_size=25),
)
@settings(max_examples=300, deadline=None)
def test_killed_and_deserted_at_any_step_each_record_is_there_once(
    lengths: dict[Place, int], step: int, script: list[str]
) -> None:
    kafka, house = Kafka(lengths, step), ClickHouse(list(script))
    for _ in range(len(script) + 1):
        try:
            run(kafka, house)
            break
        except Died:
            continue
    expected = {
        (ROUTES[place[0]], place, at): 1 for place, end in lengths.items() for at in range(end)
    }
    assert dict(house.rows) == expected
    assert not kafka.paused


def test_fetching_is_paused_while_clickhouse_is_away_and_offsets_follow_the_rows() -> None:
    kafka = Kafka({("clicks", 0): 5}, 10)
    house = ClickHouse(["fine", "away-before", "away-before"])
    seen: list[bool] = []
    sink = Sink(
        kafka,
        Journal(Books(house), "east", shared=False),
        {"clicks": Loading(house, "clicks"), "recommendations": Loading(house, "recommendations")},  # type: ignore[dict-item]
        ROUTES,
        linger_s=0.0,
        clock=lambda: 0.0,
        sleep=lambda seconds: seen.append(kafka.paused),
    )
    sink.start(lambda: False)
    sink.drain(lambda: False)
    assert seen == [True, True]
    assert not kafka.paused
    assert kafka.committed == {("clicks", 0): 5}
    assert (sink.progress.records, sink.progress.settled) == (5, 1)


def test_stopped_while_clickhouse_is_away_the_next_start_has_it_all() -> None:
    kafka = Kafka({("clicks", 0): 5}, 10)
    house = ClickHouse(["fine", *["away-after"] * 3])
    stops = iter([False, False, False, True])
    stopped: Callable[[], bool] = lambda: next(stops, True)  # noqa: E731
    sink = Sink(
        kafka,
        Journal(Books(house), "east", shared=False),
        {"clicks": Loading(house, "clicks"), "recommendations": Loading(house, "recommendations")},  # type: ignore[dict-item]
        ROUTES,
        linger_s=0.0,
        clock=lambda: 0.0,
        sleep=lambda seconds: None,
    )
    sink.start(lambda: False)
    sink.drain(stopped)
    assert kafka.committed == {}
    run(kafka, house)
    assert sorted(house.rows.values()) == [1] * 5


def test_a_partition_that_ends_too_early_is_told() -> None:
    house = ClickHouse()
    run(Kafka({("clicks", 0): 9}, 10), house)
    with pytest.raises(
        WarehouseError, match="ends at offset 4, and the warehouse has read up to 9"
    ):
        run(Kafka({("clicks", 0): 4}, 10), house)


def test_the_same_records_have_the_same_token() -> None:
    one = Entry("clicks", 1, {("clicks", 0): (0, 5), ("clicks", 1): (3, 3)})
    again = Entry("clicks", 9, {("clicks", 1): (7, 7), ("clicks", 0): (0, 5)})
    other = Entry("clicks", 1, {("clicks", 0): (0, 6), ("clicks", 1): (3, 3)})
    assert one.token == again.token != other.token
    assert Entry("clicks", 1, {("clicks", 1): (3, 3)}).empty
