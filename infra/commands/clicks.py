"""`headrace clicks`: replay files, or simulate shoppers, into Kafka."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

import click

from infra.analytics.period import parse_period
from infra.commands.sending import INTERRUPTED_EXIT_CODE, Sending, interruptible, summarise
from infra.warehouse.history import WarehouseClicks
from infra.warehouse.store import connect
from schemas.topics import CLICKS
from streams.clicks.columns import ClickColumns, concatenated, limited, until, while_running
from streams.clicks.dating import as_recorded, as_sent, moved, wall_ms
from streams.clicks.files import write_clicks
from streams.clicks.pacing import AtOnce, AtRate, AtSpeed, Schedule
from streams.clicks.replay import CHUNK_ROWS
from streams.clicks.simulate import START_MS, Shop
from streams.clicks.sources import ClickSource, Skipped, TimeUnit
from streams.settings import Settings, load_settings
from streams.stages.decode import TS_MIN_MS


@click.group()
def clicks() -> None:
    """Replay or simulate clicks into Kafka."""


class Speed(click.ParamType):
    """A factor like `10x`, `10` or `0.5x`."""

    name = "factor"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            factor = float(str(value).lower().removesuffix("x"))
        except ValueError:
            factor = 0.0
        if not 0 < factor < 1e9:
            self.fail(f"{value!r} is no speed; give a factor like 10x", param, ctx)
        return factor


class Mapping(click.ParamType):
    """`user_id=col,item_id=col,…`."""

    name = "field=column,…"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, str]:
        if isinstance(value, dict):
            return value
        pairs = [part.partition("=") for part in str(value).split(",") if part.strip()]
        if not all(field.strip() and equals and column.strip() for field, equals, column in pairs):
            self.fail(
                f"{value!r} is no mapping; give field=column, several with commas", param, ctx
            )
        return {field.strip(): column.strip() for field, _, column in pairs}


@clicks.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--from-warehouse",
    is_flag=True,
    help="The clicks in the warehouse instead of FILE's, with the event ids that they had.",
)
@click.option(
    "--since",
    default="all",
    show_default=True,
    help="With --from-warehouse: from then on; an age such as 24h, or a UTC time.",
)
@click.option("--until", "ending", default="", help="With --from-warehouse: before then.")
@click.option(
    "--to", "topic", default=CLICKS.name, show_default=True, help="Topic to send the clicks to."
)
@click.option(
    "--map",
    "mapping",
    type=Mapping(),
    help="Columns of our fields: user_id=…,item_id=…,ts=…, also event_type, session_id, query, price, quantity. Without a header line, columns are 1, 2, …; `-` leaves a field out.",
)
@click.option(
    "--time-unit",
    type=click.Choice(["auto", "s", "ms"]),
    default="auto",
    show_default=True,
    help="Unit of times that are numbers.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Clicks per second.")
@click.option(
    "--speed", type=Speed(), help="As in the file, so many times as fast, for example 10x."
)
@click.option(
    "--as-is", is_flag=True, help="In the file's order, read as a stream, instead of in time order."
)
@click.option(
    "--now/--keep-times",
    default=False,
    help="Date each click when it is sent (without --rate and --speed: move all so that the newest is now), or keep the times (default).",
)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many clicks.")
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Part of the event ids: the same file and seed give the same ids.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Fail on the first rows that are no clicks, instead of skipping them.",
)
@click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what became of each click to this file, as JSON lines.",
)
@click.option(
    "--bootstrap",
    "servers",
    help="Kafka bootstrap servers (default: the setting, or the local region).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def replay(
    file: Path | None,
    from_warehouse: bool,
    since: str,
    ending: str,
    topic: str,
    mapping: dict[str, str] | None,
    time_unit: TimeUnit,
    rate: float | None,
    speed: float | None,
    as_is: bool,
    now: bool,
    limit: int | None,
    seed: int,
    strict: bool,
    journal: Path | None,
    servers: str | None,
    as_json: bool,
) -> None:
    """Send the clicks of FILE (CSV, TSV, JSON lines or Parquet) to Kafka, as fast as it takes them.

    With --from-warehouse history is played back instead.

    Exits with 1 when clicks were not acknowledged, with 130 after Ctrl-C.
    """
    settings = load_settings(bootstrap=servers)
    schedule = _schedule(rate, speed)
    with interruptible() as stopped, ExitStack() as stack:
        source: ClickSource | WarehouseClicks
        if from_warehouse and file is None:
            source, as_is = stack.enter_context(_history(settings, since, ending)), True
        elif file is not None and not from_warehouse:
            source = ClickSource(file, mapping, unit=time_unit, strict=strict)
        else:
            raise click.UsageError("give either FILE or --from-warehouse")
        sending = Sending(settings, seed, journal, topic)
        batches: Iterable[ClickColumns] = source.batches()
        total, dating = None, as_sent(schedule) if now and schedule.paced else as_recorded
        if as_is and limit is not None:
            batches = limited(batches, limit)
        # Streamed only where no click has to know of a later one.
        if not as_is or (now and not schedule.paced):
            whole = concatenated(list(takewhile(lambda batch: not stopped(), batches)))
            whole = whole if as_is else whole.in_time_order()
            whole = whole.slice(0, min(limit or len(whole), len(whole)))
            batches, total = (whole,), len(whole)
            if now and not schedule.paced and total:
                dating = moved(wall_ms() - int(whole.ts.max()))
            old = 0 if now else int((whole.ts < TS_MIN_MS).sum())
            if old:
                click.echo(
                    f"{old:,} clicks are dated before 2000, and workers reject those: --now moves them",
                    err=True,
                )
        delivery = sending.run(batches, schedule, dating, stopped, total)
    summarise(delivery, rate, as_json, source.skipped)


@clicks.command()
@click.option(
    "--shoppers",
    type=click.IntRange(1, 10_000_000),
    default=1_000,
    show_default=True,
    help="Shoppers.",
)
@click.option(
    "--items",
    type=click.IntRange(1, 5_000_000),
    default=2_000,
    show_default=True,
    help="Items of the catalogue.",
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    help="Everything random: the same seed and sizes give the same clicks at any rate.",
)
@click.option("--clicks", "count", type=click.IntRange(min=1), help="Stop after so many clicks.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop after so many seconds; with --out, of simulated time.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Clicks per second.")
@click.option(
    "--speed", type=Speed(), help="Simulated time, so many times as fast, for example 60x."
)
@click.option(
    "--start",
    type=click.DateTime(),
    help="Where simulated time begins (UTC); keeps simulated times.",
)
@click.option(
    "--now/--keep-times",
    default=None,
    help="Date each click when it is sent (default without --start), or as simulated.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this .tsv, .csv, .jsonl or .parquet file instead of Kafka.",
)
@click.option(
    "--catalog/--no-catalog",
    default=True,
    show_default=True,
    help="Send the items to the catalog topic first.",
)
@click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what became of each click to this file, as JSON lines.",
)
@click.option(
    "--bootstrap",
    "servers",
    help="Kafka bootstrap servers (default: the setting, or the local region).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def simulate(
    shoppers: int,
    items: int,
    seed: int,
    count: int | None,
    seconds: float | None,
    rate: float | None,
    speed: float | None,
    start: datetime | None,
    now: bool | None,
    out: Path | None,
    catalog: bool,
    journal: Path | None,
    servers: str | None,
    as_json: bool,
) -> None:
    """Send the clicks of simulated shoppers to Kafka, or write them to a file.

    Without --clicks and --seconds it goes on until Ctrl-C.
    """
    schedule = _schedule(rate, speed)
    shop = Shop(
        shoppers,
        items,
        seed,
        START_MS if start is None else int(start.replace(tzinfo=UTC).timestamp() * 1000),
    )
    with interruptible() as stopped:
        if out is not None:
            _simulate_to_file(shop, out, count, seconds, rate, stopped)
            return
        sending = Sending(load_settings(bootstrap=servers), seed, journal)
        if catalog:
            sending.publish(shop)
        batches: Iterable[ClickColumns] = shop.clicks()
        if seconds is not None and rate is not None:
            count = min(count or sys.maxsize, max(1, round(rate * seconds)))
        elif seconds is not None and speed is not None:
            batches = until(batches, shop.start_ms + int(1000 * seconds * speed))
        elif seconds is not None:
            end_s = time.monotonic() + seconds
            batches = while_running(batches, lambda: time.monotonic() < end_s, CHUNK_ROWS)
        if count is not None:
            batches = limited(batches, count)
        live = start is None if now is None else now
        delivery = sending.run(
            batches, schedule, as_sent(schedule) if live else as_recorded, stopped, count
        )
    summarise(delivery, rate, as_json, Skipped())


@contextmanager
def _history(settings: Settings, since: str, until: str) -> Iterator[WarehouseClicks]:
    period = parse_period(since, until, wall_ms())
    with connect(settings) as store:
        yield WarehouseClicks(store, period.since_ms, period.until_ms)


def _simulate_to_file(
    shop: Shop,
    out: Path,
    count: int | None,
    seconds: float | None,
    rate: float | None,
    stopped: Callable[[], bool],
) -> None:
    if count is None and seconds is None:
        raise click.UsageError("--out needs --clicks or --seconds: a file has to end")
    if rate is not None:
        raise click.UsageError("--rate is about sending; a file has simulated times")
    batches: Iterable[ClickColumns] = shop.clicks()
    if seconds is not None:
        batches = until(batches, shop.start_ms + int(1000 * seconds))
    if count is not None:
        batches = limited(batches, count)
    started_s = time.monotonic()
    written = write_clicks(out, takewhile(lambda batch: not stopped(), batches))
    click.echo(f"wrote {written:,} clicks to {out} in {time.monotonic() - started_s:.1f} s")
    if stopped():
        click.echo("interrupted: the rest was not written", err=True)
        raise click.exceptions.Exit(INTERRUPTED_EXIT_CODE)


def _schedule(rate: float | None, speed: float | None) -> Schedule:
    if rate is not None and speed is not None:
        raise click.UsageError("--rate and --speed exclude each other")
    if rate is not None:
        return AtRate(rate)
    return AtOnce() if speed is None else AtSpeed(speed)
