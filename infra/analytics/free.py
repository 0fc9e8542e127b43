"""A statement of a person's own: read only, one at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from infra.analytics.question import Answer, QuestionError, read
from infra.warehouse.store import Reader

READING: Final = ("SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS")
# Comments, and what stands in quotes, where words and semicolons mean nothing.
_SILENT: Final = re.compile(
    r"--[^\n]*|#![^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\"|`(?:[^`\\]|\\.)*`",
    re.DOTALL,
)
# It would write a file where the warehouse runs, which no setting of ClickHouse forbids.
_INTO_FILE: Final = re.compile(r"\bINTO\s+OUTFILE\b", re.IGNORECASE)
_FORMAT: Final = re.compile(r"\bFORMAT\s+\w+\s*$", re.IGNORECASE)


def check_reading(sql: str) -> str:
    """The statement without a last semicolon; raises for anything but one that reads.

    This is for a clear message: what holds is the session, which ClickHouse itself keeps read only.
    """
    statement = sql.strip().rstrip(";").strip()
    bare = _SILENT.sub(lambda found: " " if found[0][0] in "-#/" else "''", statement).strip()
    words = re.findall(r"\w+", bare[:200])
    first = words[0].upper() if words else ""
    if first not in READING:
        raise QuestionError(
            f"sql only reads: {first or 'nothing'!r} is none of {', '.join(READING)}; "
            "only the sink writes to the warehouse"
        )
    if ";" in bare:
        raise QuestionError("sql takes one statement: there is more after the first semicolon")
    if _INTO_FILE.search(bare):
        raise QuestionError("sql only reads: use --csv or --json instead of INTO OUTFILE")
    if _FORMAT.search(bare):
        raise QuestionError("sql chooses the format itself: leave FORMAT out; --csv and --json")
    return statement


def run_statement(reader: Reader, sql: str, limit: int) -> Answer:
    """The first `limit` rows of a person's statement."""
    statement = check_reading(sql)
    answer = read(reader, statement)
    convert: dict[int, Callable[[Any], Any]] = {}
    if statement.split(maxsplit=1)[0].upper() in ("SELECT", "WITH"):
        # Arrow has no type for one of ClickHouse's, and brings numbers instead.
        types = [str(row[1]) for row in read(reader, f"DESCRIBE TABLE ({statement}\n)").rows]
        convert = {
            at: _OF_ARROW[kind] for at, kind in enumerate(map(_plain, types)) if kind in _OF_ARROW
        }
    rows = tuple(
        tuple(
            convert[at](value) if at in convert and value is not None else value
            for at, value in enumerate(row)
        )
        for row in answer.rows[:limit]
    )
    return Answer(answer.columns, rows, truncated=len(answer.rows) > limit)


def _plain(kind: str) -> str:
    for wrapper in ("LowCardinality(", "Nullable("):
        kind = kind.removeprefix(wrapper)
    return re.sub(r"\W.*", "", kind)


def _moment(value: Any) -> Any:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int) else value


_OF_ARROW: Final[dict[str, Callable[[Any], Any]]] = {"DateTime": _moment}
