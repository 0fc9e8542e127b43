"""The sink: gathers batches from Kafka and loads them, each exactly once.

For each table: write the batch down (`journal`), insert it (`loader`), tell Kafka. When ClickHouse
is away, fetching is paused, the batch is kept, and settled when ClickHouse is back. At the start
the newest batch of each table is settled, for the process before may have died in it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from infra.warehouse.avro_block import Taken
from infra.warehouse.journal import Entry, Journal, Place
from infra.warehouse.loader import Loader
from infra.warehouse.source import start_offsets
from schemas.errors import WarehouseAwayError

log = logging.getLogger(__name__)

# One chunk of ClickHouse's reader (65,409 rows), so that a batch is one block of one part a day.
BATCH_ROWS_MAX: Final = 40_000
# Dead letters may have megabytes each; memory is a few times this.
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
POLL_S: Final = 0.2
TAKEN_MAX: Final = 5_000
RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 15.0
# Mirrored topics appear when the mirror has started, and topics may get partitions.
DISCOVER_INTERVAL_S: Final = 30.0


class Records(Taken, Protocol):
    """A record with its place."""

    def topic(self) -> str | None:
        """Its topic."""

    def partition(self) -> int | None:
        """Its partition."""


class Reading(Protocol):
    """Kafka, as the sink needs it; `infra.warehouse.source.Source`."""

    def places(self, topics: Any) -> list[Place]: ...
    def watermarks(self, place: Place) -> tuple[int, int]: ...
    def assign(self, offsets: Mapping[Place, int]) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def take(self, count: int, timeout_s: float) -> tuple[Sequence[Any], set[Place]]: ...
    def read_again(
        self, ranges: Mapping[Place, tuple[int, int]]
    ) -> Mapping[Place, Sequence[Any]]: ...
    def commit(self, ends: Mapping[Place, int]) -> None: ...


@dataclass(slots=True)
class Progress:
    """What the sink did so far; counts. `away`: what ClickHouse said, while it is away."""

    records: int = 0
    batches: int = 0
    settled: int = 0
    away: str = ""


@dataclass(slots=True)
class _Gathering:
    """The records of one table that wait for their insert."""

    records: dict[Place, list[Any]] = field(default_factory=dict)
    rows: int = 0
    size: int = 0
    since_s: float = 0.0


class Sink:
    """One process's sink. `loaders`: table -> loader; `routes`: topic -> table."""

    def __init__(
        self,
        source: Reading,
        journal: Journal,
        loaders: Mapping[str, Loader],
        routes: Mapping[str, str],
        *,
        linger_s: float,
        anew: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.progress = Progress()
        self._source = source
        self._journal = journal
        self._loaders = loaders
        self._routes = routes
        self._linger_s = linger_s
        self._anew = anew
        self._clock = clock
        self._sleep = sleep
        self._at: dict[Place, int] = {}  # next offset to insert
        self._waiting = {table: _Gathering() for table in loaders}
        self._discovered_s = 0.0

    def start(self, stopped: Callable[[], bool]) -> None:
        """Settle what the process before left half done, and begin to fetch."""
        entries = self._persistently(self._journal.open, stopped)
        for entry in entries.values() if entries else ():
            if not entry.empty and entry.target in self._loaders:
                records = self._source.read_again(entry.ranges)
                self._deliver(entry, records, stopped, unknown=True)
        ends: dict[Place, int] = {}
        for entry in (entries or {}).values():
            ends |= entry.ends()
        self._at = start_offsets(self._source, ends, self._source.places(self._routes), self._anew)  # type: ignore[arg-type]
        self._source.assign(self._at)
        self._discovered_s = self._clock()
        log.info("reading %d partitions of %d topics", len(self._at), len(self._routes))

    def run(self, stopped: Callable[[], bool]) -> None:
        """Load until `stopped`; what was gathered is loaded first."""
        while not stopped():
            self._gather(POLL_S)
            self._load_due(stopped)
            if self._clock() - self._discovered_s > DISCOVER_INTERVAL_S:
                self._discover()
        self._load_all(stopped)

    def drain(self, stopped: Callable[[], bool]) -> None:
        """Load what Kafka has now, and return."""
        left = {}
        for place, at in self._at.items():
            high = self._source.watermarks(place)[1]
            if at < high:
                left[place] = high
        while left and not stopped():
            ended = self._gather(POLL_S)
            for place in list(left):
                found = self._waiting[self._routes[place[0]]].records.get(place)
                newest = found[-1].offset() + 1 if found else self._at[place]
                if newest >= left[place] or place in ended:
                    del left[place]
            self._load_due(stopped, full=True)
        self._load_all(stopped)

    def _gather(self, timeout_s: float) -> set[Place]:
        taken, ended = self._source.take(TAKEN_MAX, timeout_s)
        now_s = self._clock()
        for message in taken:
            topic = message.topic()
            waiting = self._waiting[self._routes[topic]]
            if not waiting.rows:
                waiting.since_s = now_s
            waiting.records.setdefault((topic, message.partition()), []).append(message)
            waiting.rows += 1
            waiting.size += len(message)
        return ended

    def _load_due(self, stopped: Callable[[], bool], *, full: bool = False) -> None:
        """Load the tables whose batch is full, or has waited long enough (not with `full`)."""
        now_s = self._clock()
        for table, waiting in self._waiting.items():
            # Another fetch must fit in.
            if (
                waiting.rows > BATCH_ROWS_MAX - TAKEN_MAX
                or waiting.size > BATCH_BYTES_MAX
                or (waiting.rows and not full and now_s - waiting.since_s >= self._linger_s)
            ):
                self._load(table, stopped)

    def _load_all(self, stopped: Callable[[], bool]) -> None:
        for table, waiting in self._waiting.items():
            if waiting.rows:
                self._load(table, stopped)

    def _load(self, table: str, stopped: Callable[[], bool]) -> None:
        waiting = self._waiting[table]
        self._waiting[table] = _Gathering()
        ranges = {
            place: (at, at) for place, at in self._at.items() if self._routes[place[0]] == table
        }
        for place, found in waiting.records.items():
            ranges[place] = (self._at[place], int(found[-1].offset()) + 1)
        entry = self._persistently(lambda: self._journal.begin(table, ranges), stopped)
        if entry is None or not self._deliver(entry, waiting.records, stopped, unknown=False):
            return  # stopped while ClickHouse was away: the next start goes on from the journal
        self._at |= entry.ends()
        self._source.commit(entry.ends())
        self.progress.records += waiting.rows
        self.progress.batches += 1

    def _deliver(
        self,
        entry: Entry,
        records: Mapping[Place, Sequence[Any]],
        stopped: Callable[[], bool],
        *,
        unknown: bool,
    ) -> bool:
        """Have a batch in its table exactly once; False when stopped before that."""
        loader = self._loaders[entry.target]
        tried = unknown

        def attempt() -> bool:
            nonlocal tried
            if tried:
                loader.settle(entry, records)
                self.progress.settled += 1
            else:
                tried = True
                loader.insert(entry, records)
            return True

        return bool(self._persistently(attempt, stopped))

    def _persistently(self, action: Callable[[], Any], stopped: Callable[[], bool]) -> Any:
        """Do it as often as ClickHouse is away; None when stopped meanwhile."""
        wait_s = RETRY_FIRST_S
        while True:
            try:
                result = action()
            except WarehouseAwayError as error:
                if not self.progress.away:
                    log.warning("paused: %s", error)
                    self._source.pause()
                self.progress.away = str(error)
                if stopped():
                    return None
                self._sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_MAX_S)
                continue
            if self.progress.away:
                log.info("resumed")
                self.progress.away = ""
                self._source.resume()
            return result

    def _discover(self) -> None:
        """Take up partitions that have appeared."""
        self._discovered_s = self._clock()
        there = self._source.places(self._routes)
        new = [place for place in there if place not in self._at]
        if not new:
            return
        log.info("%d new partitions", len(new))
        for place in new:
            self._at[place] = self._source.watermarks(place)[0]
        # What was gathered is in hand; fetching goes on behind it.
        offsets = dict(self._at)
        for waiting in self._waiting.values():
            for place, found in waiting.records.items():
                offsets[place] = int(found[-1].offset()) + 1
        self._source.assign(offsets)
