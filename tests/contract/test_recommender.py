"""What every recommender promises the data path, asked of each implementation."""

from __future__ import annotations

import random

import numpy as np
import pytest
from recommenders import FACTORIES, Factory

from models.contract import TIERS, Ranking, Recommender

ITEMS = [b"item-%d" % number for number in range(140)] + ["café ☕".encode()]
FEW = ITEMS[:5]


@pytest.fixture(scope="module", params=FACTORIES)
def factory(request: pytest.FixtureRequest) -> Factory:
    return FACTORIES[request.param]


@pytest.fixture(scope="module")
def many(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return factory(tmp_path_factory.mktemp("many"), ITEMS)


@pytest.fixture(scope="module")
def few(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return factory(tmp_path_factory.mktemp("few"), FEW)


def histories(count: int, seed: int = 0) -> list[list[bytes]]:
    """Of every length from 1 to 50, of known items, with repeats."""
    rng = random.Random(seed)
    return [rng.choices(ITEMS, k=1 + row % 50) for row in range(count)]


def check(ranking: Ranking, asked: list[list[bytes]], k: int) -> None:
    """All that must hold of any answer."""
    shape = (len(asked), k)
    assert (ranking.indices.shape, ranking.indices.dtype) == (shape, np.int32)
    assert (ranking.scores.shape, ranking.scores.dtype) == (shape, np.float32)
    assert (ranking.answered.shape, ranking.answered.dtype) == ((len(asked),), np.bool_)
    for row in np.flatnonzero(ranking.answered).tolist():
        indices, scores = ranking.indices[row], ranking.scores[row]
        offered = int((indices >= 0).sum())
        assert (indices[:offered] >= 0).all()
        assert (indices[offered:] == -1).all()
        assert indices.max(initial=-1) < len(ranking.items)
        assert not np.isnan(scores).any()
        assert (np.diff(scores[:offered]) <= 0).all()
        items = [ranking.items[index] for index in indices[:offered]]
        assert len(set(items)) == offered
        assert not set(items) & set(asked[row])


def names(ranking: Ranking, row: int) -> list[bytes]:
    return [ranking.items[index] for index in ranking.indices[row] if index >= 0]


def test_names_itself_and_its_tier(many: Recommender) -> None:
    assert many.label
    assert many.tier in TIERS


@pytest.mark.parametrize("k", [1, 20, 100])
def test_answers_a_batch(many: Recommender, k: int) -> None:
    asked = histories(60)
    ranking = many.rank(asked, k)
    check(ranking, asked, k)
    assert ranking.answered.all()
    # Something can always be offered: at least 91 of the items are not in a history.
    assert (ranking.indices[:, : min(k, 91)] >= 0).all()


def test_answers_a_large_batch(many: Recommender) -> None:
    asked = histories(1000)
    ranking = many.rank(asked, 20)
    check(ranking, asked, 20)
    assert ranking.answered.all()


def test_answers_an_empty_batch(many: Recommender) -> None:
    check(many.rank([], 20), [], 20)


def test_items_are_bytes_and_stay_the_same_object(many: Recommender) -> None:
    first, second = many.rank(histories(2), 5), many.rank(histories(9, seed=1), 3)
    assert first.items is second.items
    assert set(first.items) == set(ITEMS)


def test_items_that_it_does_not_know_change_nothing(many: Recommender) -> None:
    known = histories(40)
    mixed = [[b"", *history[:25], b"no such item", *history[25:]][-50:] for history in known]
    mixed[0] = [b"no such item", known[0][0]]
    ranking = many.rank(mixed, 20)
    check(ranking, mixed, 20)
    assert names(ranking, 0) == names(many.rank([known[0]], 20), 0)


def test_rows_that_it_cannot_answer_leave_the_others_alone(many: Recommender) -> None:
    known = histories(6)
    asked = [[], known[0], [b"no such item"], [b""], *known[1:], []]
    ranking = many.rank(asked, 20)
    check(ranking, asked, 20)
    rows = [1, *range(4, 9)]
    assert ranking.answered[rows].all()
    alone = many.rank(known, 20)
    for row, history in zip(rows, range(6), strict=True):
        assert names(ranking, row) == names(alone, history)


def test_rows_that_nobody_can_answer(many: Recommender) -> None:
    asked = [[], [b"no such item"], [b"", b""]]
    check(many.rank(asked, 20), asked, 20)


def test_offers_no_more_than_there_is(few: Recommender) -> None:
    asked = [FEW[:1], FEW[:4], FEW, FEW[2:3] * 50]
    ranking = few.rank(asked, 20)
    check(ranking, asked, 20)
    assert [len(names(ranking, row)) for row in range(4)] == [4, 1, 0, 4]


def test_asking_for_fewer_gives_the_beginning_of_more(many: Recommender) -> None:
    asked = histories(30)
    more, fewer = many.rank(asked, 50), many.rank(asked, 7)
    assert (more.indices[:, :7] == fewer.indices).all()
    np.testing.assert_allclose(more.scores[:, :7], fewer.scores, rtol=1e-5)


def test_a_row_is_answered_the_same_whatever_is_beside_it(many: Recommender) -> None:
    asked = histories(50)
    together = many.rank(asked, 20)
    backwards = many.rank(asked[::-1] * 3, 20)
    for row, history in enumerate(asked):
        alone = many.rank([history], 20)
        for other, at in ((together, row), (backwards, len(asked) - 1 - row)):
            np.testing.assert_allclose(other.scores[at], alone.scores[0], rtol=1e-4, atol=1e-4)
            assert names(other, at) == names(alone, 0)


def test_does_not_touch_what_it_is_given(many: Recommender) -> None:
    asked = histories(10)
    many.rank(asked, 20)
    assert asked == histories(10)
