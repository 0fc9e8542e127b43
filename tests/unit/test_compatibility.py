"""Avro's schema resolution, rule by rule, and as a law: what the rules allow can be read."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.avro_types import NO_DEFAULT, fits, parse_type
from schemas.codec import current_schemas
from schemas.compatibility import can_read, default_faults, full_transitive, try_to_read
from schemas.errors import IncompatibleSchemaError, SchemaError
from schemas.files import FILES, LockedSchema, fingerprint, read_lock
from schemas.lock import check, extended, lock_faults


def record(*fields: dict[str, Any], name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "n", "fields": list(fields), **more}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


def reasons(reader: Any, writer: Any) -> list[tuple[str, str]]:
    return can_read(parse_type(reader), parse_type(writer))


# (reader, writer, may read): the rules of the specification, one by one.
RULES: list[tuple[Any, Any, bool]] = [
    *[
        (kind, kind, True)
        for kind in ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
    ],
    ("long", "int", True),
    ("float", "int", True),
    ("double", "int", True),
    ("float", "long", True),
    ("double", "long", True),
    ("double", "float", True),
    ("int", "long", False),
    ("int", "float", False),
    ("long", "float", False),
    ("float", "double", False),
    ("string", "int", False),
    ("boolean", "int", False),
    ("string", "bytes", False),
    ("bytes", "string", False),
    ({"type": "long", "logicalType": "timestamp-millis"}, "long", False),
    ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}, True),
    ({"type": "array", "items": "int"}, {"type": "array", "items": "long"}, False),
    ({"type": "map", "values": "long"}, {"type": "map", "values": "int"}, True),
    ({"type": "map", "values": "int"}, {"type": "array", "items": "int"}, False),
    (enum("a", "b"), enum("a"), True),
    (enum("a"), enum("a", "b"), False),
    (enum("a", default="a"), enum("a", "b"), True),
    (enum("a"), {**enum("a"), "name": "F"}, False),
    ({**enum("a"), "aliases": ["F"]}, {**enum("a"), "name": "F"}, True),
    ({"type": "fixed", "name": "X", "size": 4}, {"type": "fixed", "name": "X", "size": 4}, True),
    ({"type": "fixed", "name": "X", "size": 4}, {"type": "fixed", "name": "X", "size": 5}, False),
    (["null", "int"], "int", True),
    (["null", "string"], "int", False),
    (["null", "double"], "int", True),
    ("int", ["null", "int"], False),
    (["int", "null"], ["null", "int"], True),
    (["null", "int"], ["null", "int", "string"], False),
    (["null", "int", "string"], ["null", "int"], True),
    (record(field("a", "int")), record(field("a", "int")), True),
    (
        record(field("a", "int"), field("b", "int")),
        record(field("b", "int"), field("a", "int")),
        True,
    ),
    (record(field("a", "int"), field("b", "int", default=1)), record(field("a", "int")), True),
    (record(field("a", "int"), field("b", "int")), record(field("a", "int")), False),
    (record(field("a", "int")), record(field("a", "int"), field("b", "int")), True),
    (record(field("a", "long")), record(field("a", "int")), True),
    (record(field("b", "int", aliases=["a"])), record(field("a", "int")), True),
    (record(field("b", "int")), record(field("a", "int")), False),
    (record(name="S"), record(name="R"), False),
    (record(name="S", aliases=["R"]), record(name="R"), True),
    (record(namespace="m"), record(), True),
    (
        [record(field("a", "int"), name="P"), record(field("b", "int"), name="Q")],
        record(field("b", "int"), name="Q"),
        True,
    ),
]


@pytest.mark.parametrize(("reader", "writer", "allowed"), RULES)
def test_rules(reader: Any, writer: Any, allowed: bool) -> None:
    assert (not reasons(reader, writer)) is allowed


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        (reader, writer)
        for reader, writer, allowed in RULES
        if allowed and "aliases" not in str(reader)
    ],
)
def test_what_the_rules_allow_the_referee_reads(reader: Any, writer: Any) -> None:
    wrap = (record(field("x", one), name="Outer") for one in (reader, writer))
    assert try_to_read(*wrap) == ""


def test_places_are_named() -> None:
    old = record(field("a", {"type": "array", "items": record(field("b", "int"), name="Inner")}))
    new = record(field("a", {"type": "array", "items": record(field("b", "string"), name="Inner")}))
    assert reasons(new, old) == [("/a[]/b", "int cannot be read as string")]


def test_records_that_contain_themselves() -> None:
    def tree(kind: str) -> dict[str, Any]:
        return record(field("value", kind), field("next", ["null", "R"], default=None))

    assert reasons(tree("int"), tree("int")) == []
    assert reasons(tree("int"), tree("long")) == [("/value", "long cannot be read as int")]
    assert try_to_read(tree("long"), tree("int")) == ""


def test_names_are_resolved_within_namespaces() -> None:
    inner = {"type": "enum", "name": "E", "symbols": ["a"]}
    one = parse_type(record(field("a", inner), field("b", "E"), field("c", "n.E")))
    assert one.fields[0].type is one.fields[1].type is one.fields[2].type
    assert one.fields[0].type.name == "n.E"
    with pytest.raises(SchemaError, match="'Nowhere' is not defined"):
        parse_type(record(field("a", "Nowhere")))
    with pytest.raises(SchemaError, match=r"n\.E is defined twice"):
        parse_type(record(field("a", inner), field("b", inner)))
    with pytest.raises(SchemaError, match="no Avro schema"):
        parse_type({"name": "without type"})


@pytest.mark.parametrize(
    ("value", "kind", "good"),
    [
        (None, ["null", "int"], True),
        (1, ["null", "int"], False),
        (1, ["int", "null"], True),
        (1 << 31, "int", False),
        (1 << 31, "long", True),
        (True, "int", False),
        (1, "double", True),
        ("1", "double", False),
        ("ÿ", "bytes", True),
        ("Ā", "bytes", False),
        ([1], {"type": "array", "items": "int"}, True),
        (["a"], {"type": "array", "items": "int"}, False),
        ({"k": 1}, {"type": "map", "values": "int"}, True),
        ("c", enum("a", "b"), False),
        ({}, record(field("a", "int", default=1)), True),
        ({}, record(field("a", "int")), False),
    ],
)
def test_defaults_fit_their_types(value: Any, kind: Any, good: bool) -> None:
    assert fits(value, parse_type(kind)) is good
    holder = parse_type(record(field("x", kind, default=value), name="Outer"))
    assert (default_faults(holder) == []) is good


def test_a_bad_enum_default_is_found() -> None:
    assert default_faults(parse_type(enum("a", default="z")))


# -- laws over random schemas

names = st.sampled_from(["a", "b", "c", "d"])
kinds: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])
    | st.lists(st.sampled_from("xyz"), min_size=1, max_size=3, unique=True).map(
        lambda symbols: enum(*symbols)
    ),
    lambda inner: (
        st.fixed_dictionaries({"type": st.just("array"), "items": inner})
        | st.fixed_dictionaries({"type": st.just("map"), "values": inner})
        | inner.filter(lambda kind: kind != "null" and not isinstance(kind, list)).map(
            lambda kind: ["null", kind]
        )
    ),
    max_leaves=3,
)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    fields = []
    for at, name in enumerate(draw(st.lists(names, max_size=4, unique=True))):
        # Each enum has a name of its own: a name is defined once in a schema.
        kind = _renamed(draw(kinds), f"E{at}")
        one = field(name, kind)
        if draw(st.booleans()) and isinstance(kind, list):
            one["default"] = None
        fields.append(one)
    return record(*fields)


def _renamed(kind: Any, name: str) -> Any:
    if isinstance(kind, list):
        return [_renamed(one, name) for one in kind]
    if isinstance(kind, dict):
        changed = {
            key: _renamed(value, name) if key in ("items", "values") else value
            for key, value in kind.items()
        }
        return changed | ({"name": name} if "symbols" in kind else {})
    return kind


@given(records())
def test_every_schema_reads_itself(schema: dict[str, Any]) -> None:
    assert reasons(schema, schema) == []
    assert try_to_read(schema, schema) == ""


@given(records(), records())
def test_what_the_rules_allow_can_be_read(reader: dict[str, Any], writer: dict[str, Any]) -> None:
    if not reasons(reader, writer):
        assert try_to_read(reader, writer) == ""


@given(records(), names, st.booleans())
def test_only_a_field_with_a_default_may_come_or_go(
    schema: dict[str, Any], name: str, has_default: bool
) -> None:
    fields = [one for one in schema["fields"] if one["name"] != name]
    extra = field(name, "string", **({"default": ""} if has_default else {}))
    shorter, longer = record(*fields), record(*fields, extra)
    came = full_transitive([("old", shorter)], ("new", longer))
    went = full_transitive([("old", longer)], ("new", shorter))
    assert (came == []) is (went == []) is has_default
    if not has_default:
        assert (came[0].reader, came[0].writer) == ("new", "old")
        assert (went[0].reader, went[0].writer) == ("old", "new")


@given(records(), records(), records())
def test_a_change_is_judged_beside_every_version(one: Any, two: Any, three: Any) -> None:
    both = full_transitive([("1", one), ("2", two)], ("3", three))
    apart = [
        full_transitive([(label, old)], ("3", three)) for label, old in (("1", one), ("2", two))
    ]
    assert bool(both) == any(apart)


# -- the lock


def changed(record_name: str, change: Any) -> dict[str, dict[str, Any]]:
    schemas = copy.deepcopy(current_schemas())
    change(schemas[record_name])
    return schemas


def add(schema: dict[str, Any]) -> None:
    schema["fields"].append(field("extra", "string", default=""))


def test_a_compatible_change_gets_a_new_version_and_id() -> None:
    locked = read_lock()
    schemas = changed("Click", add)
    with pytest.raises(
        SchemaError, match=r"Click differs from version 1 in the lock: run `headrace schemas lock`"
    ):
        check(locked, schemas)
    longer = extended(locked, schemas)
    assert longer[:-1] == locked
    newest = longer[-1]
    assert (newest.record, newest.version) == ("Click", 2)
    assert newest.schema_id == max(one.schema_id for one in locked) + 1
    check(longer, schemas)
    assert extended(longer, schemas) == longer, "locking twice changes nothing"
    # Back to the first: again a version of its own, since ids are never used twice.
    back = extended(longer, current_schemas())
    assert (back[-1].version, back[-1].schema) == (3, locked[0].schema)


def test_an_incompatible_change_is_refused_by_both() -> None:
    schemas = changed("Click", lambda schema: schema["fields"].append(field("extra", "string")))
    for judge in (check, extended):
        with pytest.raises(IncompatibleSchemaError, match="cannot read Click version 1 at /extra"):
            judge(read_lock(), schemas)


def test_a_change_must_suit_old_versions_too() -> None:
    """Version 2 dropped a field with a default; version 3 may not bring it back as another type."""
    locked = read_lock()
    longer = extended(locked, changed("Item", lambda schema: schema["fields"].pop(1)))

    def bring_back(schema: dict[str, Any]) -> None:
        schema["fields"][1] = field("title", "int", default=0)

    with pytest.raises(IncompatibleSchemaError, match="Item version 1"):
        extended(longer, changed("Item", bring_back))


def test_a_renamed_record_is_refused() -> None:
    with pytest.raises(IncompatibleSchemaError, match="names its record 'Clack'"):
        check(read_lock(), changed("Click", lambda schema: schema.update(name="Clack")))


def test_faults_of_the_lock() -> None:
    locked = read_lock()
    first = locked[0]
    edited = LockedSchema(first.record, 1, 1, first.fingerprint, first.schema | {"doc": "edited"})
    assert "was edited" in lock_faults([edited, *locked[1:]])[0]
    twice = LockedSchema("Item", 2, 1, fingerprint({}), {})
    assert "id 1 twice" in lock_faults([*locked, twice])[0]
    gap = LockedSchema("Click", 3, 99, first.fingerprint, first.schema)
    assert "versions of Click are [1, 3]" in lock_faults([*locked, gap])[0]
    foreign = LockedSchema("Gone", 1, 99, first.fingerprint, first.schema)
    assert "Gone, which has no file" in lock_faults([*locked, foreign])[0]
    with pytest.raises(SchemaError, match="Alert is not in the lock"):
        check([one for one in locked if one.record != "Alert"], current_schemas())


def test_a_fresh_lock_numbers_all_records_in_order() -> None:
    fresh = extended([], current_schemas())
    assert [one.record for one in fresh] == list(FILES)
    assert [one.schema_id for one in fresh] == list(range(1, len(FILES) + 1))


def test_no_default_is_not_none() -> None:
    assert parse_type(record(field("a", "int"))).fields[0].default is NO_DEFAULT
    assert parse_type(record(field("a", ["null", "int"], default=None))).fields[0].default is None


def test_trials_are_the_same_every_time() -> None:
    schema = current_schemas()["Item"]
    state = random.getstate()
    assert try_to_read(schema, schema, seed=3) == try_to_read(schema, schema, seed=3) == ""
    assert random.getstate() == state
