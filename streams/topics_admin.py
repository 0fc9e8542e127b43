"""The topics as declared against the topics as they are: create what is missing, report what drifts.

Nothing here changes a topic that exists unless asked to, and partitions of topics whose keys
decide where state lives are never added at all: a shopper's clicks would go to another partition
than the shopper's state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from schemas.topics import ALERTS, DEAD_LETTERS, DRILLS, TOPICS, changelog_topic
from streams.settings import Settings

# How long one request may take; a first connection needs a second or two.
REQUEST_TIMEOUT_S: Final = 5.0
# How long creation may take in all, with brokers that are still registering.
CREATE_TIMEOUT_S: Final = 30.0
_PAUSE_S: Final = 0.1
_REPLICAS: Final = 3
# A restore reads the whole changelog: small segments and an eager cleaner keep it near one record
# a shopper. 16 MB is far above Kafka's least segment (1 MB) and rolls within minutes of traffic.
_CHANGELOG_CONFIG: Final = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 * 1024 * 1024),
    "min.cleanable.dirty.ratio": "0.1",
}
# Topics in which more partitions harm nobody: neither state nor compaction depends on the key's place.
_MAY_GROW: Final = frozenset({ALERTS.name, DEAD_LETTERS.name, DRILLS.name})
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


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """One topic as it must be, with all numbers settled."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing about a topic that is not as declared. `fixed`: it now is."""

    what: str
    wanted: str
    found: str
    advice: str = ""
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic after the run. `created`: it was not there before."""

    name: str
    partitions: int
    replication: int
    created: bool = False
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicReport:
    """All topics after the run."""

    topics: tuple[TopicState, ...] = field(default=())

    @property
    def created(self) -> tuple[str, ...]:
        """Names of the topics that this run created."""
        return tuple(topic.name for topic in self.topics if topic.created)

    @property
    def drifted(self) -> tuple[TopicState, ...]:
        """Topics that still are not as declared."""
        return tuple(
            topic
            for topic in self.topics
            if any(not difference.fixed for difference in topic.differences)
        )


def wanted_topics(settings: Settings, brokers_count: int) -> tuple[WantedTopic, ...]:
    """All topics of a region, and the workers' changelog, for a cluster of so many brokers."""
    replication = settings.replication or (_REPLICAS if brokers_count >= _REPLICAS else 1)
    durable = {"min.insync.replicas": "2" if replication >= _REPLICAS else "1"}
    declared = [
        WantedTopic(
            topic.name,
            topic.partitions or settings.partitions,
            replication,
            topic.config() | durable,
        )
        for topic in TOPICS
    ]
    changelog = WantedTopic(
        changelog_topic(settings.group),
        settings.partitions,
        replication,
        _CHANGELOG_CONFIG | durable,
    )
    return (*declared, changelog)


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
                _replication(metadata.topics[topic.name]),
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


def _replication(topic: Any) -> int:
    return min((len(partition.replicas) for partition in topic.partitions.values()), default=0)


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


def compare(
    wanted: Iterable[WantedTopic], metadata: Any, configs: Mapping[str, Mapping[str, str]]
) -> dict[str, list[Difference]]:
    """Topic name -> what is not as declared."""
    found: dict[str, list[Difference]] = {}
    for topic in wanted:
        there = metadata.topics[topic.name]
        differences: list[Difference] = []
        if len(there.partitions) != topic.partitions:
            differences.append(
                Difference(
                    "partitions",
                    str(topic.partitions),
                    str(len(there.partitions)),
                    _partition_advice(topic, len(there.partitions)),
                )
            )
        if _replication(there) != topic.replication:
            differences.append(
                Difference(
                    "replication",
                    str(topic.replication),
                    str(_replication(there)),
                    "move replicas with kafka-reassign-partitions, or set HEADRACE_REPLICATION",
                )
            )
        for key, value in topic.config.items():
            has = configs[topic.name].get(key, "")
            if not _same(key, value, has):
                differences.append(
                    Difference(key, value, has, "`headrace topics create --fix` sets it")
                )
        if differences:
            found[topic.name] = differences
    return found


def _same(key: str, wanted: str, found: str) -> bool:
    if key == "cleanup.policy":
        return set(wanted.split(",")) == set(found.split(","))
    try:
        return float(wanted) == float(found)
    except ValueError:
        return wanted == found


def _partition_advice(topic: WantedTopic, found: int) -> str:
    if found > topic.partitions:
        return "Kafka cannot remove partitions: raise HEADRACE_PARTITIONS, or delete the topic"
    if topic.name in _MAY_GROW:
        return "`headrace topics create --fix` adds them"
    return (
        "never added here, since keys would move away from their state or their older records: "
        "set HEADRACE_PARTITIONS to what is there, or create the topic anew and replay into it"
    )


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
        grows = one.what == "partitions" and name in _MAY_GROW and int(one.found) < int(one.wanted)
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
