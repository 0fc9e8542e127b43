"""Every implementation of `Recommender`, made to know exactly the items that a test names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from encoders import write_encoder

from models.contract import Recommender
from models.scorer import OnnxScorer
from streams.popular import PopularRecommender
from streams.state.windows import Windows

# Makes a recommender of these items; may write into the folder.
Factory = Callable[[Path, Sequence[bytes]], Recommender]


def onnx(folder: Path, items: Sequence[bytes]) -> Recommender:
    """One layer, one head: what training makes."""
    write_encoder(folder / "model", [item.decode() for item in items])
    return OnnxScorer(folder / "model", device="cpu")


def onnx_in_parts(folder: Path, items: Sequence[bytes]) -> Recommender:
    """Two layers, two heads, and so little memory that a batch is asked in parts."""
    write_encoder(folder / "model", [item.decode() for item in items], layers=2, heads=2)
    return OnnxScorer(folder / "model", device="cpu", scores_max=7 * len(items))


def popular(folder: Path, items: Sequence[bytes]) -> Recommender:
    """Each item is more popular than the next."""
    windows = Windows()
    windows.counts = Counter({item: len(items) - at for at, item in enumerate(items)})
    return PopularRecommender(windows, lambda: 0.0)


FACTORIES: Final[dict[str, Factory]] = {
    "onnx": onnx,
    "onnx-in-parts": onnx_in_parts,
    "popular": popular,
}
