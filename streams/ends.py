"""End offsets, asked on a connection of their own: the fetching thread waits for records instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.errors import KafkaError


class EndOffsets:
    """Asks the brokers where partitions end: one request to each leader."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._admin = AdminClient(config)

    def ask(
        self, partitions: Iterable[tuple[str, int]], timeout_s: float
    ) -> dict[tuple[str, int], int]:
        """End offset of each (topic, partition). Raises `KafkaError` when they do not answer."""
        asked = {TopicPartition(*tp): OffsetSpec.latest() for tp in partitions}
        if not asked:
            return {}
        try:
            ends = self._admin.list_offsets(asked, request_timeout=timeout_s)
            return {
                (tp.topic, tp.partition): end.result(timeout=timeout_s).offset
                for tp, end in ends.items()
            }
        except (KafkaException, TimeoutError) as error:
            raise KafkaError(f"the brokers do not say where partitions end: {error}") from None
