"""The committed schemas may evolve: every version reads every other, and the command says so."""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import fastavro
import pytest

from schemas.codec import Codec, current_schemas
from schemas.compatibility import try_to_read
from schemas.errors import RecordError
from schemas.files import FILES, LockedSchema, fingerprint, read_lock, write_lock
from schemas.lock import check, versions_of

ROOT = Path(__file__).parents[2]
COMMAND_TIMEOUT_S = 60


def test_the_lock_is_up_to_date_and_compatible() -> None:
    check(read_lock(), current_schemas())


@pytest.mark.parametrize("record", FILES)
def test_every_locked_version_reads_every_other(record: str) -> None:
    versions = [one.schema for one in versions_of(read_lock(), record)]
    for reader, writer in [*permutations([*versions, current_schemas()[record]], 2)]:
        assert try_to_read(reader, writer) == ""


def test_the_lock_survives_being_written(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    write_lock(read_lock(), path)
    assert read_lock(path) == read_lock()


class Archive:
    """Schemas by id, as a registry knows them."""

    def __init__(self, **schemas: dict[str, Any]) -> None:
        self._schemas = {int(name.removeprefix("v")): schema for name, schema in schemas.items()}
        self.asked = 0

    def schema_of(self, schema_id: int) -> dict[str, Any] | None:
        self.asked += 1
        return self._schemas.get(schema_id)


def older_and_newer() -> tuple[dict[str, Any], dict[str, Any]]:
    """A click schema of a year ago, which lacks `quantity`, and one of next year, which has more."""
    older, newer = (copy.deepcopy(current_schemas()["Click"]) for _ in range(2))
    older["fields"] = [one for one in older["fields"] if one["name"] != "quantity"]
    newer["fields"].insert(2, {"name": "page", "type": "string", "default": ""})
    newer["fields"][4]["type"]["symbols"].append("wish")
    return older, newer


def test_old_and_new_bytes_are_read_with_todays_schema() -> None:
    older, newer = older_and_newer()
    archive = Archive(v71=older, v72=newer)
    today = Codec(
        Codec.from_lock().ids,
        {one.schema_id: (one.record, one.schema) for one in read_lock()},
        archive,
    )
    click = {
        "event_id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "user_id": "u",
        "item_id": "i",
        "event_type": "cart",
        "ts": 1_700_000_000_000,
        "session_id": "s",
        "query": None,
        "price": 1.5,
    }
    written_then = _written(71, older, click)
    assert today.decode("Click", written_then) == click | {"quantity": None}
    written_later = _written(72, newer, click | {"quantity": 2, "page": "/p", "event_type": "wish"})
    # An event type of next year is read as the default of today.
    assert today.decode("Click", written_later) == click | {"quantity": 2, "event_type": "view"}
    asked = archive.asked
    today.decode("Click", written_then)
    assert archive.asked == asked, "a known id is not asked for again"
    with pytest.raises(RecordError, match="schema-id"):
        today.decode("Click", _written(73, newer, click | {"quantity": 2, "page": ""}))


def _written(schema_id: int, schema: dict[str, Any], value: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    out.write(b"\0" + schema_id.to_bytes(4, "big"))
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


# -- the command, on a copy of the project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for package in ("schemas", "streams", "infra", "models"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def headrace(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.cli", "schemas", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )


def edit(project: Path, change: Any) -> None:
    path = project / "schemas" / "avro" / "click.avsc"
    schema = json.loads(path.read_text())
    change(schema["fields"])
    path.write_text(json.dumps(schema))


def test_the_command_agrees_with_what_is_committed(project: Path) -> None:
    done = headrace(project, "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "all read one another" in done.stdout


def test_the_command_refuses_an_incompatible_change(project: Path) -> None:
    edit(project, lambda fields: fields.append({"name": "shop", "type": "string"}))
    for command in ("check", "lock"):
        done = headrace(project, command)
        assert done.returncode == 1, done.stdout
        assert "cannot read Click version 1 at /shop: the field is not written there" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_command_finds_drift_and_accepts_it(project: Path) -> None:
    edit(project, lambda fields: fields.append({"name": "shop", "type": "string", "default": ""}))
    done = headrace(project, "check")
    assert done.returncode == 1
    assert "Click differs from version 1 in the lock: run `headrace schemas lock`" in done.stderr
    accepted = headrace(project, "lock")
    assert accepted.returncode == 0
    assert accepted.stdout.strip() == f"Click version 2 has id {len(FILES) + 1}"
    assert headrace(project, "check").returncode == 0
    locked = read_lock(project / "schemas" / "avro" / "ids.lock.json")
    assert [one.version for one in versions_of(locked, "Click")] == [1, 2]
    shown = json.loads(headrace(project, "show", "Click", "--version", "1").stdout)
    assert fingerprint(shown) == LockedSchema(**vars_of(locked[0])).fingerprint


def vars_of(locked: LockedSchema) -> dict[str, Any]:
    return {
        name: getattr(locked, name)
        for name in ("record", "version", "schema_id", "fingerprint", "schema")
    }
