"""Which model is in force: announcements on the `models` topic, which workers follow.

The topic is compacted and keyed by model name; an announcement without a value withdraws its
model, and workers go back to the tiers that need none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException, Message, Producer

from models.folder import MANIFEST, load_manifest
from schemas.codec import Codec
from schemas.errors import DeliveryError, KafkaError, ModelError, RecordError
from schemas.topics import MODELS
from streams.follow import folder_of
from streams.readback import read_topic
from streams.topics_admin import cluster_metadata

DELIVERY_TIMEOUT_S: Final = 15.0
Record = dict[str, Any]


def announce(config: dict[str, Any], codec: Codec, folder: Path, now_ms: int) -> Record:
    """Announce the model in `folder` to all workers; returns the `ModelAnnouncement`.

    `config`: a client's; `folder`: where the workers find it too. Returns when all in-sync
    replicas have it. Raises `ModelError` for a folder that is none, `DeliveryError`.
    """
    folder = folder.expanduser().resolve()
    manifest = load_manifest(folder)
    if folder_of(str(folder)) != folder:
        raise ModelError(f"{folder} has a character that means something in a uri: rename it")
    record: Record = {
        "model": manifest.name,
        "version": manifest.version,
        "uri": str(folder),
        "sha256": hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest(),
        "contract": manifest.contract,
        "metric_names": list(manifest.metrics),
        "metric_values": list(manifest.metrics.values()),
        "announced_at": now_ms,
    }
    _send(config, manifest.name, codec.encode("ModelAnnouncement", record))
    return record


def withdraw(config: dict[str, Any], codec: Codec, name: str) -> None:
    """Take back the announcement of the model `name`. Raises `ModelError` where there is none."""
    found = announced(config, codec)
    if name not in found:
        known = ", ".join(found) or "none"
        raise ModelError(f"no model {name!r} is announced; announced are: {known}")
    _send(config, name, None)


def announced(config: dict[str, Any], codec: Codec) -> dict[str, Record | None]:
    """Model name -> its announcement, the newest last; None for one that cannot be read."""
    found: dict[str, Record | None] = {}
    for message in read_topic(_reading(config), MODELS.name):
        name = (message.key() or b"").decode("utf-8", "replace")
        found.pop(name, None)
        value = message.value()
        if value is not None:
            try:
                found[name] = codec.decode("ModelAnnouncement", value)
            except RecordError:
                found[name] = None
    return found


def _reading(config: dict[str, Any]) -> dict[str, Any]:
    # The client requires a group; none is joined.
    return config | {"group.id": "headrace-announce", "enable.auto.commit": False, "log_level": 0}


def _send(config: dict[str, Any], name: str, value: bytes | None) -> None:
    faults: list[str] = []

    def on_delivery(error: ClientError | None, message: Message) -> None:
        if error is not None:
            faults.append(error.str())

    producer = Producer(
        config
        | {
            "acks": "all",
            "enable.idempotence": True,
            "delivery.timeout.ms": int(1000 * DELIVERY_TIMEOUT_S),
            "log_level": 0,
        }
    )
    where = str(config["bootstrap.servers"])
    found = cluster_metadata(producer, where).topics.get(MODELS.name)
    if found is None or found.error is not None:
        raise KafkaError(f"no topic {MODELS.name} at {where}: run `headrace topics create`")
    try:
        producer.produce(MODELS.name, value, name.encode(), on_delivery=on_delivery)
        left = producer.flush(DELIVERY_TIMEOUT_S + 1)
    except KafkaException as error:
        raise DeliveryError(f"the model {name} was not announced: {error.args[0].str()}") from None
    if faults or left:
        reason = faults[0] if faults else f"no answer within {DELIVERY_TIMEOUT_S:.0f} s"
        raise DeliveryError(f"the model {name} was not announced: {reason}")
