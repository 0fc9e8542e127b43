"""ClickHouse reads the topics itself: runs `infra/clickhouse/cluster/kafka_engine.sql` in chdb.

    python tests/kafka_engine.py BOOTSTRAP FOLDER CLICKS ANSWERS UNREADABLE

A process of its own, since chdb with Kafka's engine does not end cleanly. The schema registry that
AvroConfluent asks is the committed lock. Prints `fine` when the tables have those counts.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0


def registry() -> int:
    """The port of a registry that knows the lock's ids."""
    from schemas.files import read_lock

    schemas = {one.schema_id: one.schema for one in read_lock()}

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = int(self.path.partition("?")[0].rpartition("/")[2])
            body = json.dumps({"schema": json.dumps(schemas[number])}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def main() -> None:
    import chdb

    from infra.warehouse.migrate import FOLDER, read_migrations, statements_of

    bootstrap, folder = sys.argv[1:3]
    expected = [int(text) for text in sys.argv[3:]]
    connection = chdb.connect(folder)
    connection.query("CREATE DATABASE headrace")
    connection.query("USE headrace")
    text = (FOLDER / "cluster" / "kafka_engine.sql").read_text()
    text = text.replace("@brokers@", bootstrap).replace("@region@", "east")
    text = text.replace("@registry@", f"http://127.0.0.1:{registry()}")
    statements = [one for migration in read_migrations() for one in migration.statements]
    for statement in (*statements, *statements_of(text)):
        try:
            connection.query(statement)
        except Exception as error:
            # chdb makes the table of Kafka's engine, reads it, and says this all the same.
            if "Shutdown was called" not in str(error):
                raise
    asked = [
        "SELECT uniqExact(event_id) FROM clicks",
        "SELECT uniqExact(event_id) FROM recommendations",
        "SELECT count() FROM unreadable FINAL",
    ]
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        found = [int(connection.query(sql, "TSV").bytes()) for sql in asked]
        if found == expected:
            break
        if time.monotonic() > deadline:
            sys.stdout.write(f"{found} after {TIMEOUT_S} s\n")
            break
        time.sleep(0.5)
    (sums,) = connection.query("SELECT sum(clicks) FROM clicks_minute", "TSV").bytes().splitlines()
    if found == expected and int(sums) == expected[0]:
        sys.stdout.write("fine\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
