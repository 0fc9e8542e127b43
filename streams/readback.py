"""Reads whole topics, from their beginnings to where they end now: for audits, tests and drills."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition
from confluent_kafka import KafkaError as ClientError

from schemas.errors import KafkaError

CHUNK_RECORDS: Final = 10_000
METADATA_TIMEOUT_S: Final = 10.0
SILENCE_MAX_S: Final = 30.0


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """Partition numbers of a topic. Raises `KafkaError` when it or the cluster is not there."""
    try:
        found = consumer.list_topics(topic, timeout=METADATA_TIMEOUT_S).topics[topic]
    except KafkaException as error:
        raise KafkaError(f"Kafka does not answer: {error.args[0].str()}") from None
    if found.error is not None:
        raise KafkaError(f"no topic {topic}: {found.error.str()}")
    return sorted(found.partitions)


def read_topic(config: dict[str, Any], topic: str) -> Iterator[Message]:
    """All records of a topic up to its present end, in order within each partition.

    Raises `KafkaError` when the topic is not there or the brokers fall silent.
    """
    consumer = Consumer(config | {"enable.partition.eof": True, "fetch.wait.max.ms": 50})
    try:
        partitions = partitions_of(consumer, topic)
        consumer.assign(
            [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions]
        )
        left = set(partitions)
        heard_at = time.monotonic()
        while left:
            messages = consumer.consume(CHUNK_RECORDS, 0.1)
            if messages:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENCE_MAX_S:
                raise KafkaError(f"no records of {topic} for {SILENCE_MAX_S:.0f} s")
            for message in messages:
                error = message.error()
                if error is None:
                    if message.partition() in left:
                        yield message
                elif error.code() == ClientError._PARTITION_EOF:
                    left.discard(message.partition())
                else:
                    raise KafkaError(f"reading {topic}: {error.str()}")
    finally:
        consumer.close()
