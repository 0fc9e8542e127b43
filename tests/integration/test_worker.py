"""The worker against a real broker: nothing missing, nothing twice, and the state is the clicks'."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import harness
import pytest
from conftest import LocalKafka

from infra.workers import WorkerProcess
from schemas.topics import CLICKS, changelog_topic
from streams.readback import read_topic
from streams.state.audit import state_of

pytestmark = pytest.mark.kafka


@pytest.fixture
def shop(fresh_kafka: LocalKafka) -> LocalKafka:
    """A broker of the test's own with all topics."""
    harness.create_topics(fresh_kafka.bootstrap, fresh_kafka.settings)
    return fresh_kafka


def test_clean_run_answers_each_click_once(shop: LocalKafka, tmp_path: Path) -> None:
    settings, bootstrap = shop.settings, shop.bootstrap
    feeder = harness.Feeder(bootstrap)
    worker = harness.start_worker(settings, bootstrap, tmp_path)
    try:
        feeder.send(5000)
        found = harness.wait_answered(settings, bootstrap, set(feeder.acked))
    finally:
        assert worker.terminate(harness.STOP_TIMEOUT_S) == 0, worker.log_tail()
    assert len(feeder.acked) == 5000
    assert found.keys() == set(feeder.acked)
    assert set(found.values()) == {1}
    harness.assert_state_equals_oracle(settings, bootstrap)


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGTERM"])
def test_ended_three_times_in_the_middle_misses_nothing(
    shop: LocalKafka, tmp_path: Path, fault: str
) -> None:
    settings, bootstrap = shop.settings, shop.bootstrap
    feeder = harness.Feeder(bootstrap)
    sender = threading.Thread(target=feeder.send, args=(15_000,), kwargs={"rate": 1500.0})
    worker = harness.start_worker(settings, bootstrap, tmp_path)
    try:
        sender.start()
        for _ in range(3):
            time.sleep(1.0)
            if fault == "SIGKILL":
                assert worker.kill() == -signal.SIGKILL
            else:
                assert worker.terminate(harness.STOP_TIMEOUT_S) == 0, worker.log_tail()
            worker.start()
            worker.wait_ready(harness.READY_TIMEOUT_S)
        sender.join(60)
        found = harness.wait_answered(settings, bootstrap, set(feeder.acked))
    finally:
        sender.join(60)
        worker.terminate(harness.STOP_TIMEOUT_S)
    assert len(feeder.acked) == 15_000
    if fault == "SIGTERM":  # the batch was finished and committed each time, so none is repeated
        assert set(found.values()) == {1}
    harness.assert_state_equals_oracle(settings, bootstrap)


def test_partitions_move_between_workers_under_load(shop: LocalKafka, tmp_path: Path) -> None:
    settings, bootstrap = shop.settings, shop.bootstrap
    feeder = harness.Feeder(bootstrap)
    sender = threading.Thread(target=feeder.send, args=(15_000,), kwargs={"rate": 1500.0})
    first = harness.start_worker(settings, bootstrap, tmp_path, "a")
    second = harness.make_worker(settings, bootstrap, tmp_path, "b")
    try:
        sender.start()
        time.sleep(1.5)
        second.start()
        second.wait_ready(harness.READY_TIMEOUT_S)
        _wait_partitions(second, 4)
        time.sleep(2.0)
        assert first.terminate(harness.STOP_TIMEOUT_S) == 0, first.log_tail()
        _wait_partitions(second, 8)
        sender.join(60)
        found = harness.wait_answered(settings, bootstrap, set(feeder.acked))
    finally:
        sender.join(60)
        first.terminate(harness.STOP_TIMEOUT_S)
        second.terminate(harness.STOP_TIMEOUT_S)
    assert len(feeder.acked) == 15_000
    # Both were asked nicely: batches were finished and committed before partitions moved.
    assert set(found.values()) == {1}
    harness.assert_state_equals_oracle(settings, bootstrap)


def test_a_frozen_worker_does_no_harm_when_it_wakes(shop: LocalKafka, tmp_path: Path) -> None:
    settings, bootstrap = shop.settings, shop.bootstrap
    feeder = harness.Feeder(bootstrap)
    sender = threading.Thread(target=feeder.send, args=(24_000,), kwargs={"rate": 1500.0})
    frozen = harness.start_worker(settings, bootstrap, tmp_path, "a")
    other = harness.start_worker(settings, bootstrap, tmp_path, "b")
    try:
        _wait_partitions(other, 4)
        sender.start()
        time.sleep(1.0)
        os.kill(frozen.pid, signal.SIGSTOP)
        _wait_partitions(other, 8)
        time.sleep(1.0)
        os.kill(frozen.pid, signal.SIGCONT)
        sender.join(60)
        harness.wait_answered(settings, bootstrap, set(feeder.acked))
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
        sender.join(60)
        frozen.kill()
        other.terminate(harness.STOP_TIMEOUT_S)
    assert len(feeder.acked) == 24_000
    harness.assert_state_equals_oracle(settings, bootstrap)


def test_second_replay_changes_no_byte(shop: LocalKafka, tmp_path: Path) -> None:
    settings, bootstrap = shop.settings, shop.bootstrap
    feeder = harness.Feeder(bootstrap)
    config = harness.read_config(settings, bootstrap)
    worker = harness.start_worker(settings, bootstrap, tmp_path)
    try:
        feeder.send(3000)
        harness.wait_answered(settings, bootstrap, set(feeder.acked))
        clicks = [(message.value(), message.key()) for message in read_topic(config, CLICKS.name)]
        before = state_of(read_topic(config, changelog_topic(settings.group)))
        for value, key in reversed(clicks):
            feeder.send_raw(value, key)
        feeder.flush()
        deadline = time.monotonic() + harness.ANSWER_TIMEOUT_S
        while set(harness.answers(settings, bootstrap).values()) != {2}:
            assert time.monotonic() < deadline, "the second replay was not answered"
            time.sleep(0.3)
    finally:
        worker.terminate(harness.STOP_TIMEOUT_S)
    assert state_of(read_topic(config, changelog_topic(settings.group))) == before
    harness.assert_state_equals_oracle(settings, bootstrap)


def _wait_partitions(worker: WorkerProcess, count: int) -> None:
    deadline = time.monotonic() + harness.READY_TIMEOUT_S
    while owned(worker) != count:
        assert time.monotonic() < deadline, (
            f"the worker never owned {count} partitions: {worker.log_tail()}"
        )
        time.sleep(0.1)


def owned(worker: WorkerProcess) -> int:
    """Number of partitions that a worker says it owns."""
    for line in worker.metrics().splitlines():
        if line.startswith("headrace_partitions{"):
            return int(float(line.rsplit(" ", 1)[1]))
    return 0
