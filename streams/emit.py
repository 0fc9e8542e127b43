"""Effects out: librdkafka produces, and says so only when a record could not be delivered."""

from __future__ import annotations

import time
from typing import Any, Final

from confluent_kafka import KafkaError as ClientError
from confluent_kafka import Message, Producer

from schemas.errors import DeliveryError
from schemas.topics import DEAD_LETTERS, RECOMMENDATIONS
from streams.hop import Effects

# How long a full queue may stay full before the worker gives up.
QUEUE_FULL_TIMEOUT_S: Final = 30.0


class Emitter:
    """Produces the effects of batches and tells when all of them are acknowledged."""

    def __init__(self, config: dict[str, Any], changelog: str) -> None:
        self._fault: str | None = None
        self._changelog = changelog
        self._producer = Producer(config | {"error_cb": self._on_error})

    def emit(self, effects: Effects) -> None:
        """Hand over all records of a batch. Raises `DeliveryError` if an earlier one was lost."""
        self.check()
        # Changelog first: should the process die in between, the click is answered from its
        # event's redelivery, and folding that again changes nothing.
        for partition, user, window in effects.changelog:
            self._produce(self._changelog, window, user, partition)
        for user, value in effects.recommendations:
            self._produce(RECOMMENDATIONS.name, value, user, -1)
        for key, value in effects.dead_letters:
            self._produce(DEAD_LETTERS.name, value, key, -1)
        self._producer.poll(0)

    def _produce(self, topic: str, value: bytes, key: bytes | None, partition: int) -> None:
        try:
            self._producer.produce(topic, value, key, partition, self._on_delivery)
        except BufferError:
            deadline = time.monotonic() + QUEUE_FULL_TIMEOUT_S
            while time.monotonic() < deadline:
                self._producer.poll(0.05)
                self.check()
                try:
                    self._producer.produce(topic, value, key, partition, self._on_delivery)
                except BufferError:
                    continue
                return
            raise DeliveryError(
                f"the producer's queue stayed full for {QUEUE_FULL_TIMEOUT_S:.0f} s: Kafka takes no records"
            ) from None

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything handed over is acknowledged; False when time ran out first.

        Raises `DeliveryError` when a record could not be delivered.
        """
        left: int = self._producer.flush(timeout_s)
        self.check()
        return left == 0

    def check(self) -> None:
        """Raise `DeliveryError` if any record so far could not be delivered."""
        if self._fault is not None:
            raise DeliveryError(self._fault)

    def _on_delivery(self, error: ClientError | None, message: Message) -> None:
        if error is not None and self._fault is None:
            self._fault = f"a record for {message.topic()} was not acknowledged: {error.str()}"

    def _on_error(self, error: ClientError) -> None:
        if error.fatal() and self._fault is None:
            self._fault = f"the producer cannot go on: {error.str()}"
