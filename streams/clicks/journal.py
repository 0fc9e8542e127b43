"""What became of each click: the record that drills and tests judge a run by.

JSON lines, one a click, in the order in which outcomes became known: event_id, user_id, item_id,
event_type, ts, outcome, partition, offset. Outcomes are `ok` (acknowledged by all in-sync
replicas), `refused` (Kafka said no, it is not in the topic) and `unknown` (it may be there or
not). Clicks of a run that was killed have no line: they are unknown too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

from schemas.errors import SourceError

Outcome = Literal["ok", "refused", "unknown"]

# So that a killed run has on disk what it knew a moment before.
FLUSH_INTERVAL_S: Final = 0.5
_BUFFER_BYTES: Final = 256 * 1024


class Journal:
    """An open journal; a context manager. Raises `SourceError` where the file cannot be written."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            self._file = path.open("w", encoding="utf-8", buffering=_BUFFER_BYTES)
        except OSError as error:
            raise SourceError(f"the journal {path} cannot be written: {error.strerror}") from None
        self._clock = clock
        self._flush_at_s = clock() + FLUSH_INTERVAL_S

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, head: str, outcome: Outcome, partition: int | None, offset: int | None) -> None:
        """One click's outcome; `head` is what `journal_heads` made of the click."""
        where = "null" if partition is None else partition
        at = "null" if offset is None else offset
        self._file.write(
            f'{head}, "outcome": "{outcome}", "partition": {where}, "offset": {at}}}\n'
        )

    def tick(self) -> None:
        """Hand what was written to the system, now and then."""
        if self._clock() >= self._flush_at_s:
            self._file.flush()
            self._flush_at_s = self._clock() + FLUSH_INTERVAL_S


def journal_head(event_id: bytes, user: bytes, item: bytes, event_type: str, ts: int) -> str:
    """The part of a line that is known before the click is sent, without its closing brace."""
    return (
        f'{{"event_id": "{event_id.decode()}", "user_id": {json.dumps(user.decode())}, '
        f'"item_id": {json.dumps(item.decode())}, "event_type": "{event_type}", "ts": {ts}'
    )
