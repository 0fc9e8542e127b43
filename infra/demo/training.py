"""The demo's model: `headrace model train` on the history, beside the live run and behind it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

NAME: Final = "demo"
# The live path goes first; but on a busy machine training must not starve.
NICENESS: Final = 5
# Passes over the history are fewer where it is longer: twenty of 30,000 clicks take about 15 s.
EPOCH_CLICKS: Final = 600_000
EPOCHS: Final = range(4, 31)
TIMEOUT_S: Final = 600.0
STOP_TIMEOUT_S: Final = 3.0
REASON_CHARS: Final = 300


def missing_packages() -> list[str]:
    """Packages of the `train` extra that are not installed."""
    return [name for name in ("torch", "onnx") if importlib.util.find_spec(name) is None]


class Training:
    """A training process; `out` is a model folder once `done` says so."""

    def __init__(
        self,
        history: Path,
        clicks: int,
        out: Path,
        log: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.out = out
        self.clicks = clicks
        self._log = log
        self._clock = clock
        epochs = min(max(EPOCH_CLICKS // max(clicks, 1), EPOCHS.start), EPOCHS.stop - 1)
        self._argv = [
            *(sys.executable, "-m", "infra.cli", "model", "train", str(history)),
            *("--out", str(out), "--name", NAME, "--epochs", str(epochs), "--threads", "1"),
            "--no-refit",
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    def start(self) -> None:
        """Start it, at low priority."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started_at = self._clock()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)

    def seconds(self) -> float:
        """For how long it has run."""
        return self._clock() - self._started_at

    def running(self) -> bool:
        """Whether it goes on; ends it when it takes too long."""
        if self._process is None or self._process.poll() is not None:
            return False
        if self.seconds() > TIMEOUT_S:
            self.stop()
            return False
        return True

    def done(self) -> bool:
        """Whether it ended with a model."""
        return self._process is not None and self._process.poll() == 0

    def reason(self) -> str:
        """The last line that it wrote: why it failed."""
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1].strip()[:REASON_CHARS]
        return "it said nothing"

    def stop(self) -> None:
        """End it and what it started. Idempotent."""
        process = self._process
        if process is None:
            return
        # Its folder appears whole or not at all, so it may be killed at any time; the group of a
        # process that was waited for may be another's by now.
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
