"""The Confluent wire format for every record: byte 0, 4-byte big-endian schema id, Avro body.

This is the careful path, for any record and any known schema version; the two records of the hot
path have faster ones beside it (`schemas.clicks`, `schemas.recommendations`) that must agree with
this one byte for byte.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any, Final, Protocol

import fastavro
from fastavro.schema import parse_schema

from schemas.errors import RecordError, SchemaError
from schemas.files import FILES, load_schema, parsed_schema, read_lock

MAGIC: Final = 0
HEADER_BYTES: Final = 5
_HEADER: Final = struct.Struct(">bI")


class WriterSchemas(Protocol):
    """Looks up the schema that an unknown id was written with: a registry, or nothing."""

    def schema_of(self, schema_id: int) -> dict[str, Any] | None:
        """The schema with that id, or None where there is none."""


class Codec:
    """Encodes and decodes records; ids from the committed lock or from a registry.

    `ids`: record name -> id to write with; `writers`: id -> (record name, schema) known so far.
    An id that is not known is asked of `registry`, once; failures are remembered, so that poisoned
    records do not make a request each (bounded: `UNKNOWN_IDS_MAX`).
    """

    UNKNOWN_IDS_MAX: Final = 10_000

    def __init__(
        self,
        ids: Mapping[str, int],
        writers: Mapping[int, tuple[str, dict[str, Any]]],
        registry: WriterSchemas | None = None,
    ) -> None:
        self.ids = dict(ids)
        self._writers = {
            key: (name, parse_schema(schema)) for key, (name, schema) in writers.items()
        }
        self._registry = registry
        self._unknown: set[int] = set()

    @classmethod
    def from_lock(cls) -> Codec:
        """The offline default: ids of the committed lock."""
        ids: dict[str, int] = {}
        writers: dict[int, tuple[str, dict[str, Any]]] = {}
        for one in read_lock():
            ids[one.record] = one.schema_id  # the newest version stands last
            writers[one.schema_id] = (one.record, one.schema)
        return cls(ids, writers)

    def header(self, record: str) -> bytes:
        """The five bytes before each body of `record`."""
        return _HEADER.pack(MAGIC, self.ids[record])

    def encode(self, record: str, value: Mapping[str, Any]) -> bytes:
        """Wire bytes of `value`. Raises `RecordError` where it does not fit the schema."""
        out = io.BytesIO()
        out.write(self.header(record))
        try:
            fastavro.schemaless_writer(out, parsed_schema(record), value)
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
            raise RecordError(f"not a {record}: {error!r}") from None
        return out.getvalue()

    def record_of(self, value: bytes) -> str:
        """Name of the record that `value` claims to be. Raises `RecordError`."""
        return self._writer(value)[0]

    def decode(self, record: str, value: bytes | None) -> dict[str, Any]:
        """The record in `value`, read with today's schema.

        Raises `RecordError`; its first word is one of: null, truncated, magic, schema-id,
        other-schema, utf-8, avro, trailing.
        """
        if value is None:
            raise RecordError("null value")
        name, writer = self._writer(value)
        if name != record:
            raise RecordError(f"other-schema: this is a {name}, not a {record}")
        body = io.BytesIO(value)
        body.seek(HEADER_BYTES)
        try:
            read: Any = fastavro.schemaless_reader(body, writer, parsed_schema(record))
        except (EOFError, IndexError):
            raise RecordError("truncated: the body ends too early") from None
        except UnicodeDecodeError as error:
            raise RecordError(f"utf-8: {error}") from None
        except Exception as error:  # fastavro raises many kinds for foreign bytes
            raise RecordError(f"avro: {error!r}") from None
        left = len(value) - body.tell()
        if left:
            raise RecordError(f"trailing: {left} bytes after the record")
        result: dict[str, Any] = read
        return result

    def _writer(self, value: bytes) -> tuple[str, Any]:
        if len(value) < HEADER_BYTES:
            raise RecordError(f"truncated: {len(value)} bytes have no header")
        magic, schema_id = _HEADER.unpack_from(value)
        if magic != MAGIC:
            raise RecordError(f"magic: byte 0 is {value[0]}, not 0")
        known = self._writers.get(schema_id)
        return known if known is not None else self._ask(schema_id)

    def _ask(self, schema_id: int) -> tuple[str, Any]:
        schema = None
        if self._registry is not None and schema_id not in self._unknown:
            schema = self._registry.schema_of(schema_id)
        if schema is None:
            if len(self._unknown) < self.UNKNOWN_IDS_MAX:
                self._unknown.add(schema_id)
            raise RecordError(f"schema-id: no schema has the id {schema_id}")
        name = str(schema.get("name", "")).rpartition(".")[2]
        if name not in FILES:
            name = f"foreign record {name}"
        try:
            self._writers[schema_id] = (name, parse_schema(schema))
        except Exception as error:
            raise SchemaError(
                f"schema {schema_id} of the registry is no schema: {error!r}"
            ) from None
        return self._writers[schema_id]


def current_schemas() -> dict[str, dict[str, Any]]:
    """Record name -> today's schema."""
    return {record: load_schema(record) for record in FILES}
