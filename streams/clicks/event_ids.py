"""Event ids of a whole batch, the same for the same source and seed on every run.

The free bits of each UUIDv7 are a hash of the seed, the row's number in its source and what the
row says; so a replay that was cut short and started again repeats its events instead of adding
new ones, while the same click on two rows stays two events.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.event_ids import FREE_BYTES, TS_MS_MAX

UUID_CHARS: Final = 36
_HEX: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
# Where the 32 hexadecimal digits stand between the dashes.
_DIGITS: Final = np.array([at for at in range(UUID_CHARS) if at not in (8, 13, 18, 23)])
_SEED_BYTES: Final = 16


def event_ids(
    seed: int,
    rows: NDArray[np.int64],
    ts: NDArray[np.int64],
    users: Sequence[bytes],
    items: Sequence[bytes],
    event_types: NDArray[np.uint8],
) -> list[bytes]:
    """One id a row, as its 36 ASCII characters.

    `seed`: any integer of 127 bits and a sign; `ts`: ms since the epoch, 0 to 2**48 - 1 (else
    `ValueError`). All arguments but the seed are beside one another.
    """
    count = len(rows)
    if count == 0:
        return []
    if int(ts.min()) < 0 or int(ts.max()) > TS_MS_MAX:
        raise ValueError(f"event times must lie between 0 and {TS_MS_MAX} ms")
    key = seed.to_bytes(_SEED_BYTES, "big", signed=True)
    # The hash state behind the seed is made once and copied a row: cheaper than a keyed start.
    start = blake2b(key, digest_size=FREE_BYTES, person=b"headrace.click").copy
    prefixes = np.empty((count, 9), np.uint8)
    prefixes[:, :8] = rows.astype(">i8").view(np.uint8).reshape(count, 8)
    prefixes[:, 8] = event_types
    packed = prefixes.tobytes()
    digests = bytearray()
    at = 0
    for user, item in zip(users, items, strict=True):
        state = start()
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        state.update(b"%b%d:%b%b" % (packed[at : at + 9], len(user), user, item))
        digests += state.digest()
        at += 9
    raw = np.empty((count, 16), np.uint8)
    raw[:, :6] = ts.astype(">i8").view(np.uint8).reshape(count, 8)[:, 2:]
    raw[:, 6:] = np.frombuffer(digests, np.uint8).reshape(count, FREE_BYTES)
    raw[:, 6] = raw[:, 6] & 0x0F | 0x70
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    return _texts(raw)


def _texts(raw: NDArray[np.uint8]) -> list[bytes]:
    """The canonical text of each row of 16 bytes."""
    count = len(raw)
    digits = np.empty((count, 32), np.uint8)
    digits[:, 0::2] = _HEX[raw >> 4]
    digits[:, 1::2] = _HEX[raw & 15]
    texts = np.full((count, UUID_CHARS), ord("-"), np.uint8)
    texts[:, _DIGITS] = digits
    whole = texts.tobytes()
    return [whole[at : at + UUID_CHARS] for at in range(0, len(whole), UUID_CHARS)]
