"""The laws of the feature state, tested as laws: whatever the order, the repetitions and the
splits, the same events give the same bytes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.clicks import RawClick
from streams.stages.fold import IMPRESSION
from streams.stages.fold import fold as fold_batch
from streams.state.heal import heal
from streams.state.window import (
    WINDOW_EVENTS,
    WindowEvent,
    fold,
    items_of,
    newest_ts,
    pack,
    pack_key,
    unpack,
)
from streams.state.windows import Windows

# Few keys and many events, so that duplicates, conflicts and full windows are common.
event = st.builds(
    WindowEvent,
    st.integers(946_684_800_000, 946_684_800_000 + 40),
    st.integers(0, 3).map(lambda number: number.to_bytes(16, "big")),
    st.integers(0, 4),
    st.sampled_from([b"", b"a", b"item-1", "größe".encode(), b"x" * 128]),
)
many = st.lists(event, min_size=1, max_size=160)


def folded(events: list[WindowEvent]) -> bytes:
    window: bytes | None = None
    for one in events:
        window, _ = fold(window, pack_key(one.ts, one.event_key), one.event_type, one.item_id)
    assert window is not None
    return window


@given(many)
def test_folding_is_the_sorted_cut(events: list[WindowEvent]) -> None:
    assert folded(events) == pack(events)


@given(many, st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(events: list[WindowEvent], rng: object) -> None:
    shuffled = events + events[: len(events) // 2]
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert folded(shuffled) == folded(events)


@given(many, many)
def test_split_and_join_change_nothing(left: list[WindowEvent], right: list[WindowEvent]) -> None:
    """Two regions that saw different parts and then exchange what they kept agree."""
    west = unpack(folded(right))
    assert folded(left + west) == folded(left + right)
    assert folded(unpack(folded(left)) + west) == folded(right + left)


@given(many)
def test_known_event_returns_the_same_object(events: list[WindowEvent]) -> None:
    window = folded(events)
    for one in unpack(window):
        again, pushed_out = fold(
            window, pack_key(one.ts, one.event_key), one.event_type, one.item_id
        )
        assert again is window
        assert pushed_out is None


@given(many)
def test_unpack_undoes_pack(events: list[WindowEvent]) -> None:
    window = pack(events)
    kept = unpack(window)
    assert pack(kept) == window
    assert len(kept) <= WINDOW_EVENTS
    assert items_of(window) == [one.item_id for one in kept]
    assert newest_ts(window) == max(one.ts for one in events)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), event), min_size=1, max_size=200))
def test_counts_are_the_windows_items(arrivals: list[tuple[int, int, WindowEvent]]) -> None:
    """Popularity is derived: after any history it equals what a recount of the windows gives."""
    windows = Windows()
    clicks = [
        RawClick(b"", one.event_key, b"user-%d" % user, one.item_id, one.event_type, one.ts)
        for user, _, one in arrivals
    ]
    partitions = [partition for _, partition, _ in arrivals]
    fold_batch(windows, clicks, partitions)
    kept = +windows.counts
    windows.recount()
    assert kept == windows.counts
    assert sum(kept.values()) == sum(
        1
        for users in windows.partitions.values()
        for window in users.values()
        for item in items_of(window)
        if item
    )


def test_folding_a_batch_twice_reports_no_change() -> None:
    windows = Windows()
    clicks = [
        RawClick(b"", number.to_bytes(16, "big"), b"u", b"i%d" % number, 0, 10**12 + number)
        for number in range(80)
    ]
    first = fold_batch(windows, clicks, [3] * 80)
    counts = Counter(windows.counts)
    second = fold_batch(windows, clicks, [3] * 80)
    assert list(first.changed) == [(3, b"u")]
    assert second.changed == {}
    assert windows.counts == counts


def test_impressions_are_not_folded() -> None:
    windows = Windows()
    shown = RawClick(b"", bytes(16), b"u", b"i", IMPRESSION, 10**12)
    result = fold_batch(windows, [shown], [0])
    assert result.snapshots == [None]
    assert result.changed == {}


def test_snapshot_is_the_window_right_after_each_click() -> None:
    windows = Windows()
    clicks = [
        RawClick(b"", number.to_bytes(16, "big"), b"u", b"i%d" % number, 0, 10**12 + number)
        for number in range(3)
    ]
    result = fold_batch(windows, clicks, [0] * 3)
    assert [items_of(window) for window in result.snapshots if window] == [
        [b"i0"],
        [b"i0", b"i1"],
        [b"i0", b"i1", b"i2"],
    ]


@pytest.mark.parametrize(
    "junk",
    [b"", b"\x01", b"\x02\x01" + bytes(25), b"\x01\x02" + bytes(50), b"\x01\x33" + bytes(2000)],
)
def test_unpack_refuses_what_is_no_window(junk: bytes) -> None:
    with pytest.raises(ValueError, match="not a window"):
        unpack(junk)


@given(many, many, many)
def test_healing_ends_in_the_union(
    own: list[WindowEvent], foreign: list[WindowEvent], more: list[WindowEvent]
) -> None:
    windows = Windows()
    windows.restore(0, [b"u"], [pack(own)])
    written = [(b"u", pack(foreign)), (b"u", pack(more))]
    rewrites = heal(windows, 0, written)
    assert windows.partitions[0][b"u"] == pack(own + foreign + more)
    newest = rewrites[-1][2] if rewrites else written[-1][1]
    assert newest == pack(own + foreign + more)
