"""Everything from Kafka once more, into tables beside, and then in their place at once.

Until the exchange the old tables stay as they are and answer questions. Rows that Kafka does not
have any more, and rows of other regions' sinks, are taken over from the old tables, so nothing is
lost by it. A rebuild that dies before its exchange is thrown away by the next; one that dies in
it is finished by the next command that opens the warehouse for writing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from infra.warehouse.engine import WriteEngine, beside, open_engine
from infra.warehouse.exchange import exchange, finish, rebuild_database
from infra.warehouse.journal import Place
from infra.warehouse.migrate import migrate
from infra.warehouse.run import answering, make_sink, reading
from infra.warehouse.sink import Progress
from infra.warehouse.source import Source
from infra.warehouse.targets import TARGETS, topics_of
from schemas.errors import WarehouseError
from streams.settings import Settings


def rebuild(settings: Settings, bootstrap: str, stopped: Callable[[], bool]) -> Progress | None:
    """Rebuild this region's warehouse; None when it was stopped, and nothing has changed.

    Raises `WarehouseError` where the folder has another owner, such as a sink: stop it first.
    """
    if settings.warehouse_cluster:
        raise WarehouseError(
            "a cluster's tables cannot be exchanged: make a new database and point HEADRACE_WAREHOUSE_DATABASE at it"
        )
    with open_engine(settings, "warehouse rebuild") as (engine, ownership):
        finish(engine, settings)
        migrate(engine, settings.warehouse_days, cluster=settings.warehouse_cluster)
        with answering(settings, engine, ownership), _fresh(settings, engine) as fresh:
            migrate(fresh, settings.warehouse_days)
            with reading(settings, bootstrap) as source:
                ((newest,),) = engine.rows("SELECT max(batch) FROM batches")
                sink = make_sink(settings, fresh, source, first_batch=int(newest) + 1)
                sink.start(stopped)
                sink.drain(stopped)
                if stopped():
                    return None
                _take_over(settings, engine, _lows(source, settings))
            exchange(settings, engine)
            return sink.progress


@contextmanager
def _fresh(settings: Settings, engine: WriteEngine) -> Iterator[WriteEngine]:
    """An engine on an empty database beside."""
    engine.command(f"DROP DATABASE IF EXISTS {rebuild_database(settings)} SYNC")
    engine.command(f"CREATE DATABASE {rebuild_database(settings)}")
    with beside(settings, engine, rebuild_database(settings)) as fresh:
        yield fresh


def _lows(source: Source, settings: Settings) -> dict[Place, int]:
    topics = [topic for target in TARGETS for topic in topics_of(target, settings)]
    return {place: source.watermarks(place)[0] for place in source.places(topics)}


def _take_over(settings: Settings, engine: WriteEngine, lows: dict[Place, int]) -> None:
    """Copy the rows that Kafka could not give; the views of the new tables count them too."""
    for target in TARGETS:
        columns = [
            str(name)
            for (name,) in engine.rows(
                "SELECT name FROM system.columns WHERE database = currentDatabase()"
                " AND table = {table:String} AND default_kind = '' ORDER BY position",
                {"table": target.table},
            )
        ]
        topics = topics_of(target, settings)
        kept = " OR ".join(
            f"(kafka_topic = '{topic}' AND kafka_partition = {partition} AND kafka_offset >= {low})"
            for (topic, partition), low in lows.items()
            if topic in topics
        )
        listed = ", ".join(columns)
        engine.command(
            f"INSERT INTO {rebuild_database(settings)}.{target.table} ({listed}) SELECT {listed}"
            f" FROM {target.table} WHERE NOT (sink = '{settings.region}' AND ({kept or '0'}))"
            " SETTINGS async_insert = 0, max_threads = 1, max_partitions_per_insert_block = 0"
        )
