"""What several integration tests do: send clicks and know which were acknowledged, read answers,
and compare the state with the oracle."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from infra.workers import WorkerProcess
from schemas.codec import Codec
from schemas.topics import CLICKS, DEAD_LETTERS, RECOMMENDATIONS, changelog_topic
from streams.kafka import MESSAGE_BYTES_MAX, fetch_consumer_config
from streams.readback import read_topic
from streams.settings import Settings
from streams.stages.decode import Limits
from streams.state.audit import differences, oracle_of, state_of
from streams.topics_admin import create_topics as declare_topics

CODEC = Codec.from_lock()
READY_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 60.0


def create_topics(bootstrap: str, settings: Settings) -> None:
    """All topics of Headrace, ready for use."""
    declare_topics(AdminClient({"bootstrap.servers": bootstrap}), settings)


def click_record(rng: random.Random, ts: int, users: int, items: int) -> dict[str, Any]:
    """A random click: long-tailed items, now and then a late or a special one."""
    return {
        "event_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "user_id": f"shopper-{rng.randrange(users)}",
        "item_id": f"item-{min(int(rng.paretovariate(1.0)), items)}",
        "event_type": rng.choice(["view"] * 8 + ["cart", "purchase", "remove"]),
        "ts": ts - (rng.randrange(100_000) if rng.random() < 0.05 else 0),
    }


class Feeder:
    """Sends clicks; `acked` holds the event ids that Kafka acknowledged."""

    def __init__(self, bootstrap: str) -> None:
        self.acked: list[str] = []
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "message.max.bytes": MESSAGE_BYTES_MAX,
                "linger.ms": 2,
            }
        )

    def send(
        self,
        count: int,
        users: int = 200,
        seed: int = 1,
        rate: float = 0.0,
        flush_timeout_s: float = 30.0,
    ) -> None:
        """Send `count` clicks, at `rate` a second or at once."""
        rng = random.Random(seed)
        started, base = time.monotonic(), time.time_ns() // 1_000_000 - count
        for number in range(count):
            if rate and (wait := started + number / rate - time.monotonic()) > 0.001:
                self._producer.poll(wait)
            record = click_record(rng, base + number, users, 500)
            self.send_record(record)
        self.flush(flush_timeout_s)

    def send_record(self, record: dict[str, Any]) -> None:
        """Send one click."""
        event_id = record["event_id"]

        def delivered(error: Any, _: Any) -> None:
            if error is None:
                self.acked.append(event_id)

        self._producer.produce(
            CLICKS.name, CODEC.encode("Click", record), record["user_id"], on_delivery=delivered
        )
        self._producer.poll(0)

    def send_raw(self, value: bytes | None, key: bytes | None) -> None:
        """Send bytes as they are."""
        self._producer.produce(CLICKS.name, value, key)
        self._producer.poll(0)

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait for the acknowledgements."""
        assert self._producer.flush(timeout_s) == 0, (
            f"Kafka did not acknowledge all clicks in {timeout_s} s"
        )


def read_config(settings: Settings, bootstrap: str) -> dict[str, Any]:
    """Consumer configuration for reading whole topics."""
    return fetch_consumer_config(settings, bootstrap)


def answers(settings: Settings, bootstrap: str) -> Counter[str]:
    """How often each event id was answered so far."""
    config = read_config(settings, bootstrap)
    return Counter(
        CODEC.decode("Recommendation", message.value())["event_id"]
        for message in read_topic(config, RECOMMENDATIONS.name)
    )


def dead_letters(settings: Settings, bootstrap: str) -> list[dict[str, Any]]:
    """All rejected records so far."""
    config = read_config(settings, bootstrap)
    return [
        CODEC.decode("Rejected", message.value())
        for message in read_topic(config, DEAD_LETTERS.name)
    ]


def wait_answered(
    settings: Settings, bootstrap: str, expected: set[str], timeout_s: float = ANSWER_TIMEOUT_S
) -> Counter[str]:
    """Wait until every expected click is answered; fails with how many are missing."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = answers(settings, bootstrap)
        missing = expected - found.keys()
        if not missing:
            return found
        assert time.monotonic() < deadline, (
            f"{len(missing)} of {len(expected)} clicks not answered in {timeout_s} s"
        )
        time.sleep(0.3)


def assert_state_equals_oracle(settings: Settings, bootstrap: str) -> None:
    """The changelog holds, byte for byte, what the clicks say."""
    config = read_config(settings, bootstrap)
    limits = Limits(
        settings.record_bytes_max, int(1000 * (time.time() + settings.clock_skew_max_s))
    )
    oracle = oracle_of(read_topic(config, CLICKS.name), CODEC, limits)
    found = state_of(read_topic(config, changelog_topic(settings.group)))
    assert oracle, "no clicks, nothing compared"
    assert not differences(found, oracle)


def start_worker(
    settings: Settings, bootstrap: str, folder: Path, worker_id: str = "0", **environment: str
) -> WorkerProcess:
    """A worker process that serves."""
    worker = make_worker(settings, bootstrap, folder, worker_id, **environment)
    worker.start()
    worker.wait_ready(READY_TIMEOUT_S)
    return worker


def make_worker(
    settings: Settings, bootstrap: str, folder: Path, worker_id: str = "0", **environment: str
) -> WorkerProcess:
    """A worker process, not started."""
    return WorkerProcess(
        worker_id,
        bootstrap,
        folder / f"worker-{worker_id}.log",
        {
            "HEADRACE_PARTITIONS": str(settings.partitions),
            "HEADRACE_SESSION_TIMEOUT_S": "6",
            "HEADRACE_HOME": str(folder / "home"),
            **environment,
        },
    )
