"""What a shop's service needs to send clicks.

    from schemas.client import ClickProducer

    with ClickProducer("kafka-1:9092,kafka-2:9092") as clicks:
        clicks.send(user_id="u17", item_id="i42")
        clicks.send(user_id="u17", item_id="i42", event_type="cart", price=19.9, quantity=1)

`send` checks the click and hands it over; it does not wait for Kafka, so it may be called while a
page is served, also from an event loop. The producer is idempotent and asks all in-sync replicas.
One object serves all threads of a process and lives as long as it. Make it after a fork: the
client's threads do not survive one, and `send` says so.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException, Message, Producer

from schemas.clicks import EVENT_TYPES, ITEM_ID_BYTES_MAX, USER_ID_BYTES_MAX, event_key
from schemas.codec import Codec
from schemas.errors import DeliveryError, RecordError
from schemas.event_ids import TS_MS_MAX, new_event_id
from schemas.topics import CLICK_BYTES_MAX, CLICKS

# Clicks that wait while Kafka is away: about 25 MB, or a minute at 2,000 a second.
QUEUE_CLICKS_MAX: Final = 100_000
# A click that could not be delivered for so long is reported as lost.
DELIVERY_TIMEOUT_S: Final = 120.0
FLUSH_TIMEOUT_S: Final = 10.0
# Delivery reports are served at least so often, also when nothing is sent.
_SERVE_S: Final = 0.25

# 2000-01-01: an earlier time is one in seconds.
TS_MS_MIN: Final = 946_684_800_000

OnFailure = Callable[[str, str], None]


class ClickProducer:
    """Sends clicks to Kafka; a context manager, for all threads of a process.

    `bootstrap`: host:port, several with commas. `codec`: ids of a registry
    (`schemas.registry.codec_from_settings(url)`) instead of the committed ones. `config`: more
    librdkafka settings, such as security. `on_failure(event_id, reason)`: called from a thread of
    ours for each click that was not acknowledged; keep it short.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        codec: Codec | None = None,
        topic: str = CLICKS.name,
        config: Mapping[str, Any] | None = None,
        on_failure: OnFailure | None = None,
    ) -> None:
        self._codec = codec or Codec.from_lock()
        self._topic = topic
        self._on_failure = on_failure
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._acknowledged = self._failed = self._sent = 0
        self._closed = threading.Event()
        self._producer = Producer(_config(bootstrap) | dict(config or {}))
        self._server = threading.Thread(target=self._serve, name="click-producer", daemon=True)
        self._server.start()

    def send(
        self,
        *,
        user_id: str,
        item_id: str = "",
        event_type: str = "view",
        ts: int | None = None,
        event_id: str | None = None,
        session_id: str = "",
        query: str | None = None,
        price: float | None = None,
        quantity: int | None = None,
    ) -> str:
        """Hand over one click; returns its event id, by which its recommendation answers.

        `ts`: when it happened, ms since the epoch; default: now. `event_id`: give the same one
        again when the same click is sent again; default: a new UUIDv7. Raises `RecordError` where
        the click is none, `DeliveryError` where it cannot be taken: the queue is full because
        Kafka has been away, or the producer is closed.
        """
        event_id = new_event_id() if event_id is None else event_id
        click = {
            "event_id": event_id,
            "user_id": user_id,
            "item_id": item_id,
            "event_type": event_type,
            "ts": time.time_ns() // 1_000_000 if ts is None else ts,
            "session_id": session_id,
            "query": query,
            "price": price,
            "quantity": quantity,
        }
        _check(click)
        value = self._codec.encode("Click", click)
        self._hand_over(event_id, user_id.encode(), value)
        return event_id

    def _hand_over(self, event_id: str, user: bytes, value: bytes) -> None:
        if self._closed.is_set():
            raise DeliveryError("this producer of clicks is closed")
        if os.getpid() != self._pid:
            raise DeliveryError(
                "this producer of clicks was made before a fork: make it in the process that uses it"
            )

        def on_delivery(error: ClientError | None, message: Message) -> None:
            self._count(event_id, error)

        # Counted first: the outcome may be there before this thread goes on.
        self._add_sent(1)
        try:
            self._producer.produce(self._topic, value, user, -1, on_delivery)
        except BufferError:
            self._add_sent(-1)
            raise DeliveryError(
                "too many clicks wait for Kafka already: it is away or too slow; send later"
            ) from None
        except KafkaException as error:
            self._add_sent(-1)
            raise DeliveryError(f"the click was not taken: {error.args[0].str()}") from None

    def _add_sent(self, count: int) -> None:
        with self._lock:
            self._sent += count

    @property
    def acknowledged(self) -> int:
        """Clicks that all in-sync replicas have."""
        return self._acknowledged

    @property
    def failed(self) -> int:
        """Clicks that were given up; each was told to `on_failure`."""
        return self._failed

    @property
    def pending(self) -> int:
        """Clicks without an outcome yet."""
        with self._lock:
            return self._sent - self._acknowledged - self._failed

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> int:
        """Wait until every click has an outcome, at most so long; returns how many have none."""
        self._producer.flush(timeout_s)
        return self.pending

    def close(self, timeout_s: float = FLUSH_TIMEOUT_S) -> int:
        """Flush and end; returns how many clicks are given up without an outcome."""
        if not self._closed.is_set() and os.getpid() == self._pid:
            self._closed.set()
            self._server.join(timeout=2 * _SERVE_S)
            if self.flush(timeout_s):
                self._producer.purge()
                self._producer.flush(1.0)
        return self.pending

    def __enter__(self) -> ClickProducer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        before = self._failed
        left = self.close()
        lost = left + self._failed - before
        # An error on its way out says more than that it cost clicks.
        if lost and error is None:
            raise DeliveryError(
                f"{lost:,} clicks were not acknowledged within {FLUSH_TIMEOUT_S:.0f} s"
            )

    def _serve(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_SERVE_S)

    def _count(self, event_id: str, error: ClientError | None) -> None:
        with self._lock:
            if error is None:
                self._acknowledged += 1
            else:
                self._failed += 1
        if error is not None and self._on_failure is not None:
            self._on_failure(event_id, error.str())


def _config(bootstrap: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        "acks": "all",
        # The Java clients' partitioner: all clicks of a shopper in one partition, whoever sends.
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": 5,
        "message.max.bytes": CLICK_BYTES_MAX,
        "queue.buffering.max.messages": QUEUE_CLICKS_MAX,
        "delivery.timeout.ms": int(1000 * DELIVERY_TIMEOUT_S),
        "socket.timeout.ms": 3000,
        "socket.nagle.disable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "topic.metadata.refresh.interval.ms": 5000,
        "log_level": 4,
    }


def _check(click: Mapping[str, Any]) -> None:
    """Raise `RecordError` for what a worker would put on `dead-letters`."""
    for name, bytes_max in (("user_id", USER_ID_BYTES_MAX), ("item_id", ITEM_ID_BYTES_MAX)):
        value = click[name]
        if not isinstance(value, str) or len(value.encode("utf-8", "surrogatepass")) > bytes_max:
            raise RecordError(
                f"{name} must be a text of at most {bytes_max} bytes, not {str(value)[:80]!r}"
            )
    if not click["user_id"]:
        raise RecordError(
            "user_id is empty: give the shopper's id or, for anonymous visitors, the session's"
        )
    if click["event_type"] not in EVENT_TYPES:
        raise RecordError(
            f"event_type is {click['event_type']!r}; it must be one of {', '.join(EVENT_TYPES)}"
        )
    if "\0" in click["item_id"]:
        raise RecordError(f"item_id {click['item_id'][:80]!r} has a NUL in it")
    if not click["item_id"] and click["event_type"] != "search":
        raise RecordError("item_id is empty: only a search has no item")
    if (
        isinstance(click["ts"], bool)
        or not isinstance(click["ts"], int)
        or not TS_MS_MIN <= click["ts"] <= TS_MS_MAX
    ):
        raise RecordError(
            f"ts is {click['ts']!r}; it must be an int, milliseconds since the epoch, not before 2000"
        )
    if not isinstance(click["event_id"], str):
        raise RecordError(f"event_id must be a text, not {click['event_id']!r}")
    event_key(click["event_id"])
