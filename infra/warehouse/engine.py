"""The writing side of ClickHouse, embedded or a server, behind one small class.

Everything goes through clickhouse-connect's client, whose two back ends are the same to us. Errors
come out as `WarehouseError`, or `WarehouseAwayError` where the same may work later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.warehouse.owner import Ownership, held
from infra.warehouse.store import (
    closing,
    open_folder,
    open_server,
    translated,
    warehouse_folder,
)
from schemas.errors import WarehouseError
from streams.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

# How long a starting owner waits for a command that is reading the folder.
OWNER_TIMEOUT_S: Final = 10.0


class WriteEngine:
    """Statements and inserts on one connection; one thread at a time.

    `spool`: where an embedded ClickHouse finds what is inserted. `lock` is held during each call, and is shared with whoever else uses the embedded engine.
    """

    def __init__(
        self,
        client: Client,
        where: str,
        spool: Path | None = None,
        lock: threading.RLock | None = None,
    ) -> None:
        self.where = where
        # The thread that holds it for several steps (`at_once`) takes it again in each.
        self.lock = lock or threading.RLock()
        self._client = client
        self.spool = spool

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement without a result."""
        try:
            with self.lock:
                self._client.command(sql, parameters=dict(parameters or {}))
        except Exception as error:
            raise translated(error, self.where) from None

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        try:
            with self.lock:
                found = self._client.query(sql, parameters=dict(parameters or {})).result_rows
        except Exception as error:
            raise translated(error, self.where) from None
        return [tuple(row) for row in found]

    @contextmanager
    def at_once(self) -> Iterator[Callable[[str], None]]:
        """Several statements, with nobody's query in between; they are not undone on a fault."""
        with self.lock:
            yield self.command

    def insert_select(
        self, insert: str, select: str, structure: str, data: bytes, settings: Mapping[str, Any]
    ) -> None:
        """Insert what `select` makes of an Avro file, which it names `{block}`.

        An embedded ClickHouse reads it from a file beside its folder, a server from the request.
        """
        options = ", ".join(f"{name} = {_literal(value)}" for name, value in settings.items())
        try:
            with self.lock:
                if self.spool is None:
                    select = select.replace("{block}", f"input({_literal(structure)})")
                    self._client.command(
                        f"{insert} {select} SETTINGS {options} FORMAT Avro", data=data
                    )
                    return
                self.spool.write_bytes(data)
                try:
                    block = f"file({_literal(str(self.spool))}, 'Avro', {_literal(structure)})"
                    select = select.replace("{block}", block)
                    self._client.command(f"{insert} {select} SETTINGS {options}")
                finally:
                    self.spool.unlink(missing_ok=True)
        except Exception as error:
            raise translated(error, self.where) from None


def _literal(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@contextmanager
def open_engine(
    settings: Settings, what: str, timeout_s: float = OWNER_TIMEOUT_S
) -> Iterator[tuple[WriteEngine, Ownership | None]]:
    """Open the warehouse for writing, its database made where it is missing.

    An embedded folder is owned as long as the context lasts; `Ownership` is None for a server.
    """
    if settings.warehouse_url:
        first = open_server(settings.model_copy(update={"warehouse_database": "default"}), {})
        with closing(first):
            on_cluster = (
                f" ON CLUSTER '{settings.warehouse_cluster}'" if settings.warehouse_cluster else ""
            )
            WriteEngine(first, settings.warehouse_url).command(
                f"CREATE DATABASE IF NOT EXISTS {settings.warehouse_database}{on_cluster}"
            )
        client = open_server(settings, {})
        with closing(client):
            yield WriteEngine(client, settings.warehouse_url), None
        return
    folder = warehouse_folder(settings)
    with held(folder, what, timeout_s) as ownership:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WarehouseError(f"the warehouse folder {folder} cannot be made: {error}") from None
        client = open_folder(folder, settings.warehouse_database, create=True)
        with closing(client):
            yield WriteEngine(client, str(folder), folder.with_name("warehouse.batch")), ownership


@contextmanager
def beside(settings: Settings, engine: WriteEngine, database: str) -> Iterator[WriteEngine]:
    """Another database of the same ClickHouse, for writing."""
    if settings.warehouse_url:
        client = open_server(settings.model_copy(update={"warehouse_database": database}), {})
    else:
        client = open_folder(warehouse_folder(settings), database)
    with closing(client):
        yield WriteEngine(client, engine.where, engine.spool, engine.lock)
