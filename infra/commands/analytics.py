"""`headrace analytics`: a shop's questions to its warehouse, one subcommand each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from infra.analytics.catalog import QUESTIONS
from infra.analytics.free import check_reading, run_statement
from infra.analytics.period import parse_duration_ms, parse_period
from infra.analytics.plot import draw
from infra.analytics.question import (
    ROWS_MAX,
    Answer,
    Question,
    QuestionError,
    Request,
    ask,
    find_question,
    validate_by,
)
from infra.analytics.report import build_report
from infra.analytics.show import as_csv, as_json, as_table
from infra.warehouse.store import connect
from schemas.errors import SettingsError
from streams.settings import load_settings

# Width of a program's output, where no terminal says its own.
WIDTH: Final = 200
EVENT_TYPES: Final = ("impression", "view", "cart", "purchase", "remove", "search")
STEPS_MAX: Final = 32

_SHARED: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option(
        "--limit",
        type=click.IntRange(1, 1_000_000),
        default=ROWS_MAX,
        show_default=True,
        help="Rows at most.",
    ),
    click.option("--json", "json_", is_flag=True, help="One JSON object, for programs."),
    click.option("--csv", "csv_", is_flag=True, help="Comma-separated values."),
)


class QuestionGroup(click.Group):
    """Makes a subcommand of each question of the catalogue, beside `sql` and `report`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*QUESTIONS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        return own or command_of(find_question(QUESTIONS, cmd_name))


@click.group(cls=QuestionGroup)
def analytics() -> None:
    """Ask the warehouse what the recommender earns and how it behaves.

    \b
    headrace analytics ctr --since 7d --by model,arm
    headrace analytics latency --since 1h --plot latency.png
    headrace analytics popular --json
    headrace analytics sql "SELECT count() FROM clicks FINAL"

    Each question says with --help what it counts. Clicks and answers that Kafka holds twice count
    once.
    """


@analytics.command()
@click.argument("statement")
@_SHARED[0]
@_SHARED[1]
@_SHARED[2]
def sql(statement: str, limit: int, json_: bool, csv_: bool) -> None:
    """Run one statement of ClickHouse's SQL that only reads.

    Tables: clicks, recommendations, alerts, dead_letters, models, drills; `FROM clicks FINAL` counts
    each event once. `SHOW TABLES` and `DESCRIBE clicks` tell more.
    """
    # Before there is a connection: what cannot be asked needs no warehouse.
    check_reading(statement)
    with connect(load_settings()) as store:
        answer = run_statement(store, statement, limit)
    _show("sql", Request(parse_period("all", "", _now_ms()), limit=limit), answer, json_, csv_)


@analytics.command()
@click.option(
    "--html", "path", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE"
)
@click.option("--since", default="24h", show_default=True, metavar="AGE|TIME|all")
@click.option("--until", default="", metavar="AGE|TIME")
def report(path: Path, since: str, until: str) -> None:
    """Write one self-contained page with the charts of a period."""
    now_ms = _now_ms()
    period = parse_period(since, until, now_ms)
    with connect(load_settings()) as store:
        page = build_report(store, period, now_ms)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"the report {path} cannot be written: {error}") from None
    click.echo(f"{path}: {len(page):,} bytes")


def command_of(question: Question) -> click.Command:
    """The subcommand of a question, with the options that mean something to it."""

    def callback(**given: Any) -> None:
        answer_question(question, **given)

    options = [
        click.option(
            "--since",
            default=question.since,
            show_default=True,
            metavar="AGE|TIME|all",
            help="An age (90s, 30m, 1h, 7d, 2w), a UTC time, or all.",
        ),
        click.option("--until", default="", metavar="AGE|TIME", help="The same; default: now."),
        *_SHARED,
        click.option(
            "--plot",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE.png",
            help="Draw the answer (needs the extra `analytics`).",
        ),
    ]
    if question.dimensions:
        names = ", ".join(question.dimensions)
        default = ",".join(question.by)
        options.append(
            click.option(
                "--by",
                default=default,
                show_default=bool(default),
                metavar="A,B",
                help=f"Split by any of: {names}; '' for one row.",
            )
        )
    if question.compose_fast is not None:
        options.append(
            click.option(
                "--fast",
                is_flag=True,
                help="Read the minute and hour aggregates, which count what Kafka repeats.",
            )
        )
    helps = {
        "window": "How long after the first; of sessions: the longest pause.",
        "steps": f"Two or more of {', '.join(EVENT_TYPES)}, in order.",
        "per": "user or session.",
        "control": "The arm that the others are held against.",
    }
    options += [
        click.option(f"--{name}", default=default, show_default=bool(default), help=helps[name])
        for name, default in question.options.items()
    ]
    for option in reversed(options):
        callback = option(callback)
    text = f"{question.summary}\n\n{question.definition}"
    return click.command(question.name, help=text, short_help=question.summary)(callback)


def answer_question(
    question: Question, *, json_: bool, csv_: bool, plot: Path | None, **given: Any
) -> None:
    """Validate, ask, show."""
    request = _request(question, **given)
    with connect(load_settings()) as store:
        answer = ask(store, question, request)
    if plot is not None:
        draw(answer, question, request, plot)
    if plot is None or json_ or csv_:
        _show(question.name, request, answer, json_, csv_)


def default_request(question: Question) -> Request:
    """A question as it is asked without any option."""
    given: dict[str, Any] = dict(question.options)
    by = ",".join(question.by)
    return _request(question, since=question.since, until="", limit=ROWS_MAX, by=by, **given)


def _request(
    question: Question,
    *,
    since: str,
    until: str,
    limit: int,
    by: str = "",
    fast: bool = False,
    window: str = "30m",
    steps: str = "impression,view,cart,purchase",
    per: str = "user",
    control: str = "",
) -> Request:
    chosen = tuple(step.strip() for step in steps.split(","))
    wrong = [step for step in chosen if step not in EVENT_TYPES]
    if wrong or not 2 <= len(chosen) <= STEPS_MAX:
        raise QuestionError(f"--steps {steps!r}: two or more of {', '.join(EVENT_TYPES)}, in order")
    if per not in ("user", "session"):
        raise QuestionError(f"--per {per!r} is neither user nor session")
    window_ms = parse_duration_ms(window)
    if not window_ms:
        raise QuestionError("--window 0: it must be at least a second")
    return Request(
        parse_period(since, until, _now_ms()),
        by=validate_by(question, by.split(","), fast=fast),
        limit=limit,
        window_ms=window_ms,
        steps=chosen,
        per=per,
        fast=fast,
        control=control,
    )


def _show(name: str, request: Request, answer: Answer, json_: bool, csv_: bool) -> None:
    if json_:
        click.echo(as_json(name, request, answer))
    elif csv_:
        click.echo(as_csv(answer), nl=False)
    elif not answer.rows:
        click.echo("nothing in this period; --since all looks at everything")
    else:
        Console(width=None if sys.stdout.isatty() else WIDTH).print(as_table(answer))
    if answer.truncated and not json_:
        click.echo(f"there are more than these {len(answer.rows):,} rows: --limit", err=True)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
