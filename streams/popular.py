"""The last tier: what is popular now, less what the shopper has already seen."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from models.contract import TIER_POPULAR, Ranking
from streams.state.windows import Windows

# A window holds 50 items and an answer at most 100: with 150 there is always an answer.
POPULAR_ITEMS: Final = 150
# Popularity moves slowly; the list costs about 1 ms for 10,000 items.
REFRESH_S: Final = 1.0


class PopularRecommender:
    """Popular items of the worker's own partitions; answers every row.

    `clock` gives monotonic seconds; the list is made anew at most every `REFRESH_S`.
    """

    tier = TIER_POPULAR
    label = "popular"

    def __init__(self, windows: Windows, clock: Callable[[], float]) -> None:
        self._windows = windows
        self._clock = clock
        self._fresh_until = float("-inf")
        self._items: list[bytes] = []
        self._counts = np.empty(0, dtype=np.float32)
        self._index: dict[bytes, int] = {}

    def rank(self, histories: Sequence[Sequence[bytes]], k: int) -> Ranking:
        """The `k` most popular items not in each history. See `models.contract.Recommender`."""
        self._refresh()
        index = self._index
        total = len(self._items)
        k_offered = min(k, total)
        indices = np.full((len(histories), k), -1, dtype=np.int32)
        # Rows mostly see few popular items, so they start from the plain list.
        indices[:, :k_offered] = np.arange(k_offered, dtype=np.int32)
        for row, history in enumerate(histories):
            seen = {index[item] for item in history if item in index}
            if seen:
                kept = [at for at in range(min(total, k + len(seen))) if at not in seen][:k]
                indices[row, : len(kept)] = kept
                indices[row, len(kept) :] = -1
        scores = np.zeros(indices.shape, dtype=np.float32)
        if total:
            scores = np.where(indices >= 0, self._counts[indices], np.float32(0))
        return Ranking(self._items, indices, scores, np.ones(len(histories), dtype=np.bool_))

    def _refresh(self) -> None:
        now = self._clock()
        if now < self._fresh_until and len(self._items) >= POPULAR_ITEMS:
            return
        self._fresh_until = now + REFRESH_S
        best = heapq.nlargest(
            POPULAR_ITEMS, self._windows.counts.items(), key=lambda entry: (entry[1], entry[0])
        )
        best = [(item, count) for item, count in best if count > 0]
        items = [item for item, _ in best]
        if items != self._items:  # keep the object while it is the same: callers cache by identity
            self._items = items
            self._index = {item: at for at, item in enumerate(items)}
        self._counts = np.array([count for _, count in best], dtype=np.float32)
