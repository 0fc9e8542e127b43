"""`headrace up`, `down` and `status`: the local Kafka of a region."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from infra.cluster import region as regions
from streams.settings import load_settings


@click.command()
@click.option("--region", help="Region to start (default: the setting `region`).")
@click.option("--brokers", type=click.Choice(["1", "3"]), help="Brokers of the region; fixed by its first start. Default: 1.")
@click.option("--workers", type=click.IntRange(0, 64), default=0, hidden=True)
def up(region: str | None, brokers: str | None, workers: int) -> None:
    """Start a local region: real Kafka brokers, no Docker."""
    if workers:
        raise click.UsageError("--workers is not there yet: start them with `headrace worker`")
    settings = load_settings(region=region)
    started = time.monotonic()
    with interruptible():
        state = regions.start(settings, int(brokers) if brokers else None, report=_say)
    click.echo(f"region {state.region} is up after {time.monotonic() - started:.1f} s")
    click.echo(regions.layout_of(settings, state).bootstrap)


@click.command()
@click.option("--region", help="Region to stop (default: the setting `region`).")
@click.option("--wipe", is_flag=True, help="Remove the region's data and logs too.")
def down(region: str | None, wipe: bool) -> None:
    """Stop the local region; its data stays unless --wipe."""
    settings = load_settings(region=region)
    stopped = regions.stop(settings, wipe=wipe, report=_say)
    click.echo(f"region {settings.region} " + ("is down" if stopped else "was not running") + (", its data removed" if wipe else ""))


@click.command()
def status() -> None:
    """Show brokers, topics, workers and lag."""


def _say(message: str) -> None:
    click.echo(message, err=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a start as Ctrl-C does, so that it stops what it has started."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
