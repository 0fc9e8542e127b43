"""The data path's promises to the group: commit after the acknowledgement, write only as a member,
trust memory only after a clean goodbye."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

import pytest

from schemas.errors import DeliveryError, FencedError
from streams.fetch import Batch
from streams.hop import Effects
from streams.metrics import WorkerMetrics
from streams.path import LEASE_SHARE, DataPath
from streams.state.window import WindowEvent, pack
from streams.state.windows import Windows

SESSION_S = 10.0
LEASE_S = LEASE_SHARE * SESSION_S


class Record:
    def __init__(self, partition: int, offset: int) -> None:
        self._partition, self._offset = partition, offset

    def topic(self) -> str:
        return "clicks"

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class Stored:
    def __init__(self, window: bytes) -> None:
        self._window = window

    def key(self) -> bytes:
        return b"user"

    def value(self) -> bytes:
        return self._window


class FakeHop:
    """Takes `takes_s` of the world's time for a batch."""

    def __init__(self, world: World) -> None:
        self.windows = Windows()
        self._world = world
        self.takes_s = 0.0

    def process(self, records: list[Record]) -> Effects:
        self._world.now += self.takes_s
        changelog = [(record.partition(), b"user", b"window") for record in records]
        return Effects([], changelog, [], [], [], len(records))


class FakeEmitter:
    def __init__(self, world: World) -> None:
        self._world = world
        self.fault: str | None = None
        self.waiting = 0

    def emit(self, effects: Effects) -> None:
        self._world.log.append(f"emit {effects.clicks_count or 'rewrites'}")
        for partition, _, window in effects.changelog:
            self._world.changelog.setdefault(partition, []).append(window)
        self.waiting += 1

    def flush(self, timeout_s: float) -> bool:
        if self.fault:
            raise DeliveryError(self.fault)
        self.waiting = max(0, self.waiting - 1)
        if not self.waiting:
            self._world.log.append("acknowledged")
        return not self.waiting

    def check(self) -> None:
        if self.fault:
            raise DeliveryError(self.fault)


class FakeFetcher:
    def __init__(self, world: World) -> None:
        self._world = world
        self.released = 0
        self.restored: list[dict[int, int | None]] = []
        self.assigned: dict[tuple[str, int], int | None] = {}

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function())
        return future

    def release(self) -> None:
        self.released += 1

    def assign(self, offsets: Mapping[tuple[str, int], int | None], epoch: int) -> None:
        self.assigned, self.epoch = dict(offsets), epoch

    def unassign(self) -> None:
        self.assigned = {}

    def highwaters(self, topic: str, partitions: Iterable[int], timeout_s: float) -> dict[int, int]:
        return {p: len(self._world.changelog.get(p, [])) for p in partitions}

    def read(
        self,
        topic: str,
        starts: Mapping[int, int | None],
        take: Callable[[int, Any], None],
        timeout_s: float,
    ) -> int:
        for partition, start in starts.items():
            take(
                partition,
                [Stored(window) for window in self._world.changelog[partition][start or 0 :]],
            )
        return 0

    def restore(
        self, topic: str, starts: Mapping[int, int | None], windows: Windows, timeout_s: float
    ) -> int:
        self.restored.append(dict(starts))
        for partition in starts:
            windows.partitions.setdefault(partition, {})
        return 0


class FakeEndOffsets:
    def __init__(self, world: World) -> None:
        self._world = world

    def ask(
        self, partitions: Iterable[tuple[str, int]], timeout_s: float
    ) -> dict[tuple[str, int], int]:
        return {tp: len(self._world.changelog.get(tp[1], [])) for tp in partitions}


class World:
    """One data path among fakes, with a clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.log: list[str] = []
        self.changelog: dict[int, list[bytes]] = {}
        self.member = True
        self.committed: list[dict[tuple[str, int], int]] = []
        self.hop, self.emitter, self.fetcher = FakeHop(self), FakeEmitter(self), FakeFetcher(self)
        self.path = DataPath(
            self.hop,  # type: ignore[arg-type]
            self.emitter,  # type: ignore[arg-type]
            self.fetcher,  # type: ignore[arg-type]
            FakeEndOffsets(self),  # type: ignore[arg-type]
            WorkerMetrics("east", "0"),
            "changelog",
            SESSION_S,
            lambda: self.now,
        )

    async def commit(self, offsets: dict[tuple[str, int], int]) -> bool:
        if self.member:
            self.log.append("commit")
            self.committed.append(offsets)
        return self.member

    async def own(self, *partitions: int) -> None:
        await self.path.restore(partitions)
        await self.path.start({("clicks", partition): None for partition in partitions})

    def batch(self, *offsets: int, partition: int = 0) -> Batch:
        records: Any = [Record(partition, offset) for offset in offsets]
        return Batch(records, self.fetcher.epoch)


def run(scenario: Callable[[World], Any]) -> World:
    world = World()
    asyncio.run(scenario(world))
    return world


def test_offsets_are_committed_after_the_acknowledgement() -> None:
    async def scenario(world: World) -> None:
        await world.own(0, 1)
        await world.path.handle(world.batch(5, 6, 7), world.commit)
        assert world.committed == []
        assert await world.path.commit(world.commit)

    world = run(scenario)
    assert world.log == ["emit 3", "acknowledged", "commit"]
    assert world.committed[-1] == {("clicks", 0): 8, ("clicks", 1): 0}
    assert world.fetcher.released == 1


def test_nothing_is_committed_without_news_until_the_lease_ages() -> None:
    async def scenario(world: World) -> None:
        await world.own(0)
        assert await world.path.commit(world.commit)
        assert world.committed == []
        world.now += LEASE_S / 2
        assert await world.path.commit(world.commit)

    assert len(run(scenario).committed) == 1


def test_a_lost_record_is_never_committed_past() -> None:
    async def scenario(world: World) -> None:
        await world.own(0)
        await world.path.handle(world.batch(5), world.commit)
        world.emitter.fault = "a record was not acknowledged"
        with pytest.raises(DeliveryError):
            await world.path.commit(world.commit)

    assert run(scenario).committed == []


def test_a_batch_of_an_earlier_assignment_is_not_processed() -> None:
    async def scenario(world: World) -> None:
        await world.own(0)
        old = world.batch(5)
        await world.path.revoke(world.commit)
        await world.own(0)
        await world.path.handle(old, world.commit)

    world = run(scenario)
    assert not [line for line in world.log if line.startswith("emit")]
    assert world.fetcher.released == 1


def test_a_member_with_an_old_lease_proves_itself_and_goes_on() -> None:
    async def scenario(world: World) -> None:
        await world.own(0)
        world.now += LEASE_S + 1
        await world.path.handle(world.batch(5), world.commit)

    assert run(scenario).log[-2:] == ["commit", "emit 1"]


def test_a_worker_that_is_no_member_any_more_writes_nothing() -> None:
    async def scenario(world: World) -> None:
        await world.own(0)
        world.now += LEASE_S + 1
        world.member = False
        with pytest.raises(FencedError, match="not confirmed"):
            await world.path.handle(world.batch(5), world.commit)

    world = run(scenario)
    assert not [line for line in world.log if line.startswith("emit")]
    assert world.fetcher.released == 1


def test_a_worker_frozen_in_the_middle_of_a_batch_writes_nothing() -> None:
    async def scenario(world: World) -> None:
        await world.own(0)
        world.hop.takes_s = LEASE_S + 1
        with pytest.raises(FencedError, match="stood still"):
            await world.path.handle(world.batch(5), world.commit)

    assert not [line for line in run(scenario).log if line.startswith("emit")]


def test_kept_partitions_are_read_from_where_memory_ends() -> None:
    async def scenario(world: World) -> None:
        await world.own(0, 1)
        await world.path.handle(world.batch(5), world.commit)
        await world.path.revoke(world.commit)
        await world.own(0, 2)

    world = run(scenario)
    assert world.fetcher.restored == [{0: None, 1: None}, {0: 1, 2: None}]
    assert world.committed[-1] == {("clicks", 0): 6, ("clicks", 1): 0}
    assert world.path.owned == {0, 2}
    assert 1 not in world.hop.windows.partitions


def test_after_a_lost_membership_memory_is_not_trusted() -> None:
    async def scenario(world: World) -> None:
        await world.own(0)
        world.hop.windows.partitions[0][b"user"] = b"stale"
        world.member = False
        await world.path.revoke(world.commit)
        assert 0 not in world.hop.windows.partitions
        await world.own(0)

    assert run(scenario).fetcher.restored == [{0: None}, {0: None}]


def event(number: int) -> WindowEvent:
    return WindowEvent(10**12 + number, number.to_bytes(16, "big"), 0, b"item-%d" % number)


def test_own_writes_do_not_look_foreign() -> None:
    async def scenario(world: World) -> None:
        await world.own(0, 1)
        await world.path.handle(world.batch(5, 6), world.commit)
        assert await world.path.audit() == 0

    assert "emit rewrites" not in run(scenario).log


def test_a_foreign_older_window_is_folded_in_and_written_over() -> None:
    """A frozen worker wakes and sends an old window: the changelog ends with the union."""

    async def scenario(world: World) -> None:
        world.changelog[0] = [pack([event(1), event(2)])]
        await world.own(0)
        world.hop.windows.partitions[0][b"user"] = pack([event(1), event(2), event(3)])
        world.changelog[0].append(pack([event(1), event(4)]))
        assert await world.path.audit() == 1
        assert await world.path.audit() == 0

    world = run(scenario)
    union = pack([event(1), event(2), event(3), event(4)])
    assert world.changelog[0][-1] == union
    assert world.hop.windows.partitions[0][b"user"] == union
    assert world.hop.windows.counts[b"item-4"] == 1


def test_the_audit_ends_some_sessions_after_the_assignment() -> None:
    async def scenario(world: World) -> None:
        await world.own(0)
        world.now += 10 * SESSION_S
        world.changelog[0] = [pack([event(4)])]
        assert await world.path.audit() == 0

    assert run(scenario).changelog[0] == [pack([event(4)])]
