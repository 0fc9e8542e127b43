"""A broker dies under a worker: a supervisor's worker goes on when it is back, and nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import harness
import pytest
from conftest import LocalKafka

from infra.cluster import region
from infra.cluster.layout import region_folder
from infra.supervisor import Supervisor
from infra.workers import worker_argv

pytestmark = [pytest.mark.kafka, pytest.mark.drill]

# Longer than the producer's time-out at a session of 6 s: the worker ends and is started again.
AWAY_S = 7.0


@pytest.mark.timeout(240)
def test_broker_killed_and_back(fresh_kafka: LocalKafka, tmp_path: Path) -> None:
    settings, bootstrap = fresh_kafka.settings, fresh_kafka.bootstrap
    harness.create_topics(bootstrap, settings)
    feeder = harness.Feeder(bootstrap)
    sender = threading.Thread(
        target=feeder.send, args=(6_000,), kwargs={"rate": 1000.0, "flush_timeout_s": 120.0}
    )
    environment = {
        **os.environ,
        "HEADRACE_BOOTSTRAP": bootstrap,
        "HEADRACE_SESSION_TIMEOUT_S": "6",
    }
    with Supervisor() as supervisor:
        supervisor.start(
            "worker", worker_argv(), log=tmp_path / "worker.log", environment=environment
        )
        sender.start()
        try:
            _wait_for_answers(fresh_kafka, 500)
            (broker,) = region.find_brokers(region_folder(settings))
            os.kill(broker.pid, signal.SIGKILL)
            time.sleep(AWAY_S)
            region.start(settings)
        finally:
            sender.join(150)
        harness.wait_answered(settings, bootstrap, set(feeder.acked), timeout_s=90)
    # An idempotent producer sends again what it had no answer for, so in the end all are there.
    assert len(feeder.acked) == 6_000
    harness.assert_state_equals_oracle(settings, bootstrap)


def _wait_for_answers(kafka: LocalKafka, count: int) -> None:
    deadline = time.monotonic() + harness.READY_TIMEOUT_S
    while harness.answers(kafka.settings, kafka.bootstrap).total() < count:
        assert time.monotonic() < deadline, f"fewer than {count} answers"
        time.sleep(0.2)
