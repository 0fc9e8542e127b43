"""Which items are shown, how evenly, and which are wanted but never shown."""

from __future__ import annotations

from typing import Final

from infra.analytics.attribution import answers
from infra.analytics.question import Plot, Question, Request
from infra.analytics.sql import (
    ANSWER_DIMENSIONS,
    grouped,
    listed,
    newest_last,
    selected,
    share,
    within,
)

# The items whose share of all places is told.
TOP_ITEMS: Final = 10
# A click that two regions' sinks wrote to one server is in the sums twice: its own region's counts.
ONE_SINK: Final = "(sink = region OR region NOT IN (SELECT DISTINCT sink FROM clicks_hour))"
_KINDS: Final = ("view", "cart", "purchase", "remove", "impression")


def _touched(request: Request) -> str:
    return f"clicks FINAL WHERE {within(request.period, 'ts')} AND item_id != ''"


def compose_coverage(request: Request) -> str:
    # One pass over the lists: the sets of the rows also make the set of all that was recommended.
    touched = f"SELECT uniqExactArrayState([item_id]) FROM {_touched(request)}"
    figures = f"""
        SELECT {selected(request.by, "clicked_at")} count() AS n, uniqExactArrayState(item_ids) AS found
        FROM {answers(request)} {grouped(request.by)} HAVING n > 0"""
    select = f"""
        SELECT {listed(request.by)} n AS answers, finalizeAggregation(found) AS items,
               arrayReduce('uniqExactArrayMerge', [uniqExactArrayMergeState(found) OVER (), ({touched})]) AS items_known,
               {share("items", "items_known")} AS coverage
        FROM ({figures})"""
    return newest_last(select, request.by, request.limit)


def compose_coverage_fast(request: Request) -> str:
    table, time = (
        ("answers_minute", "minute") if "minute" in request.by else ("answers_hour", "hour")
    )
    where = within(request.period, time)
    known = f"""
        SELECT uniqCombined64Merge(14)(items) FROM (
            SELECT items FROM clicks_hour WHERE {within(request.period, "hour")}
            UNION ALL SELECT items FROM answers_hour WHERE {within(request.period, "hour")})"""
    select = f"""
        SELECT {selected(request.by, time)} sum(answers) AS n, uniqCombined64Merge(14)(items) AS found,
               ({known}) AS known
        FROM {table} WHERE {where} {grouped(request.by)}"""
    return newest_last(
        f"SELECT {listed(request.by)} n AS answers, found AS items, known AS items_known, "
        f"{share('found', 'known')} AS coverage FROM ({select})",
        request.by,
        request.limit,
    )


def compose_diversity(request: Request) -> str:
    # Grouped by one string, which is several times as fast as by several columns; what the rows are
    # split by stands before the item, each ended by a zero byte.
    columns = selected(request.by, "clicked_at")
    key = "".join(f"toString({name}), '\\0', " for name in request.by)
    parts = "".join(f"{_typed(name, at)} AS {name}, " for at, name in enumerate(request.by, 1))
    shown = f"""
        SELECT {parts} key AS item, n FROM (
            SELECT concat({key} item, '') AS key, splitByChar('\\0', key) AS parts, count() AS n
            FROM (SELECT {columns} arrayJoin(item_ids) AS item FROM {answers(request)}) GROUP BY key)"""
    select = f"""
        SELECT {listed(request.by)} sum(n) AS places, count() AS items,
               exp(-sum(n / total * log(n / total))) AS items_effective,
               sum((2 * rank - items_all - 1) * n) / (any(items_all) * sum(n)) AS gini,
               sumIf(n, rank > items_all - {TOP_ITEMS}) / sum(n) AS top_{TOP_ITEMS}
        FROM (SELECT *, sum(n) OVER whole AS total, count() OVER whole AS items_all, row_number() OVER sorted AS rank
              FROM ({shown})
              WINDOW whole AS ({_apart(request)}), sorted AS ({_apart(request)} ORDER BY n, item))
        {grouped(request.by)}"""
    return newest_last(select, request.by, request.limit)


def _typed(name: str, at: int) -> str:
    """What a part of the key was before it became text."""
    if name == "day":
        return f"toDate(parts[{at}])"
    return f"toDateTime64(parts[{at}], 3, 'UTC')" if name in ("minute", "hour") else f"parts[{at}]"


def _apart(request: Request) -> str:
    return f"PARTITION BY {', '.join(request.by)}" if request.by else ""


def compose_popular(request: Request) -> str:
    counts = ", ".join(f"countIf(event_type = '{kind}') AS {kind}s" for kind in _KINDS)
    select = f"""
        SELECT {selected(request.by, "ts")} item_id, {counts}, views + carts + purchases AS touches,
               sumIf(ifNull(price, 0) * ifNull(quantity, 1), event_type = 'purchase') AS revenue
        FROM {_touched(request)} {grouped(request.by, "item_id")}"""
    return _most_wanted(select, request)


def compose_popular_fast(request: Request) -> str:
    counts = ", ".join(f"sumIf(clicks, event_type = '{kind}') AS {kind}s" for kind in _KINDS)
    select = f"""
        SELECT {selected(request.by, "hour")} item_id, {counts}, views + carts + purchases AS touches,
               sum(items_hour.revenue) AS revenue
        FROM items_hour
        WHERE {within(request.period, "hour")} AND item_id != '' AND {ONE_SINK}
        {grouped(request.by, "item_id")}"""
    return _most_wanted(select, request)


def _most_wanted(select: str, request: Request) -> str:
    names = "".join(f"{name}, " for name in request.by)
    return f"{select} ORDER BY {names} touches DESC, item_id LIMIT {request.limit + 1}"


def compose_cold_items(request: Request) -> str:
    return f"""
        SELECT item_id, count() AS events, countIf(event_type = 'purchase') AS purchases,
               uniqExact(user_id) AS users, min(ts) AS first, max(ts) AS last
        FROM {_touched(request)} AND event_type != 'impression'
          AND item_id NOT IN (SELECT arrayJoin(item_ids) FROM {answers(request)})
        GROUP BY item_id ORDER BY events DESC, item_id LIMIT {request.limit + 1}"""


COVERAGE: Final = Question(
    name="coverage",
    summary="How much of what shoppers know is ever recommended.",
    definition=(
        "Distinct items recommended in the period, as a share of the distinct items that were "
        "touched or recommended in it. --fast: by the aggregates' sketches, whole hours, within about 1 %."
    ),
    compose=compose_coverage,
    compose_fast=compose_coverage_fast,
    fast_dimensions=("model", "arm", "tier", "region", "minute", "hour", "day"),
    plot=Plot("bars", "", ("coverage",)),
    dimensions=ANSWER_DIMENSIONS,
    by=("model", "tier"),
)
DIVERSITY: Final = Question(
    name="diversity",
    summary="How evenly places in the lists are spread over the items.",
    definition=(
        "Over all places of all answers, each answer once: items_effective is the exponential of the "
        "entropy (so many equally frequent items would be as diverse), gini is 0 for even and 1 for "
        f"one item only, top_{TOP_ITEMS} is the share of the {TOP_ITEMS} most shown items."
    ),
    compose=compose_diversity,
    plot=Plot("bars", "", ("items_effective",)),
    dimensions=ANSWER_DIMENSIONS,
    by=("model", "tier"),
)
POPULAR: Final = Question(
    name="popular",
    summary="What is wanted most.",
    definition=(
        "Items by touches (views, carts and purchases), each event once, with the revenue of their "
        "purchases. --fast: from the hourly sums, whole hours, as Kafka has the events."
    ),
    compose=compose_popular,
    compose_fast=compose_popular_fast,
    fast_dimensions=("region", "hour", "day"),
    plot=Plot("bars", "item_id", ("touches",)),
    keeps_newest=False,
    dimensions={
        "region": "region that took the click",
        "hour": "hour of the event",
        "day": "day of the event",
    },
)
COLD_ITEMS: Final = Question(
    name="cold-items",
    summary="What shoppers want and no answer shows.",
    definition=(
        "Items with any event but impressions in the period that no answer of the period "
        "recommended, the most wanted first."
    ),
    compose=compose_cold_items,
    plot=Plot("bars", "item_id", ("events",)),
)
