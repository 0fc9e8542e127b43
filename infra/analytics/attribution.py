"""Did it sell? Click-through and conversion: shoppers' acts held against what they were shown.

An answer is held to be shown when the click that it answers was made (`clicked_at`, event time, so
that replays of old clicks answer the same). An act on one of its items by the same shopper, later
than that and at most the window later, is a hit.

To find hits without comparing every act with every answer, acts are gathered by shopper and slice
of time, a slice being as long as the window: an act in slice n can only hit answers of slices n
and n - 1. So each answer looks into one list of a few acts, and most lists share no item with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from infra.analytics.question import MINUTE_MS, Plot, Question, Request
from infra.analytics.sql import (
    ANSWER_DIMENSIONS,
    grouped,
    listed,
    ms,
    newest_last,
    selected,
    share,
    within,
)

WINDOW_MS: Final = 30 * MINUTE_MS
ACTS: Final = ("view", "cart", "purchase")
POSITION: Final = {"position": "place in the list of items, from 1"}


def answers(request: Request) -> str:
    """The answers of the period that showed anything, each once."""
    # By the array's sizes alone, which `length` would not do with FINAL.
    return (
        f"recommendations FINAL WHERE {within(request.period, 'clicked_at')} AND item_ids.size0 > 0"
    )


def hits(
    request: Request, columns: str, acts: tuple[str, ...], kept: Mapping[str, str] | None = None
) -> str:
    """Answers with hits: `columns`, item_ids, and `hits`, an array of (ms, item, what is `kept`).

    `kept`: further columns of the act, by name, with their SQL.
    """
    window = request.window_ms
    kept = kept or {}
    kinds = ", ".join(f"'{act}'" for act in acts)
    gathered = f"""
        SELECT user_id, slice, groupUniqArray(item_id) AS items,
               groupArray(({", ".join(["at_ms", "item_id", *kept])})) AS acts
        FROM (
            SELECT user_id, {ms("ts")} AS at_ms, item_id, {"".join(f"{sql} AS {name}, " for name, sql in kept.items())}
                   arrayJoin([intDiv(at_ms, {window}), intDiv(at_ms, {window}) - 1]) AS slice
            FROM clicks FINAL
            WHERE {within(request.period, "ts", later_ms=window + 1)} AND event_type IN ({kinds}) AND item_id != ''
        ) GROUP BY user_id, slice"""
    near = f"""
        SELECT {columns} clicked_at, event_id, item_ids, acts
        FROM (SELECT *, intDiv({ms("clicked_at")}, {window}) AS slice FROM {answers(request)}) AS answer
        INNER JOIN ({gathered}) AS act ON answer.user_id = act.user_id AND answer.slice = act.slice
        WHERE hasAny(item_ids, items)"""
    return f"""
        SELECT *, arrayFilter(act -> act.1 > {ms("clicked_at")} AND act.1 <= {ms("clicked_at")} + {window}
                                     AND has(item_ids, act.2), acts) AS hits
        FROM ({near}) WHERE notEmpty(hits)"""


def _without_position(by: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in by if name != "position")


def _shown(request: Request) -> str:
    """How many answers (or places in them) were shown, by the dimensions."""
    plain = _without_position(request.by)
    columns = selected(plain, "clicked_at")
    if "position" not in request.by:
        return f"SELECT {columns} count() AS answers FROM {answers(request)} {grouped(plain)}"
    # Counted by length first, so that not every place of every answer becomes a row.
    return f"""
        SELECT {listed(plain)} arrayJoin(range(1, size + 1)) AS position, sum(n) AS answers
        FROM (SELECT {columns} item_ids.size0 AS size, count() AS n
              FROM {answers(request)} {grouped(plain, "size")})
        {grouped(plain, "position")}"""


def _joined(request: Request, found: str, figures: str) -> str:
    """What was shown beside what became of it."""
    names = listed(request.by)
    if not request.by:
        return f"SELECT {figures} FROM ({_shown(request)}) AS shown CROSS JOIN ({found}) AS found"
    return (
        f"SELECT {names} {figures} FROM ({_shown(request)}) AS shown "
        f"LEFT JOIN ({found}) AS found USING ({names.rstrip(', ')})"
    )


def compose_ctr(request: Request) -> str:
    plain = _without_position(request.by)
    found = hits(request, selected(plain, "clicked_at"), ACTS)
    if "position" in request.by:
        found = f"""
            SELECT {listed(plain)} arrayJoin(arrayDistinct(arrayMap(act -> indexOf(item_ids, act.2), hits))) AS position
            FROM ({found})"""
    clicked = f"SELECT {listed(request.by)} count() AS clicked FROM ({found}) {grouped(request.by)}"
    figures = f"answers, clicked, {share('clicked', 'answers')} AS ctr"
    return newest_last(_joined(request, clicked, figures), request.by, request.limit)


def compose_conversion(request: Request) -> str:
    plain = _without_position(request.by)
    kept = {"revenue": "ifNull(price, 0) * ifNull(quantity, 1)", "act_id": "event_id"}
    found = hits(request, selected(plain, "clicked_at"), ("purchase",), kept)
    credit = ["event_id"]
    credit += ["indexOf(item_ids, hit.2)" if name == "position" else name for name in request.by]
    # The newest answer gets the credit; of two in the same millisecond, the greater id.
    sold = f"""
        SELECT argMax(({", ".join(credit)}, 0), (clicked_at, event_id)) AS credit, any(hit.3) AS revenue
        FROM (SELECT *, arrayJoin(hits) AS hit FROM ({found})) GROUP BY hit.4"""
    names = "".join(f"credit.{at} AS {name}, " for at, name in enumerate(request.by, 2))
    converted = f"""
        SELECT {names} uniqExact(credit.1) AS converted, count() AS purchases, sum(revenue) AS revenue
        FROM ({sold}) {grouped(request.by)}"""
    figures = (
        f"answers, converted, {share('converted', 'answers')} AS conversion, purchases, revenue"
    )
    return newest_last(_joined(request, converted, figures), request.by, request.limit)


CTR: Final = Question(
    name="ctr",
    summary="Click-through: recommended, then clicked.",
    definition=(
        "Of the answers that showed items, the share after which the same shopper viewed, carted "
        "or bought one of the items later than the click that was answered and at most --window "
        "later. An answer counts once, however often it was repeated or clicked. By position: of "
        "the lists that were so long, the share whose item at this place was clicked. Times are "
        "event times."
    ),
    compose=compose_ctr,
    plot=Plot("bars", "", ("ctr",)),
    dimensions=ANSWER_DIMENSIONS | POSITION,
    by=("model", "tier"),
    options={"window": "30m"},
)
CONVERSION: Final = Question(
    name="conversion",
    summary="Purchases of what was recommended, and their revenue.",
    definition=(
        "A purchase of a recommended item at most --window after an answer to the same shopper is "
        "credited once, to the newest such answer; revenue is its price times quantity (no price: "
        "0, no quantity: 1). Conversion is the share of answers with a credited purchase."
    ),
    compose=compose_conversion,
    plot=Plot("bars", "", ("revenue",)),
    dimensions=ANSWER_DIMENSIONS | POSITION,
    by=("model", "tier"),
    options={"window": "30m"},
)
