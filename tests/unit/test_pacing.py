"""Paces, on a clock of the test's own: never early, smooth, on time, and bounded when behind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streams.clicks.dating import as_recorded, as_sent, moved
from streams.clicks.pacing import (
    SLICE_CLICKS_MAX,
    SLICE_S,
    WAIT_MAX_S,
    AtOnce,
    AtRate,
    AtSpeed,
    Pacer,
    Schedule,
)


class World:
    """A clock that moves when somebody waits, and a little with every look at it."""

    def __init__(self, look_s: float = 2e-5, oversleep_s: float = 0.0) -> None:
        self.now_s = 100.0
        self.longest_wait_s = 0.0
        self._look_s = look_s
        self._oversleep_s = oversleep_s

    def clock(self) -> float:
        self.now_s += self._look_s
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.longest_wait_s = max(self.longest_wait_s, seconds)
        self.now_s += seconds + self._oversleep_s


def sent_at(
    world: World, schedule: Schedule, batches: list[NDArray[np.int64]]
) -> tuple[NDArray[np.float64], list[int]]:
    """When each click went (seconds after the start), and how many went together."""
    pacer = Pacer(schedule, world.clock, world.wait)
    start_s = world.now_s
    moments: list[float] = []
    sizes: list[int] = []
    for ts in batches:
        at = 0
        for first, end in pacer.slices(ts):
            assert first == at
            moments += [world.now_s - start_s] * (end - first)
            sizes.append(end - first)
            at = end
        assert at == len(ts), "clicks were left"
    return np.array(moments), sizes


def zeros(*counts: int) -> list[NDArray[np.int64]]:
    return [np.zeros(count, np.int64) for count in counts]


@pytest.mark.parametrize("rate", [3.0, 200.0, 2_000.0, 30_000.0])
@pytest.mark.parametrize("oversleep_s", [0.0, 0.001])
def test_a_rate_is_kept_within_two_percent_over_five_seconds(
    rate: float, oversleep_s: float
) -> None:
    world = World(oversleep_s=oversleep_s)
    count = int(5 * rate)
    moments, _ = sent_at(world, AtRate(rate), zeros(count // 3, count - count // 3))
    assert count / (moments[-1] + 1 / rate) == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize("rate", [200.0, 2_000.0, 30_000.0])
def test_a_rate_is_smooth(rate: float) -> None:
    world = World()
    moments, sizes = sent_at(world, AtRate(rate), zeros(int(2 * rate)))
    assert max(sizes) <= np.ceil(rate * 2 * SLICE_S) + 1
    in_50_ms = np.histogram(moments, np.arange(0, 1.95, 0.05))[0]
    assert in_50_ms.max() <= 1.25 * rate * 0.05 + 2
    assert in_50_ms.min() >= 0.75 * rate * 0.05 - 2


@given(st.floats(1, 100_000), st.lists(st.integers(0, 300), max_size=4))
def test_nothing_goes_before_it_is_due(rate: float, counts: list[int]) -> None:
    moments, _ = sent_at(World(), AtRate(rate), zeros(*counts))
    due = np.arange(len(moments)) / rate
    assert (moments >= due - 1e-9).all()


def test_after_a_pause_the_backlog_does_not_go_out_at_once() -> None:
    world = World()
    rate = 10_000.0
    pacer = Pacer(AtRate(rate), world.clock, world.wait)
    sizes: list[tuple[float, int]] = []
    paused = False
    for first, end in pacer.slices(np.zeros(40_000, np.int64)):
        sizes.append((world.now_s, end - first))
        if world.now_s > 101 and not paused:
            paused = True
            world.now_s += 1.0
    assert max(size for _, size in sizes) <= 2 * rate * 4 * SLICE_S + 1
    after = [(moment, size) for moment, size in sizes if moment > 102]
    in_the_next_half_second = sum(size for moment, size in after if moment < 102.5)
    assert in_the_next_half_second <= 2.2 * rate * 0.5
    # It does catch up: the last click is due 4 s after the start.
    assert world.now_s - 100 == pytest.approx(4.0, abs=0.1)


def test_speed_keeps_the_pauses_of_the_file() -> None:
    ts = np.array([1_000, 1_500, 1_500, 31_000], np.int64) + 1_700_000_000_000
    moments, _ = sent_at(World(), AtSpeed(10.0), [ts[:2], ts[2:]])
    assert moments == pytest.approx([0.0, 0.05, 0.05, 3.0], abs=2 * SLICE_S)


def test_speed_does_not_let_late_clicks_overtake() -> None:
    ts = np.array([1_000, 9_000, 2_000], np.int64)
    moments, _ = sent_at(World(), AtSpeed(1.0), [ts])
    assert moments == pytest.approx([0.0, 8.0, 8.0], abs=2 * SLICE_S)


def test_long_pauses_are_waited_in_short_turns() -> None:
    world = World()
    sent_at(world, AtSpeed(1.0), [np.array([0, 60_000], np.int64)])
    assert world.longest_wait_s <= WAIT_MAX_S


def test_without_a_pace_nothing_waits() -> None:
    world = World(look_s=0.0)
    moments, sizes = sent_at(world, AtOnce(), zeros(5_000, 0, 1))
    assert len(moments) == 5_001
    assert moments.max() == 0
    assert max(sizes) <= SLICE_CLICKS_MAX


def test_a_stop_ends_it_between_two_slices() -> None:
    world = World()
    stop = False
    pacer = Pacer(AtRate(1_000.0), world.clock, world.wait, lambda: stop)
    sent = 0
    for first, end in pacer.slices(np.zeros(100_000, np.int64)):
        sent += end - first
        stop = world.now_s > 100.5
    assert 400 < sent < 600


def test_dates() -> None:
    ts = np.array([5, 7], np.int64)
    assert as_recorded(3, ts).tolist() == [5, 7]
    assert moved(10)(0, ts).tolist() == [15, 17]
    assert moved(-6)(0, ts).tolist() == [0, 1]


def test_clicks_are_dated_when_they_are_due() -> None:
    clock = iter([1_000, 9_999, 9_999])
    date = as_sent(AtRate(100.0), lambda: next(clock))
    assert date(0, np.zeros(3, np.int64)).tolist() == [1_000, 1_010, 1_020]
    assert date(3, np.zeros(1, np.int64)).tolist() == [1_030]


def test_without_a_pace_they_are_dated_when_their_batch_is_made() -> None:
    clock = iter([1_000, 2_000])
    date = as_sent(AtOnce(), lambda: next(clock))
    assert date(0, np.zeros(2, np.int64)).tolist() == [1_000, 1_000]
    assert date(2, np.zeros(1, np.int64)).tolist() == [2_000]
