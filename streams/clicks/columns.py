"""Clicks side by side: one array a field, as files and the simulator give them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# The optional fields, by the name of their column and its Arrow type.
OPTIONAL: Final[dict[str, Any]] = {
    "session_id": pa.string(),
    "query": pa.string(),
    "price": pa.float64(),
    "quantity": pa.int32(),
}


@dataclass(frozen=True, slots=True)
class ClickColumns:
    """Valid clicks, one row each.

    `user_id`, `item_id`: Arrow strings. `ts`: int64, ms since the epoch. `event_type`: uint8,
    index into `schemas.clicks.EVENT_TYPES`. `row`: int64, number of the click in its source,
    counted from 0: it makes the event id distinct and does not depend on the order of sending.
    `event_id`: Arrow strings, where the source knows the clicks' own; None: they are made of the
    seed. The others are Arrow arrays with nulls, or None where no click of this batch has the field.
    """

    user_id: Any
    item_id: Any
    ts: NDArray[np.int64]
    event_type: NDArray[np.uint8]
    row: NDArray[np.int64]
    session_id: Any = None
    query: Any = None
    price: Any = None
    quantity: Any = None
    event_id: Any = None

    def __len__(self) -> int:
        return len(self.ts)

    def slice(self, start: int, stop: int) -> ClickColumns:
        """Rows `start` to `stop`, without a copy."""
        return ClickColumns(
            self.user_id.slice(start, stop - start),
            self.item_id.slice(start, stop - start),
            self.ts[start:stop],
            self.event_type[start:stop],
            self.row[start:stop],
            **{
                name: None
                if (held := getattr(self, name)) is None
                else held.slice(start, stop - start)
                for name in (*OPTIONAL, "event_id")
            },
        )

    def take(self, indices: NDArray[np.int64]) -> ClickColumns:
        """The rows at `indices`, in that order."""
        at = pa.array(indices)
        return ClickColumns(
            self.user_id.take(at),
            self.item_id.take(at),
            self.ts[indices],
            self.event_type[indices],
            self.row[indices],
            **{
                name: None if (held := getattr(self, name)) is None else held.take(at)
                for name in (*OPTIONAL, "event_id")
            },
        )

    def in_time_order(self) -> ClickColumns:
        """The same clicks, oldest first; those of one millisecond keep their order."""
        if len(self) < 2 or bool(np.all(self.ts[1:] >= self.ts[:-1])):
            return self
        return self.take(np.argsort(self.ts, kind="stable"))

    def at_times(self, ts: NDArray[np.int64]) -> ClickColumns:
        """The same clicks at other times, int64 ms; they are other events then, with other ids."""
        return self if ts is self.ts else replace(self, ts=ts, event_id=None)


def no_clicks() -> ClickColumns:
    """Zero rows."""
    strings = pa.array([], pa.string())
    zero = np.zeros(0, np.int64)
    return ClickColumns(strings, strings, zero, np.zeros(0, np.uint8), zero)


def concatenated(batches: Sequence[ClickColumns]) -> ClickColumns:
    """All batches as one, in their order."""
    if not batches:
        return no_clicks()
    if len(batches) == 1:
        return batches[0]

    def joined(name: str) -> Any:
        kind = OPTIONAL[name]
        columns = [getattr(one, name) for one in batches]
        if all(column is None for column in columns):
            return None
        return pa.concat_arrays(
            [
                pa.nulls(len(one), kind) if column is None else column
                for one, column in zip(batches, columns, strict=True)
            ]
        )

    return ClickColumns(
        pa.concat_arrays([one.user_id for one in batches]),
        pa.concat_arrays([one.item_id for one in batches]),
        np.concatenate([one.ts for one in batches]),
        np.concatenate([one.event_type for one in batches]),
        np.concatenate([one.row for one in batches]),
        **{name: joined(name) for name in OPTIONAL},
        event_id=pa.concat_arrays([one.event_id for one in batches])
        if all(one.event_id is not None for one in batches)
        else None,
    )


def limited(batches: Iterable[ClickColumns], count: int) -> Iterator[ClickColumns]:
    """The first `count` clicks of the batches."""
    for batch in batches:
        if count <= len(batch):
            yield batch.slice(0, count)
            return
        yield batch
        count -= len(batch)


def until(batches: Iterable[ClickColumns], end_ms: int) -> Iterator[ClickColumns]:
    """The clicks before `end_ms` of batches in time order."""
    for batch in batches:
        count = int(np.searchsorted(batch.ts, end_ms))
        if count:
            yield batch.slice(0, count)
        if count < len(batch):
            return


def while_running(
    batches: Iterable[ClickColumns], running: Callable[[], bool], rows: int
) -> Iterator[ClickColumns]:
    """The batches in pieces of at most `rows`, as long as `running` says so."""
    for batch in batches:
        for start in range(0, len(batch), rows):
            if not running():
                return
            yield batch.slice(start, min(start + rows, len(batch)))
