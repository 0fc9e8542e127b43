"""The click client for services: what it takes, what it refuses, and what it says of losses."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from conftest import LocalKafka

from schemas.clicks import EVENT_TYPES
from schemas.client import ClickProducer
from schemas.codec import Codec
from schemas.errors import DeliveryError, RecordError

CODEC = Codec.from_lock()
ROOT = Path(__file__).parents[2]
# Nothing listens there.
NOWHERE = "127.0.0.1:9"
QUIET: dict[str, Any] = {"log_level": 0}


@pytest.fixture
def topic(kafka: LocalKafka) -> Iterator[str]:
    name = f"clicks-{kafka.new_group()}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.create_topics([NewTopic(name, 1, 1)]).values():
        future.result(timeout=20)
    yield name
    for future in admin.delete_topics([name]).values():
        future.result(timeout=20)


def read(bootstrap: str, topic: str, count: int) -> list[Any]:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False}
    )
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[Any] = []
        deadline_s = time.monotonic() + 30
        while len(found) < count:
            assert time.monotonic() < deadline_s, f"{len(found)} of {count} records in 30 s"
            found += consumer.consume(count, timeout=0.5)
        # Whatever is there beyond the expected ones shows too.
        return found + consumer.consume(10, timeout=0.5)
    finally:
        consumer.close()


@pytest.mark.kafka
def test_clicks_arrive_as_they_were_sent(kafka: LocalKafka, topic: str) -> None:
    before_ms = time.time_ns() // 1_000_000
    with ClickProducer(kafka.bootstrap, topic=topic) as clicks:
        first = clicks.send(user_id="u17", item_id="i42")
        same = clicks.send(
            user_id="ü",
            item_id="i42",
            event_type="cart",
            ts=1_700_000_000_000,
            event_id="01890a5d-ac96-774b-bcce-b302099a8057",
            session_id="s",
            price=19.9,
            quantity=2,
        )
        clicks.send(user_id="u17", event_type="search", query="red pan")
    assert (clicks.acknowledged, clicks.failed, clicks.pending) == (3, 0, 0)
    assert same == "01890a5d-ac96-774b-bcce-b302099a8057"
    messages = read(kafka.bootstrap, topic, 3)
    assert len(messages) == 3
    view, cart, search = (CODEC.decode("Click", message.value()) for message in messages)
    assert [message.key() for message in messages] == [b"u17", "ü".encode(), b"u17"]
    assert (view["event_id"], view["event_type"], view["item_id"]) == (first, "view", "i42")
    assert before_ms <= view["ts"] <= time.time_ns() // 1_000_000
    assert cart == {
        "event_id": same,
        "user_id": "ü",
        "item_id": "i42",
        "event_type": "cart",
        "ts": 1_700_000_000_000,
        "session_id": "s",
        "query": None,
        "price": 19.9,
        "quantity": 2,
    }
    assert (search["item_id"], search["query"]) == ("", "red pan")


@pytest.mark.kafka
def test_all_threads_may_send(kafka: LocalKafka, topic: str) -> None:
    with ClickProducer(kafka.bootstrap, topic=topic) as clicks:
        threads = [
            threading.Thread(
                target=lambda: [clicks.send(user_id="u", item_id="i") for _ in range(500)]
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert clicks.flush() == 0
        assert clicks.acknowledged == 2_000
    ids = {
        CODEC.decode("Click", message.value())["event_id"]
        for message in read(kafka.bootstrap, topic, 2_000)
    }
    assert len(ids) == 2_000


@pytest.mark.kafka
def test_reports_come_without_further_sending(kafka: LocalKafka, topic: str) -> None:
    with ClickProducer(kafka.bootstrap, topic=topic) as clicks:
        clicks.send(user_id="u", item_id="i")
        deadline_s = time.monotonic() + 20
        while not clicks.acknowledged:
            assert time.monotonic() < deadline_s, "no delivery report in 20 s"
            time.sleep(0.02)


@pytest.mark.kafka
def test_a_topic_that_is_not_there_is_a_failure_of_each_click(kafka: LocalKafka) -> None:
    failures: list[tuple[str, str]] = []
    clicks = ClickProducer(
        kafka.bootstrap,
        topic="no-such-topic",
        config={"delivery.timeout.ms": 2_000},
        on_failure=lambda event_id, reason: failures.append((event_id, reason)),
    )
    event_id = clicks.send(user_id="u", item_id="i")
    assert clicks.close() == 0
    assert clicks.failed == 1
    assert failures[0][0] == event_id
    assert failures[0][1]


GOOD: dict[str, Any] = {"user_id": "u", "item_id": "i"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"user_id": ""}, "user_id is empty"),
        ({"user_id": 7}, "user_id must be a text"),
        ({"user_id": "x" * 129}, "at most 128 bytes"),
        ({"user_id": "é" * 65}, "at most 128 bytes"),
        ({"user_id": "\ud800"}, "not a Click"),
        ({"item_id": ""}, "item_id is empty"),
        ({"item_id": None}, "item_id must be a text"),
        ({"item_id": "a\0b"}, "NUL"),
        ({"event_type": "look"}, "must be one of view, cart"),
        ({"ts": 1_700_000_000}, "milliseconds since the epoch"),
        ({"ts": 1.5}, "milliseconds since the epoch"),
        ({"ts": True}, "milliseconds since the epoch"),
        ({"ts": 1 << 48}, "milliseconds since the epoch"),
        ({"event_id": "7"}, "not a UUID"),
        ({"event_id": 7}, "event_id must be a text"),
        ({"quantity": 1 << 31}, "not a Click"),
        ({"quantity": "two"}, "not a Click"),
        ({"price": "cheap"}, "not a Click"),
        ({"query": b"x"}, "not a Click"),
    ],
)
def test_what_is_no_click_is_refused_at_once(wrong: dict[str, Any], said: str) -> None:
    clicks = ClickProducer(NOWHERE, config=QUIET)
    try:
        with pytest.raises(RecordError, match=said):
            clicks.send(**(GOOD | wrong))
        assert clicks.pending == 0
    finally:
        clicks.close(timeout_s=0)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_kind_of_event_is_taken(event_type: str) -> None:
    clicks = ClickProducer(NOWHERE, config=QUIET)
    clicks.send(**GOOD, event_type=event_type)
    assert clicks.close(timeout_s=0) == 0, "given up, which is an outcome"
    assert clicks.failed == 1


def test_kafka_that_is_away_does_not_block_and_is_bounded() -> None:
    clicks = ClickProducer(NOWHERE, config=QUIET | {"queue.buffering.max.messages": 100})
    start_s = time.monotonic()
    for _ in range(100):
        clicks.send(**GOOD)
    with pytest.raises(DeliveryError, match="too many clicks wait"):
        clicks.send(**GOOD)
    assert clicks.pending == 100
    assert clicks.flush(timeout_s=0.2) == 100
    assert clicks.close(timeout_s=0.2) == 0
    assert clicks.failed == 100
    assert time.monotonic() - start_s < 10
    with pytest.raises(DeliveryError, match="closed"):
        clicks.send(**GOOD)


def _leave(error: Exception | None) -> None:
    with ClickProducer(NOWHERE, config=QUIET | {"delivery.timeout.ms": 300}) as clicks:
        clicks.send(**GOOD)
        if error is not None:
            raise error


def test_leaving_with_losses_says_so_unless_something_worse_happened() -> None:
    with pytest.raises(DeliveryError, match="1 clicks were not acknowledged"):
        _leave(None)
    with pytest.raises(KeyError):
        _leave(KeyError("worse"))


def test_after_a_fork_it_says_why_it_cannot_send() -> None:
    script = (
        "import os\n"
        "from schemas.client import ClickProducer\n"
        "from schemas.errors import DeliveryError\n"
        f"clicks = ClickProducer({NOWHERE!r}, config={{'log_level': 0}})\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        clicks.send(user_id='u', item_id='i')\n"
        "    except DeliveryError as error:\n"
        "        os.write(1, str(error).encode())\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "clicks.close(timeout_s=0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "made before a fork" in done.stdout


def test_another_codec_may_be_given() -> None:
    used: list[str] = []

    class Noting(Codec):
        def encode(self, record: str, value: Any) -> bytes:
            used.append(record)
            return super().encode(record, value)

    base = Codec.from_lock()
    make: Callable[..., ClickProducer] = ClickProducer
    clicks = make(NOWHERE, codec=Noting(base.ids, {}), config=QUIET)
    clicks.send(**GOOD)
    clicks.close(timeout_s=0)
    assert used == ["Click"]
