"""The sink's journal in ClickHouse: where each partition stands, and the batch that may be half done.

A batch is written down before it is inserted, with the offsets that it covers. So the warehouse
itself, not Kafka's committed offsets, says where to go on: whatever happens to the sink, to the
group's offsets or to the warehouse, the two cannot contradict each other.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.errors import WarehouseError

Place = tuple[str, int]  # topic, partition


class Books(Protocol):
    """What the journal needs of ClickHouse."""

    def command(self, sql: str, parameters: dict[str, Any] | None = None) -> None:
        """Run a statement without a result."""

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch of a table: for each partition the first offset and the one after the last.

    Partitions without records in it have the two equal; so the newest entry knows all of them.
    """

    target: str
    batch: int
    ranges: dict[Place, tuple[int, int]] = field(default_factory=dict)
    owner: str = ""

    @property
    def token(self) -> str:
        """The same for the same records, for ClickHouse's deduplication."""
        covered = "|".join(
            f"{topic}/{partition}:{first}-{end}"
            for (topic, partition), (first, end) in sorted(self.ranges.items())
            if end > first
        )
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self.target}|{covered}").hex

    @property
    def empty(self) -> bool:
        """Whether it covers no record."""
        return all(end <= first for first, end in self.ranges.values())

    def ends(self) -> dict[Place, int]:
        """Where each partition goes on after it."""
        return {place: end for place, (_, end) in self.ranges.items()}


class Journal:
    """The journal of one sink, the region's. One sink at a time may write it.

    `shared`: on a server somebody else could start another sink of this region; then each batch
    first looks whether the last entry is ours.
    """

    def __init__(self, books: Books, sink: str, *, shared: bool, first_batch: int = 1) -> None:
        self._books = books
        self._sink = sink
        self._shared = shared
        self._owner = uuid.uuid4().hex
        self._batch = first_batch - 1

    def open(self) -> dict[str, Entry]:
        """Table -> its newest entry, each of which may be half done; call once, at the start."""
        rows = self._books.rows(
            "SELECT target, max(batch) AS newest, argMax((topics, partitions, firsts, ends), batch)"
            " FROM batches WHERE sink = {sink:String} GROUP BY target",
            {"sink": self._sink},
        )
        entries = {}
        for target, batch, (topics, partitions, firsts, ends) in rows:
            ranges = {
                (str(topic), int(partition)): (int(first), int(end))
                for topic, partition, first, end in zip(
                    topics, partitions, firsts, ends, strict=True
                )
            }
            entries[str(target)] = Entry(str(target), int(batch), ranges)
            self._batch = max(self._batch, int(batch))
        return entries

    def begin(self, target: str, ranges: dict[Place, tuple[int, int]]) -> Entry:
        """Write down a batch that is about to be inserted.

        Raises `WarehouseError` when another sink of this region has begun since.
        """
        self._batch += 1
        entry = Entry(target, self._batch, ranges, self._owner)
        places = sorted(ranges)
        self._books.command(
            "INSERT INTO batches (sink, target, batch, topics, partitions, firsts, ends, owner, begun_at)"
            " SETTINGS async_insert = 0 VALUES ({sink:String}, {target:String}, {batch:UInt64},"
            " {topics:Array(String)}, {partitions:Array(UInt32)}, {firsts:Array(UInt64)},"
            " {ends:Array(UInt64)}, {owner:String}, now64(3))",
            {
                "sink": self._sink,
                "target": target,
                "batch": self._batch,
                "topics": [topic for topic, _ in places],
                "partitions": [partition for _, partition in places],
                "firsts": [ranges[place][0] for place in places],
                "ends": [ranges[place][1] for place in places],
                "owner": self._owner,
            },
        )
        if self._shared:
            self._still_ours()
        return entry

    def _still_ours(self) -> None:
        owners = self._books.rows(
            "SELECT DISTINCT owner FROM batches WHERE sink = {sink:String} AND batch >= {batch:UInt64}",
            {"sink": self._sink, "batch": self._batch},
        )
        if any(owner != self._owner for (owner,) in owners):
            raise WarehouseError(
                f"another sink writes for region {self._sink}: only one may; stop one of them"
            )
