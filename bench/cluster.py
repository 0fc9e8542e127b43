"""A Kafka of the bench's own: one broker in a temporary folder, stopped and removed whatever happens.

Runs share the broker, for a broker that has just started is slow for a minute; they do not share
topics: those are deleted and made anew, and each run has a group of its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from infra.cluster import region
from infra.cluster.layout import CONTROLLER_OFFSET, region_folder
from infra.cluster.ports import is_free
from infra.cluster.state import read_state
from schemas.errors import ClusterError, KafkaError
from schemas.topics import CLICKS, RECOMMENDATIONS
from streams.settings import PREFIX, Settings, load_settings
from streams.topics_admin import create_topics

# What may come from outside: where Kafka itself comes from. All else would change what is measured.
KEPT: Final = ("CACHE", "JAVA", "KAFKA_HOME", "KAFKA_HEAP_MB")
# Below the ports that systems hand out to clients.
PORTS: Final = range(20_000, 31_000)
START_TRIES: Final = 5
TOPIC_TIMEOUT_S: Final = 30.0
REQUEST_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class BenchKafka:
    """A running broker: its address, the settings that go with it, its process id and a folder."""

    bootstrap: str
    settings: Settings
    pid: int
    folder: Path
    admin: AdminClient

    def renew(self, group: str) -> Settings:
        """Delete every topic and create those of `group`; returns the settings for its workers."""
        settings = self.settings.model_copy(update={"group": group, "bootstrap": self.bootstrap})
        names = [name for name in self._topics() if not name.startswith("__")]
        if names:
            for future in self.admin.delete_topics(
                names, operation_timeout=TOPIC_TIMEOUT_S
            ).values():
                future.result(TOPIC_TIMEOUT_S)
        deadline = time.monotonic() + TOPIC_TIMEOUT_S
        while left := [name for name in self._topics() if name in names]:
            if time.monotonic() > deadline:
                raise KafkaError(
                    f"topics {', '.join(left)} are still there {TOPIC_TIMEOUT_S:.0f} s after their deletion"
                )
            time.sleep(0.05)
        create_topics(self.admin, settings)
        while not self._settled(deadline):
            time.sleep(0.05)
        return settings

    def _settled(self, deadline: float) -> bool:
        """Whether the broker leads the new partitions; its metadata says so a moment too early."""
        try:
            for topic in (CLICKS.name, RECOMMENDATIONS.name):
                self.ends(topic)
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            return False
        return True

    def _topics(self) -> list[str]:
        return list(self.admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics)

    def ends(self, topic: str) -> dict[int, int]:
        """End offset of each partition of `topic`, by one request."""
        wanted = {
            TopicPartition(topic, partition): OffsetSpec.latest()
            for partition in range(self.settings.partitions)
        }
        futures = self.admin.list_offsets(wanted, request_timeout=REQUEST_TIMEOUT_S)
        return {
            tp.partition: future.result(REQUEST_TIMEOUT_S).offset for tp, future in futures.items()
        }


@contextlib.contextmanager
def temporary_kafka() -> Iterator[BenchKafka]:
    """Start a broker in a temporary folder, hand it out, and remove both at the end."""
    _clear_environment()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        # An empty file, so that no `headrace.toml` of the working folder is read.
        (folder / "headrace.toml").touch()
        os.environ[f"{PREFIX}SETTINGS"] = str(folder / "headrace.toml")
        os.environ[f"{PREFIX}HOME"] = str(folder / "home")
        settings = _start(folder / "home")
        try:
            state = read_state(region_folder(settings))
            process = state.living()[0] if state else None
            if process is None:
                raise ClusterError("the bench's broker is gone right after its start")
            bootstrap = region.bootstrap(settings)
            admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
            yield BenchKafka(bootstrap, settings, process.pid, folder, admin)
        finally:
            region.stop(settings, wipe=True)


def _clear_environment() -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        if name.removeprefix(PREFIX) not in KEPT:
            del os.environ[name]


def _start(home: Path) -> Settings:
    """Start the region on ports that are free; another program may take one in between."""
    for attempt in range(START_TRIES):
        settings = load_settings(region="bench", home=home, kafka_port=_free_port())
        try:
            region.start(settings, 1)
        except ClusterError as error:
            if "taken" in str(error) and attempt + 1 < START_TRIES:
                continue
            raise
        return settings
    raise AssertionError("unreachable")


def _free_port() -> int:
    for _ in range(200):
        port = random.SystemRandom().randrange(PORTS.start, PORTS.stop, 100)
        if is_free(port) and is_free(port + CONTROLLER_OFFSET):
            return port
    raise ClusterError(f"no free ports between {PORTS.start} and {PORTS.stop}")
