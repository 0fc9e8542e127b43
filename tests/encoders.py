"""Encoders with random weights, as model folders: made in milliseconds, exact in every respect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.contract import CONTRACT
from models.export import check_parity
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
from models.network import Encoder, Shape


def make_encoder(items: int, *, seed: int = 0, **sizes: int) -> Encoder:
    """An encoder whose every weight is random, so that none can be left out unnoticed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(Shape(items=items, **{"dim": 16, "hidden": 32, "window": 6, **sizes}))
        with torch.no_grad():
            for weight in encoder.parameters():
                weight.add_(torch.randn(weight.shape), alpha=0.3)
    return encoder.eval()


def make_rows(items: int, rows: int, history: int, seed: int = 0) -> NDArray[np.int64]:
    """Random histories, right-aligned: of every length, the first one empty."""
    rng = np.random.default_rng(seed)
    made = rng.integers(FIRST_ITEM, items + FIRST_ITEM, (rows, history))
    lengths = np.arange(rows) % (history + 1)
    return np.where(np.arange(history)[None, :] >= history - lengths[:, None], made, 0)


def make_manifest(items: int, window: int, parity: Parity | None = None) -> Manifest:
    """A manifest of a model that was never trained."""
    return Manifest(
        contract=CONTRACT,
        name="encoder",
        version="20260101T000000-00000000",
        items=items,
        k=min(K_MAX, items),
        features=Features(history=HISTORY_MAX, window=window),
        training=Training(
            clicks=0,
            sequences=0,
            first_ts_ms=0,
            last_ts_ms=0,
            min_support=1,
            seed=0,
            epochs=0,
            loss=0.0,
            seconds=0.0,
        ),
        parity=parity or Parity(rows=0, score_diff_max=0.0, overlap=1.0),
    )


def write_encoder(path: Path, vocabulary: Sequence[str], *, seed: int = 0, **sizes: int) -> Encoder:
    """Write a random encoder of these items as the model folder `path`."""
    encoder = make_encoder(len(vocabulary), seed=seed, **sizes)
    graph = build_graph(encoder)
    parity = check_parity(graph, encoder, make_rows(len(vocabulary), 20, HISTORY_MAX))
    manifest = make_manifest(len(vocabulary), encoder.shape.window, parity)
    write_folder(path, manifest, graph, tuple(vocabulary))
    return encoder
