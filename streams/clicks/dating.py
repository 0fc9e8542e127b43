"""When clicks say that they happened: as recorded, moved as a whole, or as they are sent."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from streams.clicks.pacing import Schedule

# (number of the first click of the batch, its times in ms) -> the times to send.
Dating = Callable[[int, NDArray[np.int64]], NDArray[np.int64]]


def wall_ms() -> int:
    """The wall clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


def as_recorded(first: int, ts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The times as they are."""
    return ts


def moved(by_ms: int) -> Dating:
    """All times moved alike; never before the epoch."""

    def date(first: int, ts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.maximum(ts + by_ms, 0)

    return date


def as_sent(schedule: Schedule, now_ms: Callable[[], int] = wall_ms) -> Dating:
    """Each click at the moment at which it is due, or, without a pace, at which its batch is made.

    By the schedule and not by the clock, so that a stall shows as a delay in whatever is measured
    from these times.
    """
    start_ms: int | None = None

    def date(first: int, ts: NDArray[np.int64]) -> NDArray[np.int64]:
        nonlocal start_ms
        if not schedule.paced:
            return np.full(len(ts), now_ms(), np.int64)
        if start_ms is None:
            start_ms = now_ms()
        return start_ms + np.rint(1000 * schedule.due_s(first, ts)).astype(np.int64)

    return date
