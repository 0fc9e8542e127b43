"""The simulated shop: the same for a seed, lifelike in its long tails, and worth learning from."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from functools import cache
from itertools import islice, pairwise

import numpy as np
import pyarrow as pa
import pytest

from schemas.clicks import EVENT_TYPES
from schemas.codec import Codec
from streams.clicks.catalogue import LEAVES, make_catalogue
from streams.clicks.columns import ClickColumns, concatenated, limited, until
from streams.clicks.simulate import DAY_MS, START_MS, Shop

CART, PURCHASE, REMOVE, SEARCH = (
    EVENT_TYPES.index(name) for name in ("cart", "purchase", "remove", "search")
)


@cache
def simulated(
    shoppers: int = 1_000, items: int = 2_000, seed: int = 1, count: int = 100_000
) -> ClickColumns:
    return concatenated(list(limited(Shop(shoppers, items, seed).clicks(), count)))


def table_of(clicks: ClickColumns) -> list[object]:
    return [
        clicks.user_id.to_pylist(),
        clicks.item_id.to_pylist(),
        clicks.ts.tolist(),
        clicks.event_type.tolist(),
        clicks.session_id.to_pylist(),
        clicks.query.to_pylist(),
        clicks.price.to_pylist(),
        clicks.quantity.to_pylist(),
    ]


def test_the_same_seed_gives_the_same_clicks_however_they_are_taken() -> None:
    whole = simulated(count=30_000)
    pieces = concatenated(list(islice(limited(Shop().clicks(), 30_000), 100)))
    shorter = concatenated(list(limited(Shop().clicks(), 12_345)))
    assert table_of(pieces) == table_of(whole)
    assert table_of(shorter) == table_of(whole.slice(0, 12_345))
    assert table_of(simulated(seed=2, count=30_000)) != table_of(whole)


def test_rows_are_counted_and_time_goes_on() -> None:
    clicks = simulated()
    assert clicks.row.tolist() == list(range(100_000))
    assert (np.diff(clicks.ts) >= 0).all()
    assert clicks.ts[0] >= START_MS


@pytest.mark.parametrize(("shoppers", "items"), [(1, 1), (3, 5), (10, 13), (20_000, 50)])
def test_small_and_odd_shops(shoppers: int, items: int) -> None:
    clicks = concatenated(list(limited(Shop(shoppers, items, 5).clicks(), 2_000)))
    assert len(clicks) == 2_000
    named = set(clicks.item_id.to_pylist()) - {""}
    assert named <= set(make_catalogue(items, 5).item_ids.to_pylist())
    assert (np.diff(clicks.ts) >= 0).all()


def test_every_click_is_one() -> None:
    clicks = simulated()
    search = clicks.event_type == SEARCH
    has_item = np.array(clicks.item_id.to_pylist()) != ""
    assert (has_item == ~search).all()
    has_query = np.array([query is not None for query in clicks.query.to_pylist()])
    assert (has_query == search).all()
    bought = np.isin(clicks.event_type, (CART, PURCHASE, REMOVE))
    assert (np.array([price is not None for price in clicks.price.to_pylist()]) == bought).all()
    assert (
        np.array([pieces is not None for pieces in clicks.quantity.to_pylist()]) == bought
    ).all()
    shares = np.bincount(clicks.event_type, minlength=len(EVENT_TYPES)) / len(clicks)
    assert shares[0] > 0.6
    assert (shares > 0.002).all(), "every kind of event happens"


def test_what_is_bought_was_put_into_the_cart_and_viewed_before() -> None:
    clicks = simulated()
    done: dict[str, dict[str, int]] = defaultdict(dict)
    needs = {CART: 0, PURCHASE: CART, REMOVE: CART}
    for visit, item, kind in zip(
        clicks.session_id.to_pylist(),
        clicks.item_id.to_pylist(),
        clicks.event_type.tolist(),
        strict=True,
    ):
        if kind in needs:
            assert done[visit].get(f"{item}/{needs[kind]}"), (
                f"{EVENT_TYPES[kind]} of {item} out of nothing"
            )
        done[visit][f"{item}/{kind}"] = 1


def test_a_visit_is_one_shoppers() -> None:
    clicks = simulated()
    owner: dict[str, str] = {}
    for visit, user in zip(clicks.session_id.to_pylist(), clicks.user_id.to_pylist(), strict=True):
        assert owner.setdefault(visit, user) == user


def test_long_tails_and_rhythm() -> None:
    clicks = simulated()
    by_user = sorted(Counter(clicks.user_id.to_pylist()).values(), reverse=True)
    assert sum(by_user[: len(by_user) // 10]) > 0.3 * len(clicks), (
        "a tenth of the shoppers, much of the traffic"
    )
    by_item = Counter(clicks.item_id.to_pylist())
    del by_item[""]
    counts = sorted(by_item.values(), reverse=True)
    assert sum(counts[:200]) > 0.25 * sum(counts), "a tenth of the items, much of the traffic"
    assert len(by_item) > 0.9 * 2_000, "obscure items are seen too"
    visits = Counter(clicks.session_id.to_pylist())
    lengths = np.array(list(visits.values()))
    assert 4 < lengths.mean() < 15
    assert lengths.max() > 40
    hours = np.bincount(clicks.ts // 3_600_000 % 24, minlength=24)
    assert hours[20] > 5 * hours[3], "evenings are busy, nights are not"
    days = np.bincount((clicks.ts - START_MS) // DAY_MS)
    weekend = (days[5] + days[6]) / 2
    assert weekend > 1.1 * days[:5].mean()


def test_tastes_drift() -> None:
    """A shopper's categories of the first weeks and of later ones are not the same."""
    shop = Shop(200, 2_000, 1)
    leaf_of = dict(
        zip(shop.catalogue.item_ids.to_pylist(), shop.catalogue.leaf.tolist(), strict=True)
    )
    clicks = concatenated(list(limited(shop.clicks(), 150_000)))
    early: dict[str, Counter[int]] = defaultdict(Counter)
    middle: dict[str, Counter[int]] = defaultdict(Counter)
    late: dict[str, Counter[int]] = defaultdict(Counter)
    for at, (user, item) in enumerate(
        zip(clicks.user_id.to_pylist(), clicks.item_id.to_pylist(), strict=True)
    ):
        if item:
            third = (early, middle, late)[min(3 * at // len(clicks), 2)]
            third[user][leaf_of[item]] += 1

    def overlap(one: dict[str, Counter[int]], other: dict[str, Counter[int]]) -> float:
        busy = [user for user in one if one[user].total() > 50 and other[user].total() > 50]
        assert len(busy) > 50
        return float(
            np.mean(
                [
                    sum(
                        min(
                            one[user][leaf] / one[user].total(),
                            other[user][leaf] / other[user].total(),
                        )
                        for leaf in range(len(LEAVES))
                    )
                    for user in busy
                ]
            )
        )

    assert overlap(early, middle) > overlap(early, late) + 0.03


def hit_rates(clicks: ClickColumns) -> tuple[float, float, float]:
    """HR@20 on the last fifth of the views, within visits: what followed the last item most often,
    the most popular items, and the repeats."""
    views = clicks.event_type == 0
    visits = np.array(clicks.session_id.to_pylist())[views].tolist()
    items = np.array(clicks.item_id.to_pylist())[views].tolist()
    cut = len(items) * 4 // 5
    follows: dict[str, Counter[str]] = defaultdict(Counter)
    last: dict[str, str] = {}
    for visit, item in zip(visits[:cut], items[:cut], strict=True):
        if visit in last:
            follows[last[visit]][item] += 1
        last[visit] = item
    popular = {item for item, _ in Counter(items[:cut]).most_common(20)}
    likely = {item: {one for one, _ in next_.most_common(20)} for item, next_ in follows.items()}
    markov = known = repeats = total = 0
    seen: dict[str, set[str]] = defaultdict(set)
    last.clear()
    for visit, item in zip(visits[cut:], items[cut:], strict=True):
        if visit in last:
            total += 1
            markov += item in likely.get(last[visit], ())
            known += item in popular
            repeats += item in seen[visit]
        last[visit] = item
        seen[visit].add(item)
    return markov / total, known / total, repeats / total


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_sequence_tells_far_more_than_popularity(seed: int) -> None:
    markov, popular, repeats = hit_rates(simulated(seed=seed))
    assert markov > 0.4
    assert popular < 0.15
    assert markov > 4 * popular
    assert 0.1 < repeats < 0.35


def test_order_within_a_visit_is_what_tells_it() -> None:
    """The same clicks with each visit shuffled are worth less: it is the sequence, not the set."""
    clicks = simulated()
    markov, _, _ = hit_rates(clicks)
    items = np.array(clicks.item_id.to_pylist())
    rng = np.random.default_rng(0)
    shuffled = items.copy()
    by_visit: dict[str, list[int]] = defaultdict(list)
    for at, (visit, kind) in enumerate(
        zip(clicks.session_id.to_pylist(), clicks.event_type.tolist(), strict=True)
    ):
        if kind == 0:
            by_visit[visit].append(at)
    for places in by_visit.values():
        shuffled[places] = items[rng.permutation(places)]
    mixed = ClickColumns(
        clicks.user_id,
        pa.array(shuffled.tolist()),
        clicks.ts,
        clicks.event_type,
        clicks.row,
        clicks.session_id,
    )
    assert hit_rates(mixed)[0] < markov - 0.08


def test_the_catalogue() -> None:
    catalogue = make_catalogue(2_000, 1)
    again = make_catalogue(2_000, 1)
    records = list(catalogue.records(5))
    assert records == list(again.records(5))
    assert len({record["item_id"] for record in records}) == 2_000
    assert all(
        record["price"] >= 0.5 and record["title"] and len(record["category"]) == 2
        for record in records
    )
    codec = Codec.from_lock()
    assert codec.decode("Item", codec.encode("Item", records[7])) == records[7]
    # Neighbours stay within the category; complements mostly leave it, within the price tier.
    assert (catalogue.leaf[catalogue.neighbours] == catalogue.leaf[:, None]).all()
    assert (catalogue.leaf[catalogue.complements] != catalogue.leaf[:, None]).mean() > 0.8
    assert (catalogue.tier[catalogue.complements] == catalogue.tier[:, None]).mean() > 0.95
    for leaf in range(catalogue.leaves_count):
        prices = [
            catalogue.price[(catalogue.leaf == leaf) & (catalogue.tier == tier)]
            for tier in range(3)
        ]
        assert all(
            cheap.max() <= dear.min()
            for cheap, dear in pairwise(prices)
            if len(cheap) and len(dear)
        )


def test_until_cuts_at_a_time() -> None:
    end_ms = START_MS + DAY_MS // 2
    clicks = concatenated(list(until(Shop().clicks(), end_ms)))
    assert clicks.ts.max() < end_ms
    longer = simulated()
    assert longer.ts[len(clicks)] >= end_ms


def test_it_is_fast_enough_to_feed_a_benchmark() -> None:
    shop = Shop(100_000, 20_000, 1)
    start_s = time.process_time()
    count = sum(len(batch) for batch in limited(shop.clicks(), 100_000))
    assert count / (time.process_time() - start_s) > 50_000
