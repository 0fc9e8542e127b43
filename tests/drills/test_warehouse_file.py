"""A real click file through worker and sink, the sink killed ten times, then rebuilt: set `CLICKS_FILE`.

CLICKS_FILE=clicks.tsv make test
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import harness
import pytest
from conftest import LocalKafka
from warehouse_runs import SinkProcess, ask, assert_exactly

CLICKS_FILE = os.environ.get("CLICKS_FILE", "")
KILLS = 10
REPLAY_TIMEOUT_S = 240
# Long enough for ten restarts in the middle of it.
CLICKS_PER_S = 1_200

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.drill,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CLICKS_FILE, reason="no click file given: set CLICKS_FILE"),
]


def test_every_click_and_answer_is_one_row(fresh_kafka: LocalKafka, tmp_path: Path) -> None:
    settings, bootstrap = fresh_kafka.settings, fresh_kafka.bootstrap
    harness.create_topics(bootstrap, settings)
    rows = sum(1 for line in Path(CLICKS_FILE).read_text().splitlines() if line.strip()) - 1
    rng = random.Random(6)
    worker = harness.start_worker(settings, bootstrap, tmp_path)
    sink = SinkProcess(
        settings, bootstrap, tmp_path / "sink.log", HEADRACE_WAREHOUSE_LINGER_S="0.3"
    )
    sender = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "infra.cli",
            "clicks",
            "replay",
            CLICKS_FILE,
            "--rate",
            str(CLICKS_PER_S),
        ],
        env={**os.environ, "HEADRACE_BOOTSTRAP": bootstrap},
    )
    try:
        for _ in range(KILLS):
            sink.start()
            sink.wait_ready()
            time.sleep(rng.uniform(0.0, 3.0))
            sink.kill()
        assert sender.wait(REPLAY_TIMEOUT_S) == 0
        deadline = time.monotonic() + harness.ANSWER_TIMEOUT_S
        while sum(harness.answers(settings, bootstrap).values()) < rows:
            assert time.monotonic() < deadline, "the worker has not answered all clicks"
            time.sleep(0.5)
    finally:
        sender.kill()
        sender.wait(10)
        worker.terminate(harness.STOP_TIMEOUT_S)
        sink.stop()
    sink.start("run", "--once")
    assert sink.wait(120) == 0, sink.log_tail()
    assert_exactly(settings, rows)
    sink.start("rebuild")
    assert sink.wait(180) == 0, sink.log_tail()
    assert_exactly(settings, rows)
    ((batches,),) = ask(settings, "SELECT count() FROM batches")
    assert batches > 0
