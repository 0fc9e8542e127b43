"""Topics on a real Kafka: created once, drift reported, fixed where that is safe."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cli_runner
import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)
from conftest import LocalKafka

from schemas.errors import KafkaError
from streams.clicks.replay import open_producer
from streams.settings import load_settings
from streams.topics_admin import create_topics

pytestmark = pytest.mark.kafka


def test_the_life_of_the_topics(fresh_kafka: LocalKafka, tmp_path: Path) -> None:
    where = fresh_kafka.bootstrap
    settings = load_settings(bootstrap=where, partitions=4, group="shop")
    admin = AdminClient({"bootstrap.servers": where})

    file = tmp_path / "c.csv"
    file.write_text("user,item,time\nu,i,1700000000\n")
    early = cli_runner.run(where, "clicks", "replay", file)
    assert early.returncode == 1
    assert (
        early.stderr.strip()
        == f"headrace: topic clicks does not exist at {where}: run `headrace topics create`"
    )

    # Two at once: both succeed, and each topic is created by one of them.
    with ThreadPoolExecutor(2) as pool:
        reports = list(
            pool.map(
                lambda _: create_topics(AdminClient({"bootstrap.servers": where}), settings),
                range(2),
            )
        )
    created = [name for report in reports for name in report.created]
    assert len(created) == len(set(created)) == 8
    assert not any(report.drifted for report in reports)
    open_producer(settings, where)

    again = cli_runner.run(where, "topics", "create", partitions=4, group="shop")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.count("is there") == 8
    listed = cli_runner.run(where, "topics", "list", partitions=4, group="shop").stdout
    assert "shop-windows-changelog" in listed
    assert "clicks" in listed
    assert "missing" not in listed

    _set(admin, "clicks", "retention.ms", "60000")
    _done(admin.create_partitions([NewPartitions("shop-windows-changelog", 6)]))
    drifted = cli_runner.run(where, "topics", "create", partitions=4, group="shop")
    assert drifted.returncode == 3
    assert "retention.ms" in drifted.stdout
    assert "604800000" in drifted.stdout
    assert "Kafka cannot remove partitions" in drifted.stdout
    fixed = cli_runner.run(where, "topics", "create", "--fix", partitions=4, group="shop")
    assert fixed.returncode == 3, "the partitions still differ"
    assert "fixed" in fixed.stdout
    report = create_topics(admin, settings)
    assert [(topic.name, [one.what for one in topic.differences]) for topic in report.drifted] == [
        ("shop-windows-changelog", ["partitions"])
    ]

    # More partitions are wanted: added to what has no keys with a place, refused for the others.
    more = load_settings(bootstrap=where, partitions=6, group="shop")
    report = create_topics(admin, more, fix=True)
    assert {topic.name for topic in report.drifted} == {"clicks", "recommendations"}
    assert all("never added here" in topic.differences[0].advice for topic in report.drifted)
    assert len(admin.list_topics(timeout=10).topics["clicks"].partitions) == 4


def test_no_kafka_is_told_in_time() -> None:
    done = cli_runner.run("127.0.0.1:9", "topics", "create")
    assert done.returncode == 1
    assert done.stderr.startswith("headrace: Kafka at 127.0.0.1:9 does not answer within 5 s")
    assert len(done.stderr.splitlines()) == 1
    with pytest.raises(KafkaError, match=r"127\.0\.0\.1:9 does not answer"):
        open_producer(load_settings(), "127.0.0.1:9")


def _set(admin: AdminClient, topic: str, key: str, value: str) -> None:
    entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
    _done(
        admin.incremental_alter_configs(
            [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]
        )
    )


def _done(futures: dict[Any, Any]) -> None:
    for future in futures.values():
        future.result(timeout=20)
