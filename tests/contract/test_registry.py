"""The registry client against a real HTTP server that speaks the part of Confluent's API it uses."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from schemas.codec import Codec, current_schemas
from schemas.errors import IncompatibleSchemaError, RecordError, SchemaError
from schemas.files import FILES
from schemas.registry import Registry, codec_from_settings, subject_of

CLICK = {
    "event_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "user_id": "u",
    "item_id": "i",
    "event_type": "view",
    "ts": 1_700_000_000_000,
}


@dataclass
class Store:
    """What the server keeps. Ids start at 100, so that they are not those of the lock."""

    schemas: dict[int, Any] = field(default_factory=dict)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    broken_answers: int = 0
    delay_s: float = 0.0
    refuse: bool = False

    def add(self, subject: str, schema: Any) -> int:
        known = next((number for number, one in self.schemas.items() if one == schema), None)
        number = known if known is not None else 100 + len(self.schemas)
        self.schemas[number] = schema
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number


def handler_of(store: Store) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            # A client that has given up is part of the tests.
            with contextlib.suppress(BrokenPipeError):
                self._send(status, content)

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _missing(self, code: int) -> None:
            self._answer(404, {"error_code": code, "message": "not found"})

        def _begin(self) -> bool:
            store.requests.append(f"{self.command} {urlsplit(self.path).path}")
            time.sleep(store.delay_s)
            if store.broken_answers:
                store.broken_answers -= 1
                self._answer(500, {"error_code": 50001, "message": "the store is away"})
                return False
            return True

        def do_GET(self) -> None:
            parts = urlsplit(self.path).path.strip("/").split("/")
            if not self._begin():
                return
            number = int(parts[2])
            if number not in store.schemas:
                self._missing(40403)
            else:
                self._answer(200, {"schema": json.dumps(store.schemas[number])})

        def do_POST(self) -> None:
            parts = urlsplit(self.path).path.strip("/").split("/")
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._begin():
                return
            schema, subject = json.loads(body["schema"]), parts[1]
            if parts[-1] == "versions":
                if store.refuse:
                    self._answer(
                        409, {"error_code": 409, "message": "READER_FIELD_MISSING_DEFAULT_VALUE"}
                    )
                else:
                    self._answer(200, {"id": store.add(subject, schema)})
                return
            number = next(
                (one for one in store.subjects.get(subject, []) if store.schemas[one] == schema),
                None,
            )
            if number is None:
                self._missing(40403)
            else:
                version = store.subjects[subject].index(number) + 1
                self._answer(
                    200,
                    {
                        "subject": subject,
                        "id": number,
                        "version": version,
                        "schema": json.dumps(schema),
                    },
                )

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler


@pytest.fixture
def served() -> Iterator[tuple[str, Store]]:
    store = Store()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(store))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", store
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def test_registering_is_repeatable(served: tuple[str, Store]) -> None:
    url, store = served
    ids = [Registry(url).register(record) for record in FILES]
    assert (
        ids
        == [Registry(url).register(record) for record in FILES]
        == list(range(100, 100 + len(FILES)))
    )
    assert set(store.subjects) == {subject_of(record) for record in FILES}
    assert "clicks-value" in store.subjects


def test_its_ids_are_used_and_nothing_of_the_lock(served: tuple[str, Store]) -> None:
    url, store = served
    for record in reversed(FILES):
        Registry(url).register(record)
    codec = codec_from_settings(url)
    value = codec.encode("Click", CLICK)
    assert int.from_bytes(value[1:5], "big") == store.subjects["clicks-value"][0]
    assert codec.decode("Click", value)["item_id"] == "i"
    locks = Codec.from_lock().encode("Click", CLICK)
    assert locks[1:5] != value[1:5]
    with pytest.raises(RecordError, match="schema-id: no schema has the id 1"):
        codec.decode("Click", locks)


def test_without_a_registry_the_lock_is_used() -> None:
    assert codec_from_settings("").ids == Codec.from_lock().ids


def test_schemas_that_are_not_registered_are_all_named(served: tuple[str, Store]) -> None:
    url, _ = served
    Registry(url).register("Click")
    with pytest.raises(
        SchemaError,
        match=r"does not have today's schema of catalog-value, .*: run `headrace schemas register`",
    ):
        codec_from_settings(url)


def test_another_version_is_fetched_once_and_read(served: tuple[str, Store]) -> None:
    url, store = served
    for record in FILES:
        Registry(url).register(record)
    older = json.loads(json.dumps(current_schemas()["Click"]))
    older["fields"].pop()
    number = store.add("clicks-value", older)
    reader = codec_from_settings(url)
    writer = Codec({"Click": number}, {number: ("Click", older)})
    value = b"\0" + number.to_bytes(4, "big") + writer.encode("Click", CLICK)[5:-1]
    before = len(store.requests)
    for _ in range(3):
        assert reader.decode("Click", value)["quantity"] is None
    assert store.requests[before:] == [f"GET /schemas/ids/{number}"]


def test_unknown_ids_are_none_and_asked_for_once(served: tuple[str, Store]) -> None:
    url, store = served
    assert Registry(url).schema_of(4_000) is None
    codec = Codec(Codec.from_lock().ids, {}, Registry(url))
    before = len(store.requests)
    for _ in range(3):
        with pytest.raises(RecordError, match="schema-id"):
            codec.decode("Click", b"\0\0\0\x0f\xa0body")
    assert len(store.requests) == before + 1


def test_schemas_that_are_no_records_are_none(served: tuple[str, Store]) -> None:
    url, store = served
    store.schemas[7] = "string"
    assert Registry(url).schema_of(7) is None


def test_a_refused_change_says_so(served: tuple[str, Store]) -> None:
    url, store = served
    store.refuse = True
    with pytest.raises(
        IncompatibleSchemaError, match="refuses the change of clicks-value: READER_FIELD"
    ):
        Registry(url).register("Click")


def test_one_broken_answer_is_survived_and_more_are_told(served: tuple[str, Store]) -> None:
    url, store = served
    store.broken_answers = 1
    assert Registry(url).register("Click") == 100
    store.broken_answers = 10
    with pytest.raises(SchemaError, match="answers with status 500: the store is away"):
        Registry(url).register("Item")


def test_a_slow_registry_is_given_up(served: tuple[str, Store]) -> None:
    url, store = served
    store.delay_s = 1.0
    start_s = time.monotonic()
    with pytest.raises(SchemaError, match="does not answer"):
        Registry(url, timeout_s=0.2).schema_of(1)
    assert time.monotonic() - start_s < 5


def test_a_dead_registry_is_told_without_the_password() -> None:
    with pytest.raises(SchemaError) as caught:
        codec_from_settings("http://shop:secret@127.0.0.1:9")
    assert "http://127.0.0.1:9 does not answer" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "HEADRACE_REGISTRY_URL" in str(caught.value)


def test_whatever_the_registry_does_a_readable_record_is_not_called_unreadable() -> None:
    """A dead registry is an error of the system, not of the record: it must not be dead-lettered."""
    codec = Codec(Codec.from_lock().ids, {}, Registry("http://127.0.0.1:9"))
    with pytest.raises(SchemaError):
        codec.decode("Click", b"\0\0\0\x0f\xa0body")


def test_addresses_and_records_that_are_none() -> None:
    with pytest.raises(SchemaError, match="no registry address"):
        Registry("ftp://x")
    with pytest.raises(SchemaError, match="no topic carries"):
        subject_of("Nothing")
