"""The programs under test, each a process of its own, and what they cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from infra.workers import free_port, worker_argv
from schemas.errors import WorkerError
from streams.settings import PREFIX, Settings

PEERS: Final = Path(__file__).parent / "peers"
STOP_TIMEOUT_S: Final = 20.0
LOG_TAIL_CHARS: Final = 2000


@dataclass(frozen=True, slots=True)
class Program:
    """How to start one program; `environment` on top of what all of them get."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def headrace() -> Program:
    """Our worker, with its default settings."""
    return Program("headrace", tuple(worker_argv()))


def plain() -> Program:
    """The plain confluent-kafka loop."""
    return Program("plain", (sys.executable, str(PEERS / "plain_loop.py")))


def naive() -> Program:
    """The Faust program that handles event by event."""
    argv = (sys.executable, str(PEERS / "naive_faust.py"), "worker", "--without-web", "-l", "error")
    return Program("naive-faust", argv)


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of all threads of a process so far, also of those that ended."""
    if hasattr(os, "sched_getaffinity"):
        # Linux: the per-process clock CPUCLOCK_SCHED counts nanoseconds, where /proc counts in 10 ms.
        return time.clock_gettime((~pid << 3) | 2)
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


class Running:
    """A program that runs, from `start` to `stop`."""

    def __init__(
        self, program: Program, settings: Settings, model: Path | None, log_path: Path
    ) -> None:
        self.program = program
        self._log_path = log_path
        self._environment = {
            **os.environ,
            f"{PREFIX}BOOTSTRAP": settings.bootstrap,
            f"{PREFIX}GROUP": settings.group,
            f"{PREFIX}PARTITIONS": str(settings.partitions),
            f"{PREFIX}DEVICE": "cpu",
            f"{PREFIX}WEB_PORT": str(free_port()),
            **({f"{PREFIX}MODEL_DIR": str(model)} if model else {}),
            **program.environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "start() first"
        return self._process.pid

    def start(self) -> None:
        """Start it; returns at once."""
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.program.argv,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def check(self) -> None:
        """Raise `WorkerError` with the end of its log when it has ended."""
        if self._process is None or self._process.poll() is not None:
            raise WorkerError(f"{self.program.name} has ended; its log ends:\n{self._log_tail()}")

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        return cpu_s(self.pid)

    def rss_mb(self) -> float:
        """Resident memory, MB."""
        return float(psutil.Process(self.pid).memory_info().rss) / 1e6

    def pause(self) -> None:
        """Hold it, so that a backlog can gather."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to stop; kill it when it does not."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        self.resume()
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)

    def _log_tail(self) -> str:
        return self._log_path.read_text(errors="replace")[-LOG_TAIL_CHARS:]
