"""`headrace recommendations`: read what was recommended, to one shopper or to all."""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cluster.region import bootstrap
from schemas.codec import Codec
from schemas.registry import codec_from_settings
from streams.answers import SEARCHED_MAX, AnswerReader, Record, read_titles
from streams.kafka import fetch_consumer_config
from streams.settings import load_settings

# Width of a program's output, where no terminal says its own.
WIDTH: Final = 160


@click.group()
def recommendations() -> None:
    """Read recommendations."""


@recommendations.command()
@click.argument("user")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@click.option(
    "--search",
    "searched_max",
    type=click.IntRange(min=1),
    default=SEARCHED_MAX,
    show_default=True,
    help="Look at so many of the newest records of the shopper's partition.",
)
@click.option("--region", help="Region to read (HEADRACE_REGION).")
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
def get(
    user: str, as_json: bool, searched_max: int, region: str | None, servers: str | None
) -> None:
    """The newest recommendation for the shopper USER; exit 1 where there is none."""
    config, codec = _connection(region, servers)
    with AnswerReader(config, codec) as reader:
        search = reader.newest(user, searched_max)
    record = search.record
    if record is None:
        where = f"partition {search.partition} at {config['bootstrap.servers']}"
        if not search.complete:
            more = f"--search {10 * searched_max} looks further back"
        elif search.searched:
            more = "has this shopper clicked in the last days, and does a worker run? (`headrace status`)"
        else:
            more = "the partition is empty: does a worker run, and were clicks sent? (`headrace status`)"
        raise click.ClickException(
            f"no recommendation for {_plain(user)!r} among the newest {search.searched:,} records "
            f"of {where}; {more}"
        )
    if as_json:
        click.echo(as_line(record))
        return
    titles = read_titles(config, codec, set(record["item_ids"]))
    click.echo(
        f"{_plain(record['user_id'])}: tier {record['tier']}, {_plain(record['model'])}, "
        f"{_day(record['scored_at'])}\n"
        f"answers click {_plain(record['event_id'])} of {_day(record['clicked_at'])}"
    )
    Console(width=None if sys.stdout.isatty() else WIDTH).print(_table(record, titles))


@recommendations.command()
@click.option("--user", help="Only this shopper's.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines, for programs.")
@click.option("--from-beginning", is_flag=True, help="From the oldest on, not only new ones.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@click.option(
    "--top",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Items shown of each, without --json.",
)
@click.option("--region", help="Region to read (HEADRACE_REGION).")
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
def tail(
    user: str | None,
    as_json: bool,
    from_beginning: bool,
    limit: int | None,
    top: int,
    region: str | None,
    servers: str | None,
) -> None:
    """Recommendations as they come, until Ctrl-C: time (UTC), shopper, tier, model, best items."""
    config, codec = _connection(region, servers)
    with AnswerReader(config, codec) as reader:
        titles = {} if as_json else read_titles(config, codec)
        found = reader.follow(
            user,
            from_beginning=from_beginning,
            running=_is_read,
            troubled=lambda reason: click.echo(
                f"headrace: Kafka does not answer ({reason}); waiting for it", err=True
            ),
        )
        try:
            for count, record in enumerate(found, 1):
                click.echo(as_line(record) if as_json else _line(record, titles, top))
                if count == limit:
                    return
        finally:
            if reader.unreadable:
                click.echo(f"{reader.unreadable:,} records were no recommendations", err=True)


def _connection(region: str | None, servers: str | None) -> tuple[dict[str, Any], Codec]:
    settings = load_settings(region=region, bootstrap=servers)
    config = fetch_consumer_config(settings, bootstrap(settings))
    return config, codec_from_settings(settings.registry_url)


def _is_read() -> bool:
    """Whether anybody still reads our output: at a quiet time no failing write would tell."""
    poller = select.poll()
    events: list[tuple[int, int]] = []
    # A standard output that is no file cannot be asked.
    with suppress(OSError, ValueError):
        poller.register(sys.stdout.fileno(), 0)
        events = poller.poll(0)
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in events):
        raise BrokenPipeError
    return True


def as_line(record: Record) -> str:
    """A recommendation as one line of JSON: the fields of the schema, in its order."""
    # Scores are 32-bit floats; more digits than those have would only be noise.
    return json.dumps(record | {"scores": [float(f"{score:.7g}") for score in record["scores"]]})


def _line(record: Record, titles: Mapping[str, str], top: int) -> str:
    items = [_named(item, titles) for item in record["item_ids"][:top]]
    more = len(record["item_ids"]) - len(items)
    shown = ", ".join(items) + (f", {more} more" if more > 0 else "")
    return (
        f"{_clock(record['scored_at'])}  {_plain(record['user_id']):<10}  {record['tier']:<7}  "
        f"{_plain(record['model'])}  {shown or 'nothing to offer yet'}"
    )


def _table(record: Record, titles: Mapping[str, str]) -> Table:
    table = Table()
    table.add_column("", justify="right")
    table.add_column("item")
    if titles:
        table.add_column("title")
    table.add_column("score", justify="right")
    if record["reasons"]:
        table.add_column("why")
    for at, (item, score) in enumerate(zip(record["item_ids"], record["scores"], strict=True)):
        cells = [str(at + 1), _plain(item)]
        cells += [_plain(titles.get(item, ""))] if titles else []
        cells += [f"{score:,.4g}"]
        cells += [_plain(record["reasons"][at])] if record["reasons"] else []
        # As `Text`, since an id may look like markup.
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _named(item: str, titles: Mapping[str, str]) -> str:
    title = titles.get(item)
    return f"{_plain(title)} ({_plain(item)})" if title else _plain(item)


def _plain(text: str) -> str:
    """Text of others without what would steer a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _clock(ms: int) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(ms / 1000)) + f".{ms % 1000:03d}"


def _day(ms: int) -> str:
    return time.strftime("%Y-%m-%d ", time.gmtime(ms / 1000)) + _clock(ms) + " UTC"
