"""Clicks in: the real producer on a thread of the demo, which is told of each click as it goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from confluent_kafka import Producer

from schemas.clicks import RawClick, click_decoder
from schemas.codec import Codec
from schemas.errors import KafkaError
from streams.clicks.columns import ClickColumns
from streams.clicks.dating import as_sent
from streams.clicks.pacing import AtRate
from streams.clicks.replay import ClickSender, Delivery, replay

# Acknowledgements that are still open when the demo ends; a healthy broker takes milliseconds.
FLUSH_TIMEOUT_S: Final = 5.0

Sent = Callable[[RawClick], None]


class WatchedProducer:
    """A producer as `ClickSender` uses it; `sent` is told of each click before it is handed over."""

    def __init__(self, producer: Producer, codec: Codec, sent: Sent) -> None:
        self._producer = producer
        self._decode = click_decoder(codec)
        self._sent = sent
        self._last: bytes | None = None

    def produce(self, topic: str, value: bytes, key: bytes, partition: int, report: Any) -> None:
        """Hand over one click. Raises as the producer does."""
        # One that comes again because the queue was full is still the same click.
        if value is not self._last:
            self._last = value
            self._sent(self._decode(value))
        self._producer.produce(topic, value, key, partition, report)

    def poll(self, timeout_s: float) -> int:
        """See `Producer.poll`."""
        return int(self._producer.poll(timeout_s))

    def flush(self, timeout_s: float) -> int:
        """See `Producer.flush`."""
        return int(self._producer.flush(timeout_s))

    def purge(self) -> None:
        """See `Producer.purge`."""
        self._producer.purge()

    def __len__(self) -> int:
        return len(self._producer)


class Feed:
    """Sends live clicks at a rate until they end or it is stopped."""

    def __init__(
        self,
        producer: Producer,
        codec: Codec,
        batches: Iterable[ClickColumns],
        rate: float,
        seed: int,
        sent: Sent,
    ) -> None:
        self._stopping = threading.Event()
        self._sender = ClickSender(
            WatchedProducer(producer, codec, sent), codec, seed=seed, stopped=self._stopping.is_set
        )
        self._batches = batches
        self._schedule = AtRate(rate)
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="demo-feed", daemon=True)

    @property
    def delivery(self) -> Delivery:
        """What became of the clicks so far."""
        return self._sender.delivery

    def acknowledged(self) -> int:
        """Clicks that all in-sync replicas have."""
        return self._sender.delivery.acknowledged

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sending and wait for what is open, bounded. Idempotent."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(2 * FLUSH_TIMEOUT_S)

    def ended(self) -> bool:
        """Whether all clicks are sent. Raises what ended the thread, if something did."""
        if self._fault is not None:
            raise self._fault
        if self.delivery.ended_by:
            raise KafkaError(self.delivery.ended_by)
        return self._thread.ident is not None and not self._thread.is_alive()

    def _run(self) -> None:
        try:
            replay(
                self._batches,
                self._sender,
                self._schedule,
                dating=as_sent(self._schedule),
                flush_timeout_s=FLUSH_TIMEOUT_S,
            )
        except Exception as error:  # it belongs to the main thread, which asks by `ended`
            self._fault = error
