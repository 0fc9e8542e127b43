"""The statistics of experiments: known values, honest error rates, and a test that may be watched."""

from __future__ import annotations

import math

import numpy as np
import pytest

from infra.analytics.experiment import (
    ALPHA,
    COLUMNS,
    Arm,
    chi_square_tail,
    compare,
    judge,
    ratio_p,
)
from infra.analytics.period import parse_period
from infra.analytics.question import Answer, QuestionError, Request

REQUEST = Request(parse_period("all", "", 0))


def arm_of(name: str, shown: np.ndarray, clicked: np.ndarray) -> Arm:
    n, x = shown.astype(float), clicked.astype(float)
    return Arm(name, len(n), int(n.sum()), int(x.sum()), float(n @ n), float(x @ x), float(n @ x))


def draw(name: str, users: int, rate: float, rng: np.random.Generator) -> Arm:
    """Shoppers who differ: answers of one shopper are alike."""
    shown = rng.geometric(0.2, users)
    clicked = rng.binomial(shown, rng.beta(20 * rate, 20 * (1 - rate), users))
    return arm_of(name, shown, clicked)


@pytest.mark.parametrize(
    ("x", "degrees", "tail"),
    [
        (3.841459, 1, 0.05),
        (5.991465, 2, 0.05),
        (7.814728, 3, 0.05),
        (13.276704, 4, 0.01),
        (20.5150, 5, 0.001),
        (0.0, 1, 1.0),
        (0.0, 2, 1.0),
    ],
)
def test_chi_square_is_that_of_the_tables(x: float, degrees: int, tail: float) -> None:
    assert chi_square_tail(x, degrees) == pytest.approx(tail, rel=1e-3)


def test_unequal_shares_are_noticed_and_equal_ones_are_not() -> None:
    assert ratio_p([5000, 5050]) > 0.1
    assert ratio_p([5000, 5500]) < 0.001
    assert ratio_p([5000]) == 1.0


def test_the_variance_is_that_of_resampled_shoppers() -> None:
    rng = np.random.default_rng(7)
    shown = rng.geometric(0.2, 2000)
    clicked = rng.binomial(shown, rng.beta(2, 18, 2000))
    picks = rng.integers(0, 2000, (3000, 2000))
    ratios = clicked[picks].sum(axis=1) / shown[picks].sum(axis=1)
    assert arm_of("a", shown, clicked).variance == pytest.approx(float(ratios.var()), rel=0.1)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        found = compare(draw("b", 400, 0.12, rng), draw("a", 400, 0.10, rng))
        assert found is not None
        held += found.low <= 0.02 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_looking_every_day_does_not_find_what_is_not_there() -> None:
    """Of equal arms looked at 40 times, few are ever called different; the one-look test fails this."""
    rng = np.random.default_rng(2)
    looks = np.unique(np.geomspace(100, 20_000, 40).astype(int))
    wrong_always, wrong_once, trials = 0, 0, 200
    for _ in range(trials):
        arms = []
        for _name in "ab":
            shown = rng.geometric(0.2, looks[-1])
            arms.append((shown, rng.binomial(shown, rng.beta(2, 18, looks[-1]))))
        found = [
            compare(*(arm_of("x", shown[:users], clicked[:users]) for shown, clicked in arms))
            for users in looks
        ]
        wrong_always += any(one is not None and one.always_p <= ALPHA for one in found)
        wrong_once += any(one is not None and one.p <= ALPHA for one in found)
    assert wrong_always / trials <= ALPHA
    assert wrong_once / trials > 2 * ALPHA


def test_a_real_difference_is_found_and_both_forms_agree() -> None:
    rng = np.random.default_rng(3)
    found = compare(draw("b", 20_000, 0.12, rng), draw("a", 20_000, 0.10, rng))
    assert found is not None
    assert found.always_low > 0
    assert found.always_p <= ALPHA
    assert found.always_low < found.low < found.difference < found.high < found.always_high
    assert math.isclose(found.difference - found.always_low, found.always_high - found.difference)


def rows(*arms: Arm) -> Answer:
    return Answer(
        ("arm", "users", "answers", "clicked", "nn", "xx", "nx", "users_in_two_arms"),
        tuple((a.name, a.users, a.answers, a.clicked, a.nn, a.xx, a.nx, 0) for a in arms),
    )


def test_the_control_stands_first_and_verdicts_follow_the_sequence() -> None:
    rng = np.random.default_rng(4)
    answer = judge(
        rows(
            draw("better", 20_000, 0.12, rng),
            draw("control", 20_000, 0.10, rng),
            draw("tiny", 3, 0.1, rng),
        ),
        REQUEST,
    )
    assert answer.columns == COLUMNS
    first, second, third = answer.records()
    assert (first["arm"], first["verdict"], first["difference"]) == ("control", "control", None)
    # Three shoppers in the third arm are no equal share.
    assert second["verdict"].startswith("do not believe it")
    assert third["verdict"] == "too few shoppers"
    fair = judge(rows(draw("a", 20_000, 0.10, rng), draw("b", 20_000, 0.13, rng)), REQUEST)
    assert [row["verdict"] for row in fair.records()] == ["control", "better"]


def test_answers_without_an_arm_are_no_arm() -> None:
    rng = np.random.default_rng(5)
    answer = judge(
        rows(draw("", 50, 0.1, rng), draw("a", 50, 0.1, rng), draw("b", 50, 0.1, rng)), REQUEST
    )
    assert answer.column("arm") == ["a", "b"]
    assert judge(rows(), REQUEST).rows == ()


def test_an_unknown_control_is_told_with_the_arms_there_are() -> None:
    rng = np.random.default_rng(6)
    found = rows(draw("a", 50, 0.1, rng), draw("b", 50, 0.1, rng))
    with pytest.raises(QuestionError, match=r"no arm 'c' .* arms: a, b"):
        judge(found, Request(REQUEST.period, control="c"))
