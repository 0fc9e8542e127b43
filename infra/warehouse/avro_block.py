"""Kafka's record bytes as an Avro file that ClickHouse parses: nothing is decoded here.

An Avro object container is a schema and then records back to back. Our records already are Avro;
so a file of them is made by putting a few fields before each body and declaring a schema that
has those fields first. Costs well under a microsecond a record.

One record that is shorter or longer than it claims would shift all that follow. So each begins
with a seal, text that was drawn at random for this file, and ClickHouse refuses the file when a
seal is not where it must be (`Selection.select`); a last, empty-handed record seals the end.
"""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from infra.warehouse.targets import Target, writer_schema
from schemas.codec import HEADER_BYTES, Codec
from schemas.errors import RecordError

_NUMBERS: Final = struct.Struct("<dd").pack
_SEAL_BYTES: Final = 9  # 12 characters: nobody guesses 72 bits that live for one insert


class Taken(Protocol):
    """A record as the Kafka client hands it over."""

    def offset(self) -> int | None:
        """Its offset."""

    def key(self) -> bytes | None:
        """Its key."""

    def value(self) -> bytes | None:
        """Its value."""

    def timestamp(self) -> tuple[int, int]:
        """Its kind of time, and ms since the epoch."""


@dataclass(frozen=True, slots=True)
class Block:
    """An Avro file. `records`: how many it has; `unreadable`: (index of source, offset, why)."""

    data: bytes
    seal: str
    records: int
    unreadable: tuple[tuple[int, int, str], ...]


class BlockBuilder:
    """Builds the files of one target.

    `bytes_max`: larger records are left out, as the workers do with clicks.
    """

    def __init__(self, target: Target, codec: Codec, bytes_max: int) -> None:
        self._target = target
        self._codec = codec
        self._bytes_max = bytes_max
        self._header = codec.header(target.record)
        self._schema = json.dumps(writer_schema(target)).encode()
        self._blank: bytes | None = None

    def build(self, sources: Sequence[Sequence[Taken]], *, careful: bool = False) -> Block:
        """One file of all records of all sources, in their order.

        With `careful` each record is decoded first and left out where that fails; it makes a file
        that cannot be misaligned out of any bytes, at a twentieth of the speed.
        """
        seal = secrets.token_urlsafe(_SEAL_BYTES)
        sealed = _text(seal)
        header, bytes_max, numbers = self._header, self._bytes_max, _NUMBERS
        parts: list[bytes] = []
        add = parts.append
        unreadable: list[tuple[int, int, str]] = []
        last = b""
        for index, records in enumerate(sources, 1):
            lead = sealed + _long(index)
            for record in records:
                value = record.value()
                offset = record.offset() or 0
                if (
                    careful
                    or value is None
                    or value[:HEADER_BYTES] != header
                    or len(value) > bytes_max
                ):
                    try:
                        last = self._body(record)
                    except RecordError as error:
                        unreadable.append((index, offset, str(error)))
                        continue
                else:
                    last = value[HEADER_BYTES:]
                add(lead + numbers(offset, record.timestamp()[1]))
                add(last)
        count = len(parts) // 2
        if parts:
            # Its body is whatever came last: it is read as far as the seal, and dropped.
            add(sealed + b"\0" + numbers(0, 0))
            add(self._empty())
        data = _container(self._schema, b"".join(parts), count + 1 if parts else 0)
        return Block(data, seal, count, tuple(unreadable))

    def _body(self, record: Taken) -> bytes:
        """The body in today's schema. Raises `RecordError`."""
        value = record.value()
        if value is None:
            return self._withdrawn(record)
        if len(value) > self._bytes_max:
            raise RecordError(f"too-large: {len(value)} bytes")
        decoded = self._codec.decode(self._target.record, value)
        return self._codec.encode(self._target.record, decoded)[HEADER_BYTES:]

    def _withdrawn(self, record: Taken) -> bytes:
        if self._target.table != "models":
            raise RecordError("null value")
        empty: dict[str, Any] = dict.fromkeys(("version", "uri", "sha256", "contract"), "")
        empty["model"] = (record.key() or b"").decode("utf-8", "replace")
        empty |= {"announced_at": record.timestamp()[1], "metric_names": [], "metric_values": []}
        return self._codec.encode("ModelAnnouncement", empty)[HEADER_BYTES:]

    def _empty(self) -> bytes:
        """A smallest body of the record."""
        if self._blank is None:
            fields = writer_schema(self._target)["fields"][4:]
            blank = {field["name"]: _nothing(field["type"]) for field in fields}
            self._blank = self._codec.encode(self._target.record, blank)[HEADER_BYTES:]
        return self._blank


def _nothing(avro: Any) -> Any:
    if isinstance(avro, list):
        return None
    if isinstance(avro, dict):
        return avro["symbols"][0] if avro["type"] == "enum" else []
    return {"string": "", "bytes": b"", "boolean": False}.get(avro, 0)


def _container(schema: bytes, body: bytes, count: int) -> bytes:
    sync = secrets.token_bytes(16)
    meta = _long(2) + _text("avro.schema") + _long(len(schema)) + schema
    meta += _text("avro.codec") + _text("null") + b"\0"
    block = _long(count) + _long(len(body)) + body + sync if count else b""
    return b"".join((b"Obj\x01", meta, sync, block))


def _text(text: str) -> bytes:
    raw = text.encode()
    return _long(len(raw)) + raw


def _long(number: int) -> bytes:
    """Avro's zigzag varint of a number that is not negative."""
    number <<= 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
