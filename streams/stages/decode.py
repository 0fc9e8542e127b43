"""First hop: raw records to clicks, and everything else to rejections with a reason.

Reasons are short and stable, for counting: null, too-large, truncated, magic, schema-id,
other-schema, utf-8, avro, trailing, event-id, user-id, item-id, time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from schemas.clicks import ITEM_ID_BYTES_MAX, USER_ID_BYTES_MAX, RawClick
from schemas.errors import RecordError

# Before the first of these no shop of today has clicks: older times are a unit gone wrong.
TS_MIN_MS: Final = 946_684_800_000  # 2000-01-01
SEARCH: Final = 4


class RawRecord(Protocol):
    """A record as the Kafka client hands it over."""

    def topic(self) -> str | None:
        """Its topic."""

    def partition(self) -> int | None:
        """Its partition."""

    def offset(self) -> int | None:
        """Its offset."""

    def key(self) -> bytes | None:
        """Its key."""

    def value(self) -> bytes | None:
        """Its value."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that cannot be used, and why."""

    record: RawRecord
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that a click must keep; times in ms since the epoch, sizes in bytes."""

    record_bytes_max: int
    ts_max: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """The clicks of a batch, each with its partition and whether this region answers it."""

    clicks: list[RawClick]
    partitions: list[int]
    own: list[bool]
    rejections: list[Rejection]


def decode(
    records: Sequence[RawRecord],
    decoder: Callable[[bytes], RawClick],
    limits: Limits,
    own_topic: str,
) -> Decoded:
    """Decode and validate a batch; keeps the order of the good ones."""
    clicks: list[RawClick] = []
    partitions: list[int] = []
    own: list[bool] = []
    rejections: list[Rejection] = []
    size_max, ts_max = limits.record_bytes_max, limits.ts_max
    for record in records:
        value = record.value()
        try:
            if value is None:
                raise RecordError("null value")
            if len(value) > size_max:
                raise RecordError(f"too-large: {len(value)} bytes, at most {size_max} are taken")
            click = decoder(value)
            user, item = click[2], click[3]
            if not TS_MIN_MS <= click[5] <= ts_max:
                raise RecordError(f"time: {click[5]} ms is before 2000 or too far in the future")
            if not 0 < len(user) <= USER_ID_BYTES_MAX:
                raise RecordError(f"user-id: {len(user)} bytes, 1 to {USER_ID_BYTES_MAX} are taken")
            if len(item) > ITEM_ID_BYTES_MAX or b"\0" in item or (not item and click[4] != SEARCH):
                raise RecordError(f"item-id: {item[:64]!r} of {len(item)} bytes")
        except RecordError as error:
            rejections.append(_rejection(record, str(error)))
            continue
        clicks.append(click)
        partitions.append(record.partition() or 0)
        own.append(record.topic() == own_topic)
    return Decoded(clicks, partitions, own, rejections)


def _rejection(record: RawRecord, message: str) -> Rejection:
    reason, _, detail = message.partition(" ")
    return Rejection(record, reason.rstrip(":"), detail)
