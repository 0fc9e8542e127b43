"""How the service behaves: latency, freshness, what was rejected, what lags, what drills proved."""

from __future__ import annotations

from typing import Final

from infra.analytics.question import HOUR_MS, Plot, Question, Request
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

# Clocks of a worker and of a producer may differ so much before an answer is not found.
SKEW_MS: Final = HOUR_MS
# The aggregates know these of an answer.
AGGREGATED: Final = ("model", "arm", "tier", "region", "minute", "hour", "day")


def _quantiles(name: str) -> str:
    return f"q[1] AS {name}_p50, q[2] AS {name}_p95, q[3] AS {name}_p99"


def compose_latency(request: Request) -> str:
    by = selected(request.by, "taken")
    figures = f"""
        SELECT {by} count() AS answers,
               quantilesExactInclusive(0.5, 0.95, 0.99)({ms("scored_at")} - {ms("taken")}) AS q,
               max({ms("scored_at")} - {ms("taken")}) AS ms_max
        FROM (SELECT event_id, scored_at, model, arm, tier, region FROM recommendations FINAL
              WHERE {within(request.period, "kafka_time", earlier_ms=SKEW_MS, later_ms=SKEW_MS)}) AS answer
        INNER JOIN (SELECT event_id, kafka_time AS taken FROM clicks FINAL
                    WHERE {within(request.period, "kafka_time")}) AS click USING (event_id)
        {grouped(request.by)}"""
    select = f"SELECT {listed(request.by)} answers, {_quantiles('ms')}, ms_max FROM ({figures})"
    return newest_last(select, request.by, request.limit)


def _aggregate(request: Request) -> tuple[str, str, str]:
    """The smallest aggregate that knows the dimensions, its time, and a condition on it."""
    table, time = (
        ("answers_minute", "minute") if "minute" in request.by else ("answers_hour", "hour")
    )
    return table, time, f"{within(request.period, time)}"


def _fast(request: Request, state: str) -> str:
    table, time, where = _aggregate(request)
    figures = f"""
        SELECT {selected(request.by, time)} sum(answers) AS n,
               quantilesTDigestMerge(0.5, 0.95, 0.99)({state}) AS q
        FROM {table} WHERE {where} {grouped(request.by)}"""
    return f"SELECT {listed(request.by)} n AS answers, {_quantiles('ms')} FROM ({figures})"


def compose_latency_fast(request: Request) -> str:
    return newest_last(_fast(request, "latency_ms"), request.by, request.limit)


def compose_freshness(request: Request) -> str:
    behind = f"greatest(0, {ms('clicked_at')} - {ms('features_as_of')})"
    figures = f"""
        SELECT {selected(request.by, "clicked_at")} count() AS n, countIf(behind_ms = 0) AS fresh,
               quantilesExactInclusive(0.5, 0.95, 0.99)(behind_ms) AS q, max(behind_ms) AS ms_max
        FROM (SELECT *, {behind} AS behind_ms FROM recommendations FINAL
              WHERE {within(request.period, "clicked_at")}) {grouped(request.by)}"""
    select = (
        f"SELECT {listed(request.by)} n AS answers, {share('fresh', 'n')} AS fresh, "
        f"{_quantiles('ms')}, ms_max FROM ({figures})"
    )
    return newest_last(select, request.by, request.limit)


def compose_freshness_fast(request: Request) -> str:
    return newest_last(_fast(request, "staleness_ms"), request.by, request.limit)


def compose_dead_letters(request: Request) -> str:
    select = f"""
        SELECT {selected(request.by, "rejected_at")} count() AS letters, min(rejected_at) AS first,
               max(rejected_at) AS last, anyLast(detail) AS example
        FROM dead_letters FINAL WHERE {within(request.period, "rejected_at")}
        {grouped(request.by)} HAVING letters > 0"""
    return newest_last(select, request.by, request.limit, "letters DESC")


def compose_dead_letters_fast(request: Request) -> str:
    select = f"""
        SELECT {selected(request.by, "hour")} sum(letters) AS n
        FROM rejections_hour WHERE {within(request.period, "hour")} {grouped(request.by)} HAVING n > 0"""
    return newest_last(
        f"SELECT {listed(request.by)} n AS letters FROM ({select})",
        request.by,
        request.limit,
        "letters DESC",
    )


def compose_lag(request: Request) -> str:
    names = request.by
    sinks = f"""
        SELECT 'clicks' AS stored, {listed(names)} max(kafka_time) AS at, max(kafka_offset) AS newest FROM clicks
        WHERE {within(request.period, "kafka_time")} {grouped(names)}
        UNION ALL
        SELECT 'recommendations', {listed(names)} max(kafka_time), max(kafka_offset) FROM recommendations
        WHERE {within(request.period, "kafka_time")} {grouped(names)}"""
    waiting = f"""
        SELECT 'clicks' AS stored, {listed(names)} count() AS unanswered FROM clicks FINAL
        WHERE {within(request.period, "kafka_time")} AND region = sink
          AND event_id NOT IN (SELECT event_id FROM recommendations
                               WHERE {within(request.period, "kafka_time", earlier_ms=SKEW_MS, later_ms=SKEW_MS)})
        {grouped(names)}"""
    keys = ", ".join(["stored", *names])
    return f"""
        SELECT {keys}, at AS newest_at, dateDiff('millisecond', at, now64(3, 'UTC')) / 1000 AS behind_s,
               newest AS newest_offset, unanswered
        FROM ({sinks}) AS sinks LEFT JOIN ({waiting}) AS waiting USING ({keys})
        WHERE newest_at > fromUnixTimestamp64Milli(0) ORDER BY {keys} LIMIT {request.limit + 1}"""


def compose_drills(request: Request) -> str:
    where = within(request.period, "ended_at")
    if not request.by:
        return f"""
            SELECT * FROM (
                SELECT ended_at, name, region, verdict,
                       dateDiff('millisecond', started_at, ended_at) / 1000 AS duration_s,
                       if(indexOf(measure_names, 'recovery_s') = 0, NULL,
                          measure_values[indexOf(measure_names, 'recovery_s')]) AS recovery_s,
                       arrayStringConcat(arrayMap((name, value) -> concat(name, ' ', toString(round(value, 3))),
                                                  measure_names, measure_values), ', ') AS measures,
                       seed, drill_id
                FROM drills FINAL WHERE {where} ORDER BY ended_at DESC, drill_id LIMIT {request.limit + 1})
            ORDER BY ended_at, drill_id"""
    recovery = "arrayFilter((value, name) -> name = 'recovery_s', measure_values, measure_names)"
    select = f"""
        SELECT {selected(request.by, "ended_at")} count() AS drills, countIf(verdict = 'pass') AS passed,
               countIf(verdict = 'fail') AS failed, drills - passed - failed AS unknown,
               quantileExactInclusiveArray(0.5)({recovery}) AS recovery_s_p50,
               maxArray({recovery}) AS recovery_s_max, max(ended_at) AS last
        FROM drills FINAL WHERE {where} {grouped(request.by)}"""
    return newest_last(select, request.by, request.limit)


LATENCY: Final = Question(
    name="latency",
    summary="From click to recommendation: quantiles per minute.",
    definition=(
        "Milliseconds from the time that Kafka has of a click to the worker's scored_at of its "
        "answer; a repeated answer counts as the first one. Exact quantiles, between two values "
        "in proportion. The period and the minutes are those of Kafka's time of the click; two "
        "clocks are involved, so a few values may be negative. --fast: from the click's event time "
        "instead, by the aggregates' digests (within about 1 %)."
    ),
    compose=compose_latency,
    compose_fast=compose_latency_fast,
    fast_dimensions=AGGREGATED,
    plot=Plot("lines", "", ("ms_p50", "ms_p95", "ms_p99")),
    since="1h",
    dimensions=ANSWER_DIMENSIONS
    | {"minute": "minute in which Kafka had the click", "hour": "hour of it", "day": "day of it"},
    by=("minute",),
)
FRESHNESS: Final = Question(
    name="freshness",
    summary="Do answers know the click that they answer? How old is what they know?",
    definition=(
        "fresh: the share of answers whose features included an event as new as the click that was "
        "answered. The quantiles are of clicked_at minus features_as_of in milliseconds, 0 where the "
        "features were as new or newer (an impression is answered but is no feature). --fast: by the "
        "aggregates' digests, where newer features are negative."
    ),
    compose=compose_freshness,
    compose_fast=compose_freshness_fast,
    fast_dimensions=AGGREGATED,
    plot=Plot("bars", "", ("ms_p95",)),
    dimensions=ANSWER_DIMENSIONS,
    by=("tier",),
)
DEAD_LETTERS: Final = Question(
    name="dead-letters",
    summary="What could not be used, and why.",
    definition=(
        "Rejected records by the time of their rejection, each once by its topic, partition and "
        "offset, with one example of the detail. --fast: from the hourly sums, whole hours, without "
        "example."
    ),
    compose=compose_dead_letters,
    compose_fast=compose_dead_letters_fast,
    fast_dimensions=("reason", "origin_topic", "region", "hour", "day"),
    plot=Plot("bars", "", ("letters",)),
    dimensions={
        "reason": "why",
        "origin_topic": "where it came from",
        "region": "region",
        "hour": "hour",
        "day": "day",
    },
    by=("reason", "origin_topic"),
)
LAG: Final = Question(
    name="lag",
    summary="How far the warehouse is behind Kafka, and which clicks have no answer yet.",
    definition=(
        "By topic, of what Kafka had in the period: the newest record that the warehouse has, its "
        "age now, and, of the region's own clicks, how many have no answer in the warehouse."
    ),
    compose=compose_lag,
    plot=Plot("bars", "kafka_topic", ("behind_s",)),
    dimensions={
        "kafka_topic": "topic",
        "kafka_partition": "partition",
        "region": "region",
        "sink": "region whose sink wrote it",
    },
    by=("kafka_topic",),
)
DRILLS: Final = Question(
    name="drills",
    summary="What every failure drill proved, and how long recovery took.",
    definition=(
        "One row a drill, oldest first, with its verdict and measures; with --by, counts of verdicts "
        "and the recovery times (the measure recovery_s). An unknown verdict is not a pass."
    ),
    compose=compose_drills,
    plot=Plot("lines", "ended_at", ("recovery_s", "recovery_s_p50")),
    since="all",
    dimensions={
        "name": "which drill",
        "region": "region",
        "verdict": "pass, fail or unknown",
        "day": "day",
        "week": "week",
    },
)
