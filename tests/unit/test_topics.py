"""The topic plan, its comparison with a cluster, and creation against a cluster that is not ready."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import KafkaError
from schemas.topics import CLICKS, TOPICS
from streams.settings import Settings, load_settings
from streams.topic_plan import TopicReport, WantedTopic, compare, wanted_topics
from streams.topics_admin import create_topics


def topic(partitions: int, replicas: int = 1, leader: int = 1) -> Any:
    parts = {
        at: SimpleNamespace(leader=leader, replicas=list(range(replicas)))
        for at in range(partitions)
    }
    return SimpleNamespace(error=None, partitions=parts)


@dataclass
class FakeAdmin:
    """The admin client's calls on a cluster in memory. `refusals`: errors of the next creations."""

    brokers: int = 1
    topics: dict[str, Any] = field(default_factory=dict)
    configs: dict[str, dict[str, str]] = field(default_factory=dict)
    refusals: list[int] = field(default_factory=list)
    leaderless_looks: int = 0
    grown: dict[str, int] = field(default_factory=dict)
    requests: int = 0

    def list_topics(self, timeout: float) -> Any:
        if self.leaderless_looks and self.topics:
            self.leaderless_looks -= 1
            return SimpleNamespace(
                brokers=range(self.brokers),
                topics={name: topic(1, leader=-1) for name in self.topics},
            )
        return SimpleNamespace(brokers=range(self.brokers), topics=dict(self.topics))

    def create_topics(self, new: list[Any], request_timeout: float) -> dict[str, Future[None]]:
        self.requests += 1
        answers: dict[str, Future[None]] = {}
        for one in new:
            answers[one.topic] = Future()
            if self.refusals:
                code = self.refusals.pop(0)
                answers[one.topic].set_exception(KafkaException(ClientError(code)))
                if code != ClientError.TOPIC_ALREADY_EXISTS:
                    continue
            else:
                answers[one.topic].set_result(None)
            self.topics[one.topic] = topic(one.num_partitions, one.replication_factor)
            self.configs[one.topic] = dict(one.config)
        return answers

    def describe_configs(
        self, resources: list[Any], request_timeout: float
    ) -> dict[Any, Future[Any]]:
        answers: dict[Any, Future[Any]] = {}
        for resource in resources:
            answers[resource] = Future()
            answers[resource].set_result(
                {
                    name: SimpleNamespace(value=value)
                    for name, value in self.configs[resource.name].items()
                }
            )
        return answers

    def incremental_alter_configs(
        self, resources: list[Any], request_timeout: float
    ) -> dict[Any, Future[None]]:
        for resource in resources:
            self.configs[resource.name] |= {
                one.name: one.value for one in resource.incremental_configs
            }
        return {}

    def create_partitions(self, new: list[Any], request_timeout: float) -> dict[Any, Future[None]]:
        for one in new:
            self.grown[one.topic] = one.new_total_count
            self.topics[one.topic] = topic(one.new_total_count)
        return {}


class World:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def run(admin: FakeAdmin, settings: Settings | None = None, *, fix: bool = False) -> TopicReport:
    world = World()
    return create_topics(
        cast(AdminClient, admin),
        settings or load_settings(partitions=4, group="g"),
        fix=fix,
        clock=world.clock,
        sleep=world.sleep,
    )


def by_name(wanted: tuple[WantedTopic, ...]) -> dict[str, WantedTopic]:
    return {one.name: one for one in wanted}


def test_the_plan_has_every_topic_and_the_changelog() -> None:
    wanted = by_name(wanted_topics(load_settings(partitions=12, group="shop"), 1))
    assert set(wanted) == {one.name for one in TOPICS} | {"shop-windows-changelog"}
    assert wanted["clicks"].partitions == wanted["shop-windows-changelog"].partitions == 12
    assert wanted["catalog"].partitions == 1
    assert wanted["catalog"].config["cleanup.policy"] == "compact"
    assert wanted["shop-windows-changelog"].config["cleanup.policy"] == "compact"
    assert "retention.ms" not in wanted["shop-windows-changelog"].config
    assert wanted["clicks"].config["retention.ms"] == str(CLICKS.retention_ms)
    assert wanted["drills"].config["retention.ms"] == "-1"


@pytest.mark.parametrize(
    ("brokers", "setting", "replicas", "in_sync"),
    [
        (1, 0, 1, "1"),
        (2, 0, 1, "1"),
        (3, 0, 3, "2"),
        (5, 0, 3, "2"),
        (3, 1, 1, "1"),
        (3, 2, 2, "1"),
    ],
)
def test_replicas_follow_the_brokers(
    brokers: int, setting: int, replicas: int, in_sync: str
) -> None:
    for one in wanted_topics(load_settings(replication=setting), brokers):
        assert one.replication == replicas
        assert one.config["min.insync.replicas"] == in_sync


def test_everything_is_created_once() -> None:
    admin = FakeAdmin(brokers=3)
    first = run(admin)
    assert set(first.created) == set(admin.topics)
    assert not first.drifted
    assert {one.replication for one in first.topics} == {3}
    second = run(admin)
    assert second.created == ()
    assert second.topics == tuple(
        type(one)(one.name, one.partitions, one.replication) for one in first.topics
    )
    assert admin.requests == 1


def test_only_what_is_missing_is_created() -> None:
    admin = FakeAdmin()
    run(admin)
    del admin.topics["alerts"]
    assert run(admin).created == ("alerts",)


def test_a_cluster_that_is_starting_is_asked_again() -> None:
    admin = FakeAdmin(
        refusals=[ClientError.INVALID_REPLICATION_FACTOR, ClientError.NOT_CONTROLLER] * 8,
        leaderless_looks=5,
    )
    report = run(admin)
    assert set(report.created) == set(admin.topics)
    assert admin.requests > 1


def test_another_run_that_was_faster_is_no_fault() -> None:
    admin = FakeAdmin(refusals=[ClientError.TOPIC_ALREADY_EXISTS])
    report = run(admin)
    assert TOPICS[0].name not in report.created
    assert not report.drifted


def test_a_refusal_is_told() -> None:
    with pytest.raises(KafkaError, match="topic clicks cannot be created"):
        run(FakeAdmin(refusals=[ClientError.TOPIC_AUTHORIZATION_FAILED]))


def test_it_gives_up_in_time() -> None:
    with pytest.raises(KafkaError, match="cannot be created"):
        run(FakeAdmin(refusals=[ClientError.INVALID_REPLICATION_FACTOR] * 100_000))
    with pytest.raises(KafkaError, match="no leader"):
        run(FakeAdmin(leaderless_looks=100_000))


def test_a_cluster_that_does_not_answer_is_told() -> None:
    class Silent(FakeAdmin):
        def list_topics(self, timeout: float) -> Any:
            raise KafkaException(ClientError(ClientError._TRANSPORT))

    with pytest.raises(KafkaError, match=r"Kafka at there:1 does not answer .* `headrace up`"):
        run(Silent(), load_settings(bootstrap="there:1"))


Change = Callable[[FakeAdmin], None]


def fewer(name: str) -> Change:
    return lambda admin: admin.topics.update({name: topic(1)})


@pytest.mark.parametrize(
    ("name", "change", "what", "advice"),
    [
        (
            "clicks",
            lambda admin: admin.configs["clicks"].update({"retention.ms": "5"}),
            "retention.ms",
            "--fix",
        ),
        (
            "catalog",
            lambda admin: admin.configs["catalog"].update({"cleanup.policy": "delete"}),
            "cleanup.policy",
            "--fix",
        ),
        ("clicks", fewer("clicks"), "partitions", "never added here"),
        ("g-windows-changelog", fewer("g-windows-changelog"), "partitions", "never added here"),
        ("recommendations", fewer("recommendations"), "partitions", "never added here"),
        (
            "clicks",
            lambda admin: admin.topics.update(clicks=topic(9)),
            "partitions",
            "cannot remove",
        ),
        (
            "models",
            lambda admin: admin.topics.update(models=topic(1, 2)),
            "replication",
            "reassign",
        ),
    ],
)
def test_drift_is_found_and_left_alone(name: str, change: Change, what: str, advice: str) -> None:
    admin = FakeAdmin()
    run(admin)
    change(admin)
    before = {key: dict(value) for key, value in admin.configs.items()}
    report = run(admin)
    assert [one.name for one in report.drifted] == [name]
    (difference,) = report.drifted[0].differences
    assert difference.what == what
    assert advice in difference.advice
    assert admin.configs == before
    assert not admin.grown


def test_fix_sets_configurations() -> None:
    admin = FakeAdmin()
    run(admin)
    admin.configs["clicks"] |= {"retention.ms": "5", "max.message.bytes": "7", "not.ours": "x"}
    report = run(admin, fix=True)
    assert not report.drifted
    assert [one.what for one in report.topics[0].differences] == [
        "max.message.bytes",
        "retention.ms",
    ]
    assert all(one.fixed for one in report.topics[0].differences)
    assert admin.configs["clicks"]["not.ours"] == "x"
    assert not run(admin).topics[0].differences


def test_fix_never_adds_partitions_where_keys_have_a_place() -> None:
    admin = FakeAdmin()
    run(admin)
    for name in ("clicks", "recommendations", "g-windows-changelog"):
        admin.topics[name] = topic(2)
    report = run(admin, fix=True)
    assert {one.name for one in report.drifted} == {
        "clicks",
        "recommendations",
        "g-windows-changelog",
    }
    assert not admin.grown


def test_the_order_of_policies_does_not_matter() -> None:
    wanted = WantedTopic(
        "t", 1, 1, {"cleanup.policy": "compact,delete", "min.cleanable.dirty.ratio": "0.1"}
    )
    metadata = SimpleNamespace(topics={"t": topic(1)})
    configs = {"t": {"cleanup.policy": "delete,compact", "min.cleanable.dirty.ratio": "0.10"}}
    assert compare([wanted], metadata, configs) == {}
