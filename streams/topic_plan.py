"""The topics as declared, with all numbers settled, and what differs from them in a cluster.

Values only: `streams.topics_admin` talks to Kafka.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.topics import ALERTS, DEAD_LETTERS, DRILLS, TOPICS, changelog_topic
from streams.settings import Settings

_REPLICAS: Final = 3
# A restore reads the whole changelog: small segments and an eager cleaner keep it near one record
# a shopper. 16 MB is far above Kafka's least segment (1 MB) and rolls within minutes of traffic.
_CHANGELOG_CONFIG: Final = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 * 1024 * 1024),
    "min.cleanable.dirty.ratio": "0.1",
}
# Topics in which more partitions harm nobody: neither state nor compaction depends on the key's place.
MAY_GROW: Final = frozenset({ALERTS.name, DEAD_LETTERS.name, DRILLS.name})


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
        if replication_of(there) != topic.replication:
            differences.append(
                Difference(
                    "replication",
                    str(topic.replication),
                    str(replication_of(there)),
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
    if topic.name in MAY_GROW:
        return "`headrace topics create --fix` adds them"
    return (
        "never added here, since keys would move away from their state or their older records: "
        "set HEADRACE_PARTITIONS to what is there, or create the topic anew and replay into it"
    )


def replication_of(topic: Any) -> int:
    return min((len(partition.replicas) for partition in topic.partitions.values()), default=0)
