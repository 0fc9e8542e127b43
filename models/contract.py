"""What the data path and a recommender promise each other.

A recommender ranks for a whole batch at once. It gets, for each shopper of the batch, the item
ids of their newest events, oldest first, as the UTF-8 bytes that Kafka carried; it gives item
indices into its own item table, so that the encoder can look up each item's wire bytes once per
model and not once per answer. Whatever it cannot answer it says so by `answered`, and the next
tier answers instead: degradation is declared, never silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

# Version of this contract; a manifest with another one is refused.
CONTRACT: Final = "1"

TIER_MODEL: Final = "model"
TIER_COVISITATION: Final = "covisitation"
TIER_POPULAR_IN_CATEGORY: Final = "popular-in-category"
TIER_POPULAR: Final = "popular"
# Best first.
TIERS: Final = (TIER_MODEL, TIER_COVISITATION, TIER_POPULAR_IN_CATEGORY, TIER_POPULAR)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Items for each row of a batch, best first.

    `items`: the recommender's item table, ids as UTF-8 bytes; the same object for as long as the
    recommender lives, so that callers may cache what they derive from it by identity.
    `indices`: int32 [rows, k] into `items`; -1 where fewer than k items are offered, and only
    after the last offered one. `scores`: float32 [rows, k], descending, beside `indices`.
    `answered`: bool [rows]; where false, the row's contents mean nothing.
    """

    items: Sequence[bytes]
    indices: NDArray[np.int32]
    scores: NDArray[np.float32]
    answered: NDArray[np.bool_]


class Recommender(Protocol):
    """Ranks items for a batch of shoppers; called from one thread only."""

    @property
    def label(self) -> str:
        """Name and version, as written into each recommendation, for example `encoder@20260401-1`."""

    @property
    def tier(self) -> str:
        """One of `TIERS`."""

    def rank(self, histories: Sequence[Sequence[bytes]], k: int) -> Ranking:
        """Rank for each history (item ids, oldest first, at most 50) the best `k` items.

        Items of the history itself are not recommended. Raises `ModelError` when it cannot
        answer at all; the caller then falls back to the next tier and counts it.
        """
