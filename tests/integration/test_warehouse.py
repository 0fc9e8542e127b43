"""Kafka into ClickHouse and back, as commands: what arrives, who may ask, and what goes wrong."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import harness
import pytest
from clickhouse_fake import fake_clickhouse
from confluent_kafka.admin import AdminClient, NewTopic
from conftest import LocalKafka, free_base_port
from warehouse_runs import CODEC, Shop, SinkProcess, assert_exactly, wait_rows

from infra.warehouse.owner import owner_of
from infra.warehouse.store import connect, warehouse_folder
from schemas.errors import WarehouseError
from schemas.topics import ALERTS, CLICKS, DEAD_LETTERS, DRILLS, MODELS
from streams.readback import read_topic
from streams.settings import Settings

COMMAND_TIMEOUT_S = 120
pytestmark = pytest.mark.kafka


@pytest.fixture
def shop(fresh_kafka: LocalKafka) -> LocalKafka:
    """A Kafka with all topics, and `west.clicks` as a mirror would make it."""
    harness.create_topics(fresh_kafka.bootstrap, fresh_kafka.settings)
    admin = AdminClient({"bootstrap.servers": fresh_kafka.bootstrap})
    for made in admin.create_topics([NewTopic("west.clicks", 2, 1)]).values():
        made.result(20)
    return fresh_kafka


def headrace(shop: LocalKafka, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A command, to its end."""
    environment = {
        **os.environ,
        "HEADRACE_BOOTSTRAP": shop.bootstrap,
        "HEADRACE_HOME": str(shop.settings.home),
        "HEADRACE_PEERS": '["west"]',
        **more,
    }
    return subprocess.run(
        [sys.executable, "-m", "infra.cli", *arguments],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )


def fault_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command that failed has said."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("headrace: ")]
    assert done.returncode != 0
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.fixture
def sink(shop: LocalKafka, tmp_path: Path) -> Iterator[SinkProcess]:
    """A sink that is stopped at the end."""
    process = SinkProcess(shop.settings, shop.bootstrap, tmp_path / "sink.log")
    yield process
    process.stop()


def send(shop: LocalKafka, topic: str, *values: bytes | None, key: bytes = b"k") -> None:
    sender = Shop(shop.bootstrap, 1)
    for value in values:
        sender.producer.produce(topic, value, key)
    sender.flush()


def test_all_topics_arrive_and_a_rebuild_gives_the_same(shop: LocalKafka) -> None:
    sender = Shop(shop.bootstrap, 5)
    sender.send(500)
    click = sender.pair()[0]
    for topic, value in (
        ("west.clicks", CODEC.encode("Click", click)),
        # The mirror repeats itself, and a poisoned click is somebody else's business.
        ("west.clicks", CODEC.encode("Click", click)),
        (CLICKS.name, b"poison"),
        (CLICKS.name, None),
    ):
        sender.producer.produce(topic, value, b"k")
    sender.flush()
    alert = {"subject": "ann", "kind": "churn", "message": "gone", "raised_at": 1_700_000_000_000}
    send(shop, ALERTS.name, CODEC.encode("Alert", alert), b"junk")
    rejected = {
        "reason": "magic",
        "topic": "clicks",
        "partition": 3,
        "offset": 9,
        "value": b"\xff\0",
        "rejected_at": 1_700_000_000_000,
    }
    send(shop, DEAD_LETTERS.name, *[CODEC.encode("Rejected", rejected)] * 2)
    model = {
        "model": "shop",
        "version": "7",
        "uri": "/m",
        "sha256": "0",
        "contract": "1",
        "metric_names": ["recall"],
        "metric_values": [0.5],
        "announced_at": 1_700_000_000_000,
    }
    send(shop, MODELS.name, CODEC.encode("ModelAnnouncement", model), None, key=b"shop")
    drill = {
        "drill_id": "d1",
        "name": "kill",
        "region": "west",
        "seed": 1,
        "verdict": "pass",
        "measure_names": ["recovery_s"],
        "measure_values": [2.5],
        "started_at": 1_700_000_000_000,
        "ended_at": 1_700_000_009_000,
    }
    send(shop, DRILLS.name, CODEC.encode("DrillResult", drill))

    done = headrace(shop, "warehouse", "run", "--once", "--json")
    assert done.returncode == 0, done.stderr
    for turn in ("first", "rebuilt"):
        if turn == "rebuilt":
            again = headrace(shop, "warehouse", "rebuild")
            assert again.returncode == 0, again.stderr
        assert tables(shop.settings) == EXPECTED
    assert headrace(shop, "warehouse", "migrate", "--check").returncode == 0


EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "SELECT region, sink, count(), uniqExact(event_id) FROM clicks FINAL GROUP BY ALL ORDER BY 1": [
        ("east", "east", 500, 500),
        ("west", "east", 1, 1),
    ],
    "SELECT count(), uniqExact(event_id) FROM recommendations": [(500, 500)],
    "SELECT region, sum(clicks) FROM clicks_minute GROUP BY region ORDER BY 1": [
        ("east", 500),
        ("west", 2),
    ],
    "SELECT sum(answers) FROM answers_hour": [(500,)],
    "SELECT subject, kind, message, value, region FROM alerts": [
        ("ann", "churn", "gone", None, "east")
    ],
    "SELECT reason, origin_topic, origin_partition, origin_offset, hex(value) FROM dead_letters FINAL": [
        ("magic", "clicks", 3, 9, "FF00")
    ],
    "SELECT sum(letters) FROM rejections_hour": [(2,)],
    "SELECT model, version, metric_values FROM models ORDER BY kafka_offset": [
        ("shop", "7", [0.5]),
        ("shop", "", []),
    ],
    "SELECT drill_id, region, sink, measure_names, measure_values FROM drills": [
        ("d1", "west", "east", ["recovery_s"], [2.5])
    ],
}


def tables(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    with connect(settings) as store:
        return {
            sql: [tuple(row.values()) for row in store.query(sql).to_pylist()] for sql in EXPECTED
        }


def test_history_is_played_back_under_its_own_ids(shop: LocalKafka) -> None:
    sender = Shop(shop.bootstrap, 6)
    sender.send(300, answered=False)
    sender.flush()
    assert headrace(shop, "warehouse", "run", "--once").returncode == 0
    done = headrace(shop, "clicks", "replay", "--from-warehouse", "--to", "west.clicks")
    assert done.returncode == 0, done.stderr
    config = harness.read_config(shop.settings, shop.bootstrap)

    def clicks(topic: str) -> list[dict[str, Any]]:
        found = [CODEC.decode("Click", one.value()) for one in read_topic(config, topic)]
        return sorted(found, key=lambda one: str(one["event_id"]))

    assert clicks("west.clicks") == clicks(CLICKS.name)
    assert "give either FILE or" in headrace(shop, "clicks", "replay").stderr


def test_the_owner_answers_others_and_only_questions(shop: LocalKafka, sink: SinkProcess) -> None:
    sender = Shop(shop.bootstrap, 7)
    sender.send(200)
    sender.flush()
    sink.start()
    sink.wait_ready()
    wait_rows(shop.settings, "clicks", 200)
    wait_rows(shop.settings, "recommendations", 200)
    owner = owner_of(warehouse_folder(shop.settings))
    assert owner is not None
    with connect(shop.settings) as store:
        assert f"process {owner.pid}" in store.where
        row = store.query(
            "SELECT {a:String} AS a, {b:Array(String)} AS b, {n:UInt32} AS n, count() AS c FROM clicks",
            {"a": "it's\t\\", "b": ["x'y", "z"], "n": 3},
        ).to_pylist()
        assert row == [{"a": "it's\t\\", "b": ["x'y", "z"], "n": 3, "c": 200}]
        for sql in ("DROP TABLE clicks", "INSERT INTO models (model) VALUES ('x')", "SELEC 1"):
            with pytest.raises(WarehouseError, match="Code: "):
                store.query(sql)

    def over_http(query: str, key: str) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{owner.port}/?default_format=CSV",
            query.encode(),
            {"X-ClickHouse-Key": key},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return str(response.read().decode())

    assert over_http("SELECT count() FROM clicks", owner.key) == "200\n"
    with pytest.raises(HTTPError, match="403"):
        over_http("SELECT 1", "guessed")
    for command in (["run"], ["migrate"], ["rebuild"]):
        said = fault_of(headrace(shop, "warehouse", *command))
        assert f"belongs to process {owner.pid} (warehouse run, since" in said
    done = headrace(shop, "warehouse", "status")
    assert "           200 clicks" in done.stdout
    assert sink.terminate() == 0
    assert_exactly(shop.settings, 200)


def test_a_server_that_refuses_is_down_or_comes_back(
    shop: LocalKafka, sink: SinkProcess, tmp_path: Path
) -> None:
    port, folder = free_base_port(), tmp_path / "server" / "data"
    folder.parent.mkdir()
    where = {
        "HEADRACE_WAREHOUSE_URL": f"http://127.0.0.1:{port}",
        "HEADRACE_WAREHOUSE_PASSWORD": "right",
    }
    said = fault_of(headrace(shop, "warehouse", "query", "SELECT 1", **where))
    assert "does not answer" in said
    sender = Shop(shop.bootstrap, 8)
    served = SinkProcess(shop.settings, shop.bootstrap, tmp_path / "served.log", **where)
    try:
        with fake_clickhouse(folder, port, "right"):
            wrong = {**where, "HEADRACE_WAREHOUSE_PASSWORD": "wrong"}
            said = fault_of(headrace(shop, "warehouse", "run", **wrong))
            assert "refuses the user or password" in said
            served.start()
            sender.send(400)
            sender.flush()
            served.wait_said("reading")
            time.sleep(random.Random(8).uniform(0.5, 2.0))
        # Killed, the server; what is sent meanwhile waits in Kafka.
        sender.send(400)
        sender.flush()
        served.wait_said("paused: ")
        with fake_clickhouse(folder, port, "right"):
            served.wait_said("resumed")
            server = shop.settings.model_copy(
                update={
                    "warehouse_url": where["HEADRACE_WAREHOUSE_URL"],
                    "warehouse_password": type(shop.settings.warehouse_password)("right"),
                }
            )
            wait_rows(server, "clicks", 800)
            wait_rows(server, "recommendations", 800)
            assert served.terminate() == 0
            assert_exactly(server, 800)
    finally:
        served.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="a small tmpfs takes root to mount")
def test_a_full_disk_is_waited_out(shop: LocalKafka, sink: SinkProcess, tmp_path: Path) -> None:
    mount = shop.settings.home / "warehouse-disk"
    mount.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(mount)], check=False
    ).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        small = shop.settings.model_copy(update={"home": mount})
        process = SinkProcess(small, shop.bootstrap, tmp_path / "small.log")
        sender = Shop(shop.bootstrap, 9)
        try:
            sender.send(100)
            sender.flush()
            process.start()
            process.wait_ready()
            wait_rows(small, "clicks", 100)
            ballast = mount / "ballast"
            with ballast.open("wb") as file:
                try:
                    while True:
                        file.write(bytes(64 * 1024))
                        file.flush()
                except OSError:
                    pass
            sender.send(3_000)
            sender.flush()
            process.wait_said("paused: ")
            assert "space left" in process.log_tail()
            ballast.unlink()
            process.wait_said("resumed")
            wait_rows(small, "clicks", 3_100)
            wait_rows(small, "recommendations", 3_100)
            assert process.terminate() == 0
            assert_exactly(small, 3_100)
        finally:
            process.stop()
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_folders_that_are_none_and_topics_made_anew(shop: LocalKafka, tmp_path: Path) -> None:
    said = fault_of(headrace(shop, "warehouse", "query", "SELECT 1"))
    assert "`headrace warehouse run` makes one" in said
    (tmp_path / "file").write_text("")
    said = fault_of(headrace(shop, "warehouse", "migrate", HEADRACE_HOME=str(tmp_path / "file")))
    assert "cannot be used" in said
    said = fault_of(headrace(shop, "warehouse", "migrate", HEADRACE_WAREHOUSE_URL="ftp://x"))
    assert "is no http://host:port" in said


def test_clickhouse_reads_the_topics_itself(shop: LocalKafka, tmp_path: Path) -> None:
    sender = Shop(shop.bootstrap, 11)
    sender.send(300)
    sender.flush()
    send(shop, CLICKS.name, b"poison", b"\0\0\0\0\1half")
    program = Path(__file__).parents[1] / "kafka_engine.py"
    done = subprocess.run(
        [sys.executable, str(program), shop.bootstrap, str(tmp_path / "db"), "300", "300", "2"],
        capture_output=True,
        check=False,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    assert done.stdout.splitlines()[-1:] == ["fine"], done.stdout + done.stderr
