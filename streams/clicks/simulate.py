"""Shoppers that are not there: an endless stream of clicks with the habits of a real shop.

Heavy and light users, popular and obscure items, a daily and weekly rhythm; visits that follow
the shelf, go to what goes with an item, come back to what was seen, and change with tastes that
drift. A model that reads the sequence can know what comes next; popularity cannot.

Time is simulated in blocks, each from its own random stream, all visits of a block at once: the
clicks depend on the seed and the sizes only, never on the rate at which they are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.clicks import EVENT_TYPES
from streams.clicks.catalogue import (
    COMPLEMENTS,
    LEAVES,
    NEIGHBOURS,
    PRICE_TIERS,
    Catalogue,
    Ints,
    make_catalogue,
)
from streams.clicks.columns import ClickColumns, concatenated, no_clicks

VIEW, CART, PURCHASE, REMOVE, SEARCH, IMPRESSION = range(len(EVENT_TYPES))
DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
# Monday, 5 January 2026, 00:00 UTC.
START_MS: Final = 1_767_571_200_000
VISITS_A_DAY: Final = 1.2
# Enough visits at once for numpy to pay off; about seven clicks each.
BLOCK_VISITS: Final = 1_500
BLOCK_MS_MIN: Final = 15 * 60_000
VISIT_STEPS_MAX: Final = 80
TASTES: Final = 3
# Traffic of each hour of the day: little at night, a rise at noon, most in the evening.
RHYTHM: Final = np.array(
    [2.0, 1.2, 0.8, 0.6, 0.6, 0.9, 1.6, 2.8, 4.0, 4.8, 5.2, 5.4, 5.8, 5.4, 5.0, 5.0, 5.2, 5.6, 6.2, 7.2, 8.0, 7.6, 5.6, 3.5]
)
WEEKEND: Final = 1.25
# What a shopper does next, as cumulative probabilities over the step's draw.
NEXT, POOL, GOES_WITH, CHANGE, BACK, POPULAR, ANY = range(7)
_HABITS: Final = np.cumsum([0.42, 0.16, 0.08, 0.10, 0.12, 0.08, 0.04])
_NEIGHBOUR_ODDS: Final = np.cumsum([0.36, 0.18, 0.13, 0.10, 0.08, 0.06, 0.05, 0.04])
_TASTE_CHANGES: Final = 0.05
_SEARCHES: Final = 0.4
_CART_ODDS: Final = (1.5, 20.0)
_PURCHASES: Final = 0.5
_REMOVALS: Final = 0.15
_TELLS_SHOWN: Final = 0.3
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class _Events:
    """Rows of one kind within a block: `visit`, `ts`, `item`, and codes with -1 for nothing."""

    kind: int
    visit: Ints
    ts: NDArray[np.int64]
    item: Ints
    leaf: Ints | None = None
    quantity: Ints | None = None


class Shop:
    """A simulated shop: its catalogue, its shoppers, and their clicks.

    `shoppers`, `items`: how many; `seed`: everything random; `start_ms`: where time begins.
    """

    def __init__(self, shoppers: int = 1_000, items: int = 2_000, seed: int = 1, start_ms: int = START_MS) -> None:
        self.catalogue: Catalogue = make_catalogue(items, seed)
        self._seed = seed
        self.start_ms = start_ms
        rng = np.random.default_rng([seed, 0x5409])
        activity = rng.lognormal(0.0, 1.1, shoppers)
        self._activity = np.cumsum(activity / activity.sum())
        self._tastes = self._draw_leaves(rng, (shoppers, TASTES))
        self._tier = rng.integers(0, PRICE_TIERS, shoppers, dtype=np.int32)
        self._buys = rng.beta(*_CART_ODDS, shoppers)
        self._visits = np.zeros(shoppers, np.int64)
        self._visits_a_day = VISITS_A_DAY * shoppers
        self._block_ms = int(np.clip(BLOCK_VISITS / self._visits_a_day * DAY_MS, BLOCK_MS_MIN, DAY_MS))
        width = max(4, len(str(shoppers - 1)))
        self._names = [f"s{at:0{width}d}" for at in range(shoppers)]
        self._user_ids = pa.array(self._names, pa.string())

    def clicks(self) -> Iterator[ClickColumns]:
        """All clicks, oldest first, without an end; `row` counts them from 0. Once an object."""
        open_clicks = no_clicks()
        row = 0
        block = 0
        while True:
            end_ms = self.start_ms + (block + 1) * self._block_ms
            clicks = concatenated([open_clicks, self._block(block)]).in_time_order()
            # Visits go on into the next block; what lies there is kept for it.
            done = int(np.searchsorted(clicks.ts, end_ms))
            ready, open_clicks = clicks.slice(0, done), clicks.slice(done, len(clicks))
            if done:
                numbers = np.arange(row, row + done, dtype=np.int64)
                yield ClickColumns(
                    ready.user_id, ready.item_id, ready.ts, ready.event_type, numbers,
                    ready.session_id, ready.query, ready.price, ready.quantity,
                )
                row += done
            block += 1

    def _draw_leaves(self, rng: np.random.Generator, shape: Any) -> Ints:
        """Categories, the first ones more often."""
        count = self.catalogue.leaves_count
        leaves: Ints = (rng.random(shape) ** 1.4 * count).astype(np.int32)
        return leaves

    def _block(self, block: int) -> ClickColumns:
        rng = np.random.default_rng([self._seed, 0xB10C, block])
        start_ms = self.start_ms + block * self._block_ms
        starts = _starts(rng, start_ms, self._block_ms, self._visits_a_day)
        if not len(starts):
            return no_clicks()
        shopper = np.searchsorted(self._activity, rng.random(len(starts))).clip(max=len(self._names) - 1).astype(np.int32)
        changed = np.flatnonzero(rng.random(len(starts)) < _TASTE_CHANGES)
        self._tastes[shopper[changed], rng.integers(0, TASTES, len(changed))] = self._draw_leaves(rng, len(changed))
        trend = self._trend(start_ms)
        events = _Visits(self, rng, shopper, starts, trend).events()
        numbers = self._count_visits(shopper)
        return self._columns(events, shopper, numbers)

    def _trend(self, ts: int) -> Ints:
        """What is talked about on that day."""
        rng = np.random.default_rng([self._seed, 0x7E4D, ts // DAY_MS])
        return rng.integers(0, len(self.catalogue), max(5, len(self.catalogue) // 200), dtype=np.int32)

    def _count_visits(self, shopper: Ints) -> NDArray[np.int64]:
        """The number of each visit among its shopper's."""
        order = np.argsort(shopper, kind="stable")
        ranked = shopper[order]
        first = np.concatenate([[True], ranked[1:] != ranked[:-1]])
        places = np.arange(len(ranked))
        within = places - np.maximum.accumulate(np.where(first, places, 0))
        numbers = np.empty(len(shopper), np.int64)
        numbers[order] = within + self._visits[ranked]
        np.add.at(self._visits, shopper, 1)
        return numbers

    def _columns(self, events: list[_Events], shopper: Ints, numbers: NDArray[np.int64]) -> ClickColumns:
        visit = np.concatenate([one.visit for one in events])
        kind = np.concatenate([np.full(len(one.visit), one.kind, np.uint8) for one in events])
        item = np.concatenate([one.item for one in events])
        leaf = np.concatenate([_or_nothing(one.leaf, len(one.visit)) for one in events])
        quantity = np.concatenate([_or_nothing(one.quantity, len(one.visit)) for one in events])
        ids = pa.array([f"{self._names[who]}-{number}" for who, number in zip(shopper.tolist(), numbers.tolist(), strict=True)])
        nouns = pa.array([noun.lower() for _, noun in LEAVES], pa.string())
        bought = quantity >= 0
        return ClickColumns(
            self._user_ids.take(pa.array(shopper[visit])),
            self.catalogue.item_ids.take(pa.array(item, mask=item < 0)).fill_null(""),
            np.concatenate([one.ts for one in events]),
            kind,
            np.zeros(len(visit), np.int64),
            session_id=ids.take(pa.array(visit)),
            query=nouns.take(pa.array(leaf, mask=leaf < 0)),
            price=pa.array(self.catalogue.price[item], mask=~bought),
            quantity=pa.array(quantity, mask=~bought),
        )


def _or_nothing(column: Ints | None, count: int) -> Ints:
    return np.full(count, -1, np.int32) if column is None else column


def _starts(rng: np.random.Generator, start_ms: int, length_ms: int, visits_a_day: float) -> NDArray[np.int64]:
    """When visits of a block start: a Poisson process with the rhythm of day and week, sorted."""
    edges = np.unique(np.concatenate([[start_ms, start_ms + length_ms], np.arange(-(-start_ms // HOUR_MS), (start_ms + length_ms) // HOUR_MS + 1) * HOUR_MS]))
    edges = edges[(edges >= start_ms) & (edges <= start_ms + length_ms)]
    hour = edges[:-1] // HOUR_MS % 24
    # The epoch was a Thursday.
    weekend = (edges[:-1] // DAY_MS + 3) % 7 >= 5
    weight = RHYTHM[hour] / RHYTHM.sum() * np.where(weekend, WEEKEND, 1.0) * np.diff(edges) / HOUR_MS
    count = rng.poisson(visits_a_day * weight.sum())
    if not count:
        return np.zeros(0, np.int64)
    reached = np.concatenate([[0.0], np.cumsum(weight)])
    starts: NDArray[np.int64] = np.interp(np.sort(rng.random(count)) * reached[-1], reached, edges).astype(np.int64)
    return starts


class _Visits:
    """All visits of one block, a step of all of them at a time."""

    def __init__(self, shop: Shop, rng: np.random.Generator, shopper: Ints, starts: NDArray[np.int64], trend: Ints) -> None:
        self._catalogue = shop.catalogue
        self._rng = rng
        self._shopper = shopper
        self._tier = shop._tier[shopper]
        self._tastes = shop._tastes[shopper]
        self._buys = shop._buys[shopper]
        self._trend = trend
        # A search may come before the first view; nothing comes before the visit.
        self._now = starts + 2_000
        self._steps = np.clip(rng.lognormal(1.45, 0.8, len(shopper)), 1, VISIT_STEPS_MAX).astype(np.int32)
        self._seen = np.zeros((len(shopper), int(self._steps.max())), np.int32)
        self._events: list[_Events] = []

    def events(self) -> list[_Events]:
        """Everything that happens in these visits."""
        carts: list[_Events] = []
        for step in range(self._seen.shape[1]):
            visit = np.flatnonzero(self._steps > step).astype(np.int32)
            item = self._enter(visit) if step == 0 else self._next(visit, step)
            self._seen[visit, step] = item
            self._events.append(_Events(VIEW, visit, self._now[visit], item))
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
        item = np.where(popular, np.where(rng.random(count) < 0.5, talked, catalogue.popular[ranks]), item).astype(np.int32)
        searched = np.flatnonzero(~popular & (rng.random(count) < _SEARCHES))
        before = ts[searched] - 1_500
        self._events.append(_Events(SEARCH, visit[searched], before, np.full(len(searched), -1, np.int32), leaf[searched]))
        # Some shops tell what a search showed; the item viewed next is not always among it.
        shown = np.repeat(searched[rng.random(len(searched)) < _TELLS_SHOWN], _SHOWN)
        self._events.append(
            _Events(
                IMPRESSION,
                visit[shown],
                ts[shown] - 1_400,
                catalogue.by_tier.draw(group[shown], rng.random(len(shown)), 1.5),
            )
        )
        return item

    def _carted(self, visit: Ints, item: Ints) -> _Events:
        rng = self._rng
        at = np.flatnonzero(rng.random(len(visit)) < self._buys[visit])
        quantity = np.minimum(rng.geometric(0.75, len(at)), 9).astype(np.int32)
        return _Events(CART, visit[at], self._now[visit[at]] + 1_000, item[at], quantity=quantity)

    def _check_out(self, carts: list[_Events]) -> None:
        """What becomes of the carts when the visits are over."""
        visit = np.concatenate([one.visit for one in carts])
        item = np.concatenate([one.item for one in carts])
        quantity = np.concatenate([_or_nothing(one.quantity, 0) for one in carts])
        fate = self._rng.random(len(visit))
        end = self._now[visit]
        for kind, chosen, after in (
            (REMOVE, fate < _REMOVALS, 0),
            (PURCHASE, fate >= 1 - _PURCHASES, 30_000),
        ):
            self._events.append(
                _Events(kind, visit[chosen], end[chosen] + after, item[chosen], quantity=quantity[chosen])
            )
