"""What to try after the demo: send a click with any client, read a shopper's recommendations."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas.codec import Codec
from schemas.event_ids import new_event_id
from schemas.topics import CLICKS, RECOMMENDATIONS
from streams.kafka import PARTITIONER

CLICK_FILE: Final = "click.avro"


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


def command() -> str:
    """How this shell calls `headrace`: by name where it is on the path, else by its place."""
    if shutil.which("headrace"):
        return "headrace"
    beside = Path(sys.executable).with_name("headrace")
    if beside.is_file():
        return _quoted(beside)
    return f"{_quoted(Path(sys.executable))} -m infra.cli"


def _quoted(path: Path) -> str:
    """A path as a shell in the working folder takes it, the shorter the better."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def howto(
    bootstrap: str, user: str, item: str, click: Path, *, up: bool, own_home: Path | None
) -> Iterator[str]:
    """Lines to copy. `up`: Kafka still runs; `own_home`: of the demo's own, else None."""
    headrace, python = command(), _quoted(Path(sys.executable))
    who, where = shlex.quote(user), shlex.quote(bootstrap)
    at = "" if own_home else f" --bootstrap {where}"
    if own_home:
        kafka = f"Kafka runs at {bootstrap}" if up else "Kafka is stopped, its data is kept"
        yield f"Try it yourself. {kafka}; in each terminal, first:"
        yield f"  export HEADRACE_HOME={shlex.quote(str(own_home))}"
    else:
        yield f"Try it yourself. Kafka runs at {bootstrap}."
    yield (
        "Start a worker, in a terminal of its own:"
        if up
        else "Start Kafka, and a worker in a terminal of its own:"
    )
    if not up:
        yield f"  {headrace} up"
    yield f"  {headrace} worker{at}"
    yield "Read what a shopper was offered:"
    yield f"  {headrace} recommendations get {who}{at}"
    yield f"  {headrace} recommendations tail --user {who}{at}"
    yield "Send a click, from Python:"
    yield f"  {python} - <<'END'"
    yield "  from schemas.client import ClickProducer"
    yield f"  with ClickProducer({bootstrap!r}) as clicks:"
    yield f"      clicks.send(user_id={user!r}, item_id={item!r}, event_type='view')"
    yield "  END"
    yield "or with any Kafka client, such as kcat (key: the shopper; value: Avro, as in this file):"
    sent = f"-t {CLICKS.name} -k {who} -X partitioner={PARTITIONER} {_quoted(click)}"
    yield f"  kcat -P -b {where} {sent}"
    read = f"-t {RECOMMENDATIONS.name} -o -3 -e -q -f '%k: %S bytes at %T\\n'"
    yield f"  kcat -C -b {where} {read}"
    if own_home:
        yield "Stop Kafka; --wipe removes its data too:"
        yield f"  {headrace} down"
