"""Event ids are UUIDv7, the same for the same source, and distinct."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.clicks import event_key
from schemas.event_ids import FREE_BYTES, TS_MS_MAX, new_event_id, uuid7
from streams.clicks.event_ids import event_ids

row = st.tuples(
    st.integers(0, 2**62),
    st.integers(0, TS_MS_MAX),
    st.binary(max_size=20),
    st.binary(max_size=20),
    st.integers(0, 5),
)


def ids_of(seed: int, rows: list[Any]) -> list[bytes]:
    numbers, times, users, items, kinds = zip(*rows, strict=True) if rows else ((),) * 5
    return event_ids(
        seed,
        np.array(numbers, np.int64),
        np.array(times, np.int64),
        users,
        items,
        np.array(kinds, np.uint8),
    )


@given(st.integers(-(2**60), 2**60), st.lists(row, max_size=20))
def test_they_are_canonical_uuid7_of_their_time(seed: int, rows: list[Any]) -> None:
    for event_id, (_, ts, *_) in zip(ids_of(seed, rows), rows, strict=True):
        read = uuid.UUID(event_id.decode())
        assert str(read).encode() == event_id
        assert (read.version, read.variant) == (7, uuid.RFC_4122)
        assert read.int >> 80 == ts
        assert event_key(event_id.decode()) == read.bytes


@given(st.integers(0, 2**60), st.lists(row, max_size=20), st.randoms())
def test_neither_order_nor_company_changes_an_id(seed: int, rows: list[Any], rng: Any) -> None:
    ids = ids_of(seed, rows)
    order = list(range(len(rows)))
    rng.shuffle(order)
    assert ids_of(seed, [rows[at] for at in order]) == [ids[at] for at in order]
    assert [ids_of(seed, [one])[0] for one in rows] == ids


@given(st.lists(row, max_size=20, unique_by=lambda one: one[0]))
def test_rows_that_say_the_same_are_still_distinct(rows: list[Any]) -> None:
    same = [(number, 1_700_000_000_000, b"u", b"i", 0) for number, *_ in rows]
    assert len(set(ids_of(1, same))) == len(same)


def test_whatever_differs_makes_another_id() -> None:
    base = (7, 1_700_000_000_000, b"ab", b"c", 0)
    others = [
        (8, 1_700_000_000_000, b"ab", b"c", 0),
        (7, 1_700_000_000_001, b"ab", b"c", 0),
        (7, 1_700_000_000_000, b"a", b"bc", 0),
        (7, 1_700_000_000_000, b"ab", b"c", 1),
    ]
    found = {ids_of(1, [one])[0] for one in (base, *others)} | {ids_of(2, [base])[0]}
    assert len(found) == 6


def test_they_stay_what_they_were() -> None:
    """A replay of today must repeat the ids of a replay of last year."""
    assert ids_of(0, [(0, 1_396_314_141_719, b"5182", b"214821026", 0)]) == [
        b"01451ace-f417-71d6-ad21-2d5f5eddf2a2"
    ]


@pytest.mark.parametrize("ts", [-1, TS_MS_MAX + 1])
def test_a_time_that_does_not_fit_is_refused(ts: int) -> None:
    with pytest.raises(ValueError, match="times"):
        ids_of(1, [(0, ts, b"u", b"i", 0)])
    with pytest.raises(ValueError, match="times"):
        uuid7(ts, bytes(FREE_BYTES))


@given(st.integers(0, TS_MS_MAX), st.binary(min_size=FREE_BYTES, max_size=FREE_BYTES))
def test_one_by_one_as_well(ts: int, free: bytes) -> None:
    read = uuid.UUID(uuid7(ts, free))
    assert (read.version, read.variant, read.int >> 80) == (7, uuid.RFC_4122, ts)


def test_new_ids_are_of_now_and_distinct() -> None:
    ids = {new_event_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(uuid.UUID(one).version == 7 for one in ids)
