"""Ranks with a model folder: item ids to indices, one ONNX call a batch, indices to items.

This is the hot path. A history becomes bytes and not numbers: each item id maps to its eight
index bytes, so that a row is one `join` and its zero padding one `rjust`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.contract import TIER_MODEL, Ranking
from models.folder import (
    FIRST_ITEM,
    GRAPH,
    Manifest,
    load_manifest,
    load_vocabulary,
    read_verified,
)
from models.providers import open_session
from schemas.errors import ModelError

INDEX_BYTES: Final = 8
# Scores of one call, rows x items: 16 MB. Larger batches are asked in parts, so that a large
# vocabulary does not take memory by the gigabyte.
SCORES_MAX: Final = 4_000_000
# Rows of the second warm-up call: what a busy worker asks, so that its memory is there.
WARM_ROWS: Final = 256

INPUTS: Final = {"items": "tensor(int64)"}
OPTIONAL_INPUTS: Final = {"k": "tensor(int64)"}
OUTPUTS: Final = {"top_indices": "tensor(int64)", "top_scores": "tensor(float)"}


class OnnxScorer:
    """A `Recommender` that answers from a model folder; called from one thread only.

    Loading verifies the folder's sums, opens the graph on `device` (auto, cpu, cuda or tensorrt)
    and asks it, so that a model that cannot answer is found before it goes live. `threads` is the
    number of CPU threads of one call, `scores_max` bounds its memory. Raises `ModelError`.
    """

    tier: str = TIER_MODEL

    def __init__(
        self, path: Path, *, threads: int = 1, device: str = "auto", scores_max: int = SCORES_MAX
    ) -> None:
        self.manifest: Manifest = load_manifest(path)
        self.label: str = self.manifest.label
        vocabulary = load_vocabulary(path, self.manifest)
        self._items: tuple[bytes, ...] = tuple(item.encode() for item in vocabulary)
        self._codes = {
            item: index.to_bytes(INDEX_BYTES, "little")
            for index, item in enumerate(self._items, FIRST_ITEM)
        }
        self._history = self.manifest.features.history
        self._window = self.manifest.features.window
        self._rows_max = max(1, scores_max // self.manifest.items)
        graph = read_verified(path, GRAPH, self.manifest)
        self._session, self.provider = open_session(graph, threads=threads, device=device)
        self._check_signature()
        self._warm_up()

    def rank(self, histories: Sequence[Sequence[bytes]], k: int) -> Ranking:
        """See `Recommender.rank`. Offers `manifest.k` items at most, whatever `k` is.

        Items outside the vocabulary say nothing; a history of nothing else is not answered.
        """
        rows, answered = self._encode(histories)
        asked = min(k, self.manifest.k)
        if len(rows) <= self._rows_max:
            indices, scores = self._ask(rows, asked)
        else:
            parts = [
                self._ask(rows[begin : begin + self._rows_max], asked)
                for begin in range(0, len(rows), self._rows_max)
            ]
            indices = np.concatenate([part[0] for part in parts])
            scores = np.concatenate([part[1] for part in parts])
        if len(rows) != len(histories) or asked != k:
            indices, scores = _spread(indices, scores, answered, k)
        return Ranking(self._items, indices, scores, answered)

    def _encode(
        self, histories: Sequence[Sequence[bytes]]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows for the graph, of the answerable histories only, and which those are."""
        code, longest = self._codes.get, self._history
        answered = np.ones(len(histories), np.bool_)
        width = self._window * INDEX_BYTES
        rows: list[bytes] = []
        for number, history in enumerate(histories):
            try:
                row = b"".join(map(code, history[-longest:]))  # type: ignore[arg-type]
            except TypeError:  # an item that is not in the vocabulary
                row = b"".join([*filter(None, map(code, history))][-longest:])
                if not row:
                    answered[number] = False
                    continue
            if len(row) > width:
                # Two widths only: each new shape of a call costs a plan of its memory.
                width = longest * INDEX_BYTES
            rows.append(row)
        if b"" in rows:
            answered[[number for number, history in enumerate(histories) if not history]] = False
            rows = [row for row in rows if row]
        packed = b"".join([row.rjust(width, b"\0") for row in rows])
        return np.frombuffer(packed, "<i8").reshape(-1, width // INDEX_BYTES), answered

    def _ask(
        self, rows: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Indices int32 [rows, k], -1 where nothing is offered, and scores float32 beside them."""
        if not len(rows):
            return np.empty((0, k), np.int32), np.empty((0, k), np.float32)
        try:
            raw, scores = self._session.run(
                ["top_indices", "top_scores"], {"items": rows, "k": np.array([k], np.int64)}
            )
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            raise ModelError(f"{self.label} failed on {len(rows)} rows: {error}") from error
        # One NaN anywhere makes the sum NaN; -inf alone does not.
        total = scores.sum()
        if total != total:
            raise ModelError(f"{self.label} gave NaN scores; roll back to another model")
        indices: NDArray[np.int32] = raw.astype(np.int32)
        if total == -np.inf:
            indices[np.isneginf(scores)] = -1
        return indices, scores

    def _check_signature(self) -> None:
        """Hold the graph's inputs and outputs against the contract."""
        session = self._session
        found = [
            {value.name: value.type for value in values}
            for values in (
                session.get_inputs(),
                session.get_overridable_initializers(),
                session.get_outputs(),
            )
        ]
        if found != [INPUTS, OPTIONAL_INPUTS, OUTPUTS]:
            raise ModelError(
                f"{self.label} has inputs {found[0]} and {found[1]}, outputs {found[2]}; "
                f"the contract says {INPUTS} and {OPTIONAL_INPUTS}, {OUTPUTS}"
            )

    def _warm_up(self) -> None:
        """Ask as a worker will, and hold the answers against the manifest."""
        last = self.manifest.items - 1
        k = self.manifest.k
        offered_max = min(k, last)
        for count in (1, min(WARM_ROWS, self._rows_max)):
            ranking = self.rank([[self._items[last]]] * count, k)
            if ranking.indices.shape != (count, k):
                raise ModelError(f"{self.label} answers {ranking.indices.shape}, not {count, k}")
            offered = ranking.indices[ranking.indices >= 0]
            if len(offered) != count * offered_max:
                raise ModelError(
                    f"{self.label} offers {len(offered)} items for {count} rows; "
                    f"its manifest promises {count * offered_max}"
                )
            if offered.max(initial=0) > last or last in offered:
                raise ModelError(
                    f"{self.label} offers an item outside its vocabulary, or the shopper's own"
                )


def _spread(
    indices: NDArray[np.int32],
    scores: NDArray[np.float32],
    answered: NDArray[np.bool_],
    k: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Put the answers at their rows' places, and -1 into the columns that are not offered."""
    shape = (len(answered), k)
    wide = np.full(shape, -1, np.int32)
    wide_scores = np.full(shape, -np.inf, np.float32)
    wide[answered, : indices.shape[1]] = indices
    wide_scores[answered, : indices.shape[1]] = scores
    return wide, wide_scores
