"""The schema files in `schemas/avro` and the committed lock of their ids."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from fastavro.schema import parse_schema, to_parsing_canonical_form

from schemas.errors import SchemaError

AVRO_DIR: Final = Path(str(resources.files("schemas"))) / "avro"
LOCK_PATH: Final = AVRO_DIR / "ids.lock.json"

# Record name -> file; the order is the order of the ids in a fresh lock.
FILES: Final[dict[str, str]] = {
    "Click": "click.avsc",
    "Item": "item.avsc",
    "Recommendation": "recommendation.avsc",
    "ModelAnnouncement": "model_announcement.avsc",
    "Alert": "alert.avsc",
    "Rejected": "rejected.avsc",
    "DrillResult": "drill_result.avsc",
}


@dataclass(frozen=True, slots=True)
class LockedSchema:
    """One version of one record's schema, as the lock keeps it: old versions stay readable."""

    record: str
    version: int
    schema_id: int
    fingerprint: str
    schema: dict[str, Any]


def load_schema(record: str) -> dict[str, Any]:
    """The current schema of `record`, as plain JSON. Raises `SchemaError`."""
    path = AVRO_DIR / FILES[record]
    try:
        schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SchemaError(f"schema file {path.name} cannot be read: {error}") from None
    return schema


@functools.cache
def parsed_schema(record: str) -> Any:
    """The current schema of `record`, parsed by fastavro; shared, do not change it."""
    return parse_schema(load_schema(record))


def fingerprint(schema: dict[str, Any]) -> str:
    """SHA-256 of the schema's JSON with sorted keys: any change shows, defaults and docs too."""
    text = json.dumps(schema, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(schema: dict[str, Any]) -> str:
    """Parsing canonical form (Avro 1.11): what matters to the bytes, and nothing else."""
    form: str = to_parsing_canonical_form(schema)
    return form


def read_lock(path: Path = LOCK_PATH) -> list[LockedSchema]:
    """All versions of all schemas in the lock, oldest first. Raises `SchemaError`."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [LockedSchema(**entry) for entry in entries["schemas"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SchemaError(f"the id lock {path.name} cannot be read: {error!r}") from None


def write_lock(locked: list[LockedSchema], path: Path = LOCK_PATH) -> None:
    """Write the lock whole, in a stable order."""
    entries = [
        {
            "record": one.record,
            "version": one.version,
            "schema_id": one.schema_id,
            "fingerprint": one.fingerprint,
            "schema": one.schema,
        }
        for one in sorted(locked, key=lambda one: one.schema_id)
    ]
    path.write_text(json.dumps({"schemas": entries}, indent=1) + "\n", encoding="utf-8")
