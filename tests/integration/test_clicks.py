"""Clicks into a real Kafka: acknowledged means there, once, in its partition; the rest is counted."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cli_runner
import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from conftest import LocalKafka

from infra.cluster import region
from schemas.codec import Codec
from streams.clicks.columns import ClickColumns, concatenated, limited
from streams.clicks.journal import Journal
from streams.clicks.pacing import AtRate
from streams.clicks.replay import ClickSender, click_producer_config, open_producer, replay
from streams.clicks.simulate import Shop
from streams.settings import load_settings
from streams.topics_admin import create_topics

pytestmark = pytest.mark.kafka

CODEC = Codec.from_lock()
READ_TIMEOUT_S = 30
PARTITIONS = 4


@pytest.fixture
def where(kafka: LocalKafka) -> str:
    """The shared Kafka, with all topics."""
    create_topics(
        AdminClient({"bootstrap.servers": kafka.bootstrap}),
        load_settings(bootstrap=kafka.bootstrap),
    )
    return kafka.bootstrap


@pytest.fixture
def topic(kafka: LocalKafka) -> Iterator[str]:
    """A topic for this test only."""
    name = f"clicks-{kafka.new_group()}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.create_topics(
        [NewTopic(name, PARTITIONS, 1, config={"max.message.bytes": "4194304"})]
    ).values():
        future.result(timeout=20)
    yield name
    for future in admin.delete_topics([name]).values():
        future.result(timeout=20)


def read(bootstrap: str, topic: str) -> dict[tuple[int, int], Any]:
    """All records of a topic: (partition, offset) -> message."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = {}
        for partition in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            if high > low:
                ends[partition] = high
        consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
        found: dict[tuple[int, int], Any] = {}
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        while ends:
            assert time.monotonic() < deadline_s, (
                f"partitions {sorted(ends)} were not read in {READ_TIMEOUT_S} s"
            )
            for message in consumer.consume(1_000, timeout=0.5):
                assert message.error() is None
                partition, offset = message.partition(), message.offset()
                found[partition, offset] = message
                if offset + 1 >= ends.get(partition, 0):
                    ends.pop(partition, None)
        return found
    finally:
        consumer.close()


def journal_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for_outcomes(journal: Path) -> None:
    deadline_s = time.monotonic() + READ_TIMEOUT_S
    while not (journal.exists() and journal.stat().st_size):
        assert time.monotonic() < deadline_s, f"nothing was sent in {READ_TIMEOUT_S} s"
        time.sleep(0.05)


def murmur2(data: bytes) -> int:
    """The hash of the Java clients' default partitioner."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.tsv"
    lines = [f"{at % 37}\t{at % 11}\t{1_700_000_000 + 500 - at / 2}" for at in range(1_000)]
    path.write_text("SessionId\tItemId\tTime\n" + "\n".join(lines) + "\n")
    return path


def test_what_is_acknowledged_is_there(where: str, file: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    done = cli_runner.run(where, "clicks", "replay", file, "--journal", journal, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert (summary["handed"], summary["acknowledged"], summary["refused"], summary["unknown"]) == (
        1_000,
        1_000,
        0,
        0,
    )
    outcomes = journal_of(journal)
    assert len({one["event_id"] for one in outcomes}) == 1_000
    records = read(where, "clicks")
    partitions = len({partition for partition, _ in records})
    assert partitions > 1
    for one in outcomes:
        assert one["outcome"] == "ok"
        message = records[one["partition"], one["offset"]]
        click = CODEC.decode("Click", message.value())
        assert {
            name: click[name] for name in ("event_id", "user_id", "item_id", "event_type", "ts")
        } == {name: one[name] for name in ("event_id", "user_id", "item_id", "event_type", "ts")}
        assert click["session_id"] == click["user_id"]
        assert message.key() == click["user_id"].encode()
        assert message.partition() == (murmur2(message.key()) & 0x7FFFFFFF) % 8
    # In time order within each partition, though the file runs backwards.
    by_partition: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for one in outcomes:
        by_partition[one["partition"]].append(one)
    for ones in by_partition.values():
        times = [one["ts"] for one in sorted(ones, key=lambda one: one["offset"])]
        assert times == sorted(times)


def test_a_replay_repeats_its_events_and_another_seed_makes_new_ones(
    where: str, file: Path, tmp_path: Path
) -> None:
    def ids(*arguments: str) -> list[str]:
        journal = tmp_path / "journal.jsonl"
        done = cli_runner.run(where, "clicks", "replay", file, "--journal", journal, *arguments)
        assert done.returncode == 0, done.stderr
        return sorted(one["event_id"] for one in journal_of(journal))

    first = ids()
    assert ids("--as-is") == first
    assert not set(ids("--seed", "2")) & set(first)
    assert set(ids("--limit", "10")) < set(first)


def test_now_dates_clicks_around_now(where: str, file: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    before_ms = time.time() * 1000
    assert (
        cli_runner.run(where, "clicks", "replay", file, "--now", "--journal", journal).returncode
        == 0
    )
    times = [one["ts"] for one in journal_of(journal)]
    assert before_ms <= max(times) <= time.time() * 1000
    assert max(times) - min(times) == 499_500, "moved as a whole"
    before_ms = time.time() * 1000
    done = cli_runner.run(
        where, "clicks", "replay", file, "--now", "--rate", "1000", "--journal", journal
    )
    assert done.returncode == 0
    times = [one["ts"] for one in journal_of(journal)]
    assert min(times) >= before_ms
    assert max(times) - min(times) == 999, "dated as they are due"


def test_wrong_rows_are_told_and_the_others_sent(where: str, tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    path.write_text("user,item,time\nu,i,1700000000\n,i,1700000000\nu,i,never\nu,i\nu,j,5\n")
    done = cli_runner.run(where, "clicks", "replay", path)
    assert done.returncode == 0
    assert done.stdout.startswith("acknowledged 2, refused 0, unknown 0 of 2 clicks")
    assert done.stderr.splitlines() == [
        "1 clicks are dated before 2000, and workers reject those: --now moves them",
        "3 rows skipped: line 3 (no user), line 4 (no time), line 5 (2 columns, not 3)",
    ]
    strict = cli_runner.run(where, "clicks", "replay", path, "--strict")
    assert strict.returncode == 2
    assert "w.csv: 3 rows skipped: line 3 (no user)" in strict.stderr
    untimed = tmp_path / "games.txt"
    untimed.write_text("1 2\n")
    done = cli_runner.run(where, "clicks", "replay", untimed)
    assert done.returncode == 2
    assert "--map user_id=1,item_id=2,ts=COLUMN" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_ends_with_what_was_acknowledged(where: str, file: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    process = cli_runner.start(
        where, "clicks", "replay", file, "--rate", "100", "--journal", journal, "--json"
    )
    wait_for_outcomes(journal)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err.strip() == "interrupted: the rest was not sent"
    summary = json.loads(out)
    assert summary["interrupted"]
    assert 0 < summary["acknowledged"] == summary["handed"] < 1_000
    assert len(journal_of(journal)) == summary["handed"]


def test_no_kafka_is_told(file: Path) -> None:
    done = cli_runner.run("127.0.0.1:9", "clicks", "replay", file)
    assert done.returncode == 1
    assert done.stderr.startswith("headrace: Kafka at 127.0.0.1:9 does not answer within 5 s")
    assert len(done.stderr.splitlines()) == 1


def columns(count: int, **more: Any) -> ClickColumns:
    users = pa.array([f"u{at % 50}" for at in range(count)])
    items = pa.array([f"i{at % 70}" for at in range(count)])
    rows = np.arange(count, dtype=np.int64)
    return ClickColumns(
        users, items, rows + 1_700_000_000_000, np.zeros(count, np.uint8), rows, **more
    )


def test_a_click_that_is_too_large_is_refused_and_the_rest_sent(
    where: str, topic: str, tmp_path: Path
) -> None:
    queries = pa.array([None, "x" * 5_000_000, "short"])
    with Journal(tmp_path / "j.jsonl") as journal:
        sender = ClickSender(
            open_producer(load_settings(), where, topic), CODEC, topic=topic, journal=journal
        )
        delivery = replay([columns(3, query=queries)], sender)
    assert (delivery.handed, delivery.acknowledged, delivery.refused, delivery.unknown) == (
        3,
        2,
        1,
        0,
    )
    assert any("too large" in reason for reason in delivery.faults)
    assert sorted(one["outcome"] for one in journal_of(tmp_path / "j.jsonl")) == [
        "ok",
        "ok",
        "refused",
    ]
    assert len(read(where, topic)) == 2


class Noting:
    """A producer that notes when it was handed what."""

    def __init__(self, producer: Any) -> None:
        self.moments: list[float] = []
        self._producer = producer

    def produce(self, *arguments: Any) -> None:
        self.moments.append(time.monotonic())
        self._producer.produce(*arguments)

    def poll(self, seconds: float) -> None:
        self._producer.poll(seconds)

    def flush(self, seconds: float) -> None:
        self._producer.flush(seconds)

    def __len__(self) -> int:
        return len(self._producer)


def test_a_rate_is_kept(where: str, topic: str) -> None:
    """On the real clock, and so with room for a busy machine; the unit tests know none."""
    producer = Noting(open_producer(load_settings(), where, topic))
    sender = ClickSender(producer, CODEC, topic=topic)
    delivery = replay([columns(10_000)], sender, AtRate(2_000.0))
    assert delivery.acknowledged == 10_000
    first, last = producer.moments[0], producer.moments[-1]
    assert 9_999 / (last - first) == pytest.approx(2_000, rel=0.04)
    in_half_seconds = np.histogram(producer.moments, np.arange(first, last - 0.5, 0.5))[0]
    assert in_half_seconds.max() < 1.6 * 1_000


def test_a_full_queue_waits_and_loses_nothing(where: str, topic: str) -> None:
    config = click_producer_config(load_settings(), where) | {"queue.buffering.max.messages": 500}
    sender = ClickSender(Producer(config), CODEC, topic=topic)
    delivery = replay([columns(20_000)], sender)
    assert delivery.acknowledged == delivery.handed == 20_000
    assert len(read(where, topic)) == 20_000


def test_a_broker_that_goes_away_costs_nothing_that_was_acknowledged(
    fresh_kafka: LocalKafka, tmp_path: Path
) -> None:
    where, settings = fresh_kafka.bootstrap, fresh_kafka.settings
    create_topics(
        AdminClient({"bootstrap.servers": where}), load_settings(bootstrap=where, partitions=2)
    )
    with Journal(tmp_path / "j.jsonl") as journal:
        sender = ClickSender(open_producer(settings, where), CODEC, journal=journal)

        def break_it() -> None:
            time.sleep(1.0)
            region.stop(settings)
            time.sleep(1.0)
            region.start(settings)

        breaking = threading.Thread(target=break_it)
        breaking.start()
        try:
            delivery = replay([columns(10_000)], sender, AtRate(2_000.0), flush_timeout_s=60)
        finally:
            breaking.join(timeout=60)
    assert (delivery.handed, delivery.acknowledged) == (10_000, 10_000), delivery.faults
    records = read(where, "clicks")
    ids = [CODEC.decode("Click", message.value())["event_id"] for message in records.values()]
    assert len(ids) == len(set(ids)) == 10_000, "none lost, none twice"
    for one in journal_of(tmp_path / "j.jsonl"):
        assert records[one["partition"], one["offset"]].key() == one["user_id"].encode()


def test_kafka_that_does_not_come_back_leaves_outcomes_unknown(
    fresh_kafka: LocalKafka, tmp_path: Path
) -> None:
    where, settings = fresh_kafka.bootstrap, fresh_kafka.settings
    create_topics(
        AdminClient({"bootstrap.servers": where}), load_settings(bootstrap=where, partitions=2)
    )
    stopped = threading.Event()
    with Journal(tmp_path / "j.jsonl") as journal:
        sender = ClickSender(
            open_producer(settings, where), CODEC, journal=journal, stopped=stopped.is_set
        )

        def break_it() -> None:
            time.sleep(1.0)
            region.stop(settings)
            time.sleep(0.5)
            stopped.set()

        breaking = threading.Thread(target=break_it)
        breaking.start()
        try:
            delivery = replay([columns(100_000)], sender, AtRate(2_000.0), flush_timeout_s=3)
        finally:
            breaking.join(timeout=60)
    assert delivery.interrupted
    assert delivery.acknowledged > 0
    assert delivery.unknown > 0
    assert delivery.handed == delivery.acknowledged + delivery.refused + delivery.unknown < 100_000
    outcomes = [one["outcome"] for one in journal_of(tmp_path / "j.jsonl")]
    assert outcomes.count("ok") == delivery.acknowledged
    assert outcomes.count("unknown") == delivery.unknown


def test_simulated_shoppers(where: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    size = ("--shoppers", 50, "--items", 40, "--seed", 9)
    before = len(read(where, "catalog"))
    before_ms = time.time() * 1000
    done = cli_runner.run(
        where, "clicks", "simulate", *size, "--clicks", 500, "--rate", 1_000, "--journal", journal
    )
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = journal_of(journal)
    assert len(outcomes) == 500
    assert min(one["ts"] for one in outcomes) >= before_ms, "clicks are dated as they are sent"
    catalog = read(where, "catalog")
    assert len(catalog) == before + 40
    items = {
        message.key().decode(): CODEC.decode("Item", message.value())
        for message in catalog.values()
    }
    assert {one["item_id"] for one in outcomes} - {""} <= set(items)

    # As a file, and the file replayed: the same events as sent directly with simulated times.
    path = tmp_path / "shop.parquet"
    assert (
        cli_runner.run(
            where, "clicks", "simulate", *size, "--clicks", 500, "--out", path
        ).returncode
        == 0
    )
    replayed = cli_runner.run(where, "clicks", "replay", path, "--seed", 9, "--journal", journal)
    assert replayed.returncode == 0
    from_file = sorted(one["event_id"] for one in journal_of(journal))
    direct = cli_runner.run(
        where,
        "clicks",
        "simulate",
        *size,
        "--clicks",
        500,
        "--keep-times",
        "--no-catalog",
        "--journal",
        journal,
    )
    assert direct.returncode == 0
    assert sorted(one["event_id"] for one in journal_of(journal)) == from_file
    assert len(read(where, "catalog")) == before + 40


def test_simulation_ends_by_time_or_by_ctrl_c(where: str, tmp_path: Path) -> None:
    quick = ("clicks", "simulate", "--no-catalog", "--json")
    done = cli_runner.run(where, *quick, "--seconds", 1, "--rate", 500)
    assert json.loads(done.stdout)["acknowledged"] == 500
    journal = tmp_path / "journal.jsonl"
    process = cli_runner.start(where, *quick, "--rate", 200, "--journal", journal)
    wait_for_outcomes(journal)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert json.loads(out)["acknowledged"] > 0
    endless = cli_runner.run(where, "clicks", "simulate", "--out", tmp_path / "x.tsv")
    assert endless.returncode == 2
    assert "--clicks or --seconds" in endless.stderr


def test_the_simulator_feeds_kafka_fast(where: str, topic: str) -> None:
    """CPU seconds and not time, because the machine may be busy with other things."""
    clicks = concatenated(list(limited(Shop().clicks(), 100_000)))
    sender = ClickSender(open_producer(load_settings(), where, topic), CODEC, topic=topic)
    start_s = time.process_time()
    delivery = replay([clicks], sender)
    cpu_s = time.process_time() - start_s
    assert delivery.acknowledged == 100_000
    assert 100_000 / cpu_s > 30_000
