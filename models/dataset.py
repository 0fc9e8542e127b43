"""From clicks to training sequences, as arrays side by side: who, what, when.

A shopper's sequence is their clicks in event-time order, as the worker's feature state will show
it to the model: all events of a user, items outside the vocabulary left out. In session data the
session is the user.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.folder import FIRST_ITEM, PADDING, UNKNOWN
from schemas.errors import ModelError


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
    table = np.array(
        [
            (
                user_codes.setdefault(user, len(user_codes)),
                item_codes.setdefault(item, len(item_codes)),
                ts_ms,
            )
            for user, item, ts_ms in rows
        ],
        dtype=np.int64,
    ).reshape(-1, 3)
    return sort_clicks(table[:, 0], table[:, 1], table[:, 2], tuple(item_codes))


def sort_clicks(
    users: NDArray[Any], items: NDArray[Any], ts: NDArray[Any], item_ids: tuple[str, ...]
) -> Clicks:
    """Clicks of columns of equal length: codes of users and of `item_ids`, and times in ms."""
    order = np.lexsort((ts, users))
    return Clicks(
        users[order].astype(np.int32),
        items[order].astype(np.int32),
        ts[order].astype(np.int64),
        item_ids,
    )


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
            f"too few clicks to train on: {len(clicks)} clicks, {len(kept)} items that have "
            f"{min_support} or more of them; at least 2 items are needed"
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
    for start, end in zip(
        sequences.starts[:-1].tolist(), sequences.starts[1:].tolist(), strict=True
    ):
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
