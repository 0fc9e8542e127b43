"""Clicks on the hot path: straight from wire bytes to the byte strings that the state keeps.

A click that was written with today's schema is sliced by hand, at about a third of the cost of a
general decoder, because the state and the answers need its fields as bytes anyway. Whatever is
not plainly that (another schema version, long fields, anything odd) goes to the careful path,
which either decodes it or says what is wrong. Both must give the same `RawClick`: a property test
holds them together.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from schemas.codec import HEADER_BYTES, Codec
from schemas.errors import RecordError

EVENT_TYPES: Final = ("view", "cart", "purchase", "remove", "search", "impression")
_EVENT_TYPE_CODES: Final = {name: code for code, name in enumerate(EVENT_TYPES)}
EVENT_ID_CHARS: Final = 36
USER_ID_BYTES_MAX: Final = 128
ITEM_ID_BYTES_MAX: Final = 128
# Replays touch many times; a day has 10,547 of these.
BASES_MAX: Final = 100_000


class RawClick(NamedTuple):
    """The fields of a click that the hot path needs.

    `event_id`: 36 ASCII characters; `event_key`: the same, as 16 bytes; `user_id`, `item_id`:
    UTF-8; `event_type`: index into `EVENT_TYPES`; `ts`: ms since the epoch.
    """

    event_id: bytes
    event_key: bytes
    user_id: bytes
    item_id: bytes
    event_type: int
    ts: int


def click_decoder(codec: Codec) -> Callable[[bytes], RawClick]:
    """A function from wire bytes to `RawClick`.

    It checks form, not sense: times and empty fields are the validation stage's business. Raises
    `RecordError` with the reason as its first word: those of `Codec.decode`, and event-id.
    """
    header = codec.header("Click")
    careful = _careful(codec)
    bases: dict[bytes, int] = {}
    new = tuple.__new__  # a third of the cost of calling the class

    def decode(value: bytes) -> RawClick:
        # Lengths below 64 are one byte, twice the length; anything else is the careful path's.
        try:
            if value[:HEADER_BYTES] != header or value[5] != 2 * EVENT_ID_CHARS:
                return careful(value)
            event_id = value[6:42]
            at = 43 + (value[42] >> 1)
            user_id = value[43:at]
            end = at + 1 + (value[at] >> 1)
            item_id = value[at + 1 : end]
            event_type = value[end] >> 1
            # Zigzag varint of a time between 1987 and 2527 in ms: six bytes, of which the last
            # four change every eight seconds only, so their value is looked up.
            low, high = value[end + 1], value[end + 2]
            base = bases.get(value[end + 3 : end + 7])
            if base is None:
                base = _base(value[end + 3 : end + 7])
                if len(bases) >= BASES_MAX:
                    bases.clear()
                bases[value[end + 3 : end + 7]] = base
            if (
                (value[42] | value[at] | value[end]) & 0x81
                or event_type > 5
                or base < 0
                or not low & high & 128
                or low & 1
            ):
                return careful(value)
            ts = base | (low & 127 | (high & 127) << 7) >> 1
            # The rest is not needed here, but a broken tail means a broken record.
            tail = end + 7
            session_end = tail + 1 + (value[tail] >> 1)
            session = value[tail + 1 : session_end]
            if (
                value[tail] & 0x81
                or (value[session_end:] != b"\0\0\0" and not _tail_is_whole(value, session_end))
                or not (
                    (user_id.isascii() and item_id.isascii() and session.isascii())
                    or _is_utf8(user_id, item_id, session)
                )
                or event_id[8] != 45
                or event_id[13] != 45
                or event_id[18] != 45
                or event_id[23] != 45
            ):
                return careful(value)
            return new(
                RawClick,
                (
                    event_id,
                    unhexlify(event_id.replace(b"-", b"")),
                    user_id,
                    item_id,
                    event_type,
                    ts,
                ),
            )
        except (IndexError, ValueError):
            return careful(value)

    return decode


def _base(high: bytes) -> int:
    """The upper bits of a time from the last four bytes of its varint; -1 if it is not that."""
    if len(high) != 4 or not high[0] & high[1] & high[2] & 128 or high[3] > 127:
        return -1
    return (
        (high[0] & 127) << 14 | (high[1] & 127) << 21 | (high[2] & 127) << 28 | high[3] << 35
    ) >> 1


def _tail_is_whole(value: bytes, at: int) -> bool:
    """Whether `query`, `price` and `quantity`, plainly coded, fill the record exactly.

    Raises `IndexError` where it ends early.
    """
    if value[at] == 2:  # a query of less than 64 bytes
        length = value[at + 1]
        end = at + 2 + (length >> 1)
        if length & 0x81 or not _is_utf8(value[at + 2 : end]):
            return False
        at = end
    elif value[at] == 0:
        at += 1
    else:
        return False
    if value[at] == 2:  # a price: eight bytes
        at += 9
    elif value[at] == 0:
        at += 1
    else:
        return False
    if value[at] == 2:  # a quantity below 64
        return value[at + 1] < 128 and len(value) == at + 2
    return value[at] == 0 and len(value) == at + 1


def _is_utf8(*fields: bytes) -> bool:
    try:
        for field in fields:
            field.decode()
    except UnicodeDecodeError:
        return False
    return True


def _careful(codec: Codec) -> Callable[[bytes], RawClick]:
    def decode(value: bytes) -> RawClick:
        click = codec.decode("Click", value)
        event_id = click["event_id"]
        return RawClick(
            event_id.encode(),
            event_key(event_id),
            click["user_id"].encode(),
            click["item_id"].encode(),
            _EVENT_TYPE_CODES[click["event_type"]],
            click["ts"],
        )

    return decode


def event_key(event_id: str) -> bytes:
    """The 16 bytes of an event id. Raises `RecordError` unless it is a UUID in canonical form."""
    try:
        if len(event_id) == EVENT_ID_CHARS and all(event_id[at] == "-" for at in (8, 13, 18, 23)):
            return unhexlify(event_id.replace("-", ""))
    except ValueError:
        pass
    raise RecordError(f"event-id: {event_id[:64]!r} is not a UUID of {EVENT_ID_CHARS} characters")


def encode_click(codec: Codec, click: dict[str, Any]) -> bytes:
    """Wire bytes of a click. Raises `RecordError` where it does not fit the schema."""
    return codec.encode("Click", click)
