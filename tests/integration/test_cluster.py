"""The local Kafka as its users meet it: real brokers, real clients, real faults."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from infra.cluster import region

pytestmark = pytest.mark.kafka

WAIT_S = 30.0


def make_topic(bootstrap: str, name: str, **options: Any) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, 1, **options)])[name].result(WAIT_S)


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 5_000_000})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(WAIT_S) == 0


def consume(bootstrap: str, topic: str, group: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
    with contextlib.closing(consumer):
        consumer.subscribe([topic])
        messages = consumer.consume(count, timeout=WAIT_S)
        assert [message.error() for message in messages] == [None] * count
        return [message.value() for message in messages]


def test_a_client_reads_what_it_wrote(kafka: Any) -> None:
    make_topic(kafka.bootstrap, "cluster-echo")
    produce(kafka.bootstrap, "cluster-echo", [b"one", b"two"])
    assert consume(kafka.bootstrap, "cluster-echo", kafka.new_group(), 2) == [b"one", b"two"]


def test_clients_find_the_running_region(kafka: Any) -> None:
    assert region.bootstrap(kafka.settings) == kafka.bootstrap
