"""What `headrace status` reports: one section after another, each from its own source.

A section is a function of a `View` that returns plain JSON values. The list `SECTIONS` at the end
is the whole report; a new part of the system (workers, mirrors) adds its function there, and a
table for people in `infra.cluster.tables`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.cluster.broker import answers
from infra.cluster.layout import region_folder
from infra.cluster.ready import local_client, quiet_logger
from infra.cluster.region import bootstrap, layout_of
from infra.cluster.state import FILE, RegionState, read_state
from schemas.errors import ClusterError
from streams.kafka import client_config
from streams.settings import Settings

# Each question to the cluster waits no longer; a report has about five of them.
REQUEST_TIMEOUT_S: Final = 4.0
# State of a group that no consumer has joined yet.
ABSENT: Final = "absent"

Json = dict[str, Any]


@dataclass(slots=True)
class View:
    """One region as seen at one moment; sections fill `problems`, and none means healthy."""

    settings: Settings
    state: RegionState | None
    bootstrap: str
    admin: AdminClient | None = None
    metadata: Any = None
    problems: list[str] = field(default_factory=list)


Section = Callable[[View], Any]


def known_regions(settings: Settings) -> list[str]:
    """Regions that have a folder under the home; at least the one of `settings`."""
    home = region_folder(settings).parent
    return sorted(path.parent.name for path in home.glob(f"*/{FILE}")) or [settings.region]


def report(settings: Settings) -> Json:
    """The whole report about the region of `settings`; it never raises for a cluster that is down."""
    view = _look(settings)
    content = {name: section(view) for name, section in SECTIONS}
    return {
        "region": settings.region,
        "bootstrap": view.bootstrap,
        "up": view.metadata is not None,
        "healthy": not view.problems,
        "problems": view.problems,
        **content,
    }


def _look(settings: Settings) -> View:
    """Ask the cluster for its metadata once; the sections work from that."""
    if settings.bootstrap:
        view = View(settings, None, settings.bootstrap)
    else:
        try:
            state = read_state(region_folder(settings))
            view = View(settings, state, bootstrap(settings))
        except ClusterError as error:
            return View(settings, None, "", problems=[str(error)])
        if state is None:
            view.problems.append("it was never started here")
            return view
        if not any(state.living()):
            view.problems.append("no broker runs")
            return view
    view.admin = AdminClient(_client(view))
    try:
        view.metadata = view.admin.list_topics(timeout=REQUEST_TIMEOUT_S)
    except KafkaException as error:
        view.problems.append(f"the cluster does not answer: {error.args[0].str()}")
    return view


def _client(view: View) -> dict[str, Any]:
    """Configuration of a client of this region; a local one needs no security."""
    settings = view.settings
    config = (
        client_config(settings, view.bootstrap)
        if settings.bootstrap
        else local_client(view.bootstrap)
    )
    return config | {"logger": quiet_logger()}


def brokers(view: View) -> list[Json]:
    """Every broker: its process where it is ours, and whether the cluster counts it in."""
    seen = {broker.id: broker for broker in view.metadata.brokers.values()} if view.metadata else {}
    if view.state is None:
        return [
            {
                "node": node,
                "host": one.host,
                "port": one.port,
                "pid": None,
                "up": True,
                "rss_bytes": None,
                "log": None,
            }
            for node, one in sorted(seen.items())
        ]
    place = layout_of(view.settings, view.state)
    rows = []
    for index, process in enumerate(view.state.living()):
        # A process that is frozen, or that the others have not let in yet, is not up.
        up = process is not None and index + 1 in seen and answers(place.port(index))
        rows.append(
            {
                "node": index + 1,
                "host": "127.0.0.1",
                "port": place.port(index),
                "pid": process.pid if process else None,
                "up": up,
                "rss_bytes": _rss_bytes(process),
                "log": str(place.log(index)),
            }
        )
    dead = [str(row["node"]) for row in rows if not row["up"]]
    if dead and len(dead) < len(rows):
        view.problems.append(f"broker(s) {', '.join(dead)} are down")
    return rows


def controller(view: View) -> int | None:
    """Node of the active controller.

    Clients are told any broker instead, so a local region's own quorum files are read; a remote
    cluster's controller stays unknown.
    """
    if view.state is None or view.metadata is None:
        return None
    place = layout_of(view.settings, view.state)
    votes = [_quorum(place.data(index)) for index in range(place.brokers)]
    epoch, leader = max(votes, default=(-1, -1))
    return leader if epoch >= 0 and leader >= 0 else None


def topics(view: View) -> list[Json]:
    """Every topic with its partitions, replicas, and those that lack something."""
    rows = []
    for name, topic in sorted(view.metadata.topics.items()) if view.metadata else ():
        partitions = list(topic.partitions.values())
        rows.append(
            {
                "topic": name,
                "partitions": len(partitions),
                "replicas": max((len(one.replicas) for one in partitions), default=0),
                "under_replicated": sum(len(one.isrs) < len(one.replicas) for one in partitions),
                "leaderless": sum(one.leader < 0 for one in partitions),
            }
        )
    for key, words in (("under_replicated", "lack replicas"), ("leaderless", "have no leader")):
        count = sum(row[key] for row in rows)
        if count:
            view.problems.append(f"{count} partition(s) {words}")
    return rows


def group(view: View) -> Json:
    """The workers' consumer group: its state, and its lag by topic; None where unknown.

    Asked of all brokers, and then as a consumer would ask: librdkafka's admin requests to a
    group's coordinator abort the whole process when that connection drops (its issue 4605),
    which is just when somebody asks for the status.
    """
    name = view.settings.group
    row: Json = {"group": name, "state": None, "lag": None, "topics": []}
    if view.metadata is None or view.admin is None:
        return row
    try:
        listed = view.admin.list_consumer_groups(request_timeout=REQUEST_TIMEOUT_S).result(
            REQUEST_TIMEOUT_S + 1
        )
        states = {one.group_id: one.state.name.lower() for one in listed.valid}
        if name in states:
            topics = _lags(view)
            row |= {
                "state": states[name],
                "lag": sum(one["lag"] for one in topics),
                "topics": topics,
            }
        elif listed.errors:
            view.problems.append(f"group {name}: {listed.errors[0]}")
        else:
            row["state"] = ABSENT
    except KafkaException as error:
        view.problems.append(f"group {name}: {error.args[0].str()}")
    except TimeoutError:
        view.problems.append(f"group {name}: its brokers do not answer")
    return row


def _lags(view: View) -> list[Json]:
    """Lag of the group on each topic of which it has committed any offset.

    A partition of such a topic without a committed offset counts from its first record.
    """
    known = [
        TopicPartition(topic, partition)
        for topic, found in view.metadata.topics.items()
        for partition, one in found.partitions.items()
        if not topic.startswith("__") and one.leader >= 0
    ]
    # It never subscribes, so it never joins; it is not closed either, which could hang.
    consumer = Consumer(
        _client(view) | {"group.id": view.settings.group, "enable.auto.commit": False}
    )
    committed = {
        (one.topic, one.partition): one.offset
        for one in consumer.committed(known, timeout=REQUEST_TIMEOUT_S)
    }
    read = {topic for (topic, _), offset in committed.items() if offset >= 0}
    ends = _offsets(consumer, [key for key in committed if key[0] in read], OFFSET_END)
    starts = _offsets(consumer, [key for key in ends if committed[key] < 0], OFFSET_BEGINNING)
    lags: dict[str, Json] = {}
    for key, end in sorted(ends.items()):
        row = lags.setdefault(key[0], {"topic": key[0], "partitions": 0, "lag": 0})
        row["partitions"] += 1
        row["lag"] += max(0, end - starts.get(key, committed[key]))
    return list(lags.values())


def _offsets(
    consumer: Consumer, keys: list[tuple[str, int]], which: int
) -> dict[tuple[str, int], int]:
    """The first or the end offset of partitions; those that do not answer are left out."""
    asked = [TopicPartition(topic, partition, which) for topic, partition in keys]
    found = consumer.offsets_for_times(asked, timeout=REQUEST_TIMEOUT_S) if asked else []
    return {
        (one.topic, one.partition): one.offset
        for one in found
        if one.error is None and one.offset >= 0
    }


def _quorum(data: Path) -> tuple[int, int]:
    """(epoch, leader) that one node last noted."""
    try:
        content = json.loads((data / "__cluster_metadata-0" / "quorum-state").read_text("utf-8"))
        return int(content["leaderEpoch"]), int(content["leaderId"])
    except (OSError, ValueError, KeyError, TypeError):
        return (-1, -1)


def _rss_bytes(process: psutil.Process | None) -> int | None:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss) if process else None
    return None


SECTIONS: Final[tuple[tuple[str, Section], ...]] = (
    ("brokers", brokers),
    ("controller", controller),
    ("topics", topics),
    ("group", group),
)
