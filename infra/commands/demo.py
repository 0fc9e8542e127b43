"""`headrace demo`: the whole path on this machine, live."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import psutil
from rich.console import Console

from infra.commands.clicks import Mapping
from streams.settings import load_settings

# Threads that wait for a moment's end measure it; the interpreter's usual 5 ms would be in it.
SWITCH_INTERVAL_S = 0.0005


@click.command()
@click.option(
    "--events",
    "file",
    type=click.Path(path_type=Path),
    help="Replay the clicks of this file (CSV, TSV, JSON lines, Parquet) instead of simulated ones.",
)
@click.option(
    "--map",
    "mapping",
    type=Mapping(),
    help="With --events, the file's columns: user_id=…,item_id=…,ts=… (see `headrace clicks replay`).",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop after so many seconds of live clicks (default: at Ctrl-C or the end of the file).",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True, max=100_000),
    default=200.0,
    show_default=True,
    help="Clicks per second.",
)
@click.option(
    "--shoppers",
    type=click.IntRange(1, 1_000_000),
    default=1_000,
    show_default=True,
    help="Simulated shoppers.",
)
@click.option(
    "--items",
    type=click.IntRange(2, 200_000),
    default=2_000,
    show_default=True,
    help="Simulated items.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Everything random in the simulation."
)
@click.option("--no-train", is_flag=True, help="Train no model: popular offers only.")
@click.option(
    "--plain",
    is_flag=True,
    help="Lines instead of a live view; the default where output is no terminal.",
)
@click.option("--keep", is_flag=True, help="Leave Kafka running afterwards.")
def demo(
    file: Path | None,
    mapping: dict[str, str] | None,
    seconds: float | None,
    rate: float,
    shoppers: int,
    items: int,
    seed: int,
    no_train: bool,
    plain: bool,
    keep: bool,
) -> None:
    """Start Kafka, a worker and shoppers; show their clicks and recommendations live.

    It trains a model meanwhile and puts it in force. At the end, everything that it started is
    stopped; the data stays in the settings' home.
    """
    from infra.demo.board import Board
    from infra.demo.howto import howto
    from infra.demo.interrupts import Interrupts
    from infra.demo.lines import summary
    from infra.demo.run import Demo, Plan, step_names
    from infra.demo.screen import LiveScreen, PlainScreen
    from infra.demo.source import from_file, simulated

    if mapping is not None and file is None:
        raise click.UsageError("--map is about the columns of a file: give one with --events")
    started_at = time.monotonic() - (time.time() - psutil.Process().create_time())
    settings = load_settings()
    # A model that the settings name is not to be replaced by one for show.
    plan = Plan(rate, seconds, seed, not no_train and settings.model_dir is None, keep)
    if file is None:
        source = simulated(shoppers, items, seed, rate)
    else:
        source = from_file(file, mapping, rate, plan.train)
    board = Board(time.monotonic, started_at, step_names(plan, source))
    console = Console()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with Interrupts() as interrupts:
        live = console.is_terminal and not console.is_dumb_terminal and not plain
        with LiveScreen(board, console) if live else PlainScreen(board) as screen:
            if source.warning:
                screen.warn(source.warning)
            outcome = Demo(plan, source, settings, board, screen, interrupts).run()
    for line in summary(board.snapshot(), outcome.missing, len(source.history)):
        click.echo(line)
    for note in board.notes():
        click.echo(f"note      {note}")
    click.echo()
    for line in howto(
        outcome.bootstrap,
        outcome.shopper,
        outcome.item,
        outcome.click,
        up=outcome.up,
        own_home=outcome.own_home,
    ):
        click.echo(line)
    if outcome.missing and not outcome.interrupted:
        raise click.ClickException(f"{outcome.missing:,} acknowledged clicks were not answered")
