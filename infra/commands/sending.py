"""A run of clicks into Kafka, as the commands show it: progress, Ctrl-C, and the summary."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from infra.cluster.region import bootstrap
from schemas.errors import DeliveryError, KafkaError
from schemas.registry import codec_from_settings
from schemas.topics import CLICKS
from streams.clicks.columns import ClickColumns
from streams.clicks.dating import Dating, wall_ms
from streams.clicks.journal import Journal
from streams.clicks.pacing import Schedule
from streams.clicks.publish import publish_items
from streams.clicks.replay import ClickSender, Delivery, open_producer, replay
from streams.clicks.simulate import Shop
from streams.clicks.sources import Skipped
from streams.settings import Settings

INTERRUPTED_EXIT_CODE = 130
# Below this part of the rate asked for, the summary says so.
RATE_REACHED = 0.98
# A rate is told in hundreds of slices a second, and nobody reads that fast.
PROGRESS_INTERVAL_S = 0.1


class Sending:
    """A run of clicks into Kafka with its progress bar; connects when it is made."""

    def __init__(
        self, settings: Settings, seed: int, journal: Path | None, topic: str = CLICKS.name
    ) -> None:
        self._producer = open_producer(settings, bootstrap(settings), topic)
        self._topic = topic
        self._codec = codec_from_settings(settings.registry_url)
        self._seed = seed
        self._journal = journal

    def publish(self, shop: Shop) -> None:
        """Send the shop's catalogue."""
        publish_items(self._producer, self._codec, shop.catalogue.records(wall_ms()))

    def run(
        self,
        batches: Iterable[ClickColumns],
        schedule: Schedule,
        dating: Dating,
        stopped: Callable[[], bool],
        total: int | None,
    ) -> Delivery:
        """Send all batches; `total`: how many clicks there will be, where that is known."""
        with ExitStack() as stack:
            journal = None if self._journal is None else stack.enter_context(Journal(self._journal))
            progress = stack.enter_context(_progress(total))
            sender = ClickSender(
                self._producer,
                self._codec,
                seed=self._seed,
                topic=self._topic,
                journal=journal,
                stopped=stopped,
            )
            return replay(batches, sender, schedule, dating=dating, progress=progress)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Whether to stop: after the first Ctrl-C or SIGTERM, while a second one ends at once."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    held = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop.is_set
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[Delivery], None]]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda delivery: None
        return
    columns = (
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.completed:,.0f} acknowledged, {task.fields[open]:,} on the way"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("clicks", total=total, open=0)
        due_s = time.monotonic()

        def update(delivery: Delivery) -> None:
            nonlocal due_s
            if time.monotonic() < due_s:
                return
            due_s = time.monotonic() + PROGRESS_INTERVAL_S
            done = delivery.acknowledged + delivery.refused + delivery.unknown
            bar.update(task, completed=delivery.acknowledged, open=delivery.handed - done)

        yield update


def summarise(delivery: Delivery, rate: float | None, as_json: bool, skipped: Skipped) -> None:
    """Print what became of the clicks, and end with the exit code that says so."""
    if as_json:
        summary = asdict(delivery) | {
            "rate": round(delivery.rate, 1),
            "skipped": skipped.count,
            "skipped_by_reason": skipped.by_reason,
        }
        click.echo(json.dumps(summary))
    else:
        click.echo(
            f"acknowledged {delivery.acknowledged:,}, refused {delivery.refused:,}, unknown {delivery.unknown:,} "
            f"of {delivery.handed:,} clicks in {delivery.seconds:.1f} s: {delivery.rate:,.0f} clicks/s"
        )
    if skipped.count:
        click.echo(skipped.text(), err=True)
    for reason, count in delivery.faults.items():
        click.echo(f"{count:,} not acknowledged: {reason}", err=True)
    if (
        rate
        and not delivery.interrupted
        and delivery.rate < RATE_REACHED * rate
        and delivery.seconds > 1
    ):
        click.echo(f"{rate:,.0f} clicks/s were asked for and not reached", err=True)
    if delivery.interrupted:
        click.echo("interrupted: the rest was not sent", err=True)
        raise click.exceptions.Exit(INTERRUPTED_EXIT_CODE)
    if delivery.ended_by:
        raise KafkaError(f"{delivery.ended_by}; the rest was not sent")
    if delivery.acknowledged < delivery.handed:
        raise DeliveryError(
            f"{delivery.handed - delivery.acknowledged:,} of {delivery.handed:,} clicks were not acknowledged"
        )
