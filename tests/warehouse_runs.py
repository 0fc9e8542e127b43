"""What the warehouse's tests do: run sinks as processes, send records of all kinds, ask."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from infra.warehouse.owner import owner_of
from infra.warehouse.store import connect, warehouse_folder
from schemas.codec import Codec
from schemas.topics import CLICKS, RECOMMENDATIONS
from streams.settings import Settings

CODEC = Codec.from_lock()
START_TIMEOUT_S = 60.0
# Aggregate -> its count, and the table whose records it counts.
COUNTED = {
    "clicks_minute": ("clicks", "clicks"),
    "clicks_hour": ("clicks", "clicks"),
    "items_hour": ("clicks", "clicks"),
    "answers_minute": ("answers", "recommendations"),
    "answers_hour": ("answers", "recommendations"),
}


class SinkProcess:
    """`headrace warehouse run`, as a process that may be killed."""

    def __init__(self, settings: Settings, bootstrap: str, log: Path, **environment: str) -> None:
        self._settings = settings
        self._log = log
        self._environment = {
            **os.environ,
            "HEADRACE_BOOTSTRAP": bootstrap,
            "HEADRACE_HOME": str(settings.home),
            "HEADRACE_PEERS": json.dumps(list(settings.peers)),
            "HEADRACE_WAREHOUSE_LINGER_S": "0.2",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """Start it; `run` without arguments."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "infra.cli", "warehouse", *(arguments or ("run",))],
                env=self._environment,
                stderr=log,
                stdout=log,
            )

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Until it owns the folder and answers; fails with its log."""
        deadline = time.monotonic() + timeout_s
        while True:
            assert self._process is not None
            assert self._process.poll() is None, self.log_tail()
            owner = owner_of(warehouse_folder(self._settings))
            if owner is not None and owner.port and owner.pid == self._process.pid:
                return
            assert time.monotonic() < deadline, f"not ready in {timeout_s} s: {self.log_tail()}"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def terminate(self, timeout_s: float = 40.0) -> int:
        """SIGTERM, and its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout_s)

    def wait(self, timeout_s: float) -> int:
        """Its exit code, when it ends by itself."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self) -> None:
        """Kill it if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def wait_said(self, text: str, timeout_s: float = 60.0) -> None:
        """Until its log has that text; fails with the log."""
        deadline = time.monotonic() + timeout_s
        while text not in (self._log.read_text() if self._log.exists() else ""):
            assert self._process is not None
            assert self._process.poll() is None, self.log_tail()
            assert time.monotonic() < deadline, f"no {text!r} in {timeout_s} s: {self.log_tail()}"
            time.sleep(0.05)

    def log_tail(self) -> str:
        """The end of what it said."""
        return self._log.read_text()[-3000:] if self._log.exists() else ""


class Shop:
    """Sends clicks, and an answer to each of them, as the workers would."""

    def __init__(self, bootstrap: str, seed: int) -> None:
        self._rng = random.Random(seed)
        self._base_ms = time.time_ns() // 1_000_000
        self.sent: list[str] = []
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "enable.idempotence": True,
            }
        )

    def send(self, count: int, *, answered: bool = True) -> None:
        """Queue so many clicks and answers."""
        for _ in range(count):
            click, answer = self.pair()
            self.sent.append(click["event_id"])
            self.producer.produce(CLICKS.name, CODEC.encode("Click", click), click["user_id"])
            if answered:
                value = CODEC.encode("Recommendation", answer)
                self.producer.produce(RECOMMENDATIONS.name, value, click["user_id"])
            self.producer.poll(0)

    def flush(self) -> None:
        """Until Kafka has all of it."""
        assert self.producer.flush(30) == 0

    def pair(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A click and its answer."""
        rng = self._rng
        ts = self._base_ms - rng.randrange(3 * 86_400_000)
        user, event_id = f"shopper-{rng.randrange(300)}", str(uuid.UUID(int=rng.getrandbits(128)))
        click = {
            "event_id": event_id,
            "user_id": user,
            "item_id": f"item-{rng.randrange(90)}",
            "event_type": rng.choice(["view", "view", "cart", "purchase"]),
            "ts": ts,
            "price": rng.choice([None, 2.5]),
            "quantity": rng.choice([None, 3]),
        }
        answer = {
            "event_id": event_id,
            "user_id": user,
            "item_ids": [f"item-{rng.randrange(90)}" for _ in range(5)],
            "scores": [rng.random() for _ in range(5)],
            "model": "m@1",
            "tier": "model",
            "clicked_at": ts,
            "features_as_of": ts - 1000,
            "scored_at": ts + rng.randrange(40),
        }
        return click, answer


def ask(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a query, from whoever owns the folder or the folder itself."""
    with connect(settings) as store:
        table = store.query(sql)
    return [tuple(row.values()) for row in table.to_pylist()]


def wait_rows(settings: Settings, table: str, count: int, timeout_s: float = 60.0) -> None:
    """Until a table has so many rows."""
    deadline = time.monotonic() + timeout_s
    while True:
        ((found,),) = ask(settings, f"SELECT count() FROM {table}")
        if found >= count:
            return
        assert time.monotonic() < deadline, f"{found} of {count} rows of {table} in {timeout_s} s"
        time.sleep(0.2)


def assert_exactly(settings: Settings, count: int) -> None:
    """So many clicks and answers, none twice, and the aggregates say the same."""
    for table in ("clicks", "recommendations"):
        found = ask(
            settings,
            "SELECT count(), uniqExact(event_id), uniqExact(kafka_topic, kafka_partition, kafka_offset)"
            f" FROM {table}",
        )
        assert found == [(count, count, count)], table
    for aggregate, (column, table) in COUNTED.items():
        found = ask(settings, f"SELECT sum({column}) FROM {aggregate}")
        assert found == [(count,)], f"{aggregate} of {table}"
