"""The model folder: what a trained model is once it leaves the trainer.

    model.onnx        encodes histories and returns the best items: one call, a whole batch
    vocabulary.json   the item ids, one to a line, as clicks carry them
    manifest.json     what the model is, what it was made from, how good it is, and the sums

A folder appears whole or not at all: it is written beside its place and renamed into it. Nothing
is believed before its sum is checked, so that a truncated copy never answers a shopper.

The graph's side of the contract (`features` in the manifest):

- input `items`, int64 [batch, history], oldest first, right-aligned, zero-padded, with
  `window` <= history: 0 is padding, 1 an unknown item, and 2 + i is item i of the vocabulary.
  All of a row's items are withheld from its answer; the newest `window` of them decide it.
- optional input `k`, int64 [1], at most and by default the manifest's `k`.
- outputs `top_indices`, int64 [batch, k], index i of the vocabulary (no offset), and
  `top_scores`, float32 [batch, k], descending; -inf where there are fewer than k items to offer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.contract import CONTRACT
from schemas.errors import ModelError

PADDING: Final = 0
UNKNOWN: Final = 1
FIRST_ITEM: Final = 2

# The path's histories hold at most 50 items (see `Recommender.rank`).
HISTORY_MAX: Final = 50
# Answers of more than this many items are asked by nobody and make TopK the costliest operator.
K_MAX: Final = 100

# Names go into labels, metrics and file names.
NAME: Final = "[A-Za-z0-9][A-Za-z0-9_-]{0,60}"

GRAPH: Final = "model.onnx"
VOCABULARY: Final = "vocabulary.json"
MANIFEST: Final = "manifest.json"


class _Part(BaseModel):
    # Fields that a later minor version adds are ignored; a change of meaning changes `contract`.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Features(_Part):
    """How histories become the graph's input."""

    history: int = Field(HISTORY_MAX, ge=1)
    window: int = Field(ge=1)
    padding: int = PADDING
    unknown: int = UNKNOWN
    first_item: int = FIRST_ITEM

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window > self.history:
            raise ValueError(f"window {self.window} is longer than history {self.history}")
        if (self.padding, self.unknown, self.first_item) != (PADDING, UNKNOWN, FIRST_ITEM):
            raise ValueError("padding, unknown and first_item must be 0, 1 and 2")
        return self


class Training(_Part):
    """What the model was made from; times are event times of clicks, in ms since the epoch."""

    clicks: int = Field(ge=0)
    sequences: int = Field(ge=0)
    first_ts_ms: int
    last_ts_ms: int
    min_support: int = Field(ge=1)
    seed: int
    epochs: int = Field(ge=0)
    loss: float
    seconds: float = Field(ge=0)
    # Shape of the network by name, for example dim and layers.
    network: dict[str, float] = Field(default_factory=dict)


class Parity(_Part):
    """How far the graph's answers are from the trainer's, on the same rows."""

    rows: int = Field(ge=0)
    score_diff_max: float = Field(ge=0)
    overlap: float = Field(ge=0, le=1)


class FileSum(_Part):
    """Size and SHA-256 of one file of the folder."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(_Part):
    """`manifest.json`; see the module's docstring for what the graph promises."""

    contract: str
    name: str = Field(pattern=f"^{NAME}$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$")
    items: int = Field(ge=1)
    k: int = Field(ge=1, le=K_MAX)
    features: Features
    training: Training
    metrics: dict[str, float] = Field(default_factory=dict)
    parity: Parity
    files: dict[str, FileSum] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.k > self.items:
            raise ValueError(f"k {self.k} is more than the {self.items} items")
        return self

    @property
    def label(self) -> str:
        """Name and version, as each recommendation carries them."""
        return f"{self.name}@{self.version}"


def write_folder(
    path: Path, manifest: Manifest, graph: bytes, vocabulary: tuple[str, ...]
) -> Manifest:
    """Write the folder `path`, which must not exist; returns the manifest with its sums.

    Raises `ModelError` when `path` exists, cannot be written, or vocabulary and manifest disagree.
    """
    if path.exists():
        raise ModelError(
            f"{path} exists already; a model folder is never overwritten: choose another place"
        )
    if len(vocabulary) != manifest.items:
        raise ModelError(
            f"the manifest counts {manifest.items} items, the vocabulary {len(vocabulary)}"
        )
    files = {
        GRAPH: graph,
        VOCABULARY: (json.dumps(vocabulary, ensure_ascii=False, indent=0) + "\n").encode(),
    }
    sums = {name: FileSum(bytes=len(body), sha256=_sha256(body)) for name, body in files.items()}
    manifest = manifest.model_copy(update={"files": sums})
    files[MANIFEST] = (manifest.model_dump_json(indent=2) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            _write_all(scratch, files)
            scratch.chmod(0o755)  # mkdtemp's 0700 would lock out a worker of another user
            scratch.rename(path)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    except OSError as error:
        raise ModelError(
            f"cannot write the model folder {path}: {error.strerror or error}"
        ) from error
    return manifest


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, body in files.items():
        with (folder / name).open("wb") as file:
            file.write(body)
            file.flush()
            # The rename must not reach the disk before the bytes do.
            os.fsync(file.fileno())


def load_manifest(path: Path) -> Manifest:
    """Read and verify the folder `path`: contract, fields, sizes and sums of every file.

    Raises `ModelError` with one message for whatever is missing, truncated, corrupt or foreign.
    """
    manifest = _read_manifest(path)
    for required in (GRAPH, VOCABULARY):
        if required not in manifest.files:
            raise ModelError(
                f"{path / MANIFEST} has no sum of {required}; train or fetch the model again"
            )
    for name, expected in manifest.files.items():
        _verify(path, name, expected)
    return manifest


def load_vocabulary(path: Path, manifest: Manifest) -> tuple[str, ...]:
    """The item ids of the folder `path`, in index order. Raises `ModelError`."""
    try:
        vocabulary = json.loads(read_verified(path, VOCABULARY, manifest))
    except ValueError as error:
        raise ModelError(f"{path / VOCABULARY} is not a JSON list: {error}") from None
    if not isinstance(vocabulary, list) or not all(
        isinstance(item, str) and item for item in vocabulary
    ):
        raise ModelError(f"{path / VOCABULARY} is not a JSON list of item ids")
    if len(vocabulary) != manifest.items or len(set(vocabulary)) != manifest.items:
        raise ModelError(
            f"{path / VOCABULARY} has {len(set(vocabulary))} distinct items in {len(vocabulary)} lines; "
            f"the manifest says {manifest.items}"
        )
    return tuple(vocabulary)


def read_verified(path: Path, name: str, manifest: Manifest) -> bytes:
    """The bytes of one file, checked against its sum as read: no gap for a later change."""
    return _verify(path, name, manifest.files[name])


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    if not path.is_dir():
        raise ModelError(
            f"no model folder at {path}; train one: headrace model train FILE --out {path}"
        )
    try:
        raw = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path} is not a model folder: it has no {MANIFEST}") from None
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{file} is not JSON (truncated?): {error}") from None
    if not isinstance(raw, dict):
        raise ModelError(f"{file} is not a manifest: a JSON object is expected")
    if raw.get("contract") != CONTRACT:
        raise ModelError(
            f"{file} follows contract {raw.get('contract')!r}, this version reads {CONTRACT!r}: "
            "train the model again or run the version that made it"
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'manifest'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise ModelError(f"{file} is wrong: {faults}") from None


def _verify(path: Path, name: str, expected: FileSum) -> bytes:
    # A name is a plain file of the folder: a manifest must not point outside it.
    if Path(name).name != name:
        raise ModelError(f"{path / MANIFEST} names the file {name!r} outside its folder")
    file = path / name
    try:
        body = file.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"{path} lacks {name}, which its manifest names; fetch the model again"
        ) from None
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}") from error
    if len(body) != expected.bytes:
        raise ModelError(
            f"{file} has {len(body)} bytes, its manifest says {expected.bytes}; fetch the model again"
        )
    if _sha256(body) != expected.sha256:
        raise ModelError(
            f"{file} is corrupt: its SHA-256 is not the one in the manifest; fetch the model again"
        )
    return body


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
