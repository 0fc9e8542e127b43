"""The sink is killed at random moments; the rows, and the sums of the aggregates, are exact."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import harness
import pytest
from conftest import LocalKafka
from warehouse_runs import Shop, SinkProcess, ask, assert_exactly

KILLS = 10
SEED = 20
# One round: enough that batches are on their way at any moment.
ROUND_RECORDS = 400

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.drill]


def test_ten_kills_and_every_row_once(fresh_kafka: LocalKafka, tmp_path: Path) -> None:
    settings, bootstrap = fresh_kafka.settings, fresh_kafka.bootstrap
    harness.create_topics(bootstrap, settings)
    rng = random.Random(SEED)
    shop = Shop(bootstrap, SEED)
    sink = SinkProcess(
        settings, bootstrap, tmp_path / "sink.log", HEADRACE_WAREHOUSE_LINGER_S="0.1"
    )
    enough = threading.Event()

    def feed() -> None:
        while not enough.wait(0.25):
            shop.send(ROUND_RECORDS)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        for _ in range(KILLS):
            sink.start()
            sink.wait_ready()
            # From settling what the last one left, to the middle of some later batch.
            time.sleep(rng.uniform(0.0, 2.5))
            sink.kill()
    finally:
        enough.set()
        feeder.join()
    shop.flush()
    sink.start("run", "--once", "--json")
    assert sink.wait(120) == 0, sink.log_tail()
    assert_exactly(settings, len(shop.sent))
    ((batches,),) = ask(settings, "SELECT count() FROM batches")
    assert batches > 2 * KILLS, "too few batches: the kills met nothing"
