"""What to try after the demo: send a click with any client, read a shopper's recommendations."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from schemas.codec import Codec
from schemas.event_ids import new_event_id
from schemas.topics import CLICKS, RECOMMENDATIONS
from streams.kafka import PARTITIONER

CLICK_FILE = "click.avro"


def write_click(codec: Codec, path: Path, user: str, item: str, now_ms: int) -> None:
    """A click as it travels, for clients that know nothing of Avro."""
    click = {
        "event_id": new_event_id(),
        "user_id": user,
        "item_id": item,
        "event_type": "view",
        "ts": now_ms,
    }
    path.write_bytes(codec.encode("Click", click))


def howto(
    bootstrap: str, user: str, item: str, click: Path, *, up: bool, local: bool
) -> Iterator[str]:
    """Lines to copy. `up`: Kafka still runs; `local`: it is the local region's."""
    who, where = shlex.quote(user), shlex.quote(bootstrap)
    at = f" --bootstrap {where}" if not local else ""
    yield "Try it yourself" + ("" if up else ", once Kafka runs again:")
    if not up:
        yield "  headrace up                                  # the data of this run is still there"
    yield f"  headrace worker{at}                              # in another terminal"
    yield f"  headrace recommendations tail --user {who}{at}   # in a third one"
    yield f"  headrace recommendations get {who}{at}"
    yield "Send a click: from Python,"
    yield "  from schemas.client import ClickProducer"
    yield f"  with ClickProducer({bootstrap!r}) as clicks:"
    yield f'      clicks.send(user_id={user!r}, item_id={item!r}, event_type="view")'
    yield "or with any Kafka client (key: the shopper; value: Avro, as in this file), such as kcat:"
    yield f"  kcat -P -b {where} -t {CLICKS.name} -X topic.partitioner={PARTITIONER} -k {who} {shlex.quote(str(click))}"
    yield f"  kcat -C -b {where} -t {RECOMMENDATIONS.name} -o -3 -e -f '%k: %S bytes at %T\\n'"
