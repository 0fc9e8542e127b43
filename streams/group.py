"""Faust's side of a worker: group, assignment, table and changelog, with recovery by batch.

Faust keeps what it is good at: membership, the sticky assignor that puts a region's clicks, its
peers' mirrored clicks and the changelog of one partition on one worker, the table's declaration,
the command line, and other agents. Records of the hot path do not pass through its consumer:
their partitions are paused there, and `streams.fetch` reads them. The table's contents live in
`streams.state.windows`; its recovery reads the changelog by whole fetched lists.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import faust
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as AioKafkaError
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.structs import OffsetAndMetadata
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.types import TP
from mode import Service

from streams.path import DataPath, Offsets

log = logging.getLogger(__name__)
# What these services say of their own life is Faust's talk, shown from WARNING on.
_faust_log = logging.getLogger("faust.headrace")

COMMIT_TIMEOUT_S: Final = 10.0
LEAVE_TIMEOUT_S: Final = 3.0


class BatchRecovery(Recovery):  # type: ignore[misc]
    """Faust's recovery with the reading done by `DataPath.restore`."""

    logger = _faust_log

    @Service.task  # type: ignore[untyped-decorator]
    async def _restart_recovery(self) -> None:
        app: HeadraceApp = self.app
        while not self.should_stop:
            if await self.wait_for_stopped(self.signal_recovery_start):
                return
            self.signal_recovery_start.clear()
            generation = self._generation_id
            try:
                # No `app.crash` anywhere: a worker that cannot restore its state must end.
                await app.restore_and_start(self, generation)
            except Exception as error:
                app.fail(error)
                return

    @Service.task  # type: ignore[untyped-decorator]
    async def _slurp_changelogs(self) -> None:
        """Nothing: changelog records do not come through Faust's queue."""

    @Service.task  # type: ignore[untyped-decorator]
    async def _publish_stats(self) -> None:
        """Nothing: see `headrace_restored_records_total`."""

    def flush_buffers(self) -> None:
        """Nothing is buffered."""


class BatchTableManager(TableManager):  # type: ignore[misc]
    """Faust's table manager with batch recovery, and without its one-second wait at the start."""

    logger = _faust_log

    _recovery: BatchRecovery | None

    @property
    def recovery(self) -> BatchRecovery:
        """The recovery service."""
        if self._recovery is None:
            self._recovery = BatchRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    async def on_start(self) -> None:
        """Register the tables at once."""
        await self._update_channels()
        await self.recovery.start()


class HeadraceApp(faust.App):  # type: ignore[misc]
    """A Faust app whose hot topics belong to a `DataPath`."""

    logger = _faust_log

    path: DataPath
    hot_topics: frozenset[str]
    changelog: str
    runner: Service
    leave_on_stop: bool = True
    failure: BaseException | None = None
    on_fail: Callable[[BaseException], None]

    async def on_start(self) -> None:
        """Start what runs beside Faust first: a rebalance may come at once."""
        await self.add_runtime_dependency(self.runner)
        await super().on_start()

    # -- rebalances

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        try:
            if self.path.owned and not self.should_stop:
                await self.path.revoke(self.commit_offsets)
        except Exception as error:
            self.fail(error)
        await super()._on_partitions_revoked(revoked)

    async def _on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        await self._pause_hot(assigned)
        await super()._on_partitions_assigned(assigned, generation_id)

    async def _pause_hot(self, assigned: set[TP]) -> None:
        hot = [TopicPartition(tp.topic, tp.partition) for tp in assigned if self._is_hot(tp)]
        thread = self.consumer._thread

        async def pause() -> None:
            thread._ensure_consumer().pause(*hot)

        if hot:
            await thread.call_thread(pause)

    def _is_hot(self, tp: TP) -> bool:
        return tp.topic in self.hot_topics or tp.topic == self.changelog

    async def restore_and_start(self, recovery: BatchRecovery, generation: int) -> None:
        """Restore the owned partitions, then fetch their clicks from the committed offsets."""
        self.path.metrics.rebalances.inc()
        assignment = self.consumer.assignment()
        partitions = {tp.partition for tp in assignment if tp.topic in self.hot_topics}
        count = await self.path.restore(partitions)
        log.info("owns partitions %s; restored %d changelog records", sorted(partitions), count)
        if self.consumer_generation_id != generation:
            return  # another rebalance has begun, and will come here again
        await recovery._resume_streams(generation_id=generation)
        offsets = await self._committed_offsets(
            {tp for tp in assignment if tp.topic in self.hot_topics}
        )
        if self.consumer_generation_id == generation:
            await self.path.start(offsets)

    async def _committed_offsets(self, tps: set[TP]) -> dict[tuple[str, int], int | None]:
        thread = self.consumer._thread

        async def ask() -> dict[tuple[str, int], int | None]:
            consumer = thread._ensure_consumer()
            return {
                (tp.topic, tp.partition): await consumer.committed(
                    TopicPartition(tp.topic, tp.partition)
                )
                for tp in tps
            }

        offsets: dict[tuple[str, int], int | None] = await asyncio.wait_for(
            thread.call_thread(ask), COMMIT_TIMEOUT_S
        )
        return offsets

    # -- commits

    async def commit_offsets(self, offsets: Offsets) -> bool:
        """Commit under the present membership; False when the group has gone on without us."""
        thread = self.consumer._thread

        async def commit() -> None:
            await thread._ensure_consumer().commit(
                {
                    TopicPartition(*tp): OffsetAndMetadata(offset, "")
                    for tp, offset in offsets.items()
                }
            )

        try:
            await asyncio.wait_for(thread.call_thread(commit), COMMIT_TIMEOUT_S)
        except (AioKafkaError, TimeoutError) as error:
            log.warning("commit failed: %r", error)
            return False
        return True

    # -- the end

    async def stop(self) -> None:
        """Clean stop: finish the batch, flush, commit, leave the group."""
        if not self.should_stop and self.path.owned and self.failure is None:
            try:
                await self.path.finish(self.commit_offsets)
            except Exception as error:
                log.error("not a clean stop: %s", error)
            if self.leave_on_stop:
                await self._leave_group()
        await super().stop()

    async def _leave_group(self) -> None:
        """Leave, although membership is static: a worker that was asked to stop is not coming back
        at once, and its partitions should not wait for its session to end."""
        thread = self.consumer._thread

        async def leave() -> None:
            coordinator = thread._ensure_consumer()._coordinator
            if coordinator.generation > 0:
                await coordinator._send_req(
                    LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
                )

        try:
            await asyncio.wait_for(thread.call_thread(leave), LEAVE_TIMEOUT_S)
        except (AioKafkaError, TimeoutError) as error:
            log.warning("could not leave the group: %r", error)

    def fail(self, error: BaseException) -> None:
        """End the worker."""
        self.on_fail(error)
