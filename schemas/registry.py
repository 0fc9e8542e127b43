"""A Confluent-compatible schema registry, where one is configured; else the committed lock.

With a registry its ids are used and nothing of the lock: the two number schemas independently.
Every request is bounded, and what fails says which registry failed and how.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from schemas.codec import Codec, current_schemas
from schemas.errors import IncompatibleSchemaError, SchemaError
from schemas.files import FILES, load_schema
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

# One request; with one retry a dead registry is known within about ten seconds.
TIMEOUT_S: Final = 4.0
RETRIES: Final = 1
RETRY_PAUSE_MS: Final = 250
_CONFLICT: Final = 409
_NOT_FOUND: Final = 404


def subject_of(record: str) -> str:
    """The subject of a record: `<topic>-value`. Raises `SchemaError` for one that no topic carries."""
    for topic in TOPICS:
        if topic.record == record:
            return f"{topic.name}-value"
    raise SchemaError(f"no topic carries the record {record!r}; there are {', '.join(FILES)}")


class Registry:
    """A registry's client; it is a `schemas.codec.WriterSchemas`.

    `url`: one or several addresses with commas, user and password in them where needed.
    """

    def __init__(
        self, url: str, client: SchemaRegistryClient | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.where = _without_password(url)
        self._client = client if client is not None else _client(url, timeout_s)

    def schema_of(self, schema_id: int) -> dict[str, Any] | None:
        """The schema with that id; None where the registry says there is none.

        Raises `SchemaError` when it does not answer: whether a record is readable is then open,
        and must not be decided as if it were not.
        """
        found = self._ask("schema", lambda: self._client.get_schema(schema_id))
        if found is None:
            return None
        try:
            schema = json.loads(found.schema_str)
        except (TypeError, ValueError):
            schema = None
        # Another format, such as Protobuf, or a bare type: no record of ours.
        return schema if isinstance(schema, dict) else None

    def register(self, record: str, schema: Mapping[str, Any] | None = None) -> int:
        """Register today's schema of a record, or the one given; the same schema keeps its id.

        Raises `IncompatibleSchemaError` where the registry refuses the change, else `SchemaError`.
        """
        subject, body = (
            subject_of(record),
            self._body(schema if schema is not None else load_schema(record)),
        )
        schema_id = self._ask(subject, lambda: self._client.register_schema(subject, body))
        if schema_id is None:
            raise SchemaError(
                f"the registry at {self.where} has no way to register subject {subject}"
            )
        return int(schema_id)

    def id_of(self, record: str) -> int | None:
        """The id of today's schema of a record; None where it is not registered."""
        subject, body = subject_of(record), self._body(load_schema(record))
        found = self._ask(subject, lambda: self._client.lookup_schema(subject, body))
        return None if found is None else int(found.schema_id)

    def codec(self) -> Codec:
        """A codec with the registry's ids. Raises `SchemaError` listing what is not registered."""
        ids: dict[str, int] = {}
        absent: list[str] = []
        for record in FILES:
            schema_id = self.id_of(record)
            if schema_id is None:
                absent.append(subject_of(record))
            else:
                ids[record] = schema_id
        if absent:
            raise SchemaError(
                f"the registry at {self.where} does not have today's schema of {', '.join(absent)}: "
                "run `headrace schemas register`"
            )
        schemas = current_schemas()
        return Codec(
            ids, {schema_id: (record, schemas[record]) for record, schema_id in ids.items()}, self
        )

    @staticmethod
    def _body(schema: Mapping[str, Any]) -> Any:
        from confluent_kafka.schema_registry import Schema

        return Schema(json.dumps(schema), "AVRO")

    def _ask(self, what: str, request: Any) -> Any:
        """The answer to a request; None for 404."""
        from confluent_kafka.schema_registry import SchemaRegistryError

        try:
            return request()
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                return None
            if error.http_status_code == _CONFLICT:
                raise IncompatibleSchemaError(
                    f"the registry at {self.where} refuses the change of {what}: {error.error_message}"
                ) from None
            raise SchemaError(
                f"the registry at {self.where} answers with status {error.http_status_code}: {error.error_message}"
            ) from None
        except Exception as error:  # the client passes on what its HTTP library raises
            raise SchemaError(
                f"the registry at {self.where} does not answer ({type(error).__name__}: {error}): "
                "check HEADRACE_REGISTRY_URL, or leave it empty to use the committed ids"
            ) from None


def _client(url: str, timeout_s: float) -> SchemaRegistryClient:
    try:
        # Loaded here: the HTTP client behind it takes half a second, and most runs have no registry.
        from confluent_kafka.schema_registry import SchemaRegistryClient

        return SchemaRegistryClient(
            {
                "url": url,
                "timeout": timeout_s,
                "max.retries": RETRIES,
                "retries.wait.ms": RETRY_PAUSE_MS,
                "retries.max.wait.ms": RETRY_PAUSE_MS,
            }
        )
    except ImportError as error:
        raise SchemaError(
            f"the registry client is not installed ({error}): install confluent-kafka[schemaregistry]"
        ) from None
    except (ValueError, TypeError) as error:
        raise SchemaError(f"{_without_password(url)!r} is no registry address: {error}") from None


def _without_password(url: str) -> str:
    shown = []
    for one in url.split(","):
        parts = urlsplit(one.strip())
        shown.append(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
    return ",".join(shown)


def codec_from_settings(registry_url: str) -> Codec:
    """The codec in force: ids of that registry, or, where it is empty, of the committed lock."""
    return Registry(registry_url).codec() if registry_url else Codec.from_lock()
