"""`headrace up`, `down` and `status`: the local Kafka of a region."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import click

from infra.cluster import region as regions
from streams.settings import load_settings

# What `status` exits with when a region is down or impaired; 1 and 2 mean that it could not tell.
EXIT_DOWN: Final = 3
# Grows when a field of `status --json` changes its meaning or goes; new fields do not count.
JSON_FORMAT: Final = 1


@click.command()
@click.option("--region", help="Region to start (default: the setting `region`).")
@click.option(
    "--brokers",
    type=click.Choice(["1", "3"]),
    help="Brokers of the region, fixed by its first start (default: 1).",
)
@click.option("--workers", type=click.IntRange(0, 64), default=0, hidden=True)
def up(region: str | None, brokers: str | None, workers: int) -> None:
    """Start a local region: real Kafka brokers, no Docker.

    Prints the bootstrap servers. A region that runs already is left alone.
    """
    if workers:
        raise click.UsageError("--workers is not there yet: start them with `headrace worker`")
    settings = load_settings(region=region)
    started = time.monotonic()
    with interruptible():
        state = regions.start(settings, int(brokers) if brokers else None, report=_say)
    _say(f"region {state.region} is up ({time.monotonic() - started:.1f} s)")
    click.echo(regions.layout_of(settings, state).bootstrap)


@click.command()
@click.option("--region", help="Region to stop (default: the setting `region`).")
@click.option("--wipe", is_flag=True, help="Remove the region's data and logs too.")
def down(region: str | None, wipe: bool) -> None:
    """Stop the local region; its data stays unless --wipe."""
    settings = load_settings(region=region)
    stopped = regions.stop(settings, wipe=wipe, report=_say)
    _say(
        f"region {settings.region} "
        + ("is down" if stopped else "was not running")
        + (", its data removed" if wipe else "")
    )


@click.command()
@click.option("--region", help="Region to show (default: all that were started here).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
def status(region: str | None, as_json: bool) -> None:
    """Show brokers, topics, workers and lag; exit 0 when all is healthy, else 3."""
    from infra.cluster.status import known_regions, report

    settings = load_settings(region=region)
    names = [settings.region] if region or settings.bootstrap else known_regions(settings)
    reports = [report(load_settings(region=name)) for name in names]
    healthy = all(one["healthy"] for one in reports)
    if as_json:
        click.echo(
            json.dumps({"format": JSON_FORMAT, "healthy": healthy, "regions": reports}, indent=2)
        )
    else:
        from rich.console import Console

        from infra.cluster.tables import render

        console = Console(soft_wrap=True, highlight=False)
        for one in reports:
            console.print(render(one))
    if not healthy:
        sys.exit(EXIT_DOWN)


def _say(message: str) -> None:
    """Progress goes to stderr, so that stdout is only what a program would read."""
    click.echo(message, err=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a start as Ctrl-C does, so that it stops what it has started."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
