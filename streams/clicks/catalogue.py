"""The simulated shop's shelves: items with categories, prices, brands, and what lies beside what.

The same for the same size and seed, so that a file that was simulated yesterday and clicks that
are simulated now are of one shop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int32]

# Department -> its leaf categories, a noun each.
DEPARTMENTS: Final[dict[str, tuple[str, ...]]] = {
    "Kitchen": ("Pan", "Kettle", "Knife", "Mug", "Toaster", "Bowl"),
    "Garden": ("Spade", "Hose", "Planter", "Bench", "Grill", "Lantern"),
    "Sports": ("Racket", "Helmet", "Tent", "Skates", "Dumbbell", "Backpack"),
    "Clothing": ("Jacket", "Shirt", "Jeans", "Scarf", "Boots", "Dress"),
    "Electronics": ("Headphones", "Camera", "Speaker", "Keyboard", "Monitor", "Charger"),
    "Toys": ("Puzzle", "Kite", "Robot", "Doll", "Train", "Blocks"),
    "Office": ("Desk", "Chair", "Notebook", "Pen", "Lamp", "Shelf"),
    "Beauty": ("Soap", "Perfume", "Brush", "Cream", "Mirror", "Towel"),
}
LEAVES: Final = tuple(
    (department, noun) for department, nouns in DEPARTMENTS.items() for noun in nouns
)
_BRANDS: Final = (
    "Alder",
    "Brook",
    "Cairn",
    "Dell",
    "Ember",
    "Fjord",
    "Grove",
    "Heath",
    "Islay",
    "Juniper",
    "Knoll",
    "Loch",
)
_ADJECTIVES: Final = (
    "Classic",
    "Light",
    "Sturdy",
    "Compact",
    "Soft",
    "Bright",
    "Quiet",
    "Grand",
    "Simple",
    "Fine",
    "Bold",
    "Warm",
)
PRICE_TIERS: Final = 3
NEIGHBOURS: Final = 8
COMPLEMENTS: Final = 3
# Steps along the shelf to an item's neighbours, the likeliest first.
_STEPS: Final = (1, 2, -1, 3, 5, -2, 4, 8)
# With fewer items than this a leaf is left out of a small shop.
_LEAF_ITEMS_MIN: Final = 12


@dataclass(frozen=True, slots=True)
class Pools:
    """Items by group, each group from its most to its least popular item.

    Group g is `items[starts[g]:starts[g] + counts[g]]`; no group is empty.
    """

    items: Ints
    starts: Ints
    counts: Ints

    def draw(self, groups: Ints, uniform: NDArray[np.float64], skew: float) -> Ints:
        """One item of each group; the more `skew`, the more popular."""
        at = (uniform**skew * self.counts[groups]).astype(np.int32)
        drawn: Ints = self.items[self.starts[groups] + np.minimum(at, self.counts[groups] - 1)]
        return drawn


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All items of a simulated shop, arrays beside one another.

    `leaf`, `tier`, `brand`: codes; `price`: in the shop's currency; `neighbours` [n, 8] and
    `complements` [n, 3]: items that are looked at next; `popular`: all items, most popular first;
    `by_tier`: pools, group = leaf * `PRICE_TIERS` + tier.
    """

    item_ids: Any
    leaf: Ints
    tier: Ints
    brand: Ints
    adjective: Ints
    price: NDArray[np.float64]
    stock: NDArray[np.int64]
    neighbours: Ints
    complements: Ints
    popular: Ints
    by_tier: Pools
    leaves_count: int

    def __len__(self) -> int:
        return len(self.leaf)

    def records(self, updated_at: int) -> Iterator[dict[str, Any]]:
        """The `Item` records of the catalogue, ms since the epoch as their time."""
        for at, item_id in enumerate(self.item_ids.to_pylist()):
            department, noun = LEAVES[self.leaf[at]]
            brand = _BRANDS[self.brand[at]]
            yield {
                "item_id": item_id,
                "title": f"{brand} {_ADJECTIVES[self.adjective[at]]} {noun}",
                "category": [department, f"{noun}s" if not noun.endswith("s") else noun],
                "brand": brand,
                "price": float(self.price[at]),
                "stock": int(self.stock[at]),
                "visible": True,
                "updated_at": updated_at,
            }


def make_catalogue(items: int, seed: int) -> Catalogue:
    """A catalogue of so many items (at least one)."""
    rng = np.random.default_rng([seed, 0xCA7])
    leaves = int(np.clip(items // _LEAF_ITEMS_MIN, 1, len(LEAVES)))
    # Some categories are larger than others, and each has an item.
    sizes = rng.dirichlet(np.full(leaves, 4.0))
    leaf = np.concatenate([np.arange(leaves), rng.choice(leaves, items - leaves, p=sizes)]).astype(
        np.int32
    )
    level = rng.lognormal(3.0, 0.7, leaves)
    price = np.round(np.maximum(level[leaf] * rng.lognormal(0.0, 0.5, items), 0.5), 2).astype(
        np.float64
    )
    weight = rng.random(items)
    tier = _tiers(leaf, price)
    shelf = np.lexsort((rng.random(items), leaf)).astype(np.int32)
    pools = _pools(leaf * PRICE_TIERS + tier, weight, leaves * PRICE_TIERS, leaf)
    width = max(4, len(str(items - 1)))
    return Catalogue(
        item_ids=pa.array([f"i{at:0{width}d}" for at in range(items)], pa.string()),
        leaf=leaf,
        tier=tier,
        brand=rng.integers(0, len(_BRANDS), items, dtype=np.int32),
        adjective=rng.integers(0, len(_ADJECTIVES), items, dtype=np.int32),
        price=price,
        stock=rng.geometric(0.02, items).astype(np.int64),
        neighbours=_neighbours(leaf, shelf),
        complements=_complements(leaf, tier, leaves, pools, rng),
        popular=np.argsort(-weight, kind="stable").astype(np.int32),
        by_tier=pools,
        leaves_count=leaves,
    )


def _tiers(leaf: Ints, price: NDArray[np.float64]) -> Ints:
    """Cheap, middle or dear within its leaf."""
    order = np.lexsort((price, leaf))
    counts = np.bincount(leaf)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(leaf), np.int64)
    rank[order] = np.arange(len(leaf)) - starts[leaf[order]]
    return (rank * PRICE_TIERS // counts[leaf]).astype(np.int32)


def _pools(group: Ints, weight: NDArray[np.float64], groups: int, leaf: Ints) -> Pools:
    """Pools of each group; a group without items gets those of its whole leaf."""
    by_leaf = np.lexsort((-weight, leaf)).astype(np.int32)
    by_group = np.lexsort((-weight, group)).astype(np.int32)
    counts = np.bincount(group, minlength=groups)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    leaf_counts = np.bincount(leaf, minlength=groups // PRICE_TIERS)
    leaf_starts = np.concatenate([[0], np.cumsum(leaf_counts)[:-1]]) + len(group)
    owner = np.arange(groups) // PRICE_TIERS
    empty = counts == 0
    return Pools(
        np.concatenate([by_group, by_leaf]),
        np.where(empty, leaf_starts[owner], starts).astype(np.int32),
        np.where(empty, leaf_counts[owner], counts).astype(np.int32),
    )


def _neighbours(leaf: Ints, shelf: Ints) -> Ints:
    """The items a few steps along the same shelf, which is a ring."""
    counts = np.bincount(leaf)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    place = np.empty(len(leaf), np.int64)
    place[shelf] = np.arange(len(leaf)) - starts[leaf[shelf]]
    steps = np.array(_STEPS)
    there = (place[:, None] + steps) % counts[leaf][:, None] + starts[leaf][:, None]
    neighbours: Ints = shelf[there]
    return neighbours


def _complements(
    leaf: Ints, tier: Ints, leaves: int, pools: Pools, rng: np.random.Generator
) -> Ints:
    """Items of another category that go with each item, in its price tier."""
    goes_with = rng.integers(0, leaves, (leaves, 2))
    chosen = goes_with[leaf[:, None], rng.integers(0, 2, (len(leaf), COMPLEMENTS))]
    groups = (chosen * PRICE_TIERS + tier[:, None]).astype(np.int32)
    return pools.draw(groups, rng.random(groups.shape), 2.0)
