"""The topics as declared against the topics as they are: create what is missing, report what drifts.

Nothing here changes a topic that exists unless asked to, and partitions of topics whose keys
decide where state lives are never added at all: a shopper's clicks would go to another partition
than the shopper's state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from schemas.errors import KafkaError
from streams.settings import Settings
from streams.topic_plan import (
    MAY_GROW,
    Difference,
    TopicReport,
    TopicState,
    WantedTopic,
    compare,
    replication_of,
    wanted_topics,
)

# How long one request may take; a first connection needs a second or two.
REQUEST_TIMEOUT_S: Final = 5.0
# How long creation may take in all, with brokers that are still registering.
CREATE_TIMEOUT_S: Final = 30.0
_PAUSE_S: Final = 0.1
# Errors of a cluster that is starting or electing; trying again helps.
_PASSING: Final = frozenset(
    {
        ClientError.INVALID_REPLICATION_FACTOR,
        ClientError.NOT_CONTROLLER,
        ClientError.REQUEST_TIMED_OUT,
        ClientError.BROKER_NOT_AVAILABLE,
        ClientError._TRANSPORT,
        ClientError._TIMED_OUT,
        ClientError._ALL_BROKERS_DOWN,
    }
)


def create_topics(
    admin: AdminClient,
    settings: Settings,
    *,
    fix: bool = False,
    timeout_s: float = CREATE_TIMEOUT_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> TopicReport:
    """Create the topics that are missing and compare the others; returns when all have leaders.

    With `fix`, configurations are set as declared, and partitions added where that is safe.
    Raises `KafkaError` when the cluster does not answer, or refuses.
    """
    deadline = clock() + timeout_s
    metadata = cluster_metadata(admin, settings.bootstrap)
    wanted = wanted_topics(settings, len(metadata.brokers))
    missing = [topic for topic in wanted if topic.name not in metadata.topics]
    created = _create(admin, missing, deadline, clock, sleep)
    metadata = _await_leaders(admin, wanted, deadline, clock, sleep)
    differences = compare(wanted, metadata, _configs(admin, wanted))
    if fix:
        differences = {name: _fixed(admin, name, found) for name, found in differences.items()}
        metadata = _await_leaders(admin, wanted, deadline, clock, sleep)
    return TopicReport(
        tuple(
            TopicState(
                topic.name,
                len(metadata.topics[topic.name].partitions),
                replication_of(metadata.topics[topic.name]),
                topic.name in created,
                tuple(differences.get(topic.name, ())),
            )
            for topic in wanted
        )
    )


def cluster_metadata(admin: Any, where: str = "", timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
    """Brokers and topics as the cluster sees them. Raises `KafkaError` when it does not answer.

    `admin`: any client; all topics are asked for, since asking for one may create it. `where`:
    its address, for the message.
    """
    try:
        return admin.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise KafkaError(
            f"Kafka{' at ' + where if where else ''} does not answer within {timeout_s:.0f} s "
            f"({error.args[0].str()}): check the address, or start a local region with `headrace up`"
        ) from None


def _create(
    admin: AdminClient,
    missing: Sequence[WantedTopic],
    deadline: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> set[str]:
    created: set[str] = set()
    left = {topic.name: topic for topic in missing}
    while left:
        requests = [
            NewTopic(topic.name, topic.partitions, topic.replication, config=dict(topic.config))
            for topic in left.values()
        ]
        fault = ""
        for name, future in admin.create_topics(
            requests, request_timeout=REQUEST_TIMEOUT_S
        ).items():
            try:
                future.result(timeout=2 * REQUEST_TIMEOUT_S)
                created.add(name)
                del left[name]
            except KafkaException as error:
                reason = error.args[0]
                if reason.code() == ClientError.TOPIC_ALREADY_EXISTS:  # another run was faster
                    del left[name]
                elif reason.code() in _PASSING:
                    fault = reason.str()
                else:
                    raise KafkaError(f"topic {name} cannot be created: {reason.str()}") from None
        if left and clock() >= deadline:
            raise KafkaError(f"topics {', '.join(left)} cannot be created: {fault}")
        if left:
            sleep(_PAUSE_S)
    return created


def _await_leaders(
    admin: AdminClient,
    wanted: Iterable[WantedTopic],
    deadline: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Any:
    while True:
        metadata = cluster_metadata(admin)
        waiting = [
            topic.name for topic in wanted if not _has_leaders(metadata.topics.get(topic.name))
        ]
        if not waiting:
            return metadata
        if clock() >= deadline:
            raise KafkaError(
                f"topics {', '.join(waiting)} have no leader for some of their partitions"
            )
        sleep(_PAUSE_S)


def _has_leaders(topic: Any) -> bool:
    return (
        topic is not None
        and topic.error is None
        and bool(topic.partitions)
        and all(partition.leader >= 0 for partition in topic.partitions.values())
    )


def _configs(admin: AdminClient, wanted: Iterable[WantedTopic]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ResourceType.TOPIC, topic.name) for topic in wanted]
    configs: dict[str, dict[str, str]] = {}
    for resource, future in admin.describe_configs(
        resources, request_timeout=REQUEST_TIMEOUT_S
    ).items():
        try:
            entries = future.result(timeout=2 * REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise KafkaError(
                f"the configuration of topic {resource.name} cannot be read: {error.args[0].str()}"
            ) from None
        configs[resource.name] = {name: entry.value for name, entry in entries.items()}
    return configs


def _fixed(admin: AdminClient, name: str, differences: Sequence[Difference]) -> list[Difference]:
    """The differences, those marked as fixed that could be."""
    result: list[Difference] = []
    settable = {
        one.what: one.wanted for one in differences if one.what not in ("partitions", "replication")
    }
    if settable:
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in settable.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        _done(admin.incremental_alter_configs([resource], request_timeout=REQUEST_TIMEOUT_S), name)
    for one in differences:
        grows = one.what == "partitions" and name in MAY_GROW and int(one.found) < int(one.wanted)
        if grows:
            _done(
                admin.create_partitions(
                    [NewPartitions(name, int(one.wanted))], request_timeout=REQUEST_TIMEOUT_S
                ),
                name,
            )
        fixed = grows or one.what in settable
        result.append(
            Difference(one.what, one.wanted, one.found, "" if fixed else one.advice, fixed)
        )
    return result


def _done(futures: Mapping[Any, Any], name: str) -> None:
    for future in futures.values():
        try:
            future.result(timeout=2 * REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise KafkaError(f"topic {name} cannot be changed: {error.args[0].str()}") from None
