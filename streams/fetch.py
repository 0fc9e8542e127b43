"""Records in: one thread that fetches batches, and restores changelogs.

librdkafka fetches in the background; the broker lets a few records gather before it answers (see
`streams.kafka`); this thread hands what came as one list to a callback. All calls to the consumer
are made by this thread; other threads ask for them by `call`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition
from confluent_kafka import KafkaError as ClientError

from schemas.errors import KafkaError
from streams.state.windows import Windows

# Longest wait for a first record: bounds how long a command or a stop waits for the thread.
POLL_TIMEOUT_S: Final = 0.1
# Batches that may wait for the loop: one is being processed while the next gathers.
BATCHES_AHEAD: Final = 2
# A fetch's records reach the queue one partition after the other, within this time.
GATHER_S: Final = 0.0005
RESTORE_RECORDS: Final = 20_000
RESTORE_SILENCE_MAX_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Fetched records, in order within each partition, and the assignment they belong to."""

    records: list[Message]
    epoch: int


class Fetcher:
    """The fetching thread. `deliver` is called on it with each batch and must not block."""

    def __init__(
        self,
        config: dict[str, Any],
        deliver: Callable[[Batch], None],
        batch_max: int,
    ) -> None:
        self._config = config
        self._deliver = deliver
        self._batch_max = batch_max
        self._commands: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = (
            queue.SimpleQueue()
        )
        self._slots = threading.Semaphore(BATCHES_AHEAD)
        self._stopping = threading.Event()
        self._assigned = False
        self._epoch = 0
        self._consumer: Consumer | None = None
        self._thread = threading.Thread(target=self._run, name="headrace-fetch", daemon=True)

    def start(self) -> None:
        """Start the thread; it fetches nothing until `assign` is called."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False when it did not end in time (a client stuck in its close)."""
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def release(self) -> None:
        """Say that a delivered batch is dealt with, so that the next may come."""
        self._slots.release()

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Run a function on the fetching thread, between two fetches."""
        future: Future[Any] = Future()
        self._commands.put((function, future))
        return future

    # -- the functions below are for `call`

    def assign(self, offsets: Mapping[tuple[str, int], int | None], epoch: int) -> None:
        """Fetch these (topic, partition)s from these offsets; None: from the beginning."""
        self._epoch = epoch
        self._assigned = bool(offsets)
        self._client().assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING if offset is None else offset)
                for (topic, partition), offset in offsets.items()
            ]
        )

    def unassign(self) -> None:
        """Fetch nothing any more."""
        self._assigned = False
        self._client().unassign()

    def highwaters(self, topic: str, partitions: Iterable[int], timeout_s: float) -> dict[int, int]:
        """End offset of each partition. Raises `KafkaError` when the brokers do not answer."""
        ends: dict[int, int] = {}
        for partition in partitions:
            try:
                _, end = self._client().get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=timeout_s
                )
            except KafkaException as error:
                raise KafkaError(
                    f"no end offset of {topic}-{partition}: {error.args[0].str()}"
                ) from None
            ends[partition] = end
        return ends

    def restore(
        self, topic: str, starts: Mapping[int, int | None], windows: Windows, timeout_s: float
    ) -> int:
        """Read changelog partitions from their start offsets to their ends, into `windows`.

        Whole fetched lists go into the partition's dictionary at once; returns the number of
        records read. Raises `KafkaError` when the brokers fall silent.
        """
        for partition in starts:
            windows.partitions.setdefault(partition, {})

        def take(partition: int, messages: list[Message]) -> None:
            windows.restore(
                partition, [m.key() or b"" for m in messages], [m.value() for m in messages]
            )

        return self.read(topic, starts, take, timeout_s)

    def read(
        self,
        topic: str,
        starts: Mapping[int, int | None],
        take: Callable[[int, list[Message]], None],
        timeout_s: float,
    ) -> int:
        """Read partitions from their start offsets to their ends; `take` gets the lists.

        Returns the number of records. Raises `KafkaError` when the brokers fall silent.
        """
        ends = self.highwaters(topic, starts, timeout_s)
        missing = {p for p, end in ends.items() if end > (starts[p] or 0)}
        if not missing:
            return 0
        reader = Consumer(
            self._config
            | {
                "enable.partition.eof": True,
                "queued.min.messages": 100_000,
                "queued.max.messages.kbytes": 65_536,
                "fetch.wait.max.ms": 50,
                "fetch.min.bytes": 1,
            }
        )
        try:
            return _read_to_end(
                reader, topic, {p: starts[p] for p in missing}, take, self._stopping
            )
        finally:
            reader.close()

    # -- the thread itself

    def _client(self) -> Consumer:
        assert self._consumer is not None, "only on the fetching thread"
        return self._consumer

    def _run(self) -> None:
        self._consumer = Consumer(self._config)
        try:
            while not self._stopping.is_set():
                self._run_commands()
                if not self._assigned:
                    self._wait_for_command()
                    continue
                self._fetch()
        finally:
            self._consumer.close()

    def _wait_for_command(self) -> None:
        try:
            command = self._commands.get(timeout=POLL_TIMEOUT_S)
        except queue.Empty:
            return
        _execute(*command)

    def _run_commands(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            _execute(*command)

    def _fetch(self) -> None:
        if not self._slots.acquire(timeout=POLL_TIMEOUT_S):
            return
        client = self._client()
        # `consume` waits for the full number or the full time; so first for one record, then a
        # moment for what came with it. The lingering itself is the broker's (`LINGER_BYTES`).
        records = client.consume(1, POLL_TIMEOUT_S)
        if records:
            records += client.consume(self._batch_max - 1, GATHER_S)
        good = [record for record in records if record.error() is None]
        if good:
            self._deliver(Batch(good, self._epoch))
        else:
            self._slots.release()


def _execute(function: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:  # it belongs to whoever asked
        future.set_exception(error)


def _read_to_end(
    reader: Consumer,
    topic: str,
    starts: Mapping[int, int | None],
    take: Callable[[int, list[Message]], None],
    stopping: threading.Event,
) -> int:
    reader.assign(
        [
            TopicPartition(topic, p, OFFSET_BEGINNING if start is None else start)
            for p, start in starts.items()
        ]
    )
    left = set(starts)
    count = 0
    heard_at = time.monotonic()
    while left:
        if stopping.is_set():
            raise KafkaError("the restore was interrupted")
        records = reader.consume(RESTORE_RECORDS, 0.05)
        now = time.monotonic()
        if now - heard_at > RESTORE_SILENCE_MAX_S:
            raise KafkaError(
                f"no records of {topic} for {RESTORE_SILENCE_MAX_S:.0f} s; partitions left: {sorted(left)}"
            )
        if not records:
            continue
        heard_at = now
        by_partition: dict[int, list[Message]] = {}
        for record in records:
            error = record.error()
            if error is None:
                by_partition.setdefault(record.partition() or 0, []).append(record)
            elif error.code() == ClientError._PARTITION_EOF:
                left.discard(record.partition() or 0)
        for partition, messages in by_partition.items():
            take(partition, messages)
            count += len(messages)
    return count
