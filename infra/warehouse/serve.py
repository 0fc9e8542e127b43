"""The owner's HTTP port: ClickHouse's own query form on loopback, reading only.

    curl 'http://127.0.0.1:PORT/?query=SELECT+count()+FROM+clicks'

The query is in `query`, in the body, or both, as with a ClickHouse server; `param_NAME` fills
`{NAME:Type}`, `default_format` or `X-ClickHouse-Format` names the format where the query does not.
clickhouse-connect, Grafana's data source and `store.connect` can talk to it. Queries are run one at
a time, on a session of their own that cannot write, with bounds on time, memory and result.

Other users of the machine can reach loopback too, so a password is asked for: the key in the lock
file, which only the owner's user can read, or the setting `warehouse_password`.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from infra.warehouse.store import READING
from schemas.errors import WarehouseError

Ask = Callable[[str, dict[str, str]], bytes]

QUERY_BYTES_MAX: Final = 1024 * 1024
# Waiting for the queries before: their own time limit, and a little.
TURN_TIMEOUT_S: Final = 75.0
SOCKET_TIMEOUT_S: Final = 90.0
CONNECTIONS_MAX: Final = 64
DEFAULT_FORMAT: Final = "TabSeparated"
_FORMAT: Final = re.compile(
    r"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b.*)?;?\s*$", re.IGNORECASE | re.DOTALL
)
# Text in quotes, quoted names and comments: none of it is a word of the query.
_QUOTED: Final = re.compile(
    r"'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"|--[^\n]*|\#[ !][^\n]*|/\*.*?\*/",
    re.DOTALL,
)
_QUESTIONS: Final = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"})
_FILES: Final = re.compile(
    r"\bINTO\s+OUTFILE\b|\b(?:file|fileCluster|executable)\s*\(", re.IGNORECASE
)
_CODE: Final = re.compile(r"Code: (\d+)")


class Answers:
    """Runs queries for other processes, by `ask`: query with its format, parameters -> bytes.

    `lock`: held while ClickHouse works, shared with the sink's own inserts.
    """

    def __init__(self, ask: Ask, lock: threading.RLock, user: str, password: str) -> None:
        self.key = secrets.token_urlsafe(24)
        self._ask = ask
        self._lock = lock
        self._user = user
        self._password = password

    def allowed(self, user: str, password: str) -> bool:
        """Whether these may ask."""
        given = password.encode()
        if hmac.compare_digest(given, self.key.encode()):
            return True
        known = bool(self._password) and user == self._user
        return known and hmac.compare_digest(given, self._password.encode())

    def answer(self, sql: str, parameters: dict[str, str], form: str) -> tuple[bytes, str]:
        """The result's bytes and its format. Raises `WarehouseError`."""
        check_reading(sql)
        found = _FORMAT.search(sql)
        form = found.group(1) if found else form
        if not re.fullmatch(r"\w+", form):
            raise WarehouseError(f"Code: 73. DB::Exception: Unknown format {form[:50]!r}")
        if not self._lock.acquire(timeout=TURN_TIMEOUT_S):
            raise WarehouseError("Code: 202. DB::Exception: Too many queries: others come first")
        try:
            sql = sql.rstrip().rstrip(";")
            text = sql if found else f"{sql}\nFORMAT {form}"
            body: bytes = self._ask(text, parameters)
        except Exception as error:
            raise WarehouseError(str(error)) from None
        finally:
            self._lock.release()
        return body, form


def check_reading(sql: str) -> None:
    """Refuse what is no single question: what a read-only session of ClickHouse still lets through.

    Such a session cannot change tables, but it could write and read files. Raises `WarehouseError`.
    """
    bare = _QUOTED.sub(lambda found: " '' " if found[0][0] in "'`\"" else " ", sql)
    words = bare.split(None, 1)
    first = words[0].upper().lstrip("(") if words else ""
    if first not in _QUESTIONS:
        raise WarehouseError(
            f"Code: 164. DB::Exception: only reading here, and not {first[:40]!r}. (READONLY)"
        )
    if ";" in bare.rstrip().rstrip(";"):
        raise WarehouseError("Code: 62. DB::Exception: one question at a time. (SYNTAX_ERROR)")
    if _FILES.search(bare):
        raise WarehouseError("Code: 164. DB::Exception: no files here. (READONLY)")


@contextmanager
def asking(folder: Path, database: str) -> Iterator[Ask]:
    """A reading session of the folder's engine, which this process has open already.

    chdb's own connection, since parameters come as ClickHouse's text and must stay that.
    """
    import chdb

    connection = chdb.connect(str(folder))
    try:
        connection.query(f"USE {database}")
        for name, value in READING.items():
            connection.query(f"SET {name} = '{value}'")
        connection.query("SET readonly = 2")
        yield lambda sql, parameters: connection.query(
            sql, DEFAULT_FORMAT, params=parameters
        ).bytes()
    finally:
        connection.close()


def serve(answers: Answers, port: int) -> ThreadingHTTPServer:
    """Start to answer on loopback; the server's `server_port` is where. Raises `WarehouseError`."""
    handler = type("Handler", (_Handler,), {"answers": answers})
    try:
        server = _Server(("127.0.0.1", port), handler)
    except OSError as error:
        raise WarehouseError(
            f"port {port} on loopback cannot be used ({error}): set HEADRACE_WAREHOUSE_PORT"
        ) from None
    threading.Thread(target=server.serve_forever, name="warehouse-http", daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = CONNECTIONS_MAX


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SOCKET_TIMEOUT_S
    server_version = "headrace"
    answers: Answers

    def do_GET(self) -> None:
        """`/ping`, `/replicas_status`, or a query in the address."""
        self._handle(b"")

    def do_POST(self) -> None:
        """A query in the address, the body, or begun in one and ended in the other."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > QUERY_BYTES_MAX:
            self.close_connection = True
            self._send(
                413,
                f"Code: 62. DB::Exception: Query of more than {QUERY_BYTES_MAX} bytes, or of unknown length\n".encode(),
            )
            return
        self._handle(self.rfile.read(int(length)))

    def _handle(self, body: bytes) -> None:
        url = urlsplit(self.path)
        if url.path in ("/ping", "/replicas_status"):
            self._send(200, b"Ok.\n")
            return
        if url.path != "/":
            self._send(404, b"There is no handle here; ask / or /ping\n")
            return
        given = dict(parse_qsl(url.query, keep_blank_values=True))
        if not self.answers.allowed(*self._credentials(given)):
            self._send(
                403,
                b"Code: 516. DB::Exception: Authentication failed. (AUTHENTICATION_FAILED)\n",
                code="516",
            )
            return
        try:
            sql = "\n".join(
                part for part in (given.get("query", ""), body.decode()) if part.strip()
            )
            if not sql:
                self._send(200, b"Ok.\n")
                return
            parameters = {
                name.removeprefix("param_"): text
                for name, text in given.items()
                if name.startswith("param_")
            }
            form = given.get("default_format") or self.headers.get("X-ClickHouse-Format")
            result, form = self.answers.answer(sql, parameters, form or DEFAULT_FORMAT)
        except UnicodeDecodeError:
            self._send(400, b"Code: 62. DB::Exception: The query is no UTF-8\n", code="62")
        except WarehouseError as error:
            found = _CODE.search(str(error))
            code = found.group(1) if found else "1002"
            self._send(500, f"{error}\n".encode(), code=code)
        else:
            self._send(200, result, form=form)

    def _credentials(self, given: dict[str, str]) -> tuple[str, str]:
        user = given.get("user") or self.headers.get("X-ClickHouse-User") or "default"
        password = given.get("password") or self.headers.get("X-ClickHouse-Key") or ""
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(encoded).decode().partition(":")
            except ValueError:
                return "", ""
        return user, password

    def _send(self, status: int, body: bytes, *, form: str = "", code: str = "") -> None:
        self.send_response(status)
        self.send_header(
            "Content-Type", "application/octet-stream" if form else "text/plain; charset=UTF-8"
        )
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Timezone", "UTC")
        self.send_header("X-ClickHouse-Summary", json.dumps({"read_rows": "0"}))
        if form:
            self.send_header("X-ClickHouse-Format", form)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing: the sink's log is about the sink."""
