"""Puts a sink together and runs it: the page to read first about the writing side."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from infra.warehouse.engine import WriteEngine, open_engine
from infra.warehouse.exchange import finish
from infra.warehouse.journal import Journal
from infra.warehouse.loader import Loader
from infra.warehouse.migrate import migrate
from infra.warehouse.owner import Ownership
from infra.warehouse.serve import Answers, asking, serve
from infra.warehouse.sink import Progress, Sink
from infra.warehouse.source import Source
from infra.warehouse.store import warehouse_folder
from infra.warehouse.targets import TARGETS, topics_of
from schemas.registry import codec_from_settings
from schemas.topics import CLICKS, REJECTED_BYTES_MAX
from streams.settings import Settings

log = logging.getLogger(__name__)


def run_sink(
    settings: Settings,
    bootstrap: str,
    stopped: Callable[[], bool],
    *,
    once: bool = False,
    anew: frozenset[str] = frozenset(),
) -> Progress:
    """Run the region's sink until `stopped`, or with `once` until it has what Kafka has now.

    Raises `WarehouseError` where the folder has another owner, and `KafkaError`.
    """
    with open_engine(settings, "warehouse run") as (engine, ownership):
        finish(engine, settings)
        for line in migrate(
            engine, settings.warehouse_days, cluster=settings.warehouse_cluster
        ).drift:
            log.warning("%s", line)
        with answering(settings, engine, ownership), reading(settings, bootstrap) as source:
            sink = make_sink(settings, engine, source, anew)
            sink.start(stopped)
            if once:
                sink.drain(stopped)
            else:
                sink.run(stopped)
            return sink.progress


def make_sink(
    settings: Settings,
    engine: WriteEngine,
    source: Source,
    anew: frozenset[str] = frozenset(),
    *,
    first_batch: int = 1,
) -> Sink:
    """The region's sink on an engine whose schema is up to date; it counts from `first_batch` up."""
    codec = codec_from_settings(settings.registry_url)
    loaders: dict[str, Loader] = {}
    routes: dict[str, str] = {}
    for target in TARGETS:
        regions = topics_of(target, settings)
        routes |= dict.fromkeys(regions, target.table)
        loaders[target.table] = Loader(
            engine,
            target,
            codec,
            sink=settings.region,
            regions=regions,
            skew_ms=int(1000 * settings.clock_skew_max_s),
            bytes_max=settings.record_bytes_max if target.topic is CLICKS else REJECTED_BYTES_MAX,
            replicated=bool(settings.warehouse_cluster),
        )
    journal = Journal(
        engine, settings.region, shared=bool(settings.warehouse_url), first_batch=first_batch
    )
    return Sink(source, journal, loaders, routes, linger_s=settings.warehouse_linger_s, anew=anew)


@contextmanager
def reading(settings: Settings, bootstrap: str) -> Iterator[Source]:
    """Kafka, closed whatever happens."""
    source = Source(settings, bootstrap)
    try:
        yield source
    finally:
        source.close()


@contextmanager
def answering(
    settings: Settings, engine: WriteEngine, ownership: Ownership | None
) -> Iterator[None]:
    """Answer the other commands' queries, where the folder is ours."""
    if ownership is None:
        yield
        return
    with asking(warehouse_folder(settings), settings.warehouse_database) as ask:
        password = settings.warehouse_password.get_secret_value()
        answers = Answers(ask, engine.lock, settings.warehouse_user, password)
        server = serve(answers, settings.warehouse_port)
        try:
            ownership.publish(server.server_port, answers.key)
            log.info("answering queries at http://127.0.0.1:%d", server.server_port)
            yield
        finally:
            ownership.publish(0)
            server.shutdown()
            server.server_close()
            # A query that is running keeps the engine until it has ended.
            engine.lock.acquire(timeout=75)
            engine.lock.release()
