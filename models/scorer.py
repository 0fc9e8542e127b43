"""Ranks with a model folder: item ids to indices, one ONNX call a batch, indices to items.

This is the hot path. A history becomes bytes and not numbers: each item id maps to its eight
index bytes, so that a row is one `join` and its zero padding one `rjust`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.contract import TIER_MODEL, Ranking
from models.folder import FIRST_ITEM, GRAPH, Manifest, load_manifest, load_vocabulary, read_verified
from schemas.errors import ModelError

# onnxruntime's severities: 3 is error; warnings are about its own choices, not about our model.
SEVERITY_ERROR: Final = 3
INDEX_BYTES: Final = 8


class OnnxScorer:
    """A `Recommender` that answers from a model folder; called from one thread only.

    Loading verifies the folder's sums, opens the graph on `device` (auto, cpu, cuda or tensorrt;
    auto takes CUDA where it works) and asks it once, so that a model that cannot answer is found
    before it goes live. `threads` is the number of CPU threads of one call. Raises `ModelError`.
    """

    def __init__(self, path: Path, *, threads: int = 1, device: str = "auto") -> None:
        self.manifest: Manifest = load_manifest(path)
        vocabulary = load_vocabulary(path, self.manifest)
        self._items: tuple[bytes, ...] = tuple(item.encode() for item in vocabulary)
        self._codes = {
            item: index.to_bytes(INDEX_BYTES, "little") for index, item in enumerate(self._items, FIRST_ITEM)
        }
        self._history = self.manifest.features.history
        self._window = self.manifest.features.window
        self._session, self.provider = open_session(
            read_verified(path, GRAPH, self.manifest), threads=threads, device=device
        )
        self._warm_up()

    @property
    def label(self) -> str:
        """Name and version of the model."""
        return self.manifest.label

    @property
    def tier(self) -> str:
        """Always the model's tier."""
        return TIER_MODEL

    def rank(self, histories: Sequence[Sequence[bytes]], k: int) -> Ranking:
        """See `Recommender.rank`. Offers `manifest.k` items at most, whatever `k` is."""
        rows, answered = self._encode(histories)
        if not len(rows):
            return self._nothing(answered, k)
        indices, scores = self._ask(rows, min(k, self.manifest.k))
        return self._spread(indices, scores, answered, k)

    def _encode(self, histories: Sequence[Sequence[bytes]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows for the graph, of the answerable histories only, and which those are."""
        code, longest = self._codes.get, self._history
        rows: list[bytes] = []
        answered = np.ones(len(histories), np.bool_)
        width = self._window * INDEX_BYTES
        for number, history in enumerate(histories):
            try:
                row = b"".join(map(code, history[-longest:]))  # type: ignore[arg-type]
            except TypeError:  # an item that is not in the vocabulary
                known = [found for item in history if (found := code(item)) is not None]
                row = b"".join(known[-longest:])
            if not row:
                answered[number] = False
                continue
            if len(row) > width:
                # Wide rows are rare; two widths keep the number of shapes small.
                width = longest * INDEX_BYTES
            rows.append(row)
        packed = b"".join([row.rjust(width, b"\0") for row in rows])
        return np.frombuffer(packed, "<i8").reshape(-1, width // INDEX_BYTES), answered

    def _ask(self, rows: NDArray[np.int64], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        try:
            indices, scores = self._session.run(
                ["top_indices", "top_scores"], {"items": rows, "k": np.array([k], np.int64)}
            )
        except Exception as error:
            raise ModelError(f"{self.label} failed on {len(rows)} rows: {error}") from error
        # One NaN anywhere makes the sum NaN; -inf alone does not.
        if np.isnan(scores.sum()):
            raise ModelError(f"{self.label} gave NaN scores for {len(rows)} rows; roll back to another model")
        indices = indices.astype(np.int32)
        # Scores descend, so the last column tells whether any row ran out of items.
        if scores.size and scores[:, -1].min() == -np.inf:
            indices[np.isneginf(scores)] = -1
        return indices, scores

    def _spread(
        self,
        indices: NDArray[np.int32],
        scores: NDArray[np.float32],
        answered: NDArray[np.bool_],
        k: int,
    ) -> Ranking:
        """Put the answers at their rows' places, and -1 in the columns that were not offered."""
        shape = (len(answered), k)
        if indices.shape != shape:
            place = np.flatnonzero(answered)
            wide = np.full(shape, -1, np.int32)
            wide_scores = np.full(shape, -np.inf, np.float32)
            wide[place, : indices.shape[1]] = indices
            wide_scores[place, : indices.shape[1]] = scores
            indices, scores = wide, wide_scores
        return Ranking(self._items, indices, scores, answered)

    def _nothing(self, answered: NDArray[np.bool_], k: int) -> Ranking:
        shape = (len(answered), k)
        return Ranking(self._items, np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32), answered)

    def _warm_up(self) -> None:
        """Ask the graph once and hold its answer against the manifest."""
        manifest = self.manifest
        last = manifest.items - 1
        try:
            self._session.run(None, {"items": np.full((1, self._window), FIRST_ITEM + last, np.int64)})
            given = {output.name: output.type for output in self._session.get_outputs()}
        except Exception as error:
            raise ModelError(f"{manifest.label} cannot be asked: {error}") from error
        wanted = {"top_indices": "tensor(int64)", "top_scores": "tensor(float)"}
        if given != wanted:
            raise ModelError(f"{manifest.label} has the outputs {given}; the contract says {wanted}")
        ranking = self.rank([[self._items[last]]], manifest.k)
        offered = ranking.indices[0][ranking.indices[0] >= 0]
        if ranking.indices.shape != (1, manifest.k) or len(offered) != min(manifest.k, last):
            raise ModelError(
                f"{manifest.label} offers {len(offered)} items of {manifest.items}; the manifest says k is {manifest.k}"
            )
        if last in offered or offered.max(initial=0) > last:
            raise ModelError(f"{manifest.label} offers the shopper's own item or one outside its vocabulary")


def open_session(graph: bytes, *, threads: int, device: str) -> tuple[Any, str]:
    """An onnxruntime session and the name of the provider it runs on.

    Raises `ModelError` when the graph cannot be read or `device` was asked for and does not work.
    """
    # Loaded with the first model and not before: a worker without one answers without it.
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = SEVERITY_ERROR
    # Spinning would burn the CPU that the next batch's decoding needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"the ONNX graph cannot be loaded: {error}") from error
    return session, "CPUExecutionProvider"
