"""When a region is ready: every broker is seen, every partition is led, and a topic can be made."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from infra.cluster.broker import answers, last_error
from infra.cluster.layout import OFFSETS_PARTITIONS, Layout
from schemas.errors import ClusterError

# Two seconds on an idle machine; this is for one that is busy beyond reason.
READY_TIMEOUT_S: Final = 120.0
POLL_S: Final = 0.05
REQUEST_TIMEOUT_S: Final = 5.0

# Made by us instead of by the first consumer, which so need not wait for it; the settings are
# those that a broker gives it.
OFFSETS_TOPIC: Final = "__consumer_offsets"
OFFSETS_CONFIG: Final = {
    "cleanup.policy": "compact",
    "segment.bytes": "104857600",
    "compression.type": "producer",
}


def quiet_logger() -> logging.Logger:
    """A logger that keeps librdkafka's complaints about dead brokers off the terminal."""
    logger = logging.getLogger("headrace.librdkafka")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
    return logger


def local_client(bootstrap: str) -> dict[str, Any]:
    """Configuration of a client of a local region, which finds a broker again fast."""
    return {
        "bootstrap.servers": bootstrap,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
        "socket.timeout.ms": 6_000,
    }


def wait_ready(
    place: Layout,
    children: Mapping[int, subprocess.Popen[bytes]],
    log_offsets: Mapping[int, int],
    timeout_s: float = READY_TIMEOUT_S,
) -> None:
    """Return when the region is ready; raise `ClusterError` when a broker ends or time is up.

    `log_offsets` says where in each broker's log this start begins, in bytes.
    """
    deadline = time.monotonic() + timeout_s
    while not all(answers(place.port(index)) for index in range(place.brokers)):
        _check(place, children, log_offsets, deadline, "a broker does not answer")
        time.sleep(POLL_S)
    admin = AdminClient(local_client(place.bootstrap) | {"logger": quiet_logger()})
    reason = "no broker was asked yet"
    while reason:
        _check(place, children, log_offsets, deadline, reason)
        reason = _lacking(admin, place)
        if reason:
            time.sleep(POLL_S)


def _check(
    place: Layout,
    children: Mapping[int, subprocess.Popen[bytes]],
    log_offsets: Mapping[int, int],
    deadline: float,
    reason: str,
) -> None:
    for index, child in children.items():
        code = child.poll()
        if code is not None:
            log = place.log(index)
            raise ClusterError(
                f"broker {index} of region {place.region} ended with code {code} while starting: {last_error(log, log_offsets[index])} (log: {log})"
            )
    if time.monotonic() >= deadline:
        raise ClusterError(
            f"region {place.region} is not ready in time ({reason}): try again when the machine is less busy, "
            f"or look into {place.folder}/broker-*/log/server.log"
        )


def _lacking(admin: AdminClient, place: Layout) -> str:
    """What the region still lacks to be ready; empty when nothing."""
    try:
        metadata = admin.list_topics(timeout=REQUEST_TIMEOUT_S)
        if len(metadata.brokers) < place.brokers:
            return f"{len(metadata.brokers)} of {place.brokers} brokers have joined"
        if OFFSETS_TOPIC not in metadata.topics:
            replication = 3 if place.brokers >= 3 else 1
            topic = NewTopic(
                OFFSETS_TOPIC, OFFSETS_PARTITIONS, replication, config=dict(OFFSETS_CONFIG)
            )
            admin.create_topics([topic], request_timeout=REQUEST_TIMEOUT_S)[OFFSETS_TOPIC].result(
                REQUEST_TIMEOUT_S * 2
            )
            return "its first topic was just made"
    except (KafkaException, TimeoutError) as error:
        return str(error)
    leaderless = sum(
        1
        for topic in metadata.topics.values()
        for partition in topic.partitions.values()
        if partition.leader < 0
    )
    return f"{leaderless} partitions have no leader yet" if leaderless else ""
