"""The demo's worker: under a supervisor, asked over HTTP whether it serves and how far behind it is."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from infra.supervisor import Supervisor
from infra.workers import free_port, worker_argv
from schemas.errors import WorkerError

NAME: Final = "worker"
# Kept over runs, and not that of a worker that somebody runs by hand.
WORKER_ID: Final = "demo"
READY_TIMEOUT_S: Final = 90.0
# A fault that comes again is none that passes.
DEATHS_MAX: Final = 2
STOP_TIMEOUT_S: Final = 10.0
HTTP_TIMEOUT_S: Final = 1.0
POLL_S: Final = 0.05
LOG_TAIL_CHARS: Final = 1_000
_LAG: Final = "headrace_lag_records{"


class DemoWorker:
    """One worker; a new one takes its place when it dies."""

    def __init__(self, supervisor: Supervisor, bootstrap: str, log: Path) -> None:
        self._supervisor = supervisor
        self._log = log
        self._port = free_port()
        # Whatever proxy the environment names, the worker is on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._environment = {
            **os.environ,
            "HEADRACE_BOOTSTRAP": bootstrap,
            "HEADRACE_WORKER_ID": WORKER_ID,
            "HEADRACE_WEB_HOST": "127.0.0.1",
            "HEADRACE_WEB_PORT": str(self._port),
        }

    def start(self) -> None:
        """Start it; returns at once. Raises `ClusterError`."""
        self._supervisor.start(NAME, worker_argv(), log=self._log, environment=self._environment)

    def wait_ready(self, tick: Callable[[], None]) -> None:
        """Wait until it serves, calling `tick` meanwhile. Raises `WorkerError`."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._ready():
            (status,) = self._supervisor.status()
            if status.restarts >= DEATHS_MAX or time.monotonic() > deadline:
                raise WorkerError(
                    f"the worker does not get ready; its log {self._log} ends:\n{self._tail()}"
                )
            tick()
            time.sleep(POLL_S)

    def _ready(self) -> bool:
        try:
            with self._ask("readyz") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def lag(self) -> int | None:
        """Records that it has not processed yet; None while it does not answer."""
        try:
            with self._ask("metrics") as answer:
                page = answer.read().decode()
            return next(
                (
                    int(float(line.rsplit(" ", 1)[1]))
                    for line in page.splitlines()
                    if line.startswith(_LAG)
                ),
                None,
            )
        except (OSError, ValueError):
            return None

    def _ask(self, path: str) -> Any:
        return self._opener.open(f"http://127.0.0.1:{self._port}/{path}", timeout=HTTP_TIMEOUT_S)

    def _tail(self) -> str:
        try:
            return self._log.read_text(errors="replace")[-LOG_TAIL_CHARS:]
        except OSError:
            return "(no log)"
