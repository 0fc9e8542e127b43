"""Latencies of a run, in bounded memory: all of them to within one percent, the newest exactly."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

# From 10 us up to a day in steps of one percent.
LEAST_MS: Final = 0.01
_STEP: Final = math.log(1.01)
_BUCKETS: Final = 2_400
# Ten seconds at the demo's usual rate.
RECENT_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class Quantiles:
    """The usual quantiles of so many latencies, ms."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Latencies:
    """Collects latencies; not for several threads."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._total = 0
        self._recent: deque[float] = deque(maxlen=RECENT_MAX)

    def add(self, ms: float) -> None:
        """One more."""
        bucket = int(math.log(max(ms, LEAST_MS) / LEAST_MS) / _STEP)
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        self._total += 1
        self._recent.append(ms)

    def overall(self) -> Quantiles | None:
        """Of all; None where there are none."""
        if not self._total:
            return None
        p50, p95, p99 = (self._quantile(q) for q in (0.5, 0.95, 0.99))
        return Quantiles(self._total, p50, p95, p99)

    def recent(self) -> Quantiles | None:
        """Of the newest `RECENT_MAX`; None where there are none."""
        if not self._recent:
            return None
        ordered = sorted(self._recent)
        p50, p95, p99 = (ordered[_rank(q, len(ordered)) - 1] for q in (0.5, 0.95, 0.99))
        return Quantiles(len(ordered), p50, p95, p99)

    def _quantile(self, q: float) -> float:
        rank, seen = _rank(q, self._total), 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                # The middle of the bucket.
                return LEAST_MS * math.exp((bucket + 0.5) * _STEP)
        return math.inf


def _rank(q: float, count: int) -> int:
    """Number of the value, from 1, that `q` of all values do not exceed."""
    return max(1, math.ceil(q * count))
