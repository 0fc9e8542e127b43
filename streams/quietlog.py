"""Keeps a client library's log readable when a broker is away: one line of a kind in ten seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

INTERVAL_S: Final = 10.0
# Kinds are templates and first words; there are a few dozen.
KINDS_MAX: Final = 1000


class Throttle(logging.Filter):
    """Lets the first record of a kind through, then one every `INTERVAL_S` with a count of the rest.

    The kind is the level and the message's first words: librdkafka's facility, aiokafka's template.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log `record`; adds what was left out to its message."""
        kind = (record.levelno, " ".join(str(record.msg).split()[:2]))
        now = self._clock()
        at, left_out = self._seen.get(kind, (float("-inf"), 0))
        if now - at < INTERVAL_S:
            self._seen[kind] = (at, left_out + 1)
            return False
        if len(self._seen) >= KINDS_MAX:
            self._seen.clear()
        self._seen[kind] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} (and {left_out} more like it)"
        return True
