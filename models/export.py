"""From a trained encoder to a model folder: build the graph, prove parity, write it all.

Imports torch and onnx; workers never do.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.contract import CONTRACT
from models.dataset import Clicks, cut_queries, make_sequences
from models.folder import (
    FIRST_ITEM,
    HISTORY_MAX,
    K_MAX,
    Features,
    Manifest,
    Parity,
    Training,
    write_folder,
)
from models.graph import build_graph
from models.network import Encoder
from models.providers import open_session
from models.train import Trained, network_sizes
from schemas.errors import ModelError

# Scores of the graph and of torch may differ by rounding only.
SCORE_DIFF_MAX: Final = 1e-3
# Histories that parity is checked on: enough for every length, cheap enough to do always.
PARITY_ROWS: Final = 512


def export_folder(
    trained: Trained, clicks: Clicks, path: Path, *, name: str, now: datetime
) -> Manifest:
    """Write `trained` as the model folder `path`; returns its manifest.

    Parity is checked on the newest histories of `clicks`. The version is `now` in UTC with the
    first digits of the graph's SHA-256, so that versions sort by time and tell content apart.
    Raises `ModelError` when parity fails, or `path` exists or cannot be written.
    """
    graph = build_graph(trained.encoder)
    parity = check_parity(graph, trained.encoder, _parity_rows(trained, clicks))
    recipe = trained.recipe
    manifest = Manifest(
        contract=CONTRACT,
        name=name,
        version=f"{now.astimezone(UTC):%Y%m%dT%H%M%S}-{sha256(graph).hexdigest()[:8]}",
        items=len(trained.vocabulary),
        k=min(K_MAX, len(trained.vocabulary)),
        features=Features(history=HISTORY_MAX, window=recipe.window),
        training=Training(
            clicks=trained.clicks,
            sequences=trained.sequences,
            first_ts_ms=trained.first_ts_ms,
            last_ts_ms=trained.last_ts_ms,
            min_support=recipe.min_support,
            seed=recipe.seed,
            epochs=recipe.epochs,
            loss=trained.loss,
            seconds=trained.seconds,
            network=network_sizes(trained),
        ),
        metrics=trained.metrics,
        parity=parity,
    )
    return write_folder(path, manifest, graph, trained.vocabulary)


def _parity_rows(trained: Trained, clicks: Clicks) -> NDArray[np.int64]:
    """Real histories, newest users first, and one of padding only."""
    rows, _ = cut_queries(make_sequences(clicks, trained.vocabulary), 0, HISTORY_MAX)
    return np.concatenate([np.zeros((1, HISTORY_MAX), np.int64), rows[-PARITY_ROWS:]])


def check_parity(graph: bytes, encoder: Encoder, rows: NDArray[np.int64]) -> Parity:
    """Ask the graph and `encoder` for the same rows (int64 [n, history]) and compare the answers.

    `score_diff_max` is over the best k of each row, where both are finite; `overlap` is the mean
    share of the best k that both name. Raises `ModelError` when the scores differ by more than
    `SCORE_DIFF_MAX`, withheld items are not the same, or a score is NaN.
    """
    session, _ = open_session(graph, threads=1, device="cpu")
    indices, scores = session.run(["top_indices", "top_scores"], {"items": rows})
    with torch.inference_mode():
        wanted_scores, wanted = encoder.score_rows(torch.from_numpy(rows)).topk(indices.shape[1])
    wanted = wanted - FIRST_ITEM
    expected = wanted_scores.numpy()
    if np.isnan(scores).any() or np.isnan(expected).any():
        raise ModelError("the trained network gives NaN scores; train it again with another seed")
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(scores)):
        raise ModelError("the exported graph withholds other items than the trained network")
    diff = float(np.abs(scores[finite] - expected[finite]).max(initial=0.0))
    if not diff <= SCORE_DIFF_MAX:
        raise ModelError(
            f"the exported graph's scores differ from torch by {diff:.2g}, allowed is {SCORE_DIFF_MAX}"
        )
    shares = [
        np.isin(own[here], other[here]).mean()
        for own, other, here in zip(indices, wanted.numpy(), finite, strict=True)
        if here.any()
    ]
    return Parity(
        rows=len(rows), score_diff_max=diff, overlap=float(np.mean(shares)) if shares else 1.0
    )
