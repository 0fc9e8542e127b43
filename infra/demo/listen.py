"""Answers out: recommendations and dead letters as they come, on a thread of the demo."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.codec import Codec
from schemas.errors import KafkaError, RecordError
from schemas.topics import DEAD_LETTERS, RECOMMENDATIONS
from streams.readback import partitions_of

POLL_S: Final = 0.1
FETCHED_MAX: Final = 1_000
REQUEST_TIMEOUT_S: Final = 5.0
ENDS_TIMEOUT_S: Final = 15.0
RETRY_S: Final = 0.1
STOP_TIMEOUT_S: Final = 5.0

# (event id, recommendation, monotonic seconds at which it came)
Received = Callable[[bytes, Mapping[str, Any], float], None]


class Listener:
    """Listens from the present ends of both topics on. Raises `KafkaError` where they are not."""

    def __init__(
        self,
        config: dict[str, Any],
        codec: Codec,
        received: Received,
        rejected: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._codec = codec
        self._received = received
        self._rejected = rejected
        self._clock = clock
        self._stopping = threading.Event()
        self._consumer = Consumer(config | {"log_level": 0})
        self._thread = threading.Thread(target=self._run, name="demo-listen", daemon=True)

    def start(self) -> None:
        """Find the ends, so that nothing sent from now on is missed, and listen."""
        deadline = self._clock() + ENDS_TIMEOUT_S
        ends = [
            self._end(topic, partition, deadline)
            for topic in (RECOMMENDATIONS.name, DEAD_LETTERS.name)
            for partition in partitions_of(self._consumer, topic)
        ]
        self._consumer.assign(ends)
        self._thread.start()

    def _end(self, topic: str, partition: int, deadline: float) -> TopicPartition:
        while True:
            try:
                _, end = self._consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=REQUEST_TIMEOUT_S
                )
                return TopicPartition(topic, partition, end)
            except KafkaException as error:
                # A topic that was just made has leaders that do not know it yet.
                if self._clock() >= deadline:
                    raise KafkaError(
                        f"no end of {topic}, partition {partition}: {error.args[0].str()}"
                    ) from None
                self._stopping.wait(RETRY_S)

    def stop(self) -> None:
        """Stop listening. Idempotent."""
        self._stopping.set()
        if self._thread.ident is None:
            self._consumer.close()
        else:
            self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                # `consume` waits for the full number; so first for one, then for what is there.
                messages = self._consumer.consume(1, POLL_S)
                at = self._clock()
                messages += self._consumer.consume(FETCHED_MAX, 0) if messages else []
                for message in messages:
                    if message.error() is None:
                        self._take(message.topic(), message.value(), at)
        finally:
            self._consumer.close()

    def _take(self, topic: str | None, value: bytes | None, at: float) -> None:
        if topic == DEAD_LETTERS.name:
            self._rejected()
            return
        try:
            record = self._codec.decode("Recommendation", value)
        except RecordError:  # somebody else's record
            return
        self._received(record["event_id"].encode(), record, at)
