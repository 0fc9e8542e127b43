"""From clicks to training sequences, as arrays side by side: who, what, when.

A shopper's sequence is their clicks in event-time order, as the worker's feature state will show
it to the model: all events of a user, items outside the vocabulary left out. In session data the
session is the user.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.folder import FIRST_ITEM, PADDING, UNKNOWN
from schemas.errors import ModelError, SourceError

# Column names and the factor to milliseconds, by file layout: ours first, then RecSys 2015.
LAYOUTS: Final = (
    (("user_id", "item_id", "ts"), 1),
    (("SessionId", "ItemId", "Time"), 1000),
)


@dataclass(frozen=True, slots=True)
class Clicks:
    """Clicks side by side, sorted by user, then time, then order of arrival.

    `users`: int32 [n], dense codes. `items`: int32 [n], codes into `item_ids`. `ts`: int64 [n],
    milliseconds since the epoch. `item_ids`: distinct ids as the clicks carry them.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    ts: NDArray[np.int64]
    item_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, slots=True)
class Sequences:
    """One run of vocabulary indices per shopper.

    `items`: int64 [n], `FIRST_ITEM` + index into the vocabulary. `ts`: int64 [n], milliseconds.
    `starts`: int64 [sequences + 1]; sequence s is `items[starts[s]:starts[s + 1]]`, oldest first.
    """

    items: NDArray[np.int64]
    ts: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1


def gather_clicks(rows: Iterable[tuple[str, str, int]]) -> Clicks:
    """Clicks of `(user_id, item_id, ts_ms)` in any order; equal times keep the order of arrival."""
    user_codes: dict[str, int] = {}
    item_codes: dict[str, int] = {}
    coded = [
        (user_codes.setdefault(user, len(user_codes)), item_codes.setdefault(item, len(item_codes)), ts_ms)
        for user, item, ts_ms in rows
    ]
    table = np.array(coded, dtype=np.int64).reshape(-1, 3)
    return _sorted(table[:, 0], table[:, 1], table[:, 2], tuple(item_codes))


def _sorted(users: NDArray[Any], items: NDArray[Any], ts: NDArray[Any], item_ids: tuple[str, ...]) -> Clicks:
    order = np.lexsort((ts, users))
    return Clicks(
        users[order].astype(np.int32), items[order].astype(np.int32), ts[order].astype(np.int64), item_ids
    )


def read_file(path: Path) -> Clicks:
    """Clicks of a CSV, TSV or Parquet file with the columns of one of `LAYOUTS`.

    Raises `SourceError` when the file is missing, unreadable, empty, or lacks a column.
    """
    # Not at the top: a worker imports the constants beside this and never reads a file.
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _read_table(path)
    for columns, factor in LAYOUTS:
        if set(columns) <= set(table.column_names):
            break
    else:
        wanted = " or ".join(",".join(columns) for columns, _ in LAYOUTS)
        raise SourceError(f"{path} has the columns {','.join(table.column_names)}; needed are {wanted}")
    user, item, ts = (table[name] for name in columns)
    try:
        coded_users = pc.dictionary_encode(user.cast(pa.string())).combine_chunks()
        coded_items = pc.dictionary_encode(item.cast(pa.string())).combine_chunks()
        times = ts.cast(pa.float64()) if factor != 1 else ts.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise SourceError(f"{path}: {error}") from None
    if user.null_count or item.null_count or ts.null_count:
        raise SourceError(f"{path} has rows with an empty {', '.join(columns[:2])} or {columns[2]}")
    return _sorted(
        np.asarray(coded_users.indices),
        np.asarray(coded_items.indices),
        np.rint(np.asarray(times) * factor),
        tuple(coded_items.dictionary.to_pylist()),
    )


def _read_table(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.csv as pcsv
    import pyarrow.parquet as pq

    if not path.is_file():
        raise SourceError(f"no file {path}")
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        with path.open("rb") as file:
            header = file.readline(65_536)
        return pcsv.read_csv(
            path,
            parse_options=pcsv.ParseOptions(delimiter="\t" if b"\t" in header else ","),
            # Ids are text: 007 must not become 7.
            convert_options=pcsv.ConvertOptions(
                column_types={name: pa.string() for columns, _ in LAYOUTS for name in columns[:2]},
                strings_can_be_null=True,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read {path}: {error}") from None


def until(clicks: Clicks, ts_ms: int) -> Clicks:
    """The clicks at or before `ts_ms`; item codes stay as they are."""
    kept = clicks.ts <= ts_ms
    return Clicks(clicks.users[kept], clicks.items[kept], clicks.ts[kept], clicks.item_ids)


def make_vocabulary(clicks: Clicks, min_support: int) -> tuple[str, ...]:
    """Ids of the items with at least `min_support` clicks, most clicked first, ties by id.

    Raises `ModelError` when fewer than two items are left.
    """
    counts = np.bincount(clicks.items, minlength=len(clicks.item_ids))
    kept = [code for code in range(len(counts)) if counts[code] >= max(1, min_support)]
    kept.sort(key=lambda code: (-counts[code], clicks.item_ids[code]))
    if len(kept) < 2:
        raise ModelError(
            f"too few clicks to train on: {len(clicks)} clicks, {len(kept)} items with "
            f"at least {min_support}; 2 items are needed at least"
        )
    return tuple(clicks.item_ids[code] for code in kept)


def make_sequences(clicks: Clicks, vocabulary: tuple[str, ...]) -> Sequences:
    """Every shopper's items within the vocabulary; shoppers with none are left out."""
    index = {item: position for position, item in enumerate(vocabulary, FIRST_ITEM)}
    codes = np.array([index.get(item, UNKNOWN) for item in clicks.item_ids], dtype=np.int64)
    items = codes[clicks.items] if len(clicks) else np.empty(0, np.int64)
    known = items != UNKNOWN
    users = clicks.users[known]
    changes = np.flatnonzero(np.diff(users)) + 1
    starts = np.concatenate(([0], changes, [len(users)])) if len(users) else np.zeros(1)
    return Sequences(items[known], clicks.ts[known], starts.astype(np.int64))


def cut_windows(sequences: Sequences, window: int) -> NDArray[np.int64]:
    """Training rows: int64 [rows, window + 1], oldest first, right-aligned, zero-padded.

    The first `window` columns are inputs, the last `window` their next items. Long sequences give
    several rows, which share one item, so that each next item is learned exactly once. Sequences
    of one item teach nothing and give no row.
    """
    ends: list[int] = []
    begins: list[int] = []
    for start, end in zip(sequences.starts[:-1].tolist(), sequences.starts[1:].tolist(), strict=True):
        for last in range(end, start + 1, -window):
            ends.append(last)
            begins.append(max(start, last - window - 1))
    return _align(sequences.items, np.array(begins, np.int64), np.array(ends, np.int64), window + 1)


def cut_queries(
    sequences: Sequences, after_ms: int, history: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Held-out questions: for each click after `after_ms` with a click before it, what came first.

    Returns rows int64 [n, history] (newest `history` items, right-aligned, zero-padded) and the
    items that were clicked next, int64 [n]. Clicks on an item of the row are left out: they are
    repeats, which the graph never answers.
    """
    lengths = np.diff(sequences.starts)
    begins = np.repeat(sequences.starts[:-1], lengths)
    positions = np.arange(len(sequences.items), dtype=np.int64)
    asked = positions[(positions > begins) & (sequences.ts > after_ms)]
    rows = _align(sequences.items, np.maximum(begins[asked], asked - history), asked, history)
    targets = sequences.items[asked]
    new = ~(rows == targets[:, None]).any(axis=1)
    return rows[new], targets[new]


def _align(
    items: NDArray[np.int64], begins: NDArray[np.int64], ends: NDArray[np.int64], width: int
) -> NDArray[np.int64]:
    """Rows of `items[begin:end]`, right-aligned in `width` columns, zero-padded."""
    columns = ends[:, None] - width + np.arange(width)[None, :]
    inside = columns >= begins[:, None]
    if not len(items):
        return np.full((len(ends), width), PADDING, np.int64)
    return np.where(inside, items[np.where(inside, columns, 0)], PADDING)
