"""Clicks into Kafka: encodes batches, hands them over when they are due, and counts what came back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pyarrow as pa
from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException, Message, Producer

from schemas.click_encoder import click_encoder
from schemas.clicks import EVENT_TYPES
from schemas.codec import Codec
from schemas.errors import KafkaError
from schemas.topics import CLICK_BYTES_MAX, CLICKS
from streams.clicks.columns import ClickColumns
from streams.clicks.dating import Dating, as_recorded
from streams.clicks.event_ids import event_ids
from streams.clicks.journal import Journal, Outcome, journal_head
from streams.clicks.pacing import AtOnce, Pacer, Schedule
from streams.kafka import PARTITIONER, client_config
from streams.settings import Settings
from streams.topics_admin import cluster_metadata

# Rows encoded at a time: enough for numpy to pay off, few enough to start at once.
CHUNK_ROWS: Final = 8_192
# A click whose fate is unknown for so long is given up; drills kill brokers for less.
DELIVERY_TIMEOUT_S: Final = 120.0
# Last wait for acknowledgements; longer than the death of a partition leader (4 s) and one retry.
FLUSH_TIMEOUT_S: Final = 30.0
# Clicks in the client's queue; about 40 MB. When it is full, reading waits.
QUEUE_CLICKS_MAX: Final = 200_000
# The same after Ctrl-C, when somebody waits for the prompt.
STOPPED_FLUSH_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1
# Errors that say: not written, and never will be. All others leave the fate open.
_REFUSALS: Final = frozenset(
    {
        ClientError.MSG_SIZE_TOO_LARGE,
        ClientError.RECORD_LIST_TOO_LARGE,
        ClientError.INVALID_RECORD,
        ClientError.POLICY_VIOLATION,
        ClientError.TOPIC_AUTHORIZATION_FAILED,
        ClientError.CLUSTER_AUTHORIZATION_FAILED,
        ClientError.UNKNOWN_TOPIC_OR_PART,
        ClientError._UNKNOWN_TOPIC,
        ClientError._UNKNOWN_PARTITION,
    }
)


Report = Callable[[ClientError | None, Message | None], None]


@dataclass(slots=True)
class Delivery:
    """What became of the clicks of a run; counts.

    `handed` = `acknowledged` + `refused` + `unknown` when the run is over. `seconds`: from the
    first click to the last outcome. `faults`: reason -> count of clicks not acknowledged.
    `ended_by`: why the producer could not go on, else empty.
    """

    handed: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    ended_by: str = ""
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Acknowledged clicks per second."""
        return self.acknowledged / self.seconds if self.seconds > 0 else 0.0


def click_producer_config(settings: Settings, bootstrap: str) -> dict[str, Any]:
    """A producer of clicks: idempotent, acknowledged by all in-sync replicas, in large batches."""
    return client_config(settings, bootstrap) | {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": PARTITIONER,
        "message.max.bytes": CLICK_BYTES_MAX,
        "delivery.timeout.ms": int(1000 * DELIVERY_TIMEOUT_S),
        "linger.ms": 5,
        "batch.num.messages": 10_000,
        "batch.size": 512 * 1024,
        "queue.buffering.max.messages": QUEUE_CLICKS_MAX,
        "compression.type": "lz4",
        # Failures are counted and told once; the client's own log repeats them.
        "log_level": 0,
    }


class ClickSender:
    """Sends batches of clicks; counts outcomes in `delivery`. Not for several threads.

    `producer`: from `open_producer`. `stopped`: whether to stop, asked again and again.
    """

    def __init__(
        self,
        producer: Any,
        codec: Codec,
        *,
        seed: int = 0,
        topic: str = CLICKS.name,
        journal: Journal | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.delivery = Delivery()
        self.stopped = stopped
        self._producer = producer
        self._encode = click_encoder(codec)
        self._seed = seed
        self._topic = topic
        self._journal = journal

    def send(self, clicks: ClickColumns, slices: Iterable[tuple[int, int]]) -> None:
        """Encode a batch and hand it over slice by slice. Raises `KafkaError` when sending is over."""
        users = clicks.user_id.cast(pa.binary()).to_pylist()
        items = clicks.item_id.cast(pa.binary()).to_pylist()
        if clicks.event_id is None:
            ids = event_ids(self._seed, clicks.row, clicks.ts, users, items, clicks.event_type)
        else:
            ids = clicks.event_id.cast(pa.binary()).to_pylist()
        codes = clicks.event_type.tolist()
        sessions, queries = clicks.session_id, clicks.query
        values = self._encode(
            ids,
            users,
            items,
            codes,
            clicks.ts,
            None if sessions is None else sessions.fill_null("").cast(pa.binary()).to_pylist(),
            None if queries is None else queries.cast(pa.binary()).to_pylist(),
            None if clicks.price is None else clicks.price.to_pylist(),
            None if clicks.quantity is None else clicks.quantity.to_pylist(),
        )
        for start, stop in slices:
            if self._journal is None:
                self._hand_over(users, values, range(start, stop), self._on_delivery)
            else:
                for at in range(start, stop):
                    kind, ts = EVENT_TYPES[codes[at]], int(clicks.ts[at])
                    report = partial(
                        self._on_journaled, journal_head(ids[at], users[at], items[at], kind, ts)
                    )
                    self._hand_over(users, values, range(at, at + 1), report)
                self._journal.tick()
            self.wait(0)

    def _hand_over(
        self, users: list[bytes], values: list[bytes], rows: range, report: Report
    ) -> None:
        produce, topic = self._producer.produce, self._topic
        for at in rows:
            while True:
                try:
                    produce(topic, values[at], users[at], -1, report)
                    break
                except BufferError:
                    # The queue is bounded; Kafka sets the pace.
                    if self.stopped():
                        return
                    self.wait(_POLL_S)
                except KafkaException as error:
                    reason = error.args[0]
                    if reason.code() not in _REFUSALS:
                        raise KafkaError(f"the producer cannot go on: {reason.str()}") from None
                    # Refused before it was sent, such as a click that is too large.
                    report(reason, None)
                    break
            self.delivery.handed += 1

    def wait(self, seconds: float) -> None:
        """Serve delivery reports, for so many seconds at most."""
        self._producer.poll(seconds)

    def finish(
        self, timeout_s: float = FLUSH_TIMEOUT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Wait for the outcomes that are open, and count as unknown those that do not come.

        When stopped, it waits no longer than `STOPPED_FLUSH_TIMEOUT_S` from then on.
        """
        deadline_s = clock() + timeout_s
        hurried = False
        while len(self._producer) and clock() < deadline_s:
            if self.stopped() and not hurried:
                hurried, deadline_s = True, min(deadline_s, clock() + STOPPED_FLUSH_TIMEOUT_S)
            self._producer.flush(_POLL_S)
        if len(self._producer):
            self._producer.purge()
            self._producer.flush(1.0)
        delivery = self.delivery
        missing = delivery.handed - delivery.acknowledged - delivery.refused - delivery.unknown
        if missing:
            delivery.unknown += missing
            self._count_fault("no outcome", missing)

    def _on_delivery(self, error: ClientError | None, message: Message | None) -> None:
        if error is None:
            self.delivery.acknowledged += 1
            return
        if error.code() in _REFUSALS:
            self.delivery.refused += 1
        else:
            self.delivery.unknown += 1
        self._count_fault(error.str())

    def _on_journaled(self, head: str, error: ClientError | None, message: Message | None) -> None:
        self._on_delivery(error, message)
        if self._journal is None:
            return
        if error is not None:
            outcome: Outcome = "refused" if error.code() in _REFUSALS else "unknown"
            self._journal.write(head, outcome, None, None)
        elif message is not None:
            self._journal.write(head, "ok", message.partition(), message.offset())

    def _count_fault(self, reason: str, count: int = 1) -> None:
        self.delivery.faults[reason] = self.delivery.faults.get(reason, 0) + count


def open_producer(settings: Settings, bootstrap: str, topic: str = CLICKS.name) -> Producer:
    """A connected producer of clicks. Raises `KafkaError` where there is no Kafka or no such topic."""
    producer = Producer(click_producer_config(settings, bootstrap))
    found = cluster_metadata(producer, bootstrap).topics.get(topic)
    if found is None or found.error is not None:
        raise KafkaError(
            f"topic {topic} does not exist at {bootstrap}: run `headrace topics create`"
        )
    return producer


def replay(
    batches: Iterable[ClickColumns],
    sender: ClickSender,
    schedule: Schedule | None = None,
    *,
    dating: Dating = as_recorded,
    progress: Callable[[Delivery], None] = lambda delivery: None,
    clock: Callable[[], float] = time.monotonic,
    flush_timeout_s: float = FLUSH_TIMEOUT_S,
) -> Delivery:
    """Send all clicks as the schedule says, wait for their outcomes, and count them.

    The schedule goes by the recorded times, whatever `dating` then makes of them. When the sender
    is stopped, reading ends; what was handed over by then is waited for, bounded. When the
    producer cannot go on, the run ends early and `ended_by` says why.
    """

    def wait(seconds: float) -> None:
        sender.wait(seconds)
        progress(sender.delivery)

    pacer = Pacer(schedule or AtOnce(), clock, wait, sender.stopped)
    read = 0
    started_s: float | None = None
    try:
        for chunk in _chunks(batches, sender.stopped):
            if started_s is None:
                started_s = clock()
            sender.send(chunk.at_times(dating(read, chunk.ts)), pacer.slices(chunk.ts))
            read += len(chunk)
            progress(sender.delivery)
    except KafkaError as error:
        # What was handed over before still has outcomes, and they are what the caller needs.
        sender.delivery.ended_by = str(error)
    finally:
        sender.finish(flush_timeout_s, clock)
        sender.delivery.seconds = 0.0 if started_s is None else clock() - started_s
        sender.delivery.interrupted = sender.stopped()
        progress(sender.delivery)
    return sender.delivery


def _chunks(batches: Iterable[ClickColumns], stopped: Callable[[], bool]) -> Iterator[ClickColumns]:
    """The batches in pieces that are encoded at once, until stopped."""
    for batch in batches:
        for start in range(0, len(batch), CHUNK_ROWS):
            if stopped():
                return
            yield batch.slice(start, min(start + CHUNK_ROWS, len(batch)))
