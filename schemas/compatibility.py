"""Whether schema versions can read one another: Avro 1.11 "Schema Resolution", in both directions.

Full-transitive: every version reads what every other one wrote, so that producers and consumers
of different ages meet in one topic, a roll-back is always possible, and old records stay
readable. What the rules cannot show is tried: random records written with one version are read
with the other.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fastavro
from fastavro.schema import parse_schema

from schemas.avro_types import NO_DEFAULT, AvroField, AvroType, fits, parse_type
from schemas.errors import SchemaError

# Writer's type -> the types that may read it. Only towards the wider one: such a change is never
# compatible in both directions. The specification also lets string and bytes read each other, but
# not all bytes are UTF-8, so here they do not.
_PROMOTIONS: Final[dict[str, tuple[str, ...]]] = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
}
TRIALS: Final = 40
_DEPTH_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """`reader` cannot read at `where` what `writer` wrote, because of `reason`."""

    reader: str
    writer: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.reader} cannot read {self.writer} at {self.where or '/'}: {self.reason}"


def full_transitive(
    versions: Sequence[tuple[str, Mapping[str, Any]]], newest: tuple[str, Mapping[str, Any]]
) -> list[Incompatibility]:
    """What speaks against `newest` beside the earlier versions; each is (label, schema).

    Raises `SchemaError` where a schema is none.
    """
    label, schema = newest
    faults = [
        Incompatibility(label, label, where, reason)
        for where, reason in default_faults(parse_type(schema))
    ]
    for old_label, old in versions:
        pairs = ((label, schema, old_label, old), (old_label, old, label, schema))
        for reader_label, reader, writer_label, writer in pairs:
            found = [
                Incompatibility(reader_label, writer_label, where, reason)
                for where, reason in can_read(parse_type(reader), parse_type(writer))
            ]
            # The trial only where the rules agree: otherwise it repeats them in other words.
            trial = "" if found or faults else try_to_read(reader, writer)
            if trial:
                found = [Incompatibility(reader_label, writer_label, "", trial)]
            faults += found
    return faults


def can_read(reader: AvroType, writer: AvroType) -> list[tuple[str, str]]:
    """All places (path, reason) at which `reader` cannot read what `writer` wrote."""
    return list(_resolve(reader, writer, "", set()))


def default_faults(kind: AvroType) -> list[tuple[str, str]]:
    """All places at which a default is not of its type."""
    return list(_defaults(kind, "", set()))


def _defaults(kind: AvroType, path: str, seen: set[int]) -> Iterator[tuple[str, str]]:
    if id(kind) in seen:
        return
    seen.add(id(kind))
    if kind.kind == "enum" and kind.default is not None and kind.default not in kind.symbols:
        yield path, f"the default {kind.default!r} is not among the symbols"
    for branch in kind.branches:
        yield from _defaults(branch, path, seen)
    for one in kind.fields:
        here = f"{path}/{one.name}"
        if one.default is not NO_DEFAULT and not fits(one.default, one.type):
            yield here, f"the default {one.default!r} is no {one.type.text()}"
        yield from _defaults(one.type, here, seen)


def _resolve(
    reader: AvroType, writer: AvroType, path: str, seen: set[tuple[int, int]]
) -> Iterator[tuple[str, str]]:
    if (id(reader), id(writer)) in seen:
        return
    seen.add((id(reader), id(writer)))
    if writer.kind == "union":
        # Which branch is written shows with the data only, so all of them must be readable.
        for branch in writer.branches:
            yield from _resolve(reader, branch, path, seen)
    elif reader.kind == "union":
        branch_read = _branch(reader, writer)
        if branch_read is None:
            yield path, f"{writer.text()} is none of {reader.text()}"
        else:
            yield from _resolve(branch_read, writer, path, seen)
    elif reader.kind != writer.kind:
        if reader.kind not in _PROMOTIONS.get(writer.kind, ()):
            yield path, f"{writer.text()} cannot be read as {reader.text()}"
    elif not _same_name(reader, writer):
        yield path, f"{writer.text()} is not {reader.text()}: names differ, and no alias joins them"
    elif reader.logical != writer.logical:
        yield (
            path,
            f"the logical type changed from {writer.logical or 'none'} to {reader.logical or 'none'}",
        )
    else:
        yield from _resolve_same_kind(reader, writer, path, seen)


def _resolve_same_kind(
    reader: AvroType, writer: AvroType, path: str, seen: set[tuple[int, int]]
) -> Iterator[tuple[str, str]]:
    if reader.kind in ("array", "map"):
        yield from _resolve(reader.branches[0], writer.branches[0], f"{path}[]", seen)
    elif reader.kind == "fixed" and reader.size != writer.size:
        yield path, f"its size changed from {writer.size} to {reader.size} bytes"
    elif reader.kind == "enum":
        unknown = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
        if unknown and reader.default is None:
            yield (
                path,
                f"the symbols {', '.join(unknown)} are unknown there, and there is no default to read them as",
            )
    elif reader.kind == "record":
        for one in reader.fields:
            there = _field(one, writer)
            if there is not None:
                yield from _resolve(one.type, there.type, f"{path}/{one.name}", seen)
            elif one.default is NO_DEFAULT:
                yield f"{path}/{one.name}", "the field is not written there, and has no default"


def _branch(reader: AvroType, writer: AvroType) -> AvroType | None:
    """The branch of the reader's union that reads the writer's type: the first of its kind and
    name, else the first that it can be promoted to."""
    for branch in reader.branches:
        if branch.kind == writer.kind and _same_name(branch, writer):
            return branch
    return next(
        (branch for branch in reader.branches if branch.kind in _PROMOTIONS.get(writer.kind, ())),
        None,
    )


def _same_name(reader: AvroType, writer: AvroType) -> bool:
    if not reader.name:
        return True
    # A reader's aliases are other names for the writer's type.
    return reader.short_name == writer.short_name or writer.name in reader.aliases


def _field(one: AvroField, writer: AvroType) -> AvroField | None:
    names = (one.name, *one.aliases)
    return next((there for there in writer.fields if there.name in names), None)


def try_to_read(reader: Mapping[str, Any], writer: Mapping[str, Any], seed: int = 0) -> str:
    """Write random records with one schema and read them with the other; "" or what went wrong."""
    rng = random.Random(seed)
    try:
        writes, reads = parse_schema(dict(writer)), parse_schema(dict(reader))
    except Exception as error:  # fastavro raises several kinds, all about the schema
        raise SchemaError(f"no Avro schema: {error!r}") from None
    kind = parse_type(writer)
    for _ in range(TRIALS):
        value = random_value(kind, rng)
        out = io.BytesIO()
        try:
            fastavro.schemaless_writer(out, writes, value)
            size = out.tell()
            out.seek(0)
            fastavro.schemaless_reader(out, writes, reads)
        except Exception as error:  # whatever it is, the record is not readable
            return f"a record that was written could not be read: {error!r}"
        if out.tell() != size:
            return f"{size - out.tell()} bytes of a record were left unread"
    return ""


def random_value(kind: AvroType, rng: random.Random, depth: int = 0) -> Any:
    """A value of that type, edges included."""
    match kind.kind:
        case "null":
            return None
        case "boolean":
            return rng.random() < 0.5
        case "int" | "long":
            bits = rng.randrange(1, 32 if kind.kind == "int" else 64)
            return rng.randrange(-(1 << (bits - 1)), 1 << (bits - 1))
        case "float" | "double":
            return rng.choice((0.0, -1.5, 3.25, float(rng.randrange(1 << 20))))
        case "string":
            return "".join(rng.choice("ab é€𝄞\0") for _ in range(rng.randrange(6)))
        case "bytes":
            return rng.randbytes(rng.randrange(6))
        case "fixed":
            return rng.randbytes(kind.size)
        case "enum":
            return rng.choice(kind.symbols)
        case "array":
            return [
                random_value(kind.branches[0], rng, depth + 1) for _ in range(_length(rng, depth))
            ]
        case "map":
            return {
                str(at): random_value(kind.branches[0], rng, depth + 1)
                for at in range(_length(rng, depth))
            }
        case "union":
            plain = [
                branch for branch in kind.branches if branch.kind not in ("record", "array", "map")
            ]
            branch = rng.choice(plain if plain and depth > _DEPTH_MAX else kind.branches)
            value = random_value(branch, rng, depth + 1)
            # Records of a union are told apart by name only.
            return (branch.name, value) if branch.kind == "record" else value
        case _:
            return {one.name: random_value(one.type, rng, depth + 1) for one in kind.fields}


def _length(rng: random.Random, depth: int) -> int:
    return 0 if depth > _DEPTH_MAX else rng.randrange(4)
