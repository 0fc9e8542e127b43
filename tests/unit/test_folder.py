"""The model folder: whole or not there, and refused with one clear message when anything is off."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from encoders import make_manifest

from models.folder import (
    GRAPH,
    MANIFEST,
    VOCABULARY,
    load_manifest,
    load_vocabulary,
    read_verified,
    write_folder,
)
from schemas.errors import ModelError

ITEMS = ("b", "214716935", 'quo"te', "café\u2028☕", "new\nline")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "model", make_manifest(len(ITEMS), 6), b"graph", ITEMS)
    return tmp_path / "model"


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_vocabulary(folder, load_manifest(folder))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_what_is_written_is_read(folder: Path) -> None:
    manifest = load_manifest(folder)
    assert load_vocabulary(folder, manifest) == ITEMS
    assert read_verified(folder, GRAPH, manifest) == b"graph"
    assert manifest.label == "encoder@20260101T000000-00000000"
    assert {path.name for path in folder.iterdir()} == {GRAPH, MANIFEST, VOCABULARY}


def test_nothing_else_is_left_beside_it(folder: Path) -> None:
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_others_may_read_it(folder: Path) -> None:
    assert folder.stat().st_mode & 0o555 == 0o555


def test_is_never_overwritten(folder: Path) -> None:
    before = (folder / MANIFEST).read_bytes()
    with pytest.raises(ModelError, match="exists already"):
        write_folder(folder, make_manifest(2, 6), b"other", ("a", "b"))
    assert (folder / MANIFEST).read_bytes() == before


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot write the model folder"):
        write_folder(tmp_path / "file" / "model", make_manifest(2, 6), b"graph", ("a", "b"))
    with pytest.raises(ModelError, match="counts 3 items, the vocabulary 2"):
        write_folder(tmp_path / "model", make_manifest(3, 6), b"graph", ("a", "b"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_missing_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no model folder at", "headrace model train")


def test_missing_manifest(tmp_path: Path) -> None:
    refused(tmp_path, "has no manifest.json")


@pytest.mark.parametrize("name", [GRAPH, VOCABULARY])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, f"lacks {name}")


@pytest.mark.parametrize("name", [GRAPH, VOCABULARY])
def test_truncated_file(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1])
    refused(folder, name, f"has {len(whole) - 1} bytes, its manifest says {len(whole)}")


@pytest.mark.parametrize("name", [GRAPH, VOCABULARY])
def test_changed_file(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-2] + b"??")
    refused(folder, name, "is corrupt")


@pytest.mark.parametrize("body", [b"", b'{"contract": "1"', b"\xff\xfe", b"[]", b"3"])
def test_manifest_that_is_none(folder: Path, body: bytes) -> None:
    (folder / MANIFEST).write_bytes(body)
    refused(folder, MANIFEST)


def test_foreign_contract(folder: Path) -> None:
    edit(folder, lambda manifest: manifest.update(contract="2", parity="means something else"))
    refused(folder, "follows contract '2', this version reads '1'")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda m: m.pop("version"), "version: Field required"),
        (lambda m: m.update(name="../up"), "name: "),
        (lambda m: m.update(items=0), "items: "),
        (lambda m: m.update(k=6), "k 6 is more than the 5 items"),
        (lambda m: m["features"].update(window=51), "window 51 is longer than history 50"),
        (lambda m: m["features"].update(first_item=1), "must be 0, 1 and 2"),
        (lambda m: m["parity"].update(overlap=2), "parity.overlap: "),
        (lambda m: m["files"].pop(GRAPH), f"no sum of {GRAPH}"),
        (lambda m: m["files"][GRAPH].update(sha256="0"), "sha256: "),
        (lambda m: m["files"].update({"../secret": m["files"][GRAPH]}), "outside its folder"),
        (lambda m: m.update(items=6), "5 distinct items in 5 lines; the manifest says 6"),
    ],
)
def test_manifest_that_is_wrong(
    folder: Path, change: Callable[[dict[str, Any]], None], word: str
) -> None:
    edit(folder, change)
    refused(folder, word)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("{", "is not a JSON list"),
        ('{"a": 1}', "is not a JSON list of item ids"),
        ('["a", "b", "c", "d", ""]', "is not a JSON list of item ids"),
        ('["a", "b", "c", "d", 5]', "is not a JSON list of item ids"),
        ('["a", "b", "c", "d", "d"]', "has 4 distinct items in 5 lines"),
    ],
)
def test_vocabulary_that_is_none(tmp_path: Path, body: str, word: str) -> None:
    """With a right sum: made wrong, not damaged."""
    folder = tmp_path / "model"
    manifest = write_folder(folder, make_manifest(5, 6), b"graph", tuple("abcde"))
    (folder / VOCABULARY).write_text(body)
    import hashlib

    edit(
        folder,
        lambda m: m["files"].update(
            {VOCABULARY: {"bytes": len(body), "sha256": hashlib.sha256(body.encode()).hexdigest()}}
        ),
    )
    assert manifest.items == 5
    refused(folder, word)


def test_fields_of_a_later_version_are_ignored(folder: Path) -> None:
    edit(folder, lambda manifest: manifest.update(compression="int8"))
    assert load_manifest(folder).items == len(ITEMS)


def test_messages_name_the_path(folder: Path) -> None:
    (folder / GRAPH).unlink()
    with pytest.raises(ModelError, match=re.escape(str(folder))):
        load_manifest(folder)
