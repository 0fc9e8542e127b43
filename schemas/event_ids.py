"""Event ids: UUIDv7 (RFC 9562), so that ids of one shop sort by time.

48 bits of Unix time in ms, the version, 12 bits, the variant, 62 bits: 74 bits are free. A click
that is sent again must keep its id, because the feature state and every reader tell repeats by it.
"""

from __future__ import annotations

import os
import time
from typing import Final

# The times that fit: from the epoch to the year 10889.
TS_MS_MAX: Final = (1 << 48) - 1
FREE_BYTES: Final = 10


def uuid7(ts: int, free: bytes) -> str:
    """The UUIDv7 of time `ts` (ms since the epoch) with 74 of the 80 bits in `free`.

    Raises `ValueError` where the time does not fit in 48 bits.
    """
    if not 0 <= ts <= TS_MS_MAX:
        raise ValueError(f"a UUIDv7 holds times from 0 to {TS_MS_MAX} ms, not {ts}")
    if len(free) != FREE_BYTES:
        raise ValueError(f"a UUIDv7 needs {FREE_BYTES} bytes beside its time, not {len(free)}")
    number = int.from_bytes(free, "big") & ~(0xF << 76) & ~(0b11 << 62) | 0x7 << 76 | 0b10 << 62
    text = f"{ts << 80 | number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_event_id() -> str:
    """A fresh id for an event that happens now."""
    return uuid7(time.time_ns() // 1_000_000, os.urandom(FREE_BYTES))
