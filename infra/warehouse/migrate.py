"""The schema in force: applies `infra/clickhouse/NNN_*.sql` once each, and reports drift.

A migration's file is named in the table `migrations` with its checksum when all its statements
have run. Each statement may run twice, so a migration that was interrupted is simply run again. A
file that was edited after it had been applied is drift: a new file has to say the change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final, Protocol

from infra.warehouse.cluster import CLUSTER
from schemas.errors import WarehouseError

FOLDER: Final = Path(str(resources.files("infra"))) / "clickhouse"
# Tables of Kafka's records; each has kafka_time, by which rows grow old.
RECORD_TABLES: Final = ("clicks", "recommendations", "alerts", "dead_letters", "models", "drills")
# Few, and wanted for ever.
KEPT_FOR_EVER: Final = frozenset({"models", "drills"})
_BOOKS: Final = (
    "CREATE TABLE IF NOT EXISTS migrations (version UInt32, name String, sha256 String, "
    "applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = MergeTree ORDER BY version"
)


class Engine(Protocol):
    """What a migration needs of ClickHouse."""

    def command(self, sql: str, parameters: dict[str, Any] | None = None) -> None:
        """Run a statement without a result."""

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    sha256: str
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What a run found and did. `drift`: what is not as the files say, one sentence each."""

    applied: tuple[str, ...]
    present: tuple[str, ...]
    drift: tuple[str, ...]


def read_migrations(folder: Path = FOLDER) -> list[Migration]:
    """All migrations of a folder, in order. Raises `WarehouseError` for a gap or a repetition."""
    found = [_read(path) for path in sorted(folder.glob("[0-9][0-9][0-9]_*.sql"))]
    numbers = [one.version for one in found]
    if numbers != list(range(1, len(numbers) + 1)):
        raise WarehouseError(
            f"migrations in {folder} are numbered {numbers}, not 1 to {len(numbers)}"
        )
    return found


def _read(path: Path) -> Migration:
    text = path.read_text(encoding="utf-8")
    return Migration(
        int(path.name[:3]),
        path.name,
        hashlib.sha256(text.encode()).hexdigest(),
        statements_of(text),
    )


def cluster_migrations(cluster: str) -> list[Migration]:
    """The migrations for a cluster of that name."""
    return [
        replace(
            one,
            statements=tuple(text.replace(CLUSTER, cluster) for text in one.statements),
        )
        for one in read_migrations(FOLDER / "cluster")
    ]


def statements_of(text: str) -> tuple[str, ...]:
    """Statements of a file: comments are whole lines, and a statement ends with its line's `;`."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    parts = ("\n".join(lines) + "\n").split(";\n")
    return tuple(part.strip() for part in parts if part.strip())


def migrate(
    engine: Engine,
    days: int = 0,
    migrations: Sequence[Migration] | None = None,
    *,
    cluster: str = "",
) -> MigrationReport:
    """Apply what is missing; rows older than `days` shall go, 0: none. `cluster`: all over it.

    Never changes or drops what an applied migration made: drift is reported and left alone. Raises
    `WarehouseError` where ClickHouse refuses a statement.
    """
    if migrations is None:
        migrations = cluster_migrations(cluster) if cluster else read_migrations()
    engine.command(_BOOKS)
    drift, books = _drift(engine, migrations)
    applied = []
    for one in migrations:
        if one.version in books:
            continue
        for statement in one.statements:
            engine.command(statement)
        engine.command(
            "INSERT INTO migrations (version, name, sha256) VALUES ({version:UInt32}, {name:String}, {sha:String})",
            {"version": one.version, "name": one.name, "sha": one.sha256},
        )
        applied.append(one.name)
    _keep_days(engine, days, cluster)
    return MigrationReport(tuple(applied), tuple(name for name, _ in books.values()), tuple(drift))


def view_statements() -> tuple[str, ...]:
    """The statements that make the materialized views, where they are missing."""
    return tuple(
        statement
        for one in read_migrations()
        for statement in one.statements
        if statement.startswith("CREATE MATERIALIZED VIEW")
    )


def drift_of(
    engine: Engine, migrations: Sequence[Migration] | None = None, *, cluster: str = ""
) -> tuple[str, ...]:
    """What differs from the files, one sentence each; it only makes the empty books."""
    if migrations is None:
        migrations = cluster_migrations(cluster) if cluster else read_migrations()
    engine.command(_BOOKS)
    drift, books = _drift(engine, migrations)
    return (
        *drift,
        *(f"{one.name} is not applied" for one in migrations if one.version not in books),
    )


def _drift(
    engine: Engine, migrations: Sequence[Migration]
) -> tuple[list[str], dict[int, tuple[str, str]]]:
    books = {
        int(version): (str(name), str(sha))
        for version, name, sha in engine.rows(
            "SELECT version, any(name), any(sha256) FROM migrations GROUP BY version ORDER BY version"
        )
    }
    known = {one.version: one for one in migrations}
    drift = [
        f"{name} was applied and is not among the files: this is an older Headrace"
        for version, (name, _) in books.items()
        if version not in known
    ]
    drift += [
        f"{name} was edited after it was applied: undo that, and say the change in a new file"
        for version, (name, sha) in books.items()
        if version in known and known[version].sha256 != sha
    ]
    return drift, books


def _keep_days(engine: Engine, days: int, cluster: str) -> None:
    """Set each table's time to live, where it is another."""
    shown = dict(
        engine.rows(
            "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase()"
        )
    )
    where = f" ON CLUSTER '{cluster}'" if cluster else ""
    for name in RECORD_TABLES:
        table = f"{name}_local" if cluster else name
        if name in KEPT_FOR_EVER or table not in shown:
            continue
        wanted = f"toDateTime(kafka_time) + toIntervalDay({days})"
        if days and f"TTL {wanted}" not in shown[table]:
            engine.command(f"ALTER TABLE {table}{where} MODIFY TTL {wanted}")
            engine.command(f"ALTER TABLE {table}{where} MODIFY SETTING ttl_only_drop_parts = 1")
        elif not days and "\nTTL " in shown[table].replace(" TTL ", "\nTTL "):
            engine.command(f"ALTER TABLE {table}{where} REMOVE TTL")
