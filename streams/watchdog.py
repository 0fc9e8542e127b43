"""Ends a worker that has lag and makes no progress.

Faust's consumer is known to hang after a broker was lost (faust-streaming issues 175 and 523):
the process lives, its group session too, and nothing moves. The watchdog asks the brokers
themselves for the ends of the owned partitions, on a thread and a connection of its own, so that
no hanging part of the worker can hide from it. A supervisor starts the worker again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from schemas.errors import KafkaError, StalledError
from streams.ends import EndOffsets
from streams.path import DataPath

CHECK_INTERVAL_S: Final = 2.0
ASK_TIMEOUT_S: Final = 5.0


class Watchdog:
    """Watches one path; `fail` is called at most once, from the watchdog's thread."""

    def __init__(
        self,
        path: DataPath,
        ends: EndOffsets,
        stall_timeout_s: float,
        fail: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._ends = ends
        self._stall_timeout_s = stall_timeout_s
        self._fail = fail
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-watchdog", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; the thread ends by itself within a check."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(CHECK_INTERVAL_S):
            lag = self._lag()
            if lag is None:
                continue  # the brokers are away: ending the worker would not bring them back
            self._path.metrics.lag.set(lag)
            self._path.metrics.users.set(self._path.hop.windows.users_count)
            fault = verdict(lag, self._clock() - self._path.progressed_at, self._stall_timeout_s)
            if fault is not None and not self._stopping.is_set():
                self._fail(fault)
                return

    def _lag(self) -> int | None:
        """Records behind the owned partitions' positions; None when the brokers do not answer."""
        positions = dict(self._path.wanted)
        try:
            ends = self._ends.ask(positions, ASK_TIMEOUT_S)
        except KafkaError:
            return None
        return sum(max(0, end - (positions[tp] or 0)) for tp, end in ends.items())


def verdict(lag: int, silent_s: float, stall_timeout_s: float) -> StalledError | None:
    """The fault of a worker that has `lag` records to do and did none for `silent_s`, if it is one."""
    if lag <= 0 or silent_s < stall_timeout_s:
        return None
    return StalledError(
        f"{lag} records wait and none was processed for {silent_s:.0f} s (stall_timeout_s is "
        f"{stall_timeout_s:.0f}): the worker ends, to be started again from its last commit"
    )
