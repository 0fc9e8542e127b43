"""Clicks to wire bytes for a whole batch, built from pieces by hand.

`Codec.encode` is the referee: a property test holds the two together byte for byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.clicks import EVENT_ID_CHARS, EVENT_TYPES
from schemas.codec import Codec
from schemas.errors import RecordError
from schemas.varint import avro_bytes, zigzag

Encoder = Callable[..., list[bytes]]

_SHORT: Final = [zigzag(length) for length in range(256)]
_TYPES: Final = [zigzag(code) for code in range(len(EVENT_TYPES))]
_NULL: Final = zigzag(0)
_SOME: Final = zigzag(1)
_NO_TAIL: Final = _NULL * 3
_DOUBLE: Final = struct.Struct("<d")
_INT_MIN: Final = -(1 << 31)
_INT_MAX: Final = (1 << 31) - 1


def varints(values: NDArray[np.int64]) -> list[bytes]:
    """Each value as Avro writes a long."""
    if not len(values):
        return []
    wide = values.astype(np.int64, copy=False)
    left = ((wide << 1) ^ (wide >> 63)).view(np.uint64)
    table = np.empty((len(left), 10), np.uint8)
    lengths = np.ones(len(left), np.int64)
    for column in range(10):
        table[:, column] = (left & 127).astype(np.uint8) | 128
        left = left >> np.uint64(7)
        lengths += left != 0
    # The last byte of each has no continuation bit.
    table[np.arange(len(lengths)), lengths - 1] &= 127
    whole = table.tobytes()
    return [
        whole[at : at + length]
        for at, length in zip(range(0, len(whole), 10), lengths.tolist(), strict=True)
    ]


def click_encoder(codec: Codec) -> Encoder:
    """The function `encode_batch`, bound to the schema id of `codec`."""
    header = codec.header("Click") + zigzag(EVENT_ID_CHARS)

    def encode_batch(
        event_ids: Sequence[bytes],
        user_ids: Sequence[bytes],
        item_ids: Sequence[bytes],
        event_types: Sequence[int],
        ts: NDArray[np.int64],
        session_ids: Sequence[bytes] | None = None,
        queries: Sequence[bytes | None] | None = None,
        prices: Sequence[float | None] | None = None,
        quantities: Sequence[int | None] | None = None,
    ) -> list[bytes]:
        """Wire bytes of one click a row; arguments are beside one another.

        Ids and queries are UTF-8; event ids have 36 characters; `event_types` are indices into
        `EVENT_TYPES`; `ts` int64, ms. None for an optional column: the schema's default in every
        row. Raises `RecordError` where a quantity does not fit, `ValueError` on unequal lengths.
        """
        count = len(event_ids)
        if any(len(event_id) != EVENT_ID_CHARS for event_id in event_ids):
            raise RecordError(f"event-id: all event ids must have {EVENT_ID_CHARS} characters")
        sessions = _sessions(session_ids, count)
        tails = _tails(queries, prices, quantities, count)
        short, types, join, long = _SHORT, _TYPES, b"".join, zigzag
        out: list[bytes] = []
        for event_id, user, item, kind, time, session, tail in zip(
            event_ids, user_ids, item_ids, event_types, varints(ts), sessions, tails, strict=True
        ):
            user_length, item_length = len(user), len(item)
            out.append(
                join(
                    (
                        header,
                        event_id,
                        short[user_length] if user_length < 256 else long(user_length),
                        user,
                        short[item_length] if item_length < 256 else long(item_length),
                        item,
                        types[kind],
                        time,
                        session,
                        tail,
                    )
                )
            )
        return out

    return encode_batch


def _sessions(session_ids: Sequence[bytes] | None, count: int) -> list[bytes]:
    if session_ids is None:
        return [_NULL] * count
    return [
        _SHORT[len(session)] + session if len(session) < 256 else avro_bytes(session)
        for session in session_ids
    ]


def _tails(
    queries: Sequence[bytes | None] | None,
    prices: Sequence[float | None] | None,
    quantities: Sequence[int | None] | None,
    count: int,
) -> list[bytes]:
    if queries is None and prices is None and quantities is None:
        return [_NO_TAIL] * count
    nothing: list[None] = [None] * count
    pack = _DOUBLE.pack
    tails: list[bytes] = []
    for query, price, quantity in zip(
        queries or nothing, prices or nothing, quantities or nothing, strict=True
    ):
        if query is None and price is None and quantity is None:
            tails.append(_NO_TAIL)
            continue
        if quantity is not None and not _INT_MIN <= quantity <= _INT_MAX:
            raise RecordError(f"not a Click: quantity {quantity} does not fit in 32 bits")
        tails.append(
            (_NULL if query is None else _SOME + avro_bytes(query))
            + (_NULL if price is None else _SOME + pack(price))
            + (_NULL if quantity is None else _SOME + zigzag(quantity))
        )
    return tails
