"""Reading the warehouse, wherever it is: `connect(settings)` gives a `Store`.

A server when `warehouse_url` is set; else the process that owns the embedded folder, over its
HTTP port; else the folder itself, opened here and given back afterwards. All three speak
ClickHouse's SQL, read only, with `{name:Type}` parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from infra.warehouse.owner import held, owner_of
from schemas.errors import SettingsError, WarehouseAwayError, WarehouseError
from streams.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

# A question may take so long and return so much; beyond it, ClickHouse ends it and says so.
QUERY_TIMEOUT_S: Final = 60
RESULT_ROWS_MAX: Final = 1_000_000
RESULT_BYTES_MAX: Final = 512 * 1024 * 1024
QUERY_MEMORY_BYTES_MAX: Final = 4 * 1024 * 1024 * 1024
CONNECT_TIMEOUT_S: Final = 5
# A command that reads the folder itself takes seconds; so long another one waits for it.
FOLDER_TIMEOUT_S: Final = 5.0
# Settings of every reading session; `readonly` 2: no writes, but settings of its own.
READING: Final[Mapping[str, int | str]] = {
    "max_execution_time": QUERY_TIMEOUT_S,
    "max_result_rows": RESULT_ROWS_MAX,
    "max_result_bytes": RESULT_BYTES_MAX,
    "result_overflow_mode": "throw",
    "max_memory_usage": QUERY_MEMORY_BYTES_MAX,
}
_AWAY: Final = ("Connection", "connect", "timed out", "Timeout", "Max retries", "refused")
_log = logging.getLogger(__name__)


class Reader(Protocol):
    """Answers questions."""

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """The result of a query as an Arrow table."""


class Store:
    """A reading connection. `where`: for messages."""

    def __init__(self, client: Client, where: str) -> None:
        self._client = client
        self.where = where

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """The result of a query as an Arrow table; strings are strings, times are UTC.

        `parameters` fill `{name:Type}` in the query. Raises `WarehouseError` with ClickHouse's own
        first line where it refuses, and `WarehouseAwayError` where it does not answer.
        """
        try:
            return self._client.query_arrow(sql, parameters=dict(parameters or {}))
        except Exception as error:
            raise translated(error, self.where) from None


@contextmanager
def connect(settings: Settings) -> Iterator[Store]:
    """Open the warehouse for reading; raises `WarehouseError` where there is none."""
    if settings.warehouse_url:
        client = open_server(settings, {**READING, "readonly": 2})
        with closing(client):
            yield Store(client, settings.warehouse_url)
        return
    folder = warehouse_folder(settings)
    owner = owner_of(folder)
    if owner is not None and owner.port:
        there = {
            "warehouse_url": f"http://127.0.0.1:{owner.port}",
            "warehouse_password": SecretStr(owner.key),
        }
        client = open_server(settings.model_copy(update=there), {})
        with closing(client):
            yield Store(client, f"the warehouse of {owner.text()}")
        return
    if not folder.is_dir():
        raise WarehouseError(f"no warehouse in {folder} yet: `headrace warehouse run` makes one")
    with held(folder, "reading", FOLDER_TIMEOUT_S):
        client = open_folder(folder, settings.warehouse_database)
        with closing(client):
            make_read_only(client)
            yield Store(client, str(folder))


def warehouse_folder(settings: Settings) -> Path:
    """The embedded warehouse's folder."""
    return settings.home.expanduser().absolute() / "warehouse"


def open_folder(folder: Path, database: str, *, create: bool = False) -> Client:
    """ClickHouse in this process, on a folder that the caller owns (`owner.held`).

    With `create` a missing database is made. Raises `WarehouseError` where the folder has no such database or cannot be opened.
    """
    import clickhouse_connect

    _quieten()
    try:
        client = clickhouse_connect.get_client(interface="chdb", path=str(folder))
    except Exception as error:
        raise translated(error, str(folder)) from None
    try:
        if create:
            client.command(f"CREATE DATABASE IF NOT EXISTS {database}")
        client.command(f"USE {database}")
    except Exception as error:
        client.close()
        raise translated(error, str(folder)) from None
    client.database = database
    return client


def open_server(settings: Settings, session: Mapping[str, int | str]) -> Client:
    """A server's client. Raises `WarehouseAwayError`, or `WarehouseError` where it refuses."""
    import clickhouse_connect

    _quieten()
    url = urlsplit(settings.warehouse_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise SettingsError(
            f"warehouse_url: {settings.warehouse_url!r} is no http://host:port or https://host:port"
        )
    try:
        return clickhouse_connect.get_client(
            host=url.hostname,
            port=url.port or (8443 if url.scheme == "https" else 8123),
            secure=url.scheme == "https",
            username=settings.warehouse_user,
            password=settings.warehouse_password.get_secret_value(),
            database=settings.warehouse_database,
            settings=dict(session),
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=QUERY_TIMEOUT_S + 10,
            query_retries=0,
            autogenerate_session_id=False,
        )
    except Exception as error:
        raise translated(error, settings.warehouse_url) from None


def make_read_only(client: Client) -> None:
    """Bound what a session may do; it cannot be taken back."""
    for name, value in READING.items():
        client.command(f"SET {name} = '{value}'")
    client.command("SET readonly = 2")


@contextmanager
def closing(client: Client) -> Iterator[None]:
    """Close the client whatever happens."""
    try:
        yield
    finally:
        client.close()


def translated(error: Exception, where: str) -> WarehouseError:
    """Our error for one of the client's: ClickHouse's own message, on one line."""
    text = " ".join(str(error).split())
    text = text.split(" Stack trace:")[0].split(" (for url ")[0]
    text = text[text.rfind("Code: ") :][:600] if "Code: " in text else text[:600]
    name = type(error).__name__
    if "AUTHENTICATION_FAILED" in text or "Code: 516" in text or "Code: 194" in text:
        return WarehouseError(
            f"{where} refuses the user or password: set HEADRACE_WAREHOUSE_USER and HEADRACE_WAREHOUSE_PASSWORD"
        )
    if "Code: 243" in text or "No space left" in text or "NOT_ENOUGH_SPACE" in text:
        return WarehouseAwayError(f"{where} has no space left on its disk: {text}")
    if "Code:" not in text and (name == "OperationalError" or any(word in text for word in _AWAY)):
        return WarehouseAwayError(f"{where} does not answer: {text}")
    return WarehouseError(f"{where}: {text}")


def _quieten() -> None:
    # The client logs what it also raises.
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
