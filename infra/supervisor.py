"""Keeps child processes running: starts them, restarts those that die, stops them all.

A child that dies is started again at once; if it dies again, after 0.5 s, 1 s, 2 s, ... up to 10 s.
A minute of life forgives what went before. Each child leads a process group of its own, so Ctrl-C
in the terminal reaches only the supervisor's owner, and a stop reaches the children's children.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from schemas.errors import ClusterError

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 10.0
HEALTHY_AFTER_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
KILL_TIMEOUT_S: Final = 5.0
# How often children are looked at; a death is noticed this late.
POLL_S: Final = 0.1

Clock = Callable[[], float]


def backoff_s(failures: int) -> float:
    """The wait before a restart, after so many deaths in a row (at least one)."""
    if failures <= 1:
        return 0.0
    # The exponent is bounded too: a child that has died for a week must not overflow a float.
    return float(min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(failures - 2, 10)))


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: `environment` replaces the supervisor's own; output is appended to `log`."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """One child at one moment; `exit_code` is that of its last death, negative for a signal."""

    name: str
    pid: int | None
    restarts: int
    exit_code: int | None
    problem: str


@dataclass(slots=True)
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    failures: int = 0
    restarts: int = 0
    exit_code: int | None = None
    problem: str = ""


class Supervisor:
    """Runs named programs until `stop`; use it as a context manager, so that they never outlive it.

    One thread watches all children. `clock` is monotonic seconds; `wait` waits that long or until
    the event is set, and tells whether it is. `report` gets one line for each death and restart.
    """

    def __init__(
        self,
        *,
        clock: Clock = time.monotonic,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
        report: Callable[[str], None] = lambda line: None,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        self._clock = clock
        self._wait = wait
        self._report = report
        self._stop_timeout_s = stop_timeout_s
        self._children: dict[str, _Child] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Start a program under `name` and return its pid.

        Raises `ClusterError` when it cannot be started at all, or the name is in use, or the
        supervisor was stopped: only a program that ran once is restarted.
        """
        program = Program(
            tuple(argv), dict(os.environ if environment is None else environment), log
        )
        with self._lock:
            if self._ended.is_set():
                raise ClusterError(f"{name} cannot be started: its supervisor was stopped")
            if name in self._children:
                raise ClusterError(f"{name} is already supervised")
            child = _Child(program)
            try:
                self._spawn(child)
            except OSError as error:
                raise ClusterError(f"{name} cannot be started: {error}") from None
            self._children[name] = child
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
                self._thread.start()
            assert child.process is not None
            return child.process.pid

    def remove(self, name: str) -> None:
        """Stop one program and forget it; an unknown name is no error."""
        with self._lock:
            child = self._children.pop(name, None)
        if child is not None:
            self._stop_children([child])

    def status(self) -> list[ChildStatus]:
        """Every child as it is now, in the order of their starts."""
        with self._lock:
            return [_status(name, child) for name, child in self._children.items()]

    def stop(self) -> None:
        """Stop all: SIGTERM, and SIGKILL for those that live on. Idempotent, from any thread."""
        self._ended.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=self._stop_timeout_s)
        with self._lock:
            children = list(self._children.values())
        self._stop_children(children)

    def _run(self) -> None:
        while not self._wait(self._ended, POLL_S):
            with self._lock:
                # A stop that began while this thread waited for the lock must not meet new children.
                if self._ended.is_set():
                    return
                lines = [
                    line
                    for name, child in self._children.items()
                    for line in self._look_after(name, child)
                ]
            for line in lines:
                self._report(line)

    def _look_after(self, name: str, child: _Child) -> list[str]:
        """Notice a death, start again what is due; returns what there is to report."""
        now = self._clock()
        lines = []
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return []
            # What it had started itself goes too, or the next one would meet it.
            _signal_group(child.process.pid, signal.SIGKILL)
            child.process = None
            child.exit_code = code
            child.failures = 1 if now - child.started_at >= HEALTHY_AFTER_S else child.failures + 1
            child.due_at = now + backoff_s(child.failures)
            lines.append(
                f"{name} ended with code {code}; it starts again in {backoff_s(child.failures):.1f} s (log: {child.program.log})"
            )
        if now >= child.due_at:
            try:
                self._spawn(child)
                child.restarts += 1
            except OSError as error:
                child.failures += 1
                child.due_at = now + backoff_s(child.failures)
                child.problem = str(error)
                lines.append(f"{name} cannot be started: {error}")
        return lines

    def _spawn(self, child: _Child) -> None:
        program = child.program
        program.log.parent.mkdir(parents=True, exist_ok=True)
        log: IO[bytes]
        with program.log.open("ab") as log:
            child.process = subprocess.Popen(
                program.argv,
                env=dict(program.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        child.started_at = self._clock()
        child.problem = ""

    def _stop_children(self, children: Sequence[_Child]) -> None:
        living = [child.process for child in children if child.process is not None]
        for process in living:
            _signal(process, signal.SIGTERM)
        # Real time on purpose: it is the kernel that is waited for.
        deadline = time.monotonic() + self._stop_timeout_s
        for process in living:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for process in living:
            # To the whole group, also when its leader is gone: nothing may stay behind.
            _signal_group(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(KILL_TIMEOUT_S)
        for child in children:
            if child.process is not None:
                child.exit_code = child.process.returncode
                child.process = None


def _status(name: str, child: _Child) -> ChildStatus:
    alive = child.process is not None and child.process.poll() is None
    pid = child.process.pid if alive and child.process is not None else None
    return ChildStatus(name, pid, child.restarts, child.exit_code, child.problem)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # `poll` first: a pid whose owner was reaped may be another's by now.
    if process.poll() is None:
        _signal_group(process.pid, number)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
