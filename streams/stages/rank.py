"""Third hop: rank items for each click of a batch, by the best tier that can answer it.

Degradation is declared, never silent: what a tier does not answer goes to the next, and every
answer carries the tier and the label of the recommender that made it. A recommender that fails
is skipped for the batch and reported, not raised: shoppers get the next tier's answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import Ranking, Recommender
from schemas.errors import ModelError
from streams.state.window import items_of


@dataclass(frozen=True, slots=True)
class TierAnswer:
    """The rows of a batch that one recommender answered: `rows` int64, ascending."""

    recommender: Recommender
    rows: NDArray[np.int64]
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class Ranked:
    """Answers by tier; every row of the batch is in exactly one of them."""

    answers: list[TierAnswer]
    failures: list[tuple[Recommender, str]]


def histories(snapshots: Sequence[bytes | None]) -> list[list[bytes]]:
    """The item ids of each window, oldest first."""
    return [[] if window is None else items_of(window) for window in snapshots]


def rank(recommenders: Sequence[Recommender], snapshots: Sequence[bytes | None], k: int) -> Ranked:
    """Rank `k` items for each snapshot. The last recommender answers whatever is left."""
    answers: list[TierAnswer] = []
    failures: list[tuple[Recommender, str]] = []
    rows = np.arange(len(snapshots), dtype=np.int64)
    left = histories(snapshots)
    for recommender in recommenders:
        if not len(rows):
            break
        try:
            ranking = recommender.rank(left, k)
        except ModelError as error:
            failures.append((recommender, str(error)))
            continue
        if ranking.answered.all():
            answers.append(TierAnswer(recommender, rows, ranking))
            rows = rows[:0]
            break
        taken = np.flatnonzero(ranking.answered)
        if len(taken):
            part = Ranking(
                ranking.items,
                ranking.indices[taken],
                ranking.scores[taken],
                ranking.answered[taken],
            )
            answers.append(TierAnswer(recommender, rows[taken], part))
        missing = np.flatnonzero(~ranking.answered)
        rows = rows[missing]
        left = [left[row] for row in missing.tolist()]
    return Ranked(answers, failures)
