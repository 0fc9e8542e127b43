"""The committed lock against the schema files: what drifted, and what a change would break."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.compatibility import full_transitive
from schemas.errors import IncompatibleSchemaError, SchemaError
from schemas.files import FILES, LockedSchema, fingerprint

Schemas = Mapping[str, Mapping[str, Any]]


def versions_of(locked: Sequence[LockedSchema], record: str) -> list[LockedSchema]:
    """The locked versions of a record, oldest first."""
    return sorted((one for one in locked if one.record == record), key=lambda one: one.version)


def lock_faults(locked: Sequence[LockedSchema]) -> list[str]:
    """What is wrong with the lock itself."""
    faults = [
        f"the lock's {one.record} version {one.version} was edited: its fingerprint does not fit; restore the file"
        for one in locked
        if fingerprint(one.schema) != one.fingerprint
    ]
    ids = [one.schema_id for one in locked]
    faults += [
        f"the lock gives id {number} twice"
        for number in sorted({number for number in ids if ids.count(number) > 1})
    ]
    for record in sorted({one.record for one in locked}):
        numbers = [one.version for one in versions_of(locked, record)]
        if numbers != list(range(1, len(numbers) + 1)):
            faults.append(f"the lock's versions of {record} are {numbers}, not 1 to {len(numbers)}")
        if record not in FILES:
            faults.append(
                f"the lock has {record}, which has no file: old records of it would be unreadable"
            )
    return faults


def incompatibilities(locked: Sequence[LockedSchema], schemas: Schemas) -> list[str]:
    """What speaks against today's schemas beside all locked versions. Raises `SchemaError`."""
    faults: list[str] = []
    for record, schema in schemas.items():
        if schema.get("name") != record:
            faults.append(f"the file of {record} names its record {schema.get('name')!r}")
            continue
        old = [
            (f"{record} version {one.version}", one.schema) for one in versions_of(locked, record)
        ]
        known = any(
            fingerprint(one.schema) == fingerprint(dict(schema))
            for one in versions_of(locked, record)
        )
        label = f"{record} as in the file"
        if known:  # the newest locked version: judged beside the others all the same
            old = [(name, text) for name, text in old if text != schema]
        faults += [str(fault) for fault in full_transitive(old, (label, schema))]
    return faults


def drift(locked: Sequence[LockedSchema], schemas: Schemas) -> list[str]:
    """Records whose file is not the newest locked version."""
    faults: list[str] = []
    for record, schema in schemas.items():
        versions = versions_of(locked, record)
        if not versions:
            faults.append(f"{record} is not in the lock")
        elif versions[-1].fingerprint != fingerprint(dict(schema)):
            faults.append(f"{record} differs from version {versions[-1].version} in the lock")
    return faults


def check(locked: Sequence[LockedSchema], schemas: Schemas) -> None:
    """Raise on any fault, naming all of them: `IncompatibleSchemaError` first, else `SchemaError`."""
    broken = incompatibilities(locked, schemas)
    if broken:
        raise IncompatibleSchemaError("the change is not compatible: " + "; ".join(broken))
    faults = lock_faults(locked)
    drifted = drift(locked, schemas)
    if drifted:
        faults.append(f"{'; '.join(drifted)}: run `headrace schemas lock` to accept the change")
    if faults:
        raise SchemaError("; ".join(faults))


def extended(locked: Sequence[LockedSchema], schemas: Schemas) -> list[LockedSchema]:
    """The lock with a new version, under a new id, of each record that changed compatibly.

    Ids are never used again. Raises `IncompatibleSchemaError`, or `SchemaError` for a bad lock.
    """
    faults = lock_faults(locked)
    if faults:
        raise SchemaError("; ".join(faults))
    broken = incompatibilities(locked, schemas)
    if broken:
        raise IncompatibleSchemaError(
            "not locked, the change is not compatible: " + "; ".join(broken)
        )
    result = list(locked)
    for record, schema in schemas.items():
        versions = versions_of(locked, record)
        mark = fingerprint(dict(schema))
        if versions and versions[-1].fingerprint == mark:
            continue
        number = max((one.schema_id for one in result), default=0) + 1
        result.append(LockedSchema(record, len(versions) + 1, number, mark, dict(schema)))
    return result
