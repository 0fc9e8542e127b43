"""The pieces that the questions' SQL is made of: which rows, of which time, split by what.

Everything that comes from a person is a number by now, or a name from a list of ours: no statement
contains their text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from infra.analytics.period import END_MS, Period

# Times whose hour comes first in the sorting key of their table.
SORTED_BY_HOUR: Final = frozenset({"ts", "clicked_at"})
# What --by takes of an answer, and its meaning.
ANSWER_DIMENSIONS: Final = {
    "model": "name and version of the model that scored",
    "arm": "arm of an experiment",
    "tier": "how good an answer it was: model, covisitation, popular-in-category or popular",
    "region": "region that answered",
    "minute": "minute of the click that was answered",
    "hour": "hour of the click that was answered",
    "day": "day of the click that was answered",
}
# As DateTime64, for Arrow has no type for ClickHouse's DateTime and makes numbers of it.
_TIMES: Final = {
    "minute": "toDateTime64(toStartOfMinute({time}), 3, 'UTC')",
    "hour": "toDateTime64(toStartOfHour({time}), 3, 'UTC')",
    "day": "toDate({time})",
    "week": "toMonday({time})",
}


def dimension(name: str, time: str) -> str:
    """The SQL of a dimension, `time` being the column that hours and days are of."""
    return _TIMES[name].format(time=time) if name in _TIMES else name


def selected(by: Sequence[str], time: str) -> str:
    """`model AS model, toStartOfHour(clicked_at) AS hour, `, or nothing."""
    return "".join(f"{dimension(name, time)} AS {name}, " for name in by)


def listed(by: Iterable[str]) -> str:
    """`model, hour, `, or nothing."""
    return "".join(f"{name}, " for name in by)


def grouped(by: Sequence[str], *more: str) -> str:
    """`GROUP BY model, hour`, or nothing."""
    names = [*by, *more]
    return f"GROUP BY {', '.join(names)}" if names else ""


def moment(ms: int) -> str:
    """A literal of DateTime64(3)."""
    return f"fromUnixTimestamp64Milli({int(ms)}, 'UTC')"


def within(period: Period, time: str, *, later_ms: int = 0, earlier_ms: int = 0) -> str:
    """A condition on a time column; `later_ms`, `earlier_ms`: so much longer at either end."""
    begin, end = period.since_ms - earlier_ms, period.until_ms + later_ms
    parts = [f"{time} >= {moment(begin)}"] if begin > 0 else []
    parts += [f"{time} < {moment(end)}"] if end < END_MS else []
    if time in SORTED_BY_HOUR:
        # Said again of the hour, which the rows are sorted by: ClickHouse does not infer it.
        hour = f"toStartOfHour({time})"
        parts += [f"{hour} >= toStartOfHour({moment(begin)})"] if begin > 0 else []
        parts += [f"{hour} <= toStartOfHour({moment(end)})"] if end < END_MS else []
    return " AND ".join(parts) or "1"


def ms(time: str) -> str:
    """A time column as milliseconds."""
    return f"toUnixTimestamp64Milli({time})"


def newest_last(select: str, by: Sequence[str], limit: int, order: str = "") -> str:
    """At most `limit` + 1 rows in a stable order; of a time, the newest of them, oldest first."""
    if by and by[0] in _TIMES:
        rest = "".join(f", {name}" for name in by[1:])
        return (
            f"SELECT * FROM ({select} ORDER BY {by[0]} DESC{rest} LIMIT {limit + 1}) "
            f"ORDER BY {', '.join(by)}"
        )
    ordered = ", ".join([*([order] if order else []), *by])
    return f"{select} {'ORDER BY ' + ordered if ordered else ''} LIMIT {limit + 1}"


# -- the shares of a count, guarded against periods without rows
def share(part: str, whole: str) -> str:
    """A part of a whole, 0 where there is nothing."""
    return f"if({whole} = 0, 0, {part} / {whole})"
