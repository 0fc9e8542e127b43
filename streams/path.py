"""The data path of one worker: fetch, hop, emit, commit, and what a rebalance asks of them.

It knows nothing of Faust: the group's side (who owns what, how to commit) is passed in. All
methods but `deliver` run on the event loop.

Offsets are committed after the effects: positions advance when a batch has been handed to the
producer, and a commit first waits until the producer's queue is empty, that is, until everything
behind those positions is acknowledged by all replicas.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Message

from schemas.errors import DeliveryError, FencedError, KafkaError
from streams.emit import Emitter
from streams.ends import EndOffsets
from streams.fetch import Batch, Fetcher
from streams.hop import Effects, Hop
from streams.metrics import WorkerMetrics
from streams.state.heal import heal

log = logging.getLogger(__name__)

Offsets = dict[tuple[str, int], int]
Commit = Callable[[Offsets], Awaitable[bool]]

# One wait for acknowledgements; the loop breathes in between.
FLUSH_SLICE_S: Final = 0.02
FLUSH_TIMEOUT_S: Final = 30.0
KAFKA_TIMEOUT_S: Final = 10.0
# A worker may write for this share of the group session after it was last known to be a member.
# Its records come by a client of their own, which would go on when the group has given the
# partitions to another worker; so membership is proved by a commit, which the broker takes from
# members only and which renews the session, and nothing is written without a fresh proof.
LEASE_SHARE: Final = 0.8
# A worker that was frozen when it lost a partition may write to it on waking, as late as its
# producer's time-out allows; so for some sessions after an assignment the changelog is audited.
AUDIT_SESSIONS: Final = 6
# Without news, offsets are committed again this often in a lease, to renew it.
RENEWALS_PER_LEASE: Final = 3


class DataPath:
    """Moves batches; `changelog` is the topic that the windows are kept in."""

    def __init__(
        self,
        hop: Hop,
        emitter: Emitter,
        fetcher: Fetcher,
        end_offsets: EndOffsets,
        metrics: WorkerMetrics,
        changelog: str,
        session_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hop = hop
        self.fetcher = fetcher
        self.metrics = metrics
        self.owned: set[int] = set()
        self.positions: Offsets = {}
        # Where each owned partition's next record is; None: the beginning.
        self.wanted: dict[tuple[str, int], int | None] = {}
        self.progressed_at = clock()
        self.processed_count = 0
        self.serving = False
        self._emitter = emitter
        self._end_offsets = end_offsets
        self._changelog = changelog
        self._lease_s = LEASE_SHARE * session_timeout_s
        self._proved_at = float("-inf")
        self._clock = clock
        self._epoch = 0
        self._committed: Offsets = {}
        self._complete_to: dict[int, int] = {}
        # End of each owned changelog partition, if nobody else writes to it.
        self._ends: dict[int, int] = {}
        self._audited: dict[int, int] = {}
        self._audit_until = float("-inf")
        self._audit_s = AUDIT_SESSIONS * session_timeout_s
        self._commit_lock = asyncio.Lock()
        self._lock = asyncio.Lock()

    # -- batches

    async def handle(self, batch: Batch, commit: Commit) -> None:
        """Process one batch. Raises whatever must end the worker; the batch is then redelivered."""
        try:
            if batch.epoch == self._epoch and self._lease_left() <= 0:
                await self._prove(commit)
            async with self._lock:
                if batch.epoch == self._epoch:
                    self._process(batch)
        finally:
            self.fetcher.release()

    def _lease_left(self) -> float:
        return self._lease_s - (self._clock() - self._proved_at)

    async def _prove(self, commit: Commit) -> None:
        async with self._commit_lock:
            if self._lease_left() <= 0 and not await self._settle_and_commit(commit):
                raise FencedError(
                    f"the group has not confirmed this worker for {self._lease_s:.0f} s: its "
                    "partitions may belong to another worker by now, so nothing more is written"
                )

    def _process(self, batch: Batch) -> None:
        started = self._clock()
        effects = self.hop.process(batch.records)
        now = self._clock()
        if self._lease_left() <= 0:  # the process was frozen in the middle of the batch
            raise FencedError(
                f"the worker stood still for {now - started:.1f} s in the middle of a batch: its partitions "
                "may belong to another worker by now, so nothing of the batch is written"
            )
        self._emitter.emit(effects)
        ends = self._ends
        for partition, _, _ in effects.changelog:
            ends[partition] += 1
        positions: Offsets = {}
        for record in batch.records:
            positions[record.topic() or "", record.partition() or 0] = (record.offset() or 0) + 1
        self.positions.update(positions)
        self.wanted.update(positions)
        self.progressed_at = now
        self.processed_count += len(batch.records)
        self._measure(batch, effects, started)

    def _measure(self, batch: Batch, effects: Effects, started: float) -> None:
        metrics = self.metrics
        metrics.clicks.inc(effects.clicks_count)
        for tier, count in effects.answered_by_tier.items():
            metrics.answered(tier, count)
        for rejection in effects.rejections:
            metrics.rejected(rejection.reason)
        for recommender, _ in effects.failures:
            metrics.failed(recommender.label)
        metrics.batch_size.observe(len(batch.records))
        metrics.batch_seconds.observe(self._clock() - started)
        _, produced_ms = batch.records[0].timestamp()
        metrics.click_age.observe(max(0.0, time.time() - produced_ms / 1000))

    # -- commits

    async def commit(self, commit: Commit) -> bool:
        """Wait for all acknowledgements, then commit what was processed; True when it holds.

        Commits nothing when there are no news and the lease is fresh. Batches go on during the
        commit itself, which is why there are two locks, taken in this order.
        """
        async with self._commit_lock:
            fresh = self._lease_left() > self._lease_s * (1 - 1 / RENEWALS_PER_LEASE)
            if fresh and self.positions == self._committed:
                self._emitter.check()
                return True
            return await self._settle_and_commit(commit)

    async def _settle_and_commit(self, commit: Commit, locked: bool = False) -> bool:
        if locked:
            await self._settle()
            offsets, processed = self._offsets()
        else:
            async with self._lock:
                await self._settle()
                offsets, processed = self._offsets()
        asked_at = self._clock()
        if offsets and not await commit(offsets):
            return False
        self._proved_at = asked_at
        self._committed = processed
        self.metrics.commits.inc()
        return True

    def _offsets(self) -> tuple[Offsets, Offsets]:
        return {tp: offset or 0 for tp, offset in self.wanted.items()}, dict(self.positions)

    async def _settle(self) -> None:
        deadline = self._clock() + FLUSH_TIMEOUT_S
        while not self._emitter.flush(FLUSH_SLICE_S):
            if self._clock() > deadline:
                raise DeliveryError(
                    f"Kafka did not acknowledge all records within {FLUSH_TIMEOUT_S:.0f} s"
                )
            await asyncio.sleep(0)

    # -- rebalances

    async def revoke(self, commit: Commit) -> None:
        """Give up all partitions: finish the batch in hand, commit, remember how far the state is.

        Should the commit fail, the group has gone on without this worker; another may have
        written since, so nothing in memory can be trusted and all of it is forgotten.
        """
        async with self._commit_lock, self._lock:
            self._epoch += 1
            self.serving = False
            await self._call(self.fetcher.unassign)
            await self._settle()
            partitions = sorted(self.owned)
            ends = await self._highwaters(partitions)
            if await self._settle_and_commit(commit, locked=True):
                self._complete_to = ends
            else:
                self._forget(partitions)
            self.positions, self._committed, self.wanted = {}, {}, {}

    async def restore(self, partitions: Iterable[int]) -> int:
        """Own these partitions: drop others, read what their changelogs have and memory lacks."""
        wanted = set(partitions)
        windows = self.hop.windows
        gone = self.owned - wanted
        self._forget(gone)
        starts = {p: self._complete_to.get(p) if p in windows.partitions else None for p in wanted}
        started = self._clock()
        # Asked before the reading: what comes in during it looks foreign, and is only read again.
        self._ends = await self._highwaters(wanted)
        self._audited = dict(self._ends)
        count: int = await self._call(lambda: self._read_windows(starts, changed=bool(gone)))
        self.owned = wanted
        self._audit_until = self._clock() + self._audit_s
        self.metrics.restored.inc(count)
        self.metrics.restore_seconds.set(self._clock() - started)
        self.metrics.partitions.set(len(wanted))
        self.metrics.users.set(windows.users_count)
        return count

    def _read_windows(self, starts: Mapping[int, int | None], changed: bool) -> int:
        """On the fetching thread, since a million users take seconds."""
        windows = self.hop.windows
        count = self.fetcher.restore(self._changelog, starts, windows, KAFKA_TIMEOUT_S)
        if count or changed:
            windows.recount()
        return count

    async def start(self, offsets: Mapping[tuple[str, int], int | None]) -> None:
        """Fetch from the committed offsets; None: from the beginning."""
        self._epoch += 1
        epoch = self._epoch
        self.progressed_at = self._clock()
        self._proved_at = self._clock()  # the group has just given us these partitions
        self.wanted = dict(offsets)
        await self._call(lambda: self.fetcher.assign(offsets, epoch))
        self.serving = True

    async def finish(self, commit: Commit) -> None:
        """Clean stop: finish the batch in hand, flush, commit, fetch no more."""
        async with self._commit_lock, self._lock:
            self._epoch += 1
            self.serving = False
            await self._call(self.fetcher.unassign)
            if not await self._settle_and_commit(commit, locked=True):
                raise KafkaError("the last commit failed: some clicks will be answered again")

    async def audit(self) -> int:
        """Look for records of others in the owned changelog partitions, and put them right.

        Since each of our own records takes one offset, a partition that ends further on has
        foreign ones. Returns how many users had to be written again.
        """
        if not self.serving or self._clock() > self._audit_until:
            return 0
        async with self._commit_lock, self._lock:
            await self._settle()
            found = await self._changelog_ends()
            foreign = {p: self._ends[p] for p, end in found.items() if end != self._ends[p]}
            # Ours may lie behind a foreign one, so the reading starts at the last audit.
            starts = {p: self._audited.get(p, 0) for p in foreign}
            rewrites = await self._call(lambda: self._heal(starts)) if foreign else []
            self._audited = found
            self._ends = dict(found)
            if rewrites:
                self._emitter.emit(Effects([], rewrites, [], [], [], 0))
                for partition, _, _ in rewrites:
                    self._ends[partition] += 1
        if foreign:
            log.warning(
                "another worker wrote to the changelog of partitions %s; %d users written again",
                sorted(foreign),
                len(rewrites),
            )
            self.metrics.healed.inc(len(rewrites))
        return len(rewrites)

    async def _changelog_ends(self) -> dict[int, int]:
        # Not by the fetching thread, which may be waiting for records, for batches wait for this.
        asked = [(self._changelog, partition) for partition in self.owned]
        ends = await asyncio.to_thread(self._end_offsets.ask, asked, KAFKA_TIMEOUT_S)
        return {partition: end for (_, partition), end in ends.items()}

    def _heal(self, starts: Mapping[int, int]) -> list[tuple[int, bytes, bytes]]:
        """On the fetching thread."""
        written: dict[int, list[tuple[bytes, bytes | None]]] = {}

        def take(partition: int, messages: list[Message]) -> None:
            records = [(m.key() or b"", m.value()) for m in messages]
            written.setdefault(partition, []).extend(records)

        self.fetcher.read(self._changelog, starts, take, KAFKA_TIMEOUT_S)
        windows = self.hop.windows
        rewrites = [one for p, records in written.items() for one in heal(windows, p, records)]
        windows.recount()
        return rewrites

    async def _highwaters(self, partitions: Iterable[int]) -> dict[int, int]:
        asked = list(partitions)
        ends: dict[int, int] = await self._call(
            lambda: self.fetcher.highwaters(self._changelog, asked, KAFKA_TIMEOUT_S)
        )
        return ends

    def _forget(self, partitions: Iterable[int]) -> None:
        gone = list(partitions)
        self.hop.windows.drop(gone)
        for partition in gone:
            self._complete_to.pop(partition, None)

    async def _call(self, function: Callable[[], Any]) -> Any:
        return await asyncio.wrap_future(self.fetcher.call(function))
