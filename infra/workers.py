"""Starts and stops worker processes: `headrace worker` with what it needs in its environment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from schemas.errors import WorkerError

READY_POLL_S: Final = 0.05
HTTP_TIMEOUT_S: Final = 2.0
LOG_TAIL_CHARS: Final = 2000


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def worker_argv() -> list[str]:
    """The command of a worker; its settings come by the environment."""
    return [sys.executable, "-m", "infra.cli", "worker"]


class WorkerProcess:
    """One worker as a child process, its log in a file.

    `environment`: `HEADRACE_*` settings on top of this process's environment.
    """

    def __init__(
        self, worker_id: str, bootstrap: str, log_path: Path, environment: Mapping[str, str]
    ) -> None:
        self.worker_id = worker_id
        self.web_port = free_port()
        self.log_path = log_path
        self._environment = {
            **os.environ,
            "HEADRACE_BOOTSTRAP": bootstrap,
            "HEADRACE_WORKER_ID": worker_id,
            "HEADRACE_WEB_PORT": str(self.web_port),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running worker."""
        assert self._process is not None, "start() first"
        return self._process.pid

    def start(self) -> None:
        """Start it; returns at once."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                worker_argv(),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until it serves. Raises `WorkerError` with the end of its log."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            if self._is_ready():
                return
            time.sleep(READY_POLL_S)
        raise WorkerError(
            f"worker {self.worker_id} did not get ready within {timeout_s:.0f} s; its log ends:\n{self.log_tail()}"
        )

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.web_port}/readyz", timeout=HTTP_TIMEOUT_S
            ) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metrics(self) -> str:
        """Its metrics page. Raises `OSError` when it does not answer."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.web_port}/metrics", timeout=HTTP_TIMEOUT_S
        ) as answer:
            page: bytes = answer.read()
        return page.decode()

    def terminate(self, timeout_s: float) -> int:
        """Ask it to stop, and wait; its exit code. Kills it, and raises, when it does not."""
        return self._end(signal.SIGTERM, timeout_s)

    def kill(self, timeout_s: float = 10.0) -> int:
        """SIGKILL, and wait; its exit code."""
        return self._end(signal.SIGKILL, timeout_s)

    def _end(self, number: signal.Signals, timeout_s: float) -> int:
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout_s)
            raise WorkerError(
                f"worker {self.worker_id} did not stop within {timeout_s:.0f} s; its log ends:\n{self.log_tail()}"
            ) from None

    def log_tail(self) -> str:
        """The end of its log."""
        try:
            return self.log_path.read_text(errors="replace")[-LOG_TAIL_CHARS:]
        except OSError:
            return "(no log)"
