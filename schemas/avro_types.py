"""Avro schemas as a graph of nodes, with all names resolved (Avro 1.11, "Names")."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from schemas.errors import SchemaError

PRIMITIVES: Final = frozenset(
    {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
)
NO_DEFAULT: Final = object()


@dataclass(slots=True, eq=False)
class AvroField:
    """A field of a record; `default` is `NO_DEFAULT` where it has none."""

    name: str
    type: AvroType
    default: Any
    aliases: tuple[str, ...]


@dataclass(slots=True, eq=False)
class AvroType:
    """One schema. `kind`: a primitive, record, enum, fixed, array, map or union.

    `name`: full name of a named type. `fields`: of a record. `branches`: of a union, or the one
    type of an array's items or a map's values. `default`: of an enum, else None. Records may
    contain themselves, so walk with care.
    """

    kind: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    fields: list[AvroField] = field(default_factory=list)
    branches: list[AvroType] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    default: str | None = None
    size: int = 0
    logical: str = ""

    @property
    def short_name(self) -> str:
        """The name without its namespace: what schema resolution goes by."""
        return self.name.rpartition(".")[2]

    def text(self) -> str:
        """For messages."""
        if self.kind == "union":
            return "[" + ", ".join(branch.text() for branch in self.branches) + "]"
        if self.kind in ("array", "map"):
            return f"{self.kind} of {self.branches[0].text()}"
        logical = f" ({self.logical})" if self.logical else ""
        return (f"{self.kind} {self.short_name}" if self.name else self.kind) + logical


def parse_type(schema: Any) -> AvroType:
    """The graph of a schema in its JSON form. Raises `SchemaError`."""
    try:
        return _parse(schema, "", {})
    except (KeyError, TypeError, AttributeError) as error:
        raise SchemaError(f"no Avro schema: {error!r} in {str(schema)[:200]}") from None


def _parse(schema: Any, namespace: str, names: dict[str, AvroType]) -> AvroType:
    if isinstance(schema, str):
        if schema in PRIMITIVES:
            return AvroType(schema)
        found = names.get(_full(schema, namespace)) or names.get(schema)
        if found is None:
            raise SchemaError(f"no Avro schema: type {schema!r} is not defined before its use")
        return found
    if isinstance(schema, list):
        return AvroType("union", branches=[_parse(branch, namespace, names) for branch in schema])
    kind = schema["type"]
    if not isinstance(kind, str) or kind in names:
        return _parse(kind, namespace, names)
    logical = str(schema.get("logicalType", ""))
    if kind in PRIMITIVES:
        return AvroType(kind, logical=logical)
    if kind in ("array", "map"):
        return AvroType(
            kind,
            branches=[_parse(schema["items" if kind == "array" else "values"], namespace, names)],
        )
    if kind not in ("record", "enum", "fixed"):
        return _parse(kind, namespace, names)
    name = _full(schema["name"], schema.get("namespace", namespace))
    if name in names:
        raise SchemaError(f"no Avro schema: {name} is defined twice")
    space = name.rpartition(".")[0]
    aliases = tuple(_full(alias, space) for alias in schema.get("aliases", ()))
    node = names[name] = AvroType(kind, name, aliases, logical=logical)
    if kind == "enum":
        node.symbols, node.default = tuple(schema["symbols"]), schema.get("default")
    elif kind == "fixed":
        node.size = schema["size"]
    else:
        node.fields = [
            AvroField(
                one["name"],
                _parse(one["type"], space, names),
                one.get("default", NO_DEFAULT),
                tuple(one.get("aliases", ())),
            )
            for one in schema["fields"]
        ]
    return node


def _full(name: str, namespace: str | None) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def fits(value: Any, kind: AvroType) -> bool:
    """Whether `value` is a default of that type in JSON (Avro 1.11, "Complex Types").

    A union's default is of its first branch.
    """
    match kind.kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "int" | "long":
            bits = 31 if kind.kind == "int" else 63
            return (
                isinstance(value, int)
                and not isinstance(value, bool)
                and -(1 << bits) <= value < 1 << bits
            )
        case "float" | "double":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "bytes":
            return isinstance(value, str) and all(ord(letter) < 256 for letter in value)
        case "fixed":
            return (
                isinstance(value, str)
                and len(value) == kind.size
                and all(ord(letter) < 256 for letter in value)
            )
        case "enum":
            return value in kind.symbols
        case "array":
            return isinstance(value, list) and all(fits(one, kind.branches[0]) for one in value)
        case "map":
            return isinstance(value, dict) and all(
                fits(one, kind.branches[0]) for one in value.values()
            )
        case "union":
            return fits(value, kind.branches[0])
        case _:
            return isinstance(value, dict) and all(
                fits(value[one.name], one.type)
                if one.name in value
                else one.default is not NO_DEFAULT
                for one in kind.fields
            )
