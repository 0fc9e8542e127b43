"""New tables in the old ones' places: a step that only goes forward once it has begun."""

from __future__ import annotations

import logging
from typing import Final

from infra.warehouse.engine import WriteEngine
from infra.warehouse.migrate import RECORD_TABLES, view_statements
from infra.warehouse.targets import TARGETS
from streams.settings import Settings

log = logging.getLogger(__name__)

# Tables that change places; `migrations` says the same in both.
EXCHANGED: Final = (
    *RECORD_TABLES,
    "batches",
    *(aggregate.table for target in TARGETS for aggregate in target.aggregates),
)
_VIEWS: Final = tuple(aggregate.view for target in TARGETS for aggregate in target.aggregates)
_NEW: Final = "rebuilt"


def finish(engine: WriteEngine, settings: Settings) -> None:
    """Finish an exchange that was interrupted, and throw away what a dead rebuild left."""
    other = rebuild_database(settings)
    tables = {
        name
        for (name,) in engine.rows(
            "SELECT name FROM system.tables WHERE database = {other:String}", {"other": other}
        )
    }
    if "exchanging" in tables:
        log.warning("finishing an exchange that was interrupted")
        exchange(settings, engine)
    elif tables:
        engine.command(f"DROP DATABASE IF EXISTS {other} SYNC")


def rebuild_database(settings: Settings) -> str:
    """Where new tables are made."""
    return f"{settings.warehouse_database}_rebuild"


def exchange(settings: Settings, engine: WriteEngine) -> None:
    """Put the new tables in the old ones' places; may be interrupted and called again."""
    main, other = settings.warehouse_database, rebuild_database(settings)
    # Readers wait: to them it is one step.
    with engine.at_once() as command:
        # From here on it goes forward only.
        for name in EXCHANGED:
            if not _marked(engine, other, "exchanging"):
                command(f"ALTER TABLE {main}.{name} MODIFY COMMENT ''")
                command(f"ALTER TABLE {other}.{name} MODIFY COMMENT '{_NEW}'")
        command(
            f"CREATE TABLE IF NOT EXISTS {other}.exchanging (x UInt8) ENGINE = MergeTree ORDER BY x"
        )
        # Views find their tables by name: none may see half of the exchange.
        for view in _VIEWS:
            command(f"DROP VIEW IF EXISTS {main}.{view} SYNC")
            command(f"DROP VIEW IF EXISTS {other}.{view} SYNC")
        for name in EXCHANGED:
            if _comment(engine, other, name) == _NEW:
                command(f"EXCHANGE TABLES {main}.{name} AND {other}.{name}")
        for statement in view_statements():
            command(statement)
        command(f"DROP DATABASE {other} SYNC")


def _marked(engine: WriteEngine, database: str, table: str) -> bool:
    return bool(
        engine.rows(
            "SELECT 1 FROM system.tables WHERE database = {database:String} AND name = {table:String}",
            {"database": database, "table": table},
        )
    )


def _comment(engine: WriteEngine, database: str, table: str) -> str:
    found = engine.rows(
        "SELECT comment FROM system.tables WHERE database = {database:String} AND name = {table:String}",
        {"database": database, "table": table},
    )
    return str(found[0][0]) if found else ""
