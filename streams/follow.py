"""Follows the `models` topic and loads what is announced, while the stream runs.

One thread reads the compacted topic from its start: the newest announcement of each model is what
counts. Loading happens on that thread; the finished recommender is handed over, to be put in
force between two batches. Whatever is wrong with an announced model is said and counted, and the
one in force stays.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka import KafkaError as ClientError

from models.contract import CONTRACT, Recommender
from schemas.codec import Codec
from schemas.errors import HeadraceError, ModelError, RecordError
from schemas.topics import MODELS

log = logging.getLogger(__name__)

POLL_TIMEOUT_S: Final = 0.25
Load = Callable[[Path], Recommender]
Install = Callable[[Recommender | None], None]


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a `ModelAnnouncement` says of where a model is and what it must be."""

    model: str
    version: str
    folder: Path
    sha256: str


def read_announcement(codec: Codec, value: bytes) -> Announcement:
    """The announcement in a record. Raises `RecordError`, or `ModelError` for a foreign contract."""
    record = codec.decode("ModelAnnouncement", value)
    if record["contract"] != CONTRACT:
        raise ModelError(
            f"model {record['model']}@{record['version']} is made for contract {record['contract']}, "
            f"this worker has {CONTRACT}: upgrade the workers or export the model again"
        )
    return Announcement(
        record["model"], record["version"], folder_of(record["uri"]), record["sha256"]
    )


def folder_of(uri: str) -> Path:
    """The folder that a model's uri names: a path or file:// address. Raises `ModelError`."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        raise ModelError(f"model uri {uri!r}: only folders (a path or file://) can be loaded")
    return Path(parts.path)


def verify(announcement: Announcement, manifest_name: str = "manifest.json") -> None:
    """Check the manifest's SHA-256, which vouches for the other files. Raises `ModelError`."""
    path = announcement.folder / manifest_name
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"model {announcement.model}@{announcement.version}: {error}") from None
    if found != announcement.sha256:
        raise ModelError(
            f"model {announcement.model}@{announcement.version}: the manifest in {announcement.folder} "
            f"has SHA-256 {found[:12]}…, announced was {announcement.sha256[:12]}…"
        )


class ModelFollower:
    """The following thread; `install` is called on it with each model loaded, None for withdrawn."""

    def __init__(
        self,
        config: dict[str, Any],
        codec: Codec,
        load: Load,
        install: Install,
        failed: Callable[[str], None],
    ) -> None:
        self._config = config | {"group.id": "headrace-models", "enable.partition.eof": True}
        self._codec = codec
        self._load = load
        self._install = install
        self._failed = failed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-models", daemon=True)

    def start(self) -> None:
        """Start following."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop following."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        consumer = Consumer(self._config)
        consumer.assign([TopicPartition(MODELS.name, 0, OFFSET_BEGINNING)])
        # Up to the topic's end only the last announcement matters: earlier ones are not loaded.
        pending: bytes | None = None
        seen = False
        try:
            while not self._stopping.is_set():
                message = consumer.poll(POLL_TIMEOUT_S)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    pending, seen = message.value(), True
                elif error.code() == ClientError._PARTITION_EOF and seen:
                    seen = False
                    self._take(pending)
        finally:
            consumer.close()

    def _take(self, value: bytes | None) -> None:
        if value is None:
            self._install(None)
            return
        try:
            announcement = read_announcement(self._codec, value)
            verify(announcement)
            recommender = self._load(announcement.folder)
        except RecordError as error:
            self._refuse(f"an announcement on {MODELS.name} cannot be read: {error}")
        except HeadraceError as error:
            self._refuse(f"{error}; the model in force stays")
        else:
            self._install(recommender)

    def _refuse(self, reason: str) -> None:
        log.error("model refused: %s", reason)
        self._failed(reason)
