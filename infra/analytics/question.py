"""What a question is: its definition, what it may be split by, and the SQL that answers it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from infra.analytics.period import Period
from infra.warehouse.store import Reader
from schemas.errors import HeadraceError

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

# Columns that are times.
TIMES: Final = ("minute", "hour", "day", "week", "ended_at")

# Rows of one answer unless --limit says otherwise: what a person may still scroll through.
ROWS_MAX: Final = 1_000


class QuestionError(HeadraceError):
    """A question that does not exist, or that cannot be asked so; the message lists what can."""

    exit_code = 2


@dataclass(frozen=True)
class Answer:
    """Named columns and rows. `truncated`: there were more rows than the limit."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool = False

    def records(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def column(self, name: str) -> list[Any]:
        """One column's values, in the order of the rows."""
        at = self.columns.index(name)
        return [row[at] for row in self.rows]


@dataclass(frozen=True)
class Request:
    """How a question is asked; everything in it has been validated against the question."""

    period: Period
    by: tuple[str, ...] = ()
    limit: int = ROWS_MAX
    window_ms: int = 30 * MINUTE_MS
    steps: tuple[str, ...] = ("impression", "view", "cart", "purchase")
    per: str = "user"
    fast: bool = False
    control: str = ""


@dataclass(frozen=True)
class Plot:
    """How an answer is drawn: `lines` or `bars` over `x`; over a time of --by always lines."""

    kind: str
    x: str
    y: tuple[str, ...]


Compose = Callable[[Request], str]


@dataclass(frozen=True)
class Question:
    """One named question.

    `definition` is the contract: what is counted, once, and in which time. `dimensions` are what
    --by takes, each with its meaning. `options` are the other options that mean something here,
    with their defaults. `compose` returns the statement, which bounds its rows by
    `request.limit + 1`; `finish`, where there is one, makes the answer from its rows.
    `compose_fast` asks the minute and hour aggregates instead, which know `fast_dimensions`.
    """

    name: str
    summary: str
    definition: str
    compose: Compose
    plot: Plot
    since: str = "24h"
    dimensions: Mapping[str, str] = field(default_factory=dict)
    by: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    finish: Callable[[Answer, Request], Answer] | None = None
    compose_fast: Compose | None = None
    fast_dimensions: tuple[str, ...] = ()
    # Whether an answer over time that is too long loses its oldest rows, and not its last ones.
    keeps_newest: bool = True


def validate_by(question: Question, by: Iterable[str], *, fast: bool) -> tuple[str, ...]:
    """The columns asked for, in their order, each once; raises for what is not possible."""
    chosen = tuple(dict.fromkeys(name.strip() for name in by if name.strip()))
    possible = question.fast_dimensions if fast else tuple(question.dimensions)
    unknown = [name for name in chosen if name not in possible]
    if unknown:
        where = question.name + (" --fast" if fast else "")
        can = f"it can be split by {', '.join(possible)}" if possible else "it takes no --by"
        raise QuestionError(f"{where} cannot be split by {', '.join(map(repr, unknown))}; {can}")
    return chosen


def find_question(questions: Mapping[str, Question], name: str) -> Question:
    """The question of that name; else one message with the nearest name and all of them."""
    if name in questions:
        return questions[name]
    near = difflib.get_close_matches(name, [*questions, "sql", "report"], n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    raise QuestionError(
        f"there is no question {name!r}.{guess} Questions: {', '.join(questions)}; and sql, report"
    )


def ask(reader: Reader, question: Question, request: Request) -> Answer:
    """The answer: at most `request.limit` rows."""
    fast = question.compose_fast if request.fast else None
    answer = read(reader, (fast or question.compose)(request))
    if question.finish is not None:
        answer = question.finish(answer, request)
    if len(answer.rows) <= request.limit:
        return answer
    # Over time the newest rows matter, and they stand last.
    newest = question.keeps_newest and answer.columns[0] in TIMES
    rows = answer.rows[-request.limit :] if newest else answer.rows[: request.limit]
    return replace(answer, rows=rows, truncated=True)


def read(reader: Reader, sql: str) -> Answer:
    """One statement's result."""
    found = reader.query(sql)
    columns = [column.to_pylist() for column in found.columns]
    return Answer(tuple(found.column_names), tuple(zip(*columns, strict=True)))
