"""Clicks out of the warehouse again, oldest first, with the event ids they had."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.warehouse.store import Reader
from schemas.clicks import EVENT_TYPES
from streams.clicks.columns import ClickColumns
from streams.clicks.sources import Skipped

# Rows of one question: a few MB, and few enough questions.
PAGE_ROWS: Final = 100_000
_TEXT: Final = ("event_id", "user_id", "item_id", "session_id", "query")


class WarehouseClicks:
    """The clicks from `since_ms` to before `until_ms`, each once, by (ts, event_id).

    A source as `streams.clicks.sources.ClickSource` is one; it skips nothing.
    """

    def __init__(self, reader: Reader, since_ms: int, until_ms: int, page: int = PAGE_ROWS) -> None:
        self.skipped = Skipped()
        self._reader = reader
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._page = page

    def batches(self) -> Iterator[ClickColumns]:
        """A page a batch; asks for the next one when it is wanted."""
        after_ms, after_id, row = self._since_ms, "", 0
        types = pa.array(EVENT_TYPES)
        while True:
            # By the text of the id: the order of UUIDs in ClickHouse is one of its own.
            table = self._reader.query(
                "SELECT toString(event_id) AS event_id, user_id, item_id,"
                " toString(event_type) AS event_type, toUnixTimestamp64Milli(ts) AS ts,"
                " session_id, nullIf(query, '') AS query, price, quantity"
                " FROM clicks FINAL"
                " WHERE clicks.ts >= fromUnixTimestamp64Milli({after:Int64}, 'UTC')"
                " AND clicks.ts < fromUnixTimestamp64Milli({until:Int64}, 'UTC')"
                " AND (toUnixTimestamp64Milli(clicks.ts) > {after:Int64}"
                " OR toString(clicks.event_id) > {id:String})"
                " ORDER BY clicks.ts, event_id LIMIT {page:UInt32}",
                {"after": after_ms, "until": self._until_ms, "id": after_id, "page": self._page},
            )
            if not table.num_rows:
                return
            columns = {name: table[name].combine_chunks() for name in table.column_names}
            text = {name: columns[name].cast(pa.string()) for name in _TEXT}
            ts = columns["ts"].to_numpy(zero_copy_only=False).astype(np.int64)
            codes = pc.index_in(columns["event_type"].cast(pa.string()), value_set=types)
            yield ClickColumns(
                text["user_id"],
                text["item_id"],
                ts,
                codes.to_numpy(zero_copy_only=False).astype(np.uint8),
                np.arange(row, row + len(ts), dtype=np.int64),
                session_id=text["session_id"],
                query=text["query"],
                price=columns["price"].cast(pa.float64()),
                quantity=columns["quantity"].cast(pa.int32()),
                event_id=text["event_id"],
            )
            if table.num_rows < self._page:
                return
            row += len(ts)
            after_ms, after_id = int(ts[-1]), text["event_id"][-1].as_py()
