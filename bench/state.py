"""A million users of state: how long a worker takes to restore them, and in how much memory.

Writes the changelog straight to the topic, starts a worker on it, and then sends clicks, to see
that they are answered and that the restored windows are what they are folded into.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import psutil
from cluster import BenchKafka, temporary_kafka
from confluent_kafka import Consumer, Producer, TopicPartition
from report import aligned, machine, noise, write_json
from workload import Clicks, item_id, make_clicks, user_id

from infra.workers import WorkerProcess
from schemas.clicks import click_decoder
from schemas.codec import Codec
from schemas.errors import HeadraceError, KafkaError, WorkerError
from schemas.topics import CLICKS, RECOMMENDATIONS, changelog_topic
from streams.kafka import fetch_consumer_config
from streams.settings import Settings
from streams.state.window import WINDOW_EVENTS, WindowEvent, fold, pack, pack_key

ITEMS: Final = 3_000
# Distinct windows; users take them in turn. What is measured depends on sizes, not on contents.
DISTINCT_WINDOWS: Final = 5_000
# Half of their users have a window, half are new.
CLICKS_SENT: Final = 20_000
USERS_SENT: Final = 20_000
RESTORE_S_MAX: Final = 60.0
RSS_MB_MAX: Final = 2_500.0
# The limits are for a machine of its own; a worker that takes much longer is stuck.
READY_TIMEOUT_S: Final = 600.0
ANSWER_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Restored:
    """What the restore cost: start to ready, of that reading, and resident memory, now and at most."""

    ready_s: float
    restore_s: float
    rss_mb: float
    rss_mb_max: float
    records: int


@click.command()
@click.option(
    "--users",
    default=1_000_000,
    show_default=True,
    type=click.IntRange(1),
    help="Users in the changelog.",
)
@click.option(
    "--events",
    default=20,
    show_default=True,
    type=click.IntRange(1, 50),
    help="Events of a user, on average.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the results there.",
)
def main(users: int, events: int, json_path: Path | None) -> None:
    """Measure the restore of many users, and check that the worker goes on from them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    load, idle = os.getloadavg()[0], 1.0 - psutil.cpu_percent(1.0) / 100
    print(noise(load, idle, os.cpu_count() or 1))
    try:
        with temporary_kafka() as kafka:
            result = measure(kafka, users, events)
    except HeadraceError as error:
        raise click.ClickException(str(error)) from None
    if json_path:
        about = machine() | {"load_average": round(load, 2), "idle_share": round(idle, 2)}
        write_json(
            json_path,
            {"bench": "state", "machine": about, "users": users, "events": events} | result,
        )
    sys.exit(0 if result["within"] else 1)


def measure(kafka: BenchKafka, users: int, events: int) -> dict[str, Any]:
    """Write, restore, check, print; returns the results."""
    settings = kafka.renew("bench-state")
    windows = make_windows(events)
    written_mb = write_changelog(settings, users, windows)
    print(
        f"wrote {users:,} windows of {events} events on average, {written_mb:,.0f} MB", flush=True
    )
    worker = WorkerProcess(
        "0",
        settings.bootstrap,
        kafka.folder / "worker.log",
        {"HEADRACE_GROUP": settings.group, "HEADRACE_PARTITIONS": str(settings.partitions)},
    )
    try:
        restored = restore(worker)
        if restored.records < users:
            raise WorkerError(f"the worker restored {restored.records} records of {users}")
        clicks, expected = make_growth(users, windows)
        starts = kafka.ends(changelog_topic(settings.group))
        send(kafka, clicks)
        # A worker that has stopped has flushed: what it wrote is all there.
        worker.terminate(STOP_TIMEOUT_S)
        check_windows(settings, starts, expected)
    finally:
        worker.kill()
    within = restored.ready_s <= RESTORE_S_MAX and restored.rss_mb_max <= RSS_MB_MAX
    rows = [
        ["figure", "found", "at most"],
        ["start to ready, s", f"{restored.ready_s:.1f}", f"{RESTORE_S_MAX:.0f}"],
        ["of that reading, s", f"{restored.restore_s:.1f}", ""],
        ["RSS, MB", f"{restored.rss_mb:,.0f}", ""],
        ["RSS at its highest, MB", f"{restored.rss_mb_max:,.0f}", f"{RSS_MB_MAX:,.0f}"],
        ["RSS a user, bytes", f"{1e6 * restored.rss_mb / users:,.0f}", ""],
        ["changelog, bytes a user", f"{1e6 * written_mb / users:,.0f}", ""],
    ]
    print(f"\n{aligned(rows)}\n")
    print(
        f"{CLICKS_SENT:,} clicks of old and new users: all answered, {len(expected):,} windows as they should be"
    )
    print("within the limits" if within else "OVER the limits")
    return {
        "ready_s": restored.ready_s,
        "restore_s": restored.restore_s,
        "rss_mb": restored.rss_mb,
        "rss_mb_max": restored.rss_mb_max,
        "changelog_mb": written_mb,
        "windows_checked": len(expected),
        "within": within,
    }


def make_windows(events: int) -> list[bytes]:
    """Distinct windows of `events` events on average, up to half more or less."""
    rng = np.random.default_rng(1)
    base = time.time_ns() // 1_000_000 - 86_400_000
    windows = []
    for _ in range(DISTINCT_WINDOWS):
        count = min(WINDOW_EVENTS, max(1, round(events * rng.uniform(0.5, 1.5))))
        items, times = (
            rng.integers(0, ITEMS, count).tolist(),
            rng.integers(0, 80_000_000, count).tolist(),
        )
        windows.append(
            pack(
                [
                    WindowEvent(base + ts, rng.bytes(16), 0, item_id(item).encode())
                    for ts, item in zip(times, items, strict=True)
                ]
            )
        )
    return windows


def write_changelog(settings: Settings, users: int, windows: list[bytes]) -> float:
    """Write one window a user to the partition that the user's clicks have; returns the megabytes."""
    faults: list[str] = []

    def delivered(error: Any, _: Any) -> None:
        if error is not None:
            faults.append(str(error))

    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 100_000,
            "delivery.report.only.error": True,
            "on_delivery": delivered,
        }
    )
    topic = changelog_topic(settings.group)
    size = 0
    for number in range(users):
        key, window = user_id(number), windows[number % len(windows)]
        size += len(key) + len(window)
        while True:
            try:
                producer.produce(topic, window, key)
                break
            except BufferError:
                producer.poll(0.05)
    if producer.flush(60) or faults:
        raise KafkaError(f"the changelog was not written: {faults[:1]}")
    return size / 1e6


def restore(worker: WorkerProcess) -> Restored:
    """Start the worker and wait until it serves."""
    started = time.monotonic()
    worker.start()
    worker.wait_ready(READY_TIMEOUT_S)
    ready_s = time.monotonic() - started
    rss_mb = psutil.Process(worker.pid).memory_info().rss / 1e6
    page = worker.metrics()
    return Restored(
        ready_s,
        _metric(page, "headrace_restore_seconds"),
        rss_mb,
        max(rss_mb, _rss_mb_max(worker.pid)),
        int(_metric(page, "headrace_restored_records_total")),
    )


def _metric(page: str, name: str) -> float:
    for line in page.splitlines():
        if line.startswith(name + "{"):
            return float(line.rpartition(" ")[2])
    raise WorkerError(f"the worker has no metric {name}")


def _rss_mb_max(pid: int) -> float:
    """The highest resident memory so far; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM:")), 0.0)


def make_growth(users: int, windows: list[bytes]) -> tuple[Clicks, dict[bytes, bytes]]:
    """Clicks of users old and new, and what their windows must be afterwards."""
    half = min(users, USERS_SENT // 2)
    now_ms = time.time_ns() // 1_000_000
    clicks = make_clicks(CLICKS_SENT, 2 * half, ITEMS, now_ms, first_user=users - half)
    decode = click_decoder(Codec.from_lock())
    expected: dict[bytes, bytes] = {}
    for user, value in zip(clicks.users, clicks.values, strict=True):
        found = decode(value)
        number = int(user.removeprefix(b"shopper-"))
        before = expected.get(user) or (windows[number % len(windows)] if number < users else None)
        after, _ = fold(
            before, pack_key(found.ts, found.event_key), found.event_type, found.item_id
        )
        assert after is not None
        expected[user] = after
    return clicks, expected


def send(kafka: BenchKafka, clicks: Clicks) -> None:
    """Send clicks and wait until all are answered."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random"})
    for user, value in zip(clicks.users, clicks.values, strict=True):
        producer.produce(CLICKS.name, value, user)
    if producer.flush(60):
        raise KafkaError("not all clicks were taken within 60 s")
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while (answered := sum(kafka.ends(RECOMMENDATIONS.name).values())) < len(clicks):
        if time.monotonic() > deadline:
            raise WorkerError(
                f"{answered} of {len(clicks)} clicks answered within {ANSWER_TIMEOUT_S:.0f} s"
            )
        time.sleep(0.1)


def check_windows(settings: Settings, starts: dict[int, int], expected: dict[bytes, bytes]) -> None:
    """The changelog says from these offsets on what the clicks say. Raises `WorkerError`."""
    newest: dict[bytes, bytes] = {}
    reader = Consumer(
        fetch_consumer_config(settings, settings.bootstrap) | {"enable.partition.eof": True}
    )
    try:
        topic = changelog_topic(settings.group)
        reader.assign([TopicPartition(topic, p, start) for p, start in starts.items()])
        left, deadline = set(starts), time.monotonic() + ANSWER_TIMEOUT_S
        while left and time.monotonic() < deadline:
            for message in reader.consume(10_000, 0.2):
                if message.error() is None:
                    newest[message.key() or b""] = message.value() or b""
                else:
                    left.discard(message.partition() or 0)
    finally:
        reader.close()
    wrong = [user for user, window in expected.items() if newest.get(user) != window]
    if wrong:
        raise WorkerError(
            f"{len(wrong)} of {len(expected)} windows are not what their clicks say, {wrong[0]!r} for one"
        )


if __name__ == "__main__":
    main()
