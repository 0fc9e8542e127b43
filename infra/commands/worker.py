"""`headrace worker`: one worker in the foreground, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from infra.cluster.region import bootstrap
from streams.quietlog import Throttle
from streams.settings import Settings, load_settings

LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@click.command()
@click.option("--region", help="Region to serve (HEADRACE_REGION).")
@click.option(
    "--peer", "peers", multiple=True, help="Another region, whose mirrored clicks are folded too."
)
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
@click.option("--worker-id", help="Name of this worker within its region, kept over restarts.")
@click.option(
    "--model", "model_dir", type=click.Path(path_type=Path), help="Model folder to start with."
)
@click.option("--web-port", type=int, help="Port of /livez, /readyz and /metrics; 0: any.")
@click.option(
    "--log-level",
    default="INFO",
    show_default=True,
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
)
def worker(
    region: str | None,
    peers: tuple[str, ...],
    servers: str | None,
    worker_id: str | None,
    model_dir: Path | None,
    web_port: int | None,
    log_level: str,
) -> None:
    """Run one worker: clicks in, recommendations out.

    SIGTERM and Ctrl-C finish the batch in hand, commit, and leave the group.
    """
    settings = load_settings(
        region=region,
        peers=peers or None,
        bootstrap=servers,
        worker_id=worker_id,
        model_dir=model_dir,
        web_port=web_port,
    )
    if not settings.bootstrap:
        settings = settings.model_copy(update={"bootstrap": bootstrap(settings)})
    configure_logging(log_level)
    sys.exit(asyncio.run(run_worker(settings)))


def configure_logging(level: str) -> None:
    """Our own lines at `level`; the libraries' from WARNING on, for they are talkative."""
    logging.basicConfig(format=LOG_FORMAT, level=logging.WARNING, stream=sys.stderr)
    for name in ("streams", "infra", "models", "schemas"):
        logging.getLogger(name).setLevel(level)
    throttle = Throttle()
    for handler in logging.getLogger().handlers:
        handler.addFilter(_only_libraries(throttle))


def _only_libraries(throttle: Throttle) -> Callable[[logging.LogRecord], bool]:
    """Our own lines are few, and each of them counts."""

    def keep(record: logging.LogRecord) -> bool:
        return not record.name.startswith(("librdkafka", "aiokafka")) or throttle.filter(record)

    return keep


async def run_worker(settings: Settings) -> int:
    """Run until a signal or a fault; returns the exit code."""
    from streams.app import build_app
    from streams.preflight import check_topics

    partitions = await asyncio.to_thread(check_topics, settings)
    settings = settings.model_copy(update={"partitions": partitions})
    app = build_app(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app.loop = loop
    await app.start()
    stopped = asyncio.create_task(app.wait_until_stopped())
    asked = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, asked}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, asked):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await app.stop()
    return 0 if stop.is_set() else 70
