"""When each click is due, and how many may go now.

A schedule says when each click of a batch is due, in seconds after the start. The pacer turns
that into slices of at most `SLICE_S`, so that a rate is a stream and not a burst a second. Clock
and waiting are passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

# Clicks are gathered no longer than this, so a rate is smooth to within 5 ms.
SLICE_S: Final = 0.005
# Longest single wait, so that Ctrl-C and delivery reports are served while little is due.
WAIT_MAX_S: Final = 0.1
# Most clicks in one slice, whatever is due: bounds the work between two looks at the clock.
SLICE_CLICKS_MAX: Final = 2_000
# After a pause (the machine slept, Kafka was away) the backlog goes out at this multiple of the
# rate until the schedule is met again, instead of all at once.
CATCH_UP: Final = 2.0


class Schedule(Protocol):
    """When clicks are due."""

    rate: float | None
    """Clicks per second where that is constant, else None."""
    paced: bool
    """Whether any click has to wait."""

    def due_s(self, first: int, ts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds after the start at which clicks `first`, `first` + 1, … with these times are due."""


class AtOnce:
    """As fast as they are taken."""

    rate: float | None = None
    paced = False

    def due_s(self, first: int, ts: NDArray[np.int64]) -> NDArray[np.float64]:
        """All at the start."""
        return np.zeros(len(ts))


class AtRate:
    """So many clicks a second, whatever their times."""

    paced = True

    def __init__(self, rate: float) -> None:
        self.rate: float | None = rate
        self._gap_s = 1 / rate

    def due_s(self, first: int, ts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Evenly, the first one at once."""
        due: NDArray[np.float64] = (first + np.arange(len(ts), dtype=np.float64)) * self._gap_s
        return due


class AtSpeed:
    """With the pauses that their times say, `speed` times as fast; the first click at once."""

    rate: float | None = None
    paced = True

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._start_ms: int | None = None

    def due_s(self, first: int, ts: NDArray[np.int64]) -> NDArray[np.float64]:
        """By event time; a click older than the first one is due at once."""
        if self._start_ms is None and len(ts):
            self._start_ms = int(ts[0])
        due: NDArray[np.float64] = np.maximum(ts - (self._start_ms or 0), 0) / (
            1000.0 * self._speed
        )
        return due


class Pacer:
    """Cuts batches into slices that are due. One for a whole run.

    `wait` waits for so many seconds at most (it may return early); `stopped` ends the run.
    """

    def __init__(
        self,
        schedule: Schedule,
        clock: Callable[[], float],
        wait: Callable[[float], object],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._schedule = schedule
        self._clock = clock
        self._wait = wait
        self._stopped = stopped
        self._start_s: float | None = None
        self._sent = 0
        self._last_s = 0.0

    def slices(self, ts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Ranges of rows that are due, in order; ends early when stopped."""
        if self._start_s is None:
            self._start_s = self._clock()
        due = self._schedule.due_s(self._sent, ts)
        # A file that is replayed as it is may go back in time; nothing overtakes.
        due = np.maximum.accumulate(due) if len(due) else due
        at = 0
        while at < len(ts) and not self._stopped():
            now_s = self._clock() - self._start_s
            end = min(int(np.searchsorted(due, now_s, side="right")), at + self._quota(now_s))
            if end > at:
                self._sent += end - at
                self._last_s = now_s
                yield at, end
                at = end
                if self._schedule.rate is not None:
                    self._wait(SLICE_S)
            else:
                self._wait(min(max(float(due[at]) - now_s, SLICE_S), WAIT_MAX_S))

    def _quota(self, now_s: float) -> int:
        rate = self._schedule.rate
        if rate is None:
            return SLICE_CLICKS_MAX
        # What is due in a slice or two by itself is never held back.
        since_s = min(now_s - self._last_s, 4 * SLICE_S)
        return max(1, math.ceil(CATCH_UP * rate * max(since_s, SLICE_S)))
