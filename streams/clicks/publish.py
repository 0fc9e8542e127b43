"""The catalogue into its topic, so that answers can be filtered and shown with titles."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError as ClientError
from confluent_kafka import Message

from schemas.codec import Codec
from schemas.errors import DeliveryError
from schemas.topics import CATALOG

PUBLISH_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.1


def publish_items(
    producer: Any,
    codec: Codec,
    records: Iterable[Mapping[str, Any]],
    topic: str = CATALOG.name,
    timeout_s: float = PUBLISH_TIMEOUT_S,
) -> int:
    """Send all `Item` records and wait until they are acknowledged; returns how many.

    Raises `DeliveryError` where one is not.
    """
    faults: list[str] = []

    def on_delivery(error: ClientError | None, message: Message) -> None:
        if error is not None:
            faults.append(error.str())

    count = 0
    deadline_s = time.monotonic() + timeout_s
    for record in records:
        value = codec.encode("Item", record)
        while True:
            try:
                producer.produce(topic, value, record["item_id"].encode(), -1, on_delivery)
                break
            except BufferError:
                if time.monotonic() > deadline_s:
                    raise DeliveryError(
                        f"topic {topic} takes no items for {timeout_s:.0f} s"
                    ) from None
                producer.poll(_POLL_S)
        count += 1
    left = producer.flush(max(0.0, deadline_s - time.monotonic()))
    if faults or left:
        reason = faults[0] if faults else f"no answer within {timeout_s:.0f} s"
        raise DeliveryError(
            f"{len(faults) + left:,} of {count:,} items were not acknowledged by {topic}: {reason}"
        )
    return count
