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

    def __init__(
        self, config: dict[str, Any], changelog_config: dict[str, Any], changelog: str
    ) -> None:
        self._fault: str | None = None
        self._changelog = changelog
        self._producer = Producer(config | {"error_cb": self._on_error})
        # Of its own, because it lingers longer: see `streams.kafka`.
        self._changelog_producer = Producer(changelog_config | {"error_cb": self._on_error})

    def emit(self, effects: Effects) -> None:
        """Hand over all records of a batch. Raises `DeliveryError` if an earlier one was lost."""
        self.check()
        delivered = self._on_delivery
        topic = self._changelog
        self._produce(
            self._changelog_producer,
            [(topic, w, user, partition, delivered) for partition, user, w in effects.changelog],
        )
        topic = RECOMMENDATIONS.name
        self._produce(
            self._producer,
            [(topic, value, user, -1, delivered) for user, value in effects.recommendations],
        )
        if effects.dead_letters:
            topic = DEAD_LETTERS.name
            self._produce(
                self._producer,
                [(topic, value, key, -1, delivered) for key, value in effects.dead_letters],
            )

    def _produce(self, producer: Producer, records: list[Any]) -> None:
        """Hand over records, each the positional arguments of `produce`."""
        produce = producer.produce
        done = 0
        deadline = time.monotonic() + QUEUE_FULL_TIMEOUT_S
        while done < len(records):
            try:
                for record in records[done:] if done else records:
                    produce(*record)
                    done += 1
            except BufferError:
                if time.monotonic() > deadline:
                    raise DeliveryError(
                        f"the producer's queue stayed full for {QUEUE_FULL_TIMEOUT_S:.0f} s: "
                        "Kafka takes no records"
                    ) from None
                producer.poll(0.05)
                self.check()
        producer.poll(0)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything handed over is acknowledged; False when time ran out first.

        Raises `DeliveryError` when a record could not be delivered.
        """
        # The recommendations are well on their way while the changelog's linger is cut short.
        left: int = self._changelog_producer.flush(timeout_s)
        left += self._producer.flush(0 if left else timeout_s)
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
