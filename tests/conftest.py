"""What all tests share: no settings from outside, and a real Kafka for those that ask for one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.cluster import region
from infra.cluster.layout import CONTROLLER_OFFSET
from infra.cluster.ports import is_free
from schemas.errors import ClusterError
from streams.settings import Settings, load_settings

# Below the range that systems hand out to clients, above what servers are usually given.
PORTS = range(20_000, 31_000)
START_TRIES = 5
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class LocalKafka:
    """A running Kafka of this test run: `settings` point every part of Headrace at it."""

    bootstrap: str
    settings: Settings

    def new_group(self) -> str:
        """A consumer group name that no other test uses."""
        return f"test-{uuid.uuid4().hex[:12]}"


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs that tests start, also when the run itself is in the background.

    A shell starts background jobs with SIGINT ignored, and an ignored signal stays so in children.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _clear_environment() -> None:
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of the person who runs it."""
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)


def free_base_port(brokers: int = 1) -> int:
    """A first port for a region, of which all ports are free now.

    Another run may take one in between; then the start fails, and the fixture tries another.
    """
    for _ in range(200):
        base = random.SystemRandom().randrange(PORTS.start, PORTS.stop, 100)
        ports = [
            base + offset + index for offset in (0, CONTROLLER_OFFSET) for index in range(brokers)
        ]
        if all(is_free(port) for port in ports):
            return base
    raise RuntimeError(f"no free ports in {PORTS}")


@pytest.fixture
def base_port() -> Callable[[int], int]:
    """Finds the first port of a region of so many brokers, for tests that start their own."""
    return free_base_port


@contextlib.contextmanager
def guarded(settings: Settings) -> Iterator[None]:
    """Have the region stopped even if this process is killed: a shell waits for the end of a pipe.

    The kernel closes the pipe however this process ends.
    """
    down = f'cat >/dev/null; exec "{sys.executable}" -m infra.cli down --wipe >/dev/null 2>&1'
    environment = os.environ | {
        "HEADRACE_HOME": str(settings.home),
        "HEADRACE_REGION": settings.region,
        "PYTHONPATH": str(ROOT),
    }
    guard = subprocess.Popen(
        ["/bin/sh", "-c", down], stdin=subprocess.PIPE, env=environment, start_new_session=True
    )
    try:
        yield
    finally:
        # Not needed any more: the fixture itself has stopped the region.
        os.killpg(guard.pid, signal.SIGKILL)
        guard.communicate(timeout=10)


def running_kafka(home: Path, brokers: int = 1) -> Iterator[LocalKafka]:
    """Start a region in `home`, hand it out, and stop and remove it whatever happens."""
    for attempt in range(START_TRIES):
        settings = load_settings(
            region="east", home=home, kafka_port=free_base_port(brokers), kafka_heap_mb=192
        )
        with guarded(settings):
            try:
                try:
                    region.start(settings, brokers)
                except ClusterError as error:
                    if "taken" in str(error) and attempt + 1 < START_TRIES:
                        continue
                    raise
                yield LocalKafka(region.bootstrap(settings), settings)
                return
            finally:
                region.stop(settings, wipe=True)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """One broker for the whole run. Tests share it, so each uses topics and groups of its own."""
    _clear_environment()
    yield from running_kafka(tmp_path_factory.mktemp("kafka"))


@pytest.fixture
def fresh_kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    """A broker of the test's own, which it may kill."""
    yield from running_kafka(tmp_path / "kafka")
