"""Sequences out of clicks: order, vocabulary, and each next item learned and asked exactly once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.dataset import (
    Clicks,
    Sequences,
    cut_queries,
    cut_windows,
    gather_clicks,
    make_sequences,
    make_vocabulary,
    until,
)
from models.folder import FIRST_ITEM
from schemas.errors import ModelError

ROWS = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcde"), st.integers(0, 20)), max_size=60
)


def as_rows(clicks: Clicks) -> list[tuple[int, str, int]]:
    return [
        (user, clicks.item_ids[item], ts)
        for user, item, ts in zip(
            clicks.users.tolist(), clicks.items.tolist(), clicks.ts.tolist(), strict=True
        )
    ]


def runs(sequences: Sequences) -> list[list[int]]:
    return [
        sequences.items[start:end].tolist()
        for start, end in zip(sequences.starts[:-1], sequences.starts[1:], strict=True)
    ]


def test_sorts_by_user_then_time_then_arrival() -> None:
    clicks = gather_clicks(
        [("v", "a", 5), ("u", "b", 9), ("v", "c", 3), ("u", "a", 9), ("v", "b", 5)]
    )
    assert as_rows(clicks) == [
        (0, "c", 3),
        (0, "a", 5),
        (0, "b", 5),
        (1, "b", 9),
        (1, "a", 9),
    ]
    assert (clicks.users.dtype, clicks.items.dtype, clicks.ts.dtype) == (
        np.int32,
        np.int32,
        np.int64,
    )


def test_no_clicks() -> None:
    clicks = gather_clicks([])
    assert len(clicks) == 0
    sequences = make_sequences(clicks, ("a", "b"))
    assert len(sequences) == 0
    assert cut_windows(sequences, 3).shape == (0, 4)
    assert cut_queries(sequences, 0, 3)[0].shape == (0, 3)


def test_until_includes_its_time() -> None:
    clicks = gather_clicks([("u", "a", 1), ("u", "b", 2), ("v", "c", 3)])
    assert [ts for _, _, ts in as_rows(until(clicks, 2))] == [1, 2]


def test_vocabulary_is_by_popularity_then_id() -> None:
    clicks = gather_clicks([("u", item, at) for at, item in enumerate("dccbbaaae")])
    assert make_vocabulary(clicks, 1) == ("a", "b", "c", "d", "e")
    assert make_vocabulary(clicks, 2) == ("a", "b", "c")


def test_too_few_items_for_a_vocabulary() -> None:
    clicks = gather_clicks([("u", "a", 1), ("u", "a", 2), ("u", "b", 3)])
    with pytest.raises(ModelError, match=r"too few clicks to train on: 3 clicks, 1 items"):
        make_vocabulary(clicks, 2)


def test_items_outside_the_vocabulary_leave_no_gap() -> None:
    clicks = gather_clicks([("u", item, at) for at, item in enumerate("axb")] + [("v", "x", 9)])
    assert runs(make_sequences(clicks, ("a", "b"))) == [[FIRST_ITEM, FIRST_ITEM + 1]]


def test_windows_of_a_long_sequence_share_one_item() -> None:
    clicks = gather_clicks([("u", item, at) for at, item in enumerate("abcdefg")])
    sequences = make_sequences(clicks, tuple("abcdefg"))
    rows = sorted(row.tolist() for row in cut_windows(sequences, 4))
    assert rows == [[0, 0, 2, 3, 4], [4, 5, 6, 7, 8]]


@given(ROWS, st.integers(1, 6))
def test_windows_teach_each_next_item_once(rows: list[tuple[str, str, int]], window: int) -> None:
    sequences = make_sequences(gather_clicks(rows), tuple("abcde"))
    wanted = sorted(pair for run in runs(sequences) for pair in pairwise(run))
    windows = cut_windows(sequences, window)
    taught = [
        (row[at], row[at + 1])
        for row in windows.tolist()
        for at in range(window)
        if row[at] >= FIRST_ITEM
    ]
    assert sorted(taught) == wanted
    # Right-aligned: no padding after an item.
    assert all(row[-1] >= FIRST_ITEM for row in windows.tolist())


@given(ROWS, st.integers(-1, 20), st.integers(1, 6))
def test_queries_ask_each_new_item_after_the_cut(
    rows: list[tuple[str, str, int]], after_ms: int, history: int
) -> None:
    clicks = gather_clicks(rows)
    sequences = make_sequences(clicks, tuple("abcde"))
    wanted = []
    for start, end in zip(sequences.starts[:-1], sequences.starts[1:], strict=True):
        for at in range(start + 1, end):
            before = sequences.items[max(start, at - history) : at].tolist()
            target = int(sequences.items[at])
            if sequences.ts[at] > after_ms and target not in before:
                wanted.append(([0] * (history - len(before)) + before, target))
    asked, targets = cut_queries(sequences, after_ms, history)
    assert list(zip(asked.tolist(), targets.tolist(), strict=True)) == wanted
