"""Configurations of the Kafka clients, in one place: the same care for every one of them.

Names are librdkafka's. `murmur2_random` is the partitioner of the Java clients, so that every
producer of clicks puts a shopper into the same partition.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from streams.settings import Settings

PARTITIONER: Final = "murmur2_random"
# Dead letters carry whole poisoned records.
MESSAGE_BYTES_MAX: Final = 8 * 1024 * 1024
# About ten clicks, with Kafka's own wrapping: a pass has a fixed cost (cold caches after each
# wait, a model call, a request for each partition) that they share.
LINGER_BYTES: Final = 1536
# Nothing waits for a changelog record but the next commit, which flushes; so they gather into few
# requests. A worker that dies before they are sent folds the same clicks again.
CHANGELOG_LINGER_MS: Final = 100
_client_log = logging.getLogger("librdkafka")


def client_config(settings: Settings, bootstrap: str) -> dict[str, Any]:
    """What every client has: addresses, security, and time-outs that survive a broker's death."""
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "security.protocol": settings.kafka_security,
        # A broker that died without closing its connections is given up after 3 s, and asked
        # again at least every second.
        "socket.timeout.ms": 3000,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1000,
        "socket.nagle.disable": True,
        "topic.metadata.refresh.interval.ms": 5000,
        "log_level": 4,
    }
    if settings.kafka_security.startswith("SASL"):
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_username
        config["sasl.password"] = settings.kafka_password.get_secret_value()
    if settings.kafka_ca_file is not None:
        config["ssl.ca.location"] = str(settings.kafka_ca_file)
    return config


def worker_producer_config(settings: Settings, bootstrap: str) -> dict[str, Any]:
    """The worker's producer: idempotent, acknowledged by all replicas, given up before its session.

    A record that is still queued when the group session has run out must never be sent: by then
    another worker may own the partition, and a late changelog record would hide its newer one.
    """
    return client_config(settings, bootstrap) | {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": PARTITIONER,
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "logger": _client_log,
        "message.timeout.ms": int(1000 * (settings.session_timeout_s - 1)),
        "linger.ms": 1,
        "queue.buffering.max.messages": 200_000,
        "batch.num.messages": 10_000,
        "delivery.report.only.error": True,
        "compression.type": "none",
    }


def changelog_producer_config(settings: Settings, bootstrap: str) -> dict[str, Any]:
    """The producer of changelog records: like the worker's, but in no hurry."""
    return worker_producer_config(settings, bootstrap) | {"linger.ms": CHANGELOG_LINGER_MS}


def fetch_consumer_config(settings: Settings, bootstrap: str) -> dict[str, Any]:
    """A consumer that is told its partitions and never commits by itself."""
    return client_config(settings, bootstrap) | {
        "logger": _client_log,
        # Required by the client; assignment and commits are Faust's.
        "group.id": f"{settings.group}-fetch",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": False,
        "fetch.wait.max.ms": 500,
        "fetch.min.bytes": 1,
        # The queue is drained batch by batch; more than a few batches ahead only costs memory.
        "queued.min.messages": 4 * settings.batch_max,
        "queued.max.messages.kbytes": 16_384,
        "fetch.queue.backoff.ms": 2,
        "fetch.message.max.bytes": MESSAGE_BYTES_MAX,
        "allow.auto.create.topics": False,
        "isolation.level": "read_committed",
    }


def hot_consumer_config(settings: Settings, bootstrap: str) -> dict[str, Any]:
    """The consumer of the hot path: the broker lets clicks gather before it answers.

    It answers when about ten clicks are there or when the linger is over: at high rates at once, at a
    trickle fifty times a second instead of for each click.
    """
    return fetch_consumer_config(settings, bootstrap) | {
        "fetch.wait.max.ms": max(1, int(settings.linger_ms)),
        "fetch.min.bytes": LINGER_BYTES,
    }
