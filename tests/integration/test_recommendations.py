"""`headrace recommendations` on a real Kafka: the newest of a shopper, all as they come, and ends."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import cli_runner
import harness
import pytest
from confluent_kafka import Producer
from conftest import LocalKafka
from encoders import make_manifest

from models.folder import write_folder
from schemas.topics import CATALOG, RECOMMENDATIONS
from streams.announce import announced
from streams.answers import CHUNK_FIRST, AnswerReader
from streams.kafka import PARTITIONER

pytestmark = pytest.mark.kafka

TIMEOUT_S = 60.0
USERS = ["ann", "bob", "Ünal", "x" * 100, *(f"shopper-{at}" for at in range(40))]


@pytest.fixture
def shop(fresh_kafka: LocalKafka) -> LocalKafka:
    harness.create_topics(fresh_kafka.bootstrap, fresh_kafka.settings)
    return fresh_kafka


def recommendation(user: str, number: int) -> dict[str, Any]:
    return {
        "event_id": f"01a1fd6a-977b-7c03-9f2e-{number:012d}",
        "user_id": user,
        "item_ids": ["i1", "i2", "i3", "i4"],
        "scores": [0.4, 0.3, 0.2, 0.1],
        "model": "popular",
        "tier": "popular",
        "clicked_at": 1_770_000_000_000,
        "features_as_of": 1_770_000_000_000,
        "scored_at": 1_770_000_000_005,
    }


def send(bootstrap: str, users: list[str]) -> None:
    """One recommendation each, in this order, numbered from 0."""
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": PARTITIONER})
    for number, user in enumerate(users):
        value = harness.CODEC.encode("Recommendation", recommendation(user, number))
        producer.produce(RECOMMENDATIONS.name, value, user.encode())
        producer.poll(0)
    assert producer.flush(30) == 0


def send_title(bootstrap: str, item: str, title: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(
        CATALOG.name, harness.CODEC.encode("Item", {"item_id": item, "title": title}), item.encode()
    )
    assert producer.flush(30) == 0


def test_finds_each_shopper_where_any_producer_put_them(shop: LocalKafka) -> None:
    others = ["crowd"] * (3 * CHUNK_FIRST)
    send(shop.bootstrap, [*USERS, *USERS, *others])
    with AnswerReader(harness.read_config(shop.settings, shop.bootstrap), harness.CODEC) as reader:
        for at, user in enumerate(USERS):
            search = reader.newest(user)
            assert search.record is not None, (
                f"{user} was not found in partition {search.partition}"
            )
            assert search.record["event_id"].endswith(f"{len(USERS) + at:012d}")
        assert reader.newest("nobody").record is None


def test_get_shows_the_newest_and_says_when_there_is_none(shop: LocalKafka) -> None:
    send(shop.bootstrap, ["ann", "bob", "ann"])
    send_title(shop.bootstrap, "i1", "A fine kettle")
    shown = cli_runner.run(shop.bootstrap, "recommendations", "get", "ann")
    assert shown.returncode == 0, shown.stderr
    assert "A fine kettle" in shown.stdout
    assert "tier popular" in shown.stdout
    line = cli_runner.run(shop.bootstrap, "recommendations", "get", "ann", "--json")
    assert json.loads(line.stdout)["event_id"].endswith("000000000002")
    assert line.stdout.count("\n") == 1
    none = cli_runner.run(shop.bootstrap, "recommendations", "get", "nobody", "--json")
    assert none.returncode == 1
    assert none.stdout == ""
    assert "no recommendation for 'nobody'" in none.stderr


def test_tail_follows_one_shopper_or_all(shop: LocalKafka) -> None:
    send(shop.bootstrap, ["ann", "bob", "ann"])
    send_title(shop.bootstrap, "i2", "A sturdy pan")
    lines = cli_runner.run(
        shop.bootstrap, "recommendations", "tail", "--from-beginning", "--limit", "3"
    ).stdout
    assert lines.count("\n") == 3
    assert "A sturdy pan (i2)" in lines
    assert "1 more" in lines
    arguments = ("recommendations", "tail", "--user", "ann", "--json", "--limit", "2")
    both = cli_runner.run(shop.bootstrap, *arguments, "--from-beginning").stdout.splitlines()
    assert [json.loads(line)["user_id"] for line in both] == ["ann", "ann"]
    with cli_runner.start(shop.bootstrap, *arguments) as tail:
        # It starts at the end; so send until it has seen two.
        deadline = time.monotonic() + TIMEOUT_S
        while tail.poll() is None:
            assert time.monotonic() < deadline, "tail saw nothing"
            send(shop.bootstrap, ["bob", "ann"])
            time.sleep(0.2)
        assert tail.stdout is not None
        assert [json.loads(line)["user_id"] for line in tail.stdout] == ["ann", "ann"]


def test_tail_ends_quietly_by_signal_and_by_a_reader_that_goes(shop: LocalKafka) -> None:
    send(shop.bootstrap, ["ann"])
    arguments = ("recommendations", "tail", "--from-beginning", "--json")
    with cli_runner.start(shop.bootstrap, *arguments) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        assert tail.wait(TIMEOUT_S) == 130
        assert "Traceback" not in tail.stderr.read()
    with cli_runner.start(shop.bootstrap, *arguments) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert tail.stdout.readline()
        # Nothing more comes, and still it notices.
        tail.stdout.close()
        assert tail.wait(TIMEOUT_S) != 0
        assert tail.stderr.read() == ""


@pytest.mark.parametrize(
    "arguments",
    [("recommendations", "get", "ann"), ("recommendations", "tail"), ("model", "withdraw", "m")],
)
def test_an_address_without_kafka_is_one_message(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = cli_runner.run("127.0.0.1:1", *arguments, home=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "does not answer" in done.stderr


def test_a_model_is_announced_and_withdrawn(shop: LocalKafka, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_folder(folder, make_manifest(3, 6), b"graph", ("a", "b", "c"))
    config = harness.read_config(shop.settings, shop.bootstrap)
    done = cli_runner.run(shop.bootstrap, "model", "announce", str(folder))
    assert done.returncode == 0, done.stderr
    ((name, record),) = announced(config, harness.CODEC).items()
    assert record is not None
    assert record["uri"] == str(folder.resolve())
    none = cli_runner.run(shop.bootstrap, "model", "withdraw", "another")
    assert none.returncode == 1
    assert f"announced are: {name}" in none.stderr
    assert cli_runner.run(shop.bootstrap, "model", "withdraw", name).returncode == 0
    assert announced(config, harness.CODEC) == {}
