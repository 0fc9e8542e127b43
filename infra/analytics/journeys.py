"""How shoppers move: the funnel from impression to purchase, weeks of return, and visits."""

from __future__ import annotations

from typing import Final

from infra.analytics.question import DAY_MS, MINUTE_MS, Plot, Question, Request
from infra.analytics.sql import (
    grouped,
    listed,
    moment,
    ms,
    newest_last,
    selected,
    share,
    within,
)

FUNNEL_WINDOW_MS: Final = DAY_MS
SESSION_GAP_MS: Final = 30 * MINUTE_MS
STEPS: Final = ("impression", "view", "cart", "purchase")
EVENT_TYPES: Final = ("view", "cart", "purchase", "remove", "search", "impression")

REGION: Final = {"region": "region that took the click"}
DAY: Final = {"day": "day, UTC; each day is a funnel of its own"}


def compose_funnel(request: Request) -> str:
    conditions = ", ".join(f"event_type = '{step}'" for step in request.steps)
    who = "user_id" if request.per == "user" else "user_id, session_id"
    visits = "" if request.per == "user" else "AND session_id != ''"
    kinds = ", ".join(f"'{step}'" for step in request.steps)
    reached = f"""
        SELECT {selected(request.by, "ts")}
               windowFunnel({request.window_ms})(toUInt64({ms("ts")}), {conditions}) AS level
        FROM clicks FINAL
        WHERE {within(request.period, "ts")} {visits} AND event_type IN ({kinds})
        {grouped(request.by, who)}"""
    subject = f"{request.per}s"
    names = ", ".join(f"'{step}'" for step in request.steps)
    counted = f"""
        SELECT {listed(request.by)} arrayJoin(range(1, {len(request.steps) + 1})) AS place,
               sumIf(n, level >= place) AS {subject}
        FROM (SELECT {listed(request.by)} level, count() AS n FROM ({reached}) {grouped(request.by, "level")})
        {grouped(request.by, "place")}"""
    apart = f"PARTITION BY {', '.join(request.by)}" if request.by else ""
    ordered = ", ".join([*request.by, "place"])
    return f"""
        SELECT {listed(request.by)} [{names}][place] AS step, {subject},
               {share(subject, f"max({subject}) OVER ({apart})")} AS of_first,
               {share(subject, "before")} AS of_previous
        FROM (SELECT *, lagInFrame({subject}, 1, {subject}) OVER (
                  {apart} ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS before
              FROM ({counted}))
        ORDER BY {ordered} LIMIT {request.limit + 1}"""


def compose_retention(request: Request) -> str:
    since = request.period.since_ms
    # A shopper's first week is that of the first event there is, not of the period.
    shown = f"HAVING cohort >= toMonday({moment(since)})" if request.period.bounded else ""
    until = within(request.period, "ts") if not request.period.bounded else ""
    until = until or f"ts < {moment(request.period.until_ms)}"
    weeks = f"""
        SELECT {listed(request.by)} toMonday(min(ts)) AS cohort, groupUniqArray(toMonday(ts)) AS weeks
        FROM clicks FINAL WHERE {until} AND event_type != 'impression'
        {grouped(request.by, "user_id")} {shown}"""
    counted = f"""
        SELECT {listed(request.by)} cohort, intDiv(toUInt32(arrayJoin(weeks) - cohort), 7) AS week, count() AS users
        FROM ({weeks}) {grouped(request.by, "cohort", "week")}"""
    apart = ", ".join([*request.by, "cohort"])
    return f"""
        SELECT {listed(request.by)} cohort, week, users, max(users) OVER (PARTITION BY {apart}) AS size,
               users / size AS retained
        FROM ({counted}) ORDER BY {apart}, week LIMIT {request.limit + 1}"""


def compose_sessions(request: Request) -> str:
    plain = tuple(name for name in request.by if name in REGION)
    where = within(request.period, "ts")
    named = f"""
        SELECT {listed(plain)} user_id, 'id' AS told_by, min({ms("ts")}) AS first_ms, max({ms("ts")}) AS last_ms,
               count() AS events, countIf(event_type = 'purchase') > 0 AS bought
        FROM clicks FINAL WHERE {where} AND session_id != '' {grouped(plain, "user_id", "session_id")}"""
    # Where a pause is longer than the gap, the next visit begins.
    paused = f"""
        SELECT {listed(plain)} user_id,
               arrayJoin(arraySplit((act, pause) -> pause > {request.window_ms}, acts, arrayDifference(acts.1))) AS visit
        FROM (SELECT {listed(plain)} user_id, arraySort(groupArray(({ms("ts")}, event_type = 'purchase'))) AS acts
              FROM clicks FINAL WHERE {where} AND session_id = '' {grouped(plain, "user_id")})"""
    told = f"""
        SELECT {listed(plain)} user_id, 'gap' AS told_by, visit[1].1 AS first_ms, visit[-1].1 AS last_ms,
               length(visit) AS events, has(visit.2, 1) AS bought
        FROM ({paused})"""
    split = f"""
        SELECT {selected(request.by, "fromUnixTimestamp64Milli(first_ms, 'UTC')")}
               count() AS sessions, uniqExact(user_id) AS users, sum(events) AS clicks,
               {share("clicks", "sessions")} AS clicks_mean, quantileExactInclusive(0.5)(events) AS clicks_p50,
               {share("sum(last_ms - first_ms) / 1000", "sessions")} AS length_s_mean,
               quantileExactInclusive(0.5)(last_ms - first_ms) / 1000 AS length_s_p50,
               {share("countIf(events = 1)", "sessions")} AS bounced,
               {share("countIf(bought)", "sessions")} AS bought
        FROM ({named} UNION ALL {told}) {grouped(request.by)}"""
    return newest_last(split, request.by, request.limit)


FUNNEL: Final = Question(
    name="funnel",
    summary="How many come from impression to view, cart and purchase.",
    definition=(
        "Shoppers (--per session: visits that have a session_id) who did the --steps in this order, "
        "all within --window of the first, anything else in between; two in the same millisecond "
        "are in order. A step counts who came so far. of_first and of_previous are shares. Event times."
    ),
    compose=compose_funnel,
    plot=Plot("bars", "step", ("users", "sessions")),
    # Its rows are the steps of a day.
    keeps_newest=False,
    dimensions=REGION | DAY,
    options={"window": "24h", "steps": ",".join(STEPS), "per": "user"},
)
RETENTION: Final = Question(
    name="retention",
    summary="Weekly cohorts: who came back, and after how many weeks.",
    definition=(
        "A shopper's cohort is the week (from Monday, UTC) of the first event in the warehouse; "
        "retained in week n: the share of the cohort with any event in the n-th week after it. "
        "Impressions do not count as coming. --since bounds the cohorts shown."
    ),
    compose=compose_retention,
    plot=Plot("lines", "week", ("retained",)),
    since="12w",
    dimensions=REGION,
)
SESSIONS: Final = Question(
    name="sessions",
    summary="Visits: how many, how long, how many bounced or bought.",
    definition=(
        "A visit is a shopper's events with the same session_id; events without one belong together "
        "while no pause between them is longer than --window. All kinds of events count, and only "
        "those in the period. told_by says which of the two it was; bounced: visits of one event; "
        "bought: visits with a purchase. hour and day are those of the visit's first event."
    ),
    compose=compose_sessions,
    plot=Plot("lines", "", ("sessions",)),
    dimensions={
        "hour": "hour of the first event",
        "day": "day of the first event",
        "week": "week of the first event",
        **REGION,
        "told_by": "id: by session_id; gap: by a pause",
    },
    by=("day",),
    since="7d",
    options={"window": "30m"},
)
