"""Which arm is better, told so that looking every day does not make it a lie.

The figure is click-through (attribution.py). Shoppers are assigned to arms, not answers, and one
shopper's answers are alike; so the shopper is the unit, and the variance of an arm's ratio of sums
comes from the delta method (Deng, Knoblich, Lu: "Applying the Delta Method in Metric Analytics",
KDD 2018).

- Uplift with a confidence interval: the difference of two ratios, normal, valid if it is looked at
  once, at a time fixed beforehand.
- Sample ratio: a chi-square test of shoppers per arm against equal shares. A small value means that
  the assignment is broken, and that nothing else here is to be believed.
- Always valid: an asymptotic confidence sequence of the same difference (Waudby-Smith, Arbour, Sinha,
  Kennedy, Ramdas: "Time-uniform central limit theory and asymptotic confidence sequences", Annals of
  Statistics 52(6), 2024, theorem 2.2), the normal mixture that is also behind the mixture SPRT of
  Johari, Koomen, Pekelis, Walsh: "Always Valid Inference", Operations Research 70(3), 2022. The
  chance that it ever excludes the truth, over all looks together, is at most ALPHA. So one may stop
  when it excludes zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from infra.analytics.attribution import ACTS, answers, hits
from infra.analytics.question import Answer, Plot, Question, QuestionError, Request

ALPHA: Final = 0.05
# An arm's assignment is doubted below this; low, since it is looked at often.
RATIO_ALPHA: Final = 0.001
# The sequence is tightest near so many shoppers, and valid at any number. It has to be fixed
# before the data are seen, so it is no option.
TUNED_FOR_USERS: Final = 10_000
# The mixture's scale for that, as in section 3.5 of the paper.
_LOGS: Final = -2 * math.log(ALPHA)
RHO_SQUARED: Final = (_LOGS + math.log(_LOGS + 1)) / TUNED_FOR_USERS
# Below this, no normal approximation is worth showing.
USERS_MIN: Final = 10

COLUMNS: Final = (
    "arm", "users", "answers", "clicked", "ctr", "difference", "low", "high", "uplift", "p",
    "always_low", "always_high", "always_p", "verdict", "ratio_p", "users_in_two_arms",
)  # fmt: skip


def compose_experiment(request: Request) -> str:
    """Sums over shoppers by arm, enough for means, variances and covariance."""
    clicked = (
        f"SELECT arm, user_id, count() AS x FROM ({hits(request, 'answer.arm AS arm, answer.user_id AS user_id,', ACTS)}) "
        "GROUP BY arm, user_id"
    )
    shoppers = f"""
        SELECT arm, user_id, n, x, count() OVER (PARTITION BY user_id) > 1 AS twice
        FROM (SELECT arm, user_id, count() AS n FROM {answers(request)} GROUP BY arm, user_id) AS shown
        LEFT JOIN ({clicked}) AS clicked USING (arm, user_id)"""
    return f"""
        SELECT arm, count() AS users, sum(n) AS answers, sum(x) AS clicked, sum(toFloat64(n) * n) AS nn,
               sum(toFloat64(x) * x) AS xx, sum(toFloat64(n) * x) AS nx, countIf(twice) AS users_in_two_arms
        FROM ({shoppers}) GROUP BY arm ORDER BY arm"""


@dataclass(frozen=True)
class Arm:
    """What is known of one arm: sums over its shoppers of answers n and clicked answers x."""

    name: str
    users: int
    answers: int
    clicked: int
    nn: float
    xx: float
    nx: float
    users_in_two_arms: int = 0

    @property
    def ctr(self) -> float:
        return self.clicked / self.answers if self.answers else 0.0

    @property
    def variance(self) -> float:
        """Of the ratio of sums, by the delta method."""
        if self.users < 2:
            return math.inf
        n, x = self.answers / self.users, self.clicked / self.users
        spread = self.users / (self.users - 1)
        var_n = (self.nn / self.users - n * n) * spread
        var_x = (self.xx / self.users - x * x) * spread
        cov = (self.nx / self.users - n * x) * spread
        return max(0.0, var_x - 2 * self.ctr * cov + self.ctr**2 * var_n) / (self.users * n * n)


@dataclass(frozen=True)
class Comparison:
    """An arm held against the control."""

    difference: float
    low: float
    high: float
    p: float
    always_low: float
    always_high: float
    always_p: float


def compare(arm: Arm, control: Arm) -> Comparison | None:
    """The difference of click-through, or None where there are too few shoppers or no variance."""
    if min(arm.users, control.users) < USERS_MIN:
        return None
    variance = arm.variance + control.variance
    if variance <= 0 or math.isinf(variance):
        return None
    difference = arm.ctr - control.ctr
    half = NormalDist().inv_cdf(1 - ALPHA / 2) * math.sqrt(variance)
    p = math.erfc(abs(difference) / math.sqrt(2 * variance))
    users = arm.users + control.users
    scale = users * RHO_SQUARED
    # The paper's bound, with sigma^2 = users * variance, so that users cancels out in part.
    always = math.sqrt(variance * (scale + 1) / scale * math.log((scale + 1) / ALPHA**2))
    exponent = -scale * difference**2 / (2 * variance * (scale + 1))
    always_p = min(1.0, math.sqrt(scale + 1) * math.exp(exponent))
    return Comparison(
        difference,
        difference - half,
        difference + half,
        p,
        difference - always,
        difference + always,
        always_p,
    )


def ratio_p(users: list[int]) -> float:
    """Chance of shares this unequal, were all arms equally likely (chi-square test)."""
    total, arms = sum(users), len(users)
    if arms < 2 or not total:
        return 1.0
    expected = total / arms
    return chi_square_tail(sum((one - expected) ** 2 / expected for one in users), arms - 1)


def chi_square_tail(x: float, degrees: int) -> float:
    """P(X >= x) for a whole number of degrees of freedom, by its finite sums."""
    half = x / 2
    if half > 700:
        return 0.0
    if degrees % 2:
        tail, term = math.erfc(math.sqrt(half)), math.exp(-half) / math.sqrt(math.pi * half or 1)
        if not half:
            return 1.0
        for k in range(1, (degrees + 1) // 2):
            term *= half / (k - 0.5)
            tail += term
        return tail
    term = tail = math.exp(-half)
    for k in range(1, degrees // 2):
        term *= half / k
        tail += term
    return tail


def judge(found: Answer, request: Request) -> Answer:
    """The arms beside the control, from `compose_experiment`'s sums.

    The control is the one asked for, else the arm named `control`, else the first by name. Answers
    without an arm are no part of an experiment, unless there is no other arm.
    """
    arms = [Arm(*row) for row in found.rows]
    arms = [arm for arm in arms if arm.name] or arms
    if not arms:
        return Answer(COLUMNS, ())
    names = [arm.name for arm in arms]
    name = request.control or ("control" if "control" in names else names[0])
    if name not in names:
        raise QuestionError(f"there is no arm {name!r} in this period; arms: {', '.join(names)}")
    control = arms[names.index(name)]
    ratio = ratio_p([arm.users for arm in arms])
    rows = [_row(arm, control, ratio) for arm in sorted(arms, key=lambda arm: arm is not control)]
    return Answer(COLUMNS, tuple(rows))


def _row(arm: Arm, control: Arm, ratio: float) -> tuple[object, ...]:
    head = (arm.name, arm.users, arm.answers, arm.clicked, arm.ctr)
    tail = (ratio, arm.users_in_two_arms)
    found = None if arm is control else compare(arm, control)
    if found is None:
        verdict = "control" if arm is control else "too few shoppers"
        return (*head, *[None] * 8, verdict, *tail)
    if ratio < RATIO_ALPHA:
        verdict = "do not believe it: shares of the arms"
    elif found.always_p <= ALPHA:
        verdict = "better" if found.difference > 0 else "worse"
    else:
        verdict = "go on"
    uplift = found.difference / control.ctr if control.ctr else None
    return (
        *head, found.difference, found.low, found.high, uplift, found.p,
        found.always_low, found.always_high, found.always_p, verdict, *tail,
    )  # fmt: skip


EXPERIMENT: Final = Question(
    name="experiment",
    summary="Arms: uplift of click-through, sample ratio, and a test that may be watched.",
    definition=(
        "Click-through by arm as in `ctr`, the shopper being the unit. difference is to the control "
        "(--control; else the arm `control`, else the first by name), low and high its 95 % confidence "
        "interval for one look at a planned end, p its chance; uplift is relative. always_low, "
        "always_high and always_p hold at every look at once (confidence sequence, 95 %), and the "
        "verdict goes by them: stop when it says better or worse. ratio_p below 0.001: shoppers are "
        "not shared out equally, so believe nothing. The arms must be meant to be equal in size. Ask it "
        "with --since the day on which the experiment began."
    ),
    compose=compose_experiment,
    finish=judge,
    options={"window": "30m", "control": ""},
    plot=Plot("bars", "arm", ("ctr",)),
)
