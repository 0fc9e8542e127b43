"""Shoppers that are not there: an endless stream of clicks with the habits of a real shop.

Heavy and light users, popular and obscure items, a daily and weekly rhythm; visits that follow
the shelf, go to what goes with an item, come back to what was seen, and change with tastes that
drift. A model that reads the sequence can know what comes next; popularity cannot.

Time is simulated in blocks, each from its own random stream, all visits of a block at once: the
clicks depend on the seed and the sizes only, never on the rate at which they are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streams.clicks.catalogue import LEAVES, PRICE_TIERS, Catalogue, Ints, make_catalogue
from streams.clicks.columns import ClickColumns, concatenated, no_clicks
from streams.clicks.visits import TASTES, Events, Habits, Visits, or_nothing

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
# Monday, 5 January 2026, 00:00 UTC.
START_MS: Final = 1_767_571_200_000
VISITS_A_DAY: Final = 1.2
# Enough visits at once for numpy to pay off; about seven clicks each.
BLOCK_VISITS: Final = 1_500
BLOCK_MS_MIN: Final = 15 * 60_000
# Traffic of each hour of the day: little at night, a rise at noon, most in the evening.
RHYTHM: Final = np.array(
    [20, 12, 8, 6, 6, 9, 16, 28, 40, 48, 52, 54, 58, 54, 50, 50, 52, 56, 62, 72, 80, 76, 56, 35]
)
WEEKEND: Final = 1.25
_TASTE_CHANGES: Final = 0.05
_CART_ODDS: Final = (1.5, 20.0)


class Shop:
    """A simulated shop: its catalogue, its shoppers, and their clicks.

    `shoppers`, `items`: how many; `seed`: everything random; `start_ms`: where time begins.
    """

    def __init__(
        self, shoppers: int = 1_000, items: int = 2_000, seed: int = 1, start_ms: int = START_MS
    ) -> None:
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
        self._block_ms = int(
            np.clip(BLOCK_VISITS / self._visits_a_day * DAY_MS, BLOCK_MS_MIN, DAY_MS)
        )
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
                yield replace(ready, row=numbers)
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
        shopper = (
            np.searchsorted(self._activity, rng.random(len(starts)))
            .clip(max=len(self._names) - 1)
            .astype(np.int32)
        )
        changed = np.flatnonzero(rng.random(len(starts)) < _TASTE_CHANGES)
        self._tastes[shopper[changed], rng.integers(0, TASTES, len(changed))] = self._draw_leaves(
            rng, len(changed)
        )
        habits = Habits(
            self._tier[shopper], self._tastes[shopper], self._buys[shopper], self._trend(start_ms)
        )
        events = Visits(self.catalogue, rng, habits, starts).events()
        numbers = self._count_visits(shopper)
        return self._columns(events, shopper, numbers)

    def _trend(self, ts: int) -> Ints:
        """What is talked about on that day."""
        rng = np.random.default_rng([self._seed, 0x7E4D, ts // DAY_MS])
        return rng.integers(
            0, len(self.catalogue), max(5, len(self.catalogue) // 200), dtype=np.int32
        )

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

    def _columns(
        self, events: list[Events], shopper: Ints, numbers: NDArray[np.int64]
    ) -> ClickColumns:
        visit = np.concatenate([one.visit for one in events])
        kind = np.concatenate([np.full(len(one.visit), one.kind, np.uint8) for one in events])
        item = np.concatenate([one.item for one in events])
        leaf = np.concatenate([or_nothing(one.leaf, len(one.visit)) for one in events])
        quantity = np.concatenate([or_nothing(one.quantity, len(one.visit)) for one in events])
        ids = pa.array(
            [
                f"{self._names[who]}-{number}"
                for who, number in zip(shopper.tolist(), numbers.tolist(), strict=True)
            ]
        )
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


def _starts(
    rng: np.random.Generator, start_ms: int, length_ms: int, visits_a_day: float
) -> NDArray[np.int64]:
    """When visits of a block start: a Poisson process with the rhythm of day and week, sorted."""
    edges = np.unique(
        np.concatenate(
            [
                [start_ms, start_ms + length_ms],
                np.arange(-(-start_ms // HOUR_MS), (start_ms + length_ms) // HOUR_MS + 1) * HOUR_MS,
            ]
        )
    )
    edges = edges[(edges >= start_ms) & (edges <= start_ms + length_ms)]
    hour = edges[:-1] // HOUR_MS % 24
    # The epoch was a Thursday.
    weekend = (edges[:-1] // DAY_MS + 3) % 7 >= 5
    weight = (
        RHYTHM[hour] / RHYTHM.sum() * np.where(weekend, WEEKEND, 1.0) * np.diff(edges) / HOUR_MS
    )
    count = rng.poisson(visits_a_day * weight.sum())
    if not count:
        return np.zeros(0, np.int64)
    reached = np.concatenate([[0.0], np.cumsum(weight)])
    starts: NDArray[np.int64] = np.interp(
        np.sort(rng.random(count)) * reached[-1], reached, edges
    ).astype(np.int64)
    return starts
