"""An answer as a table for people, and as JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from infra.analytics.period import END_MS
from infra.analytics.question import Answer, Request

# Shares and probabilities: shown to people as per cent.
SHARES: Final = frozenset(
    {
        "ctr", "conversion", "difference", "low", "high", "uplift", "always_low", "always_high",
        "of_first", "of_previous", "retained", "bounced", "bought", "fresh", "coverage", "top_10",
    }
)  # fmt: skip


def as_json(name: str, request: Request, answer: Answer) -> str:
    """One object; its keys, and those of the rows, stay from release to release."""
    period = request.period
    return json.dumps(
        {
            "question": name,
            "since": _iso(period.since_ms) if period.bounded else None,
            "until": _iso(period.until_ms) if period.until_ms < END_MS else None,
            "by": list(request.by),
            "truncated": answer.truncated,
            "rows": json_rows(answer),
        },
        indent=1,
        ensure_ascii=False,
    )


def json_rows(answer: Answer) -> list[dict[str, Any]]:
    """The rows with what JSON has: times in ISO 8601, nothing for what is not a number."""
    return [{name: plain(value) for name, value in row.items()} for row in answer.records()]


def as_csv(answer: Answer) -> str:
    """A header and the rows."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(answer.columns)
    for row in answer.rows:
        writer.writerow(["" if cell is None else cell for cell in map(plain, row)])
    return out.getvalue()


def as_table(answer: Answer) -> Table:
    """For people: numbers to the right, shares in per cent, times short."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for at, name in enumerate(answer.columns):
        numeric = any(_is_number(row[at]) for row in answer.rows)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in answer.rows:
        # As `Text`, since an id may look like markup.
        table.add_row(
            *(Text(_cell(name, value)) for name, value in zip(answer.columns, row, strict=True))
        )
    return table


def plain(value: Any) -> Any:
    """A value as JSON and CSV have it."""
    if isinstance(value, datetime):
        return _utc(value).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one) for one in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def printable(text: str) -> str:
    """Text of others without what would steer a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _cell(name: str, value: Any) -> str:
    value = value if isinstance(value, (datetime, date)) else plain(value)
    if value is None:
        return ""
    if isinstance(value, datetime):
        moment = _utc(value)
        return moment.strftime("%Y-%m-%d %H:%M:%S" if moment.second else "%Y-%m-%d %H:%M")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return printable(str(value))
    if name in SHARES:
        return f"{100 * value:,.2f} %"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _iso(ms: int) -> str:
    return str(plain(datetime.fromtimestamp(ms / 1000, UTC)))
