"""The README's kcat examples: a click in, the same bytes out, in the partition of its shopper."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from conftest import LocalKafka

from schemas.client import ClickProducer
from schemas.codec import Codec

KCAT = shutil.which("kcat")
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 30
PARTITIONS = 8
# As in the README: one click, as a file.
ENCODE = (
    "import sys, time\n"
    "from schemas.codec import Codec\n"
    "from schemas.event_ids import new_event_id\n"
    "click = {'event_id': new_event_id(), 'user_id': 'u17', 'item_id': 'i42',\n"
    "         'event_type': 'view', 'ts': time.time_ns() // 1_000_000}\n"
    "sys.stdout.buffer.write(Codec.from_lock().encode('Click', click))\n"
)

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(KCAT is None, reason="kcat is not installed"),
]


def kcat(*arguments: str) -> bytes:
    done = subprocess.run(
        [str(KCAT), *arguments], capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def topic(kafka: LocalKafka) -> Iterator[str]:
    name = f"clicks-{kafka.new_group()}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1)]).values():
        future.result(timeout=20)
    yield name
    for future in admin.delete_topics([name]).values():
        future.result(timeout=20)


def test_a_click_through_kcat_keeps_every_byte(
    kafka: LocalKafka, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "click.avro"
    made = subprocess.run(
        [sys.executable, "-c", ENCODE], cwd=ROOT, capture_output=True, timeout=TIMEOUT_S, check=True
    )
    file.write_bytes(made.stdout)
    where = ("-b", kafka.bootstrap, "-t", topic)
    kcat(
        "-P",
        *where,
        "-k",
        "u17",
        "-X",
        "partitioner=murmur2_random",
        "-X",
        "enable.idempotence=true",
        str(file),
    )

    value = kcat("-C", *where, "-q", "-e", "-c", "1", "-o", "beginning", "-f", "%s")
    assert value == made.stdout
    assert value[:5] == b"\0\0\0\0\x01", "byte 0, then the schema id"
    assert Codec.from_lock().decode("Click", value)["item_id"] == "i42"


def test_kcat_and_the_client_agree_on_the_partition(
    kafka: LocalKafka, topic: str, tmp_path: Path
) -> None:
    users = [f"u{at}" for at in range(20)]
    codec = Codec.from_lock()
    with ClickProducer(kafka.bootstrap, topic=topic) as clicks:
        for user in users:
            clicks.send(user_id=user, item_id="i")
    where = ("-b", kafka.bootstrap, "-t", topic)
    for user in users:
        file = tmp_path / user
        file.write_bytes(
            codec.encode(
                "Click",
                {
                    "event_id": "x" * 36,
                    "user_id": user,
                    "item_id": "i",
                    "event_type": "view",
                    "ts": 1,
                },
            )
        )
        kcat("-P", *where, "-k", user, "-X", "partitioner=murmur2_random", str(file))
    lines = kcat("-C", *where, "-q", "-e", "-o", "beginning", "-f", "%k %p\n").decode().split()
    keys, partitions = lines[::2], lines[1::2]
    assert sorted(keys) == sorted(users * 2)
    places = {
        key: {place for one, place in zip(keys, partitions, strict=True) if one == key}
        for key in users
    }
    assert all(len(found) == 1 for found in places.values()), places
    assert len(set(partitions)) > 1
