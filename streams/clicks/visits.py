"""What happens in a shopper's visits: all visits of a block of time at once, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.clicks import EVENT_TYPES
from streams.clicks.catalogue import COMPLEMENTS, NEIGHBOURS, PRICE_TIERS, Catalogue, Ints

VIEW, CART, PURCHASE, REMOVE, SEARCH, IMPRESSION = range(len(EVENT_TYPES))
VISIT_STEPS_MAX: Final = 80
TASTES: Final = 3
# What a shopper does next, as cumulative probabilities over the step's draw.
NEXT, POOL, GOES_WITH, CHANGE, BACK, POPULAR, ANY = range(7)
_HABITS: Final = np.cumsum([0.42, 0.16, 0.08, 0.10, 0.12, 0.08, 0.04])
_NEIGHBOUR_ODDS: Final = np.cumsum([0.36, 0.18, 0.13, 0.10, 0.08, 0.06, 0.05, 0.04])
_SEARCHES: Final = 0.4
_PURCHASES: Final = 0.5
_REMOVALS: Final = 0.15
_TELLS_SHOWN: Final = 0.3
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Events:
    """Rows of one kind within a block: `visit`, `ts`, `item`, and codes with -1 for nothing."""

    kind: int
    visit: Ints
    ts: NDArray[np.int64]
    item: Ints
    leaf: Ints | None = None
    quantity: Ints | None = None


def or_nothing(column: Ints | None, count: int) -> Ints:
    """The column, or -1 in each row."""
    return np.full(count, -1, np.int32) if column is None else column


@dataclass(frozen=True, slots=True)
class Habits:
    """Who visits: of each visit's shopper the price tier, the tastes [n, 3] and how often they
    put an item into the cart; and the items that are talked about."""

    tier: Ints
    tastes: Ints
    buys: NDArray[np.float64]
    trend: Ints


class Visits:
    """All visits of one block, a step of all of them at a time."""

    def __init__(
        self,
        catalogue: Catalogue,
        rng: np.random.Generator,
        habits: Habits,
        starts: NDArray[np.int64],
    ) -> None:
        self._catalogue = catalogue
        self._rng = rng
        self._tier = habits.tier
        self._tastes = habits.tastes
        self._buys = habits.buys
        self._trend = habits.trend
        # A search may come before the first view; nothing comes before the visit.
        self._now = starts + 2_000
        self._steps = np.clip(rng.lognormal(1.45, 0.8, len(starts)), 1, VISIT_STEPS_MAX).astype(
            np.int32
        )
        self._seen = np.zeros((len(starts), int(self._steps.max())), np.int32)
        self._events: list[Events] = []

    def events(self) -> list[Events]:
        """Everything that happens in these visits."""
        carts: list[Events] = []
        for step in range(self._seen.shape[1]):
            visit = np.flatnonzero(self._steps > step).astype(np.int32)
            item = self._enter(visit) if step == 0 else self._next(visit, step)
            self._seen[visit, step] = item
            self._events.append(Events(VIEW, visit, self._now[visit], item))
            carts.append(self._carted(visit, item))
            gap = np.minimum(self._rng.lognormal(3.1, 0.9, len(visit)), 1_200.0)
            self._now[visit] += 2_000 + (1_000 * gap).astype(np.int64)
        self._events += carts
        self._check_out(carts)
        return self._events

    def _enter(self, visit: Ints) -> Ints:
        """The first item: from a search, from a campaign, or from the category one likes."""
        return self._changed(visit, np.full(len(visit), CHANGE), self._now[visit])

    def _next(self, visit: Ints, step: int) -> Ints:
        rng, catalogue = self._rng, self._catalogue
        last = self._seen[visit, step - 1]
        habit = np.searchsorted(_HABITS, rng.random(len(visit))).clip(max=ANY)
        which = np.searchsorted(_NEIGHBOUR_ODDS, rng.random(len(visit))).clip(max=NEIGHBOURS - 1)
        item: Ints = catalogue.neighbours[last, which]
        at = np.flatnonzero(habit == POOL)
        group = (catalogue.leaf[last[at]] * PRICE_TIERS + self._tier[visit[at]]).astype(np.int32)
        item[at] = catalogue.by_tier.draw(group, rng.random(len(at)), 2.5)
        at = np.flatnonzero(habit == GOES_WITH)
        item[at] = catalogue.complements[last[at], rng.integers(0, COMPLEMENTS, len(at))]
        at = np.flatnonzero(habit == BACK)
        item[at] = self._seen[visit[at], (rng.random(len(at)) * step).astype(np.int32)]
        at = np.flatnonzero(habit == ANY)
        item[at] = rng.integers(0, len(catalogue), len(at), dtype=np.int32)
        at = np.flatnonzero((habit == CHANGE) | (habit == POPULAR))
        item[at] = self._changed(visit[at], habit[at], self._now[visit[at]])
        return item

    def _changed(self, visit: Ints, habit: NDArray[np.int64], ts: NDArray[np.int64]) -> Ints:
        """Something else: by taste, often through a search, or what is popular or talked about."""
        rng, catalogue, count = self._rng, self._catalogue, len(visit)
        leaf = self._tastes[visit, (rng.random(count) ** 1.5 * TASTES).astype(np.int32)]
        group = (leaf * PRICE_TIERS + self._tier[visit]).astype(np.int32)
        item = catalogue.by_tier.draw(group, rng.random(count), 2.5)
        popular = habit == POPULAR
        ranks = (rng.random(count) ** 4 * len(catalogue)).astype(np.int32)
        talked = self._trend[rng.integers(0, len(self._trend), count)]
        item = np.where(
            popular, np.where(rng.random(count) < 0.5, talked, catalogue.popular[ranks]), item
        ).astype(np.int32)
        searched = np.flatnonzero(~popular & (rng.random(count) < _SEARCHES))
        before = ts[searched] - 1_500
        self._events.append(
            Events(
                SEARCH,
                visit[searched],
                before,
                np.full(len(searched), -1, np.int32),
                leaf[searched],
            )
        )
        # Some shops tell what a search showed; the item viewed next is not always among it.
        shown = np.repeat(searched[rng.random(len(searched)) < _TELLS_SHOWN], _SHOWN)
        self._events.append(
            Events(
                IMPRESSION,
                visit[shown],
                ts[shown] - 1_400,
                catalogue.by_tier.draw(group[shown], rng.random(len(shown)), 1.5),
            )
        )
        return item

    def _carted(self, visit: Ints, item: Ints) -> Events:
        rng = self._rng
        at = np.flatnonzero(rng.random(len(visit)) < self._buys[visit])
        quantity = np.minimum(rng.geometric(0.75, len(at)), 9).astype(np.int32)
        return Events(CART, visit[at], self._now[visit[at]] + 1_000, item[at], quantity=quantity)

    def _check_out(self, carts: list[Events]) -> None:
        """What becomes of the carts when the visits are over."""
        visit = np.concatenate([one.visit for one in carts])
        item = np.concatenate([one.item for one in carts])
        quantity = np.concatenate([or_nothing(one.quantity, 0) for one in carts])
        fate = self._rng.random(len(visit))
        end = self._now[visit]
        for kind, chosen, after in (
            (REMOVE, fate < _REMOVALS, 0),
            (PURCHASE, fate >= 1 - _PURCHASES, 30_000),
        ):
            self._events.append(
                Events(
                    kind,
                    visit[chosen],
                    end[chosen] + after,
                    item[chosen],
                    quantity=quantity[chosen],
                )
            )
