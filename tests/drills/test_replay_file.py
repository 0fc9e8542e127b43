"""A real click file through the worker, in a clean run, killed, and stopped: set `CLICKS_FILE`.

CLICKS_FILE=clicks.tsv make test
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import harness
import pytest
from conftest import LocalKafka

CLICKS_FILE = os.environ.get("CLICKS_FILE", "")
REPLAY_TIMEOUT_S = 240
# Long enough for three restarts in the middle of it.
CLICKS_PER_S = 4000

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.drill,
    pytest.mark.slow,
    pytest.mark.skipif(not CLICKS_FILE, reason="no click file given: set CLICKS_FILE"),
]


def replay(shop: LocalKafka, journal: Path, rate: float | None) -> subprocess.Popen[bytes]:
    """`headrace clicks replay`, started."""
    pace = ["--rate", str(rate)] if rate else []
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "infra.cli",
            "clicks",
            "replay",
            CLICKS_FILE,
            "--journal",
            str(journal),
            *pace,
        ],
        env={**os.environ, "HEADRACE_BOOTSTRAP": shop.bootstrap},
    )


def acknowledged(journal: Path) -> set[str]:
    """Event ids that Kafka acknowledged."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {line["outcome"] for line in lines} == {"ok"}
    return {line["event_id"] for line in lines}


@pytest.mark.parametrize("fault", ["none", "SIGKILL", "SIGTERM"])
def test_every_click_is_answered(fresh_kafka: LocalKafka, tmp_path: Path, fault: str) -> None:
    settings, bootstrap = fresh_kafka.settings, fresh_kafka.bootstrap
    harness.create_topics(bootstrap, settings)
    journal = tmp_path / "journal.jsonl"
    worker = harness.start_worker(settings, bootstrap, tmp_path)
    sender = replay(fresh_kafka, journal, None if fault == "none" else CLICKS_PER_S)
    try:
        for _ in range(0 if fault == "none" else 3):
            time.sleep(3.0)
            if fault == "SIGKILL":
                worker.kill()
            else:
                assert worker.terminate(harness.STOP_TIMEOUT_S) == 0, worker.log_tail()
            worker.start()
            worker.wait_ready(harness.READY_TIMEOUT_S)
        assert sender.wait(REPLAY_TIMEOUT_S) == 0
        sent = acknowledged(journal)
        found = harness.wait_answered(settings, bootstrap, sent)
    finally:
        sender.kill()
        sender.wait(10)
        worker.terminate(harness.STOP_TIMEOUT_S)
    rows = sum(1 for line in Path(CLICKS_FILE).read_text().splitlines() if line.strip()) - 1
    assert len(sent) == rows
    assert found.keys() == sent
    if fault != "SIGKILL":
        assert Counter(found.values()) == {1: rows}
    harness.assert_state_equals_oracle(settings, bootstrap)
