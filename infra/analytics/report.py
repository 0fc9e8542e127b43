"""`headrace analytics report`: one self-contained page with the charts of a period.

The page needs nothing but itself: no script, no font, no address. It reads the minute and hour
aggregates where a chart can live with counting what Kafka repeats, and says so below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import escape
from importlib import resources
from string import Template
from typing import Any, Final

from infra.analytics.catalog import QUESTIONS
from infra.analytics.period import Period
from infra.analytics.question import DAY_MS, HOUR_MS, MINUTE_MS, Answer, Request, ask, read
from infra.analytics.show import SHARES, plain
from infra.analytics.sql import dimension, within
from infra.analytics.svg import WIDE, bars, lines, shown
from infra.warehouse.store import Reader

# Longer periods are drawn by hours, those by minutes.
MINUTES_MS_MAX: Final = 6 * HOUR_MS
BARS_MAX: Final = 10
TABLE_ROWS_MAX: Final = 12


@dataclass(frozen=True)
class Panel:
    """One chart: its title, what it says, and its markup."""

    title: str
    note: str
    body: str
    wide: bool = False


def build_report(reader: Reader, period: Period, now_ms: int) -> str:
    """The page, as HTML."""
    sight = _Sight(reader, period)
    figures = _figures(sight)
    panels = [make(sight) for make in PANELS]
    template = Template(
        (resources.files("infra.analytics") / "report.html").read_text(encoding="utf-8")
    )
    return template.substitute(
        period=escape(_span(period)),
        made=escape(_time(now_ms)),
        figures="".join(
            f'<div class="figure"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
            for name, value in figures
        ),
        panels="".join(_panel(panel) for panel in panels),
    )


class _Sight:
    """Questions over the report's period."""

    def __init__(self, reader: Reader, period: Period) -> None:
        self.reader = reader
        self.period = period
        self.grain = "minute" if period.span_ms <= MINUTES_MS_MAX else "hour"
        self.grain = "day" if period.span_ms > 14 * DAY_MS else self.grain
        # A last bit of an hour would look like a fall.
        grain_ms = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}[self.grain]
        end_ms = period.until_ms // grain_ms * grain_ms
        self.whole = Period(period.since_ms, end_ms) if end_ms > period.since_ms else period

    def ask(self, name: str, **options: Any) -> Answer:
        question = QUESTIONS[name]
        usual = Request(self.period, by=question.by, limit=10_000)
        if name == "funnel":
            usual = replace(usual, window_ms=DAY_MS)
        return ask(self.reader, question, replace(usual, **options))

    def events(self) -> Answer:
        """Clicks by kind and time, from the aggregates."""
        table, time = (
            ("clicks_minute", "minute") if self.grain == "minute" else ("clicks_hour", "hour")
        )
        return read(
            self.reader,
            f"SELECT {dimension(self.grain, time)} AS at, event_type, sum(clicks) AS n FROM {table} "
            f"WHERE {within(self.whole, time)} GROUP BY at, event_type ORDER BY at LIMIT 100000",
        )


def _figures(sight: _Sight) -> list[tuple[str, str]]:
    through = sight.ask("ctr", by=()).records()
    sold = sight.ask("conversion", by=()).records()
    delay = sight.ask("latency", by=()).records()
    fresh = sight.ask("freshness", by=()).records()
    letters = sight.ask("dead-letters", by=()).records()
    answers = through[0]["answers"] if through else 0
    return [
        ("answers shown", shown(answers)),
        ("clicked within 30 min", shown(through[0]["ctr"] if through else 0, "%")),
        ("attributed revenue", shown(sold[0]["revenue"] if sold else 0)),
        ("latency, 95th percentile", _number(delay, "ms_p95", "ms")),
        ("answers that knew their click", _number(fresh, "fresh", "%")),
        ("rejected records", shown(letters[0]["letters"] if letters else 0)),
    ]


def _number(rows: Sequence[Mapping[str, Any]], name: str, unit: str) -> str:
    value = plain(rows[0][name]) if rows and rows[0]["answers"] else None
    return "–" if value is None else shown(value, unit)


def _traffic(sight: _Sight) -> Panel:
    series: dict[str, list[tuple[float, float]]] = {}
    for row in sight.events().records():
        series.setdefault(row["event_type"], []).append((_ms(row["at"]), row["n"]))
    order = sorted(series, key=lambda name: -sum(y for _, y in series[name]))
    return Panel(
        f"Events a {sight.grain}", "By event time, as Kafka has them.",
        lines({name: series[name] for name in order}, width=WIDE), wide=True,
    )  # fmt: skip


def _latency(sight: _Sight) -> Panel:
    grain = sight.grain
    answer = sight.ask("latency", by=(grain,), period=sight.whole)
    names = {"ms_p50": "half", "ms_p95": "95 %", "ms_p99": "99 %"}
    series = {
        label: [(_ms(row[grain]), max(0.0, row[name])) for row in answer.records()]
        for name, label in names.items()
    }
    note = "From Kafka's time of the click to the answer's scored_at: so many take at most that."
    return Panel("Click to recommendation", note, lines(series if answer.rows else {}, "ms"))


def _clicked(sight: _Sight) -> Panel:
    answer = sight.ask("ctr", by=(sight.grain,), period=sight.whole)
    points = [(_ms(row[sight.grain]), row["ctr"]) for row in answer.records()]
    note = "Share of answers with a click on one of their items within 30 minutes. The newest still wait for theirs."
    return Panel("Click-through", note, lines({"click-through": points} if points else {}, "%"))


def _by_model(sight: _Sight) -> Panel:
    answer = sight.ask("ctr", by=("model", "tier"))
    rows = [(f"{row['model']}, {row['tier']}", row["ctr"]) for row in answer.records()]
    return Panel("Click-through by model and tier", "", bars(_most(rows), "%"))


def _by_position(sight: _Sight) -> Panel:
    answer = sight.ask("ctr", by=("position",))
    rows = [(str(row["position"]), row["ctr"]) for row in answer.records()]
    note = "Whether the first places earn what they should."
    return Panel("Click-through by place in the list", note, bars(rows[:BARS_MAX], "%"))


def _funnel(sight: _Sight) -> Panel:
    answer = sight.ask("funnel")
    rows = [(row["step"], row["users"]) for row in answer.records()]
    return Panel("Funnel", "Shoppers who came so far, in this order, within a day.", bars(rows))


def _popular(sight: _Sight) -> Panel:
    answer = sight.ask("popular", limit=BARS_MAX, fast=True)
    rows = [(row["item_id"], row["touches"]) for row in answer.records()]
    return Panel("Most wanted items", "Views, carts and purchases, as Kafka has them.", bars(rows))


def _arms(sight: _Sight) -> Panel:
    answer = sight.ask("experiment")
    columns = ("arm", "users", "ctr", "uplift", "always_low", "always_high", "verdict", "ratio_p")
    note = "The bounds are of the difference, and hold however often one looks."
    return Panel("Experiment", note, _table(answer, columns), wide=True)


def _rejected(sight: _Sight) -> Panel:
    answer = sight.ask("dead-letters", limit=TABLE_ROWS_MAX)
    return Panel(
        "Rejected records", "", _table(answer, ("reason", "origin_topic", "letters", "last"))
    )


def _drills(sight: _Sight) -> Panel:
    answer = sight.ask("drills", period=Period(0, sight.period.until_ms), limit=TABLE_ROWS_MAX)
    columns = ("ended_at", "name", "region", "verdict", "recovery_s")
    return Panel("The last drills", "Whenever they were.", _table(answer, columns))


PANELS: Final[tuple[Callable[[_Sight], Panel], ...]] = (
    _traffic, _latency, _clicked, _by_model, _by_position, _funnel, _popular, _arms, _rejected, _drills,
)  # fmt: skip


def _most(rows: list[tuple[str, float]]) -> list[tuple[str, float]]:
    return sorted(rows, key=lambda row: -row[1])[:BARS_MAX]


def _table(answer: Answer, columns: tuple[str, ...]) -> str:
    if not answer.rows:
        return '<p class="none">nothing in this period</p>'
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in columns)
    rows = "".join(
        "<tr>" + "".join(_cell(name, row[name]) for name in columns) + "</tr>"
        for row in answer.records()[-TABLE_ROWS_MAX:]
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _cell(name: str, value: Any) -> str:
    if isinstance(value, datetime):
        return f"<td>{_time(_ms(value))}</td>"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'<td class="number">{shown(value, "%" if name in SHARES else "")}</td>'
    return f"<td>{escape('–' if value is None else str(value))}</td>"


def _panel(panel: Panel) -> str:
    note = f'<p class="note">{escape(panel.note)}</p>' if panel.note else ""
    kind = ' class="wide"' if panel.wide else ""
    return f"<section{kind}><h2>{escape(panel.title)}</h2>{note}{panel.body}</section>"


def _ms(value: Any) -> float:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1000
    return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp() * 1000


def _time(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _span(period: Period) -> str:
    if not period.bounded:
        return "everything there is"
    return f"{_time(period.since_ms)} to {_time(period.until_ms)}"
