"""A ClickHouse server for tests: chdb in a process of its own behind ClickHouse's HTTP form.

    python tests/clickhouse_fake.py FOLDER PORT PASSWORD

What a real server does and this one does otherwise: `input(...)` with the data of the request
becomes `file(...)`, since chdb takes no binary data with a query; one query at a time.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

START_TIMEOUT_S = 30.0
_INPUT = re.compile(r"input\((\'(?:[^\'\\]|\\.)*\')\)(.*) FORMAT Avro$", re.DOTALL)


def handler(connection: Any, folder: Path, password: str) -> type[BaseHTTPRequestHandler]:
    """Answers queries with that password."""

    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(b"")

        def do_POST(self) -> None:
            self.answer(self.rfile.read(int(self.headers["Content-Length"])))

        def answer(self, body: bytes) -> None:
            url = urlsplit(self.path)
            given = dict(parse_qsl(url.query, keep_blank_values=True))
            if url.path == "/ping":
                self.reply(200, b"Ok.\n")
                return
            if f":{password}" != self.credentials():
                self.reply(
                    403,
                    b"Code: 516. DB::Exception: default: Authentication failed. (AUTHENTICATION_FAILED)\n",
                )
                return
            try:
                with turn:
                    result = self.run(given, body)
                self.reply(200, result)
            except Exception as error:
                self.reply(500, f"{error}\n".encode())

        def credentials(self) -> str:
            scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
            if scheme == "Basic":
                return ":" + base64.b64decode(encoded).decode().partition(":")[2]
            return ":" + self.headers.get("X-ClickHouse-Key", "")

        def run(self, given: dict[str, str], body: bytes) -> bytes:
            sql, data = (given["query"], body) if "query" in given else (body.decode(), b"")
            connection.query(f"USE {given.get('database', 'default')}")
            found = _INPUT.search(sql)
            if found:
                path = folder.with_name("sent.avro")
                path.write_bytes(data)
                sql = f"{sql[: found.start()]}file('{path}', 'Avro', {found[1]}){found[2]}"
            parameters = {k[6:]: v for k, v in given.items() if k.startswith("param_")}
            result: bytes = connection.query(sql, "TabSeparated", params=parameters).bytes()
            return result

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def fake_clickhouse(folder: Path, port: int, password: str) -> Iterator[None]:
    """Run one on a folder of its own; it is killed at the end, as a server may be."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder), str(port), password], env={**os.environ}
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, "the fake ClickHouse has ended"
                assert time.monotonic() < deadline, f"no fake ClickHouse in {START_TIMEOUT_S} s"
                time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait(10)


def main() -> None:
    import chdb

    folder, port, password = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    connection = chdb.connect(str(folder))
    ThreadingHTTPServer(("127.0.0.1", port), handler(connection, folder, password)).serve_forever()


if __name__ == "__main__":
    main()
