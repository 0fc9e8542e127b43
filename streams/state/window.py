"""A shopper's window: their newest 50 distinct events, as one byte string.

The window is the whole feature state of a shopper, and its bytes are the changelog's value, so
two regions can be compared byte for byte. Folding an event in is a set union cut to the newest
`WINDOW_EVENTS`: commutative, associative and idempotent, whatever the order of arrival.

Layout, events in ascending order of key:

    byte 0        format, 1
    byte 1        n, number of events, 1 to 50
    24 n bytes    keys: event time, ms since the epoch, 8 bytes big-endian; event id, 16 bytes
    n bytes       event types, indices into `schemas.clicks.EVENT_TYPES`
    the rest      item ids, UTF-8, joined by byte 0 (no item id holds one: decode rejects it)

Keys compare as byte strings the way (ts, event_id) does, so order needs no parsing. Two events
with the same key but other contents (a producer that reuses ids) are one event: the greater
(item id, event type) wins, which keeps the union's laws.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple

WINDOW_EVENTS: Final = 50
KEY_BYTES: Final = 24
FORMAT: Final = 1

_HEADS: Final = [bytes((FORMAT, count)) for count in range(WINDOW_EVENTS + 1)]
_TYPES: Final = [bytes((code,)) for code in range(256)]


class WindowEvent(NamedTuple):
    """One event of a window, unpacked."""

    ts: int
    event_key: bytes
    event_type: int
    item_id: bytes


def pack_key(ts: int, event_key: bytes) -> bytes:
    """The 24 bytes by which events are ordered and told apart; `ts` in ms, not negative."""
    return ts.to_bytes(8, "big") + event_key


def fold(
    window: bytes | None, key: bytes, event_type: int, item_id: bytes
) -> tuple[bytes | None, bytes | None]:
    """The window with the event in it, and the item of the event that it pushed out.

    Returns `(window, None)`, the very same object, when the event changes nothing: it is in
    there already, or it is older than all of a full window. The pushed-out item is None when
    nothing was pushed out.
    """
    if window is None:
        return b"".join((_HEADS[1], key, _TYPES[event_type], item_id)), None
    count = window[1]
    end = 2 + KEY_BYTES * count
    if key > window[end - KEY_BYTES : end]:
        # The common case: the newest event of all goes to the end.
        types_end = end + count
        if count < WINDOW_EVENTS:
            return (
                b"".join(
                    (
                        _HEADS[count + 1],
                        window[2:end],
                        key,
                        window[end:types_end],
                        _TYPES[event_type],
                        window[types_end:],
                        b"\0",
                        item_id,
                    )
                ),
                None,
            )
        cut = window.index(0, types_end)
        return (
            b"".join(
                (
                    _HEADS[count],
                    window[2 + KEY_BYTES : end],
                    key,
                    window[end + 1 : types_end],
                    _TYPES[event_type],
                    window[cut + 1 :],
                    b"\0",
                    item_id,
                )
            ),
            window[types_end:cut],
        )
    return _insert(window, key, event_type, item_id)


def _insert(
    window: bytes, key: bytes, event_type: int, item_id: bytes
) -> tuple[bytes, bytes | None]:
    """Fold an event that is not the newest: a late one, or a duplicate."""
    count = window[1]
    end = 2 + KEY_BYTES * count
    keys = [window[at : at + KEY_BYTES] for at in range(2, end, KEY_BYTES)]
    at = bisect_left(keys, key)
    types = list(window[end : end + count])
    items = window[end + count :].split(b"\0")
    if at < count and keys[at] == key:
        if (item_id, event_type) <= (items[at], types[at]):
            return window, None
        replaced = items[at]
        items[at], types[at] = item_id, event_type
        return _join(keys, types, items), replaced
    if at == 0 and count == WINDOW_EVENTS:
        return window, None
    keys.insert(at, key)
    types.insert(at, event_type)
    items.insert(at, item_id)
    pushed_out = items[0] if count == WINDOW_EVENTS else None
    return _join(keys[-WINDOW_EVENTS:], types[-WINDOW_EVENTS:], items[-WINDOW_EVENTS:]), pushed_out


def _join(keys: list[bytes], types: list[int], items: list[bytes]) -> bytes:
    return b"".join((_HEADS[len(keys)], *keys, bytes(types), b"\0".join(items)))


def items_of(window: bytes) -> list[bytes]:
    """The item ids of the events, oldest first; empty ones (searches) included."""
    return window[2 + (KEY_BYTES + 1) * window[1] :].split(b"\0")


def newest_ts(window: bytes) -> int:
    """Event time of the newest event, ms since the epoch."""
    end = 2 + KEY_BYTES * window[1]
    return int.from_bytes(window[end - KEY_BYTES : end - KEY_BYTES + 8], "big")


def unpack(window: bytes) -> list[WindowEvent]:
    """All events, oldest first. Raises `ValueError` where the bytes are not a window."""
    count = window[1] if len(window) > 1 else 0
    end = 2 + KEY_BYTES * count
    items = window[end + count :].split(b"\0")
    if not window or window[0] != FORMAT or not 0 < count <= WINDOW_EVENTS or len(items) != count:
        raise ValueError(f"not a window: {window[:16].hex()}…, {len(window)} bytes")
    return [
        WindowEvent(
            int.from_bytes(window[at : at + 8], "big"),
            window[at + 8 : at + KEY_BYTES],
            window[end + index],
            items[index],
        )
        for index, at in enumerate(range(2, end, KEY_BYTES))
    ]


def pack(events: list[WindowEvent]) -> bytes:
    """The window of `events`, by the definition itself: sort, keep one of each key, cut.

    The oracle of the tests and of `headrace state`; not used on the hot path.
    """
    newest: dict[bytes, WindowEvent] = {}
    for event in events:
        key = pack_key(event.ts, event.event_key)
        held = newest.get(key)
        if held is None or (event.item_id, event.event_type) > (held.item_id, held.event_type):
            newest[key] = event
    keys = sorted(newest)[-WINDOW_EVENTS:]
    return _join(
        keys, [newest[key].event_type for key in keys], [newest[key].item_id for key in keys]
    )
