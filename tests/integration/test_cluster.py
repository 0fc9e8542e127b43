"""The local Kafka as its users meet it: the real command, real brokers, real clients, real faults."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from infra.cluster import region
from infra.cluster.ports import is_free
from infra.cluster.region import find_brokers
from infra.cluster.status import report
from streams.settings import Settings, load_settings

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_S} s for {what}"
        time.sleep(0.02)


def make_topic(bootstrap: str, name: str, partitions: int = 1, **options: Any) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, partitions, **options)])[name].result(WAIT_S)


def produce(bootstrap: str, topic: str, values: list[bytes], **options: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 5_000_000})
    for value in values:
        producer.produce(topic, value, **options)
    assert producer.flush(WAIT_S) == 0


def consume(bootstrap: str, topic: str, group: str, count: int) -> list[bytes]:
    """Read `count` records and commit them."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"}
    )
    with contextlib.closing(consumer):
        consumer.subscribe([topic])
        messages = consumer.consume(count, timeout=WAIT_S)
        assert [message.error() for message in messages] == [None] * count
        consumer.commit(asynchronous=False)
        return [message.value() for message in messages]


@dataclass
class Laptop:
    """A user at a terminal, with a home folder and ports that nobody else has, and no network."""

    home: Path
    port: int
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.home / "east"

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def settings(self) -> Settings:
        return load_settings(home=self.home, kafka_port=self.port)

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        environment = os.environ | {
            "HEADRACE_HOME": str(self.home),
            "HEADRACE_KAFKA_PORT": str(self.port),
            "HEADRACE_KAFKA_HEAP_MB": "192",
            "HTTPS_PROXY": "http://127.0.0.1:1",
            "HTTP_PROXY": "http://127.0.0.1:1",
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "infra.cli", *arguments]
        child = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home.parent,
        )
        self.started.append(child)
        return child

    def headrace(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Run a command to its end; returns what it printed on stdout and stderr."""
        child = self.spawn(*arguments)
        out, err = child.communicate(timeout=WAIT_S * 2)
        assert child.returncode == code, f"{arguments}: {out}{err}"
        assert "Traceback" not in err
        return out, err

    def status(self, code: int) -> Any:
        out, _ = self.headrace("status", "--json", code=code)
        (found,) = json.loads(out)["regions"]
        return found


@pytest.fixture
def laptop(tmp_path: Path, base_port: Callable[[int], int]) -> Iterator[Laptop]:
    # The user's first start fetched the jars; no later one needs the network.
    region.runtime(load_settings())
    one = Laptop(tmp_path / "home", base_port(3))
    try:
        yield one
    finally:
        for child in one.started:
            child.kill()
            child.communicate(timeout=WAIT_S)
        region.stop(one.settings, wipe=True)


def test_a_client_reads_what_it_wrote(kafka: Any) -> None:
    make_topic(kafka.bootstrap, "cluster-echo")
    produce(kafka.bootstrap, "cluster-echo", [b"one", b"two"])
    assert consume(kafka.bootstrap, "cluster-echo", kafka.new_group(), 2) == [b"one", b"two"]


def test_clients_find_the_running_region(kafka: Any) -> None:
    assert region.bootstrap(kafka.settings) == kafka.bootstrap


def test_the_largest_record_of_ours_fits(kafka: Any) -> None:
    make_topic(kafka.bootstrap, "cluster-large", config={"max.message.bytes": "4300000"})
    produce(kafka.bootstrap, "cluster-large", [os.urandom(4_200_000)])
    assert len(consume(kafka.bootstrap, "cluster-large", kafka.new_group(), 1)[0]) == 4_200_000


def test_a_misspelt_topic_is_not_made(kafka: Any) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "message.timeout.ms": 2000})
    failures: list[Any] = []
    producer.produce(
        "cluster-mispelt", b"", on_delivery=lambda error, message: failures.append(error)
    )
    producer.flush(WAIT_S)
    assert len(failures) == 1
    assert failures[0] is not None
    assert (
        "cluster-mispelt"
        not in AdminClient({"bootstrap.servers": kafka.bootstrap})
        .list_topics(timeout=WAIT_S)
        .topics
    )


def test_the_lag_of_the_workers_is_shown(kafka: Any) -> None:
    group = kafka.new_group()
    make_topic(kafka.bootstrap, "cluster-lag", 3)
    settings = kafka.settings.model_copy(update={"group": group})
    assert report(settings)["group"] == {
        "group": group,
        "state": "absent",
        "lag": None,
        "topics": [],
    }
    produce(kafka.bootstrap, "cluster-lag", [b"x"] * 30, partition=0)
    consume(kafka.bootstrap, "cluster-lag", group, 30)
    # The group has no offset on partition 1 yet, and its records there are lag too.
    produce(kafka.bootstrap, "cluster-lag", [b"x"] * 5, partition=0)
    produce(kafka.bootstrap, "cluster-lag", [b"x"] * 7, partition=1)
    found = report(settings)["group"]
    assert found == {
        "group": group,
        "state": "empty",
        "lag": 12,
        "topics": [{"topic": "cluster-lag", "partitions": 3, "lag": 12}],
    }


def test_a_cluster_of_somebody_else_is_shown_by_its_address(kafka: Any) -> None:
    found = report(load_settings(bootstrap=kafka.bootstrap, home=Path("/nowhere")))
    assert (found["up"], found["healthy"], found["controller"]) == (True, True, None)
    assert [(one["port"], one["pid"]) for one in found["brokers"]] == [
        (int(kafka.bootstrap.split(":")[1]), None)
    ]


def test_the_log_is_one_quiet_file(kafka: Any) -> None:
    (broker,) = report(kafka.settings)["brokers"]
    log = Path(broker["log"])
    assert [path.name for path in log.parent.iterdir()] == ["server.log"]
    text = log.read_text()
    assert "Kafka Server started" in text
    assert not [
        line
        for line in text.splitlines()
        if "SLF4J" in line or "StatusLogger" in line or line.startswith("WARNING")
    ]


def test_a_day_at_the_terminal(laptop: Laptop) -> None:
    out, err = laptop.headrace("up")
    assert out == f"{laptop.bootstrap}\n"
    assert "starting 1 broker(s) of region east" in err
    assert "fetching" not in err
    out, err = laptop.headrace("up")
    assert out == f"{laptop.bootstrap}\n"
    assert "region east is already running" in err
    assert len(find_brokers(laptop.folder)) == 1

    make_topic(laptop.bootstrap, "clicks", 2)
    produce(laptop.bootstrap, "clicks", [b"one", b"two", b"three"])
    out, _ = laptop.headrace("status")
    assert "east healthy" in out
    assert "clicks" in out
    found = laptop.status(code=0)
    assert (found["up"], found["healthy"], found["problems"], found["controller"]) == (
        True,
        True,
        [],
        1,
    )
    assert found["brokers"][0]["pid"] == find_brokers(laptop.folder)[0].pid
    assert {
        "topic": "clicks",
        "partitions": 2,
        "replicas": 1,
        "under_replicated": 0,
        "leaderless": 0,
    } in found["topics"]

    assert "region east is down" in laptop.headrace("down")[1]
    assert find_brokers(laptop.folder) == []
    assert "was not running" in laptop.headrace("down")[1]
    found = laptop.status(code=3)
    assert (found["up"], found["problems"]) == (False, ["no broker runs"])
    assert "east down" in laptop.headrace("status", code=3)[0]

    laptop.headrace("up")
    assert sorted(consume(laptop.bootstrap, "clicks", "reader", 3)) == [b"one", b"three", b"two"]

    _, err = laptop.headrace("up", "--brokers", "3", code=1)
    assert "was formatted for 1 broker(s), and 3 were asked for" in err
    assert "down --wipe" in err

    laptop.headrace("down", "--wipe")
    assert not laptop.folder.exists()
    assert is_free(laptop.port)


def test_a_killed_broker_is_seen_and_started_again(fresh_kafka: Any) -> None:
    make_topic(fresh_kafka.bootstrap, "clicks")
    produce(fresh_kafka.bootstrap, "clicks", [b"kept"])
    (broker,) = report(fresh_kafka.settings)["brokers"]
    os.kill(broker["pid"], signal.SIGKILL)
    wait_until(
        lambda: report(fresh_kafka.settings)["problems"] == ["no broker runs"],
        "the death to be seen",
    )
    region.start(fresh_kafka.settings)
    assert consume(fresh_kafka.bootstrap, "clicks", "reader", 1) == [b"kept"]
    assert report(fresh_kafka.settings)["brokers"][0]["pid"] != broker["pid"]


def test_a_frozen_broker_is_not_called_up(fresh_kafka: Any) -> None:
    (broker,) = report(fresh_kafka.settings)["brokers"]
    os.kill(broker["pid"], signal.SIGSTOP)
    try:
        found = report(fresh_kafka.settings)
    finally:
        os.kill(broker["pid"], signal.SIGCONT)
    assert (found["up"], found["healthy"]) == (False, False)
    assert "does not answer" in found["problems"][0]


def test_a_taken_port_is_named_and_nothing_is_left(laptop: Laptop) -> None:
    with socket.create_server(("127.0.0.1", laptop.port + 50)):
        _, err = laptop.headrace("up", code=1)
    assert f"port(s) {laptop.port + 50}" in err
    assert "HEADRACE_KAFKA_PORT" in err
    assert not laptop.folder.exists()


def test_a_half_formatted_folder_is_told_and_wiped(laptop: Laptop) -> None:
    region.start(laptop.settings)
    region.stop(laptop.settings)
    (laptop.folder / "broker-0" / "data" / "meta.properties").write_text("cluster.id=x\nversio")
    _, err = laptop.headrace("up", code=1)
    assert "is half formatted" in err
    assert "down --wipe" in err
    laptop.headrace("down", "--wipe")
    assert not laptop.folder.exists()


def test_a_broker_that_cannot_start_says_why(laptop: Laptop) -> None:
    region.start(laptop.settings)
    region.stop(laptop.settings)
    metadata = laptop.folder / "broker-0" / "data" / "__cluster_metadata-0"
    (metadata / "quorum-state").write_text("nonsense")
    _, err = laptop.headrace("up", code=1)
    assert "broker 0 of region east ended with code" in err
    assert "server.log" in err
    assert find_brokers(laptop.folder) == []


def test_a_start_interrupted_while_it_formats_leaves_nothing_at_all(laptop: Laptop) -> None:
    child = laptop.spawn("up")
    wait_until((laptop.folder / "broker-0" / "data.partial").exists, "the format to begin")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=WAIT_S)
    assert child.returncode == 130, err
    assert not laptop.folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_start_leaves_nothing_running(
    laptop: Laptop, number: signal.Signals
) -> None:
    child = laptop.spawn("up")
    wait_until(lambda: bool(find_brokers(laptop.folder)), "a broker to be started")
    child.send_signal(number)
    _, err = child.communicate(timeout=WAIT_S)
    assert child.returncode == 130
    assert "interrupted" in err
    assert find_brokers(laptop.folder) == []
    assert laptop.status(code=3)["problems"] == ["no broker runs"]
    laptop.headrace("up")


def test_ctrl_c_of_a_later_command_does_not_reach_the_broker(laptop: Laptop) -> None:
    laptop.headrace("up")
    (broker,) = find_brokers(laptop.folder)
    assert os.getsid(broker.pid) == broker.pid


def test_a_start_that_was_killed_is_finished_by_the_next(laptop: Laptop) -> None:
    child = laptop.spawn("up")
    wait_until(lambda: bool(find_brokers(laptop.folder)), "a broker to be started")
    child.kill()
    child.wait(WAIT_S)
    laptop.headrace("up")
    assert len(find_brokers(laptop.folder)) == 1
    assert laptop.status(code=0)["healthy"]


def test_a_kafka_and_a_java_of_the_users_own_are_used(laptop: Laptop, tmp_path: Path) -> None:
    given = region.runtime(load_settings())
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "libs").symlink_to(given.classpath[0].parent)
    settings = laptop.settings.model_copy(
        update={"kafka_home": tmp_path / "kafka", "java": given.java, "cache": tmp_path / "cache"}
    )
    region.start(settings)
    (broker,) = find_brokers(laptop.folder)
    assert str(tmp_path / "kafka" / "libs") in broker.environ()["CLASSPATH"]
    assert not (tmp_path / "cache").exists()


def test_a_region_stops_though_its_starter_was_killed(tmp_path: Path) -> None:
    """The fixtures' promise: nothing is left of a test run, however it ends."""
    run = tmp_path / "test_run.py"
    run.write_text(
        "import os, signal\n\ndef test(kafka):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "conftest.py").write_text(
        (ROOT / "tests" / "conftest.py")
        .read_text()
        .replace("__file__", repr(str(ROOT / "tests" / "conftest.py")))
    )
    base = tmp_path / "base"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--basetemp={base}",
        f"--rootdir={tmp_path}",
        str(run),
    ]
    done = subprocess.run(
        command, env=environment, capture_output=True, timeout=WAIT_S * 2, check=False, cwd=tmp_path
    )
    assert done.returncode == -signal.SIGKILL
    home = base / "kafka0"
    wait_until(lambda: not (home / "east").exists(), "the region to be stopped and wiped")
    assert find_brokers(home / "east") == []


def test_two_starts_at_once_make_one_region(laptop: Laptop) -> None:
    children = [laptop.spawn("up"), laptop.spawn("up")]
    outputs = [child.communicate(timeout=WAIT_S * 2) for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert [out for out, _ in outputs] == [f"{laptop.bootstrap}\n"] * 2
    assert sum("already running" in err for _, err in outputs) == 1
    assert len(find_brokers(laptop.folder)) == 1


def test_brokers_are_stopped_though_their_state_file_is_lost(laptop: Laptop) -> None:
    region.start(laptop.settings)
    (laptop.folder / "region.json").unlink()
    laptop.headrace("down", "--wipe")
    assert is_free(laptop.port)
    assert not laptop.folder.exists()


def test_a_stop_never_signals_a_stranger(laptop: Laptop) -> None:
    region.start(laptop.settings)
    region.stop(laptop.settings)
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        path = laptop.folder / "region.json"
        content = json.loads(path.read_text())
        created = psutil.Process(stranger.pid).create_time()
        content["processes"] = [
            {"pid": stranger.pid, "started_at": created, "mark": "-Dheadrace.broker=x"}
        ]
        path.write_text(json.dumps(content))
        assert laptop.status(code=3)["brokers"][0]["up"] is False
        laptop.headrace("down")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(WAIT_S)


@pytest.mark.slow
def test_three_brokers_survive_the_loss_of_one(laptop: Laptop) -> None:
    out, _ = laptop.headrace("up", "--brokers", "3")
    servers = out.strip()
    assert servers == ",".join(f"127.0.0.1:{laptop.port + index}" for index in range(3))
    make_topic(servers, "clicks", 3)
    produce(servers, "clicks", [b"before"])
    found = laptop.status(code=0)
    assert len(found["brokers"]) == 3
    assert found["controller"] in (1, 2, 3)
    assert {row["replicas"] for row in found["topics"]} == {3}

    os.kill(found["brokers"][1]["pid"], signal.SIGKILL)
    wait_until(
        lambda: report(laptop.settings)["topics"][0]["under_replicated"] > 0, "the loss to be seen"
    )
    impaired = laptop.status(code=3)
    assert impaired["up"] is True
    assert "broker(s) 2 are down" in impaired["problems"]
    produce(servers, "clicks", [b"during"])

    _, err = laptop.headrace("up")
    assert "starting 1 broker(s)" in err
    wait_until(lambda: report(laptop.settings)["healthy"], "all replicas to be back")
    assert sorted(consume(servers, "clicks", "reader", 2)) == [b"before", b"during"]


def test_a_broker_that_was_started_but_not_noted_is_replaced(laptop: Laptop) -> None:
    """As when the starter is killed in the moment between the two."""
    laptop.headrace("up")
    (stray,) = find_brokers(laptop.folder)
    path = laptop.folder / "region.json"
    content = json.loads(path.read_text())
    content["processes"] = [None]
    path.write_text(json.dumps(content))
    laptop.headrace("up")
    (broker,) = find_brokers(laptop.folder)
    assert broker.pid != stray.pid
    assert laptop.status(code=0)["healthy"]
