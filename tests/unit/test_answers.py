"""Reading recommendations: where a shopper's are, and the search for the newest one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import KafkaError as ClientError

from infra.commands.recommendations import as_line
from schemas.codec import Codec
from schemas.errors import KafkaError
from schemas.topics import RECOMMENDATIONS
from streams.answers import CHUNK_FIRST, AnswerReader
from streams.partitioner import murmur2, partition_of

CODEC = Codec.from_lock()
CONFIG = {"bootstrap.servers": "nowhere:1"}


def recommendation(user: str, number: int) -> dict[str, Any]:
    return {
        "event_id": f"01a1fd6a-977b-7c03-9f2e-{number:012d}",
        "user_id": user,
        "item_ids": ["i1", "i2"],
        "scores": [0.25, 0.1],
        "reasons": [],
        "model": "popular",
        "arm": "",
        "tier": "popular",
        "clicked_at": 1_770_000_000_000,
        "features_as_of": 1_770_000_000_000,
        "scored_at": 1_770_000_000_005,
    }


@dataclass
class FakeMessage:
    """One record, or the end of its partition."""

    at: int
    record_key: bytes | None = None
    record_value: bytes | None = None
    fault: ClientError | None = None

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.record_key

    def value(self) -> bytes | None:
        return self.record_value

    def error(self) -> ClientError | None:
        return self.fault


@dataclass
class FakeTopic:
    partitions: dict[int, None]
    error: None = None


@dataclass
class FakeMetadata:
    topics: dict[str, FakeTopic]


@dataclass
class FakeConsumer:
    """One topic in memory: `logs[partition]` holds records by offset; offsets may have gaps."""

    logs: list[list[FakeMessage]]
    low: int = 0
    topic: str = RECOMMENDATIONS.name
    read_from: list[int] = field(default_factory=list)
    closed: bool = False
    _partition: int = 0
    _position: int = 0
    _ended: bool = False

    def list_topics(self, timeout: float) -> FakeMetadata:
        return FakeMetadata({self.topic: FakeTopic(dict.fromkeys(range(len(self.logs))))})

    def get_watermark_offsets(self, partition: Any, timeout: float) -> tuple[int, int]:
        log = self.logs[partition.partition]
        return self.low, (log[-1].at + 1 if log else self.low)

    def assign(self, partitions: list[Any]) -> None:
        (one,) = partitions
        self._partition, self._position, self._ended = one.partition, one.offset, False
        self.read_from.append(one.offset)

    def consume(self, count: int, timeout: float) -> list[FakeMessage]:
        found = [one for one in self.logs[self._partition] if one.at >= self._position][:count]
        if found:
            self._position = found[-1].at + 1
        elif not self._ended:
            self._ended = True
            return [FakeMessage(self._position, fault=ClientError(ClientError._PARTITION_EOF))]
        return found

    def close(self) -> None:
        self.closed = True


def log_of(users: list[str], first: int = 0) -> list[FakeMessage]:
    return [
        FakeMessage(
            first + at,
            user.encode(),
            CODEC.encode("Recommendation", recommendation(user, first + at)),
        )
        for at, user in enumerate(users)
    ]


def reader(consumer: FakeConsumer) -> AnswerReader:
    return AnswerReader(CONFIG, CODEC, lambda config: consumer)


@pytest.mark.parametrize(
    ("key", "hashed"),
    # Known answers of Apache Kafka's own tests of `Utils.murmur2`.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_kafkas_known_answers(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed & 0xFFFFFFFF
    assert partition_of(key, 8) == (hashed & 0x7FFFFFFF) % 8


def test_newest_is_the_last_of_that_shopper() -> None:
    consumer = FakeConsumer([log_of(["ann", "bob", "ann", "bob"])])
    with reader(consumer) as found:
        search = found.newest("ann")
    assert search.record is not None
    assert search.record["event_id"].endswith("2")
    assert consumer.closed


def test_search_goes_back_in_growing_chunks_and_ends_at_the_beginning() -> None:
    users = ["ann"] + ["bob"] * (3 * CHUNK_FIRST)
    consumer = FakeConsumer([log_of(users, first=500)], low=500)
    with reader(consumer) as found:
        search = found.newest("ann")
        none = found.newest("nobody")
    assert search.record is not None
    assert search.complete
    end = 500 + len(users)
    assert consumer.read_from[:2] == [end - CHUNK_FIRST, 500]
    assert none.record is None
    assert (none.searched, none.complete) == (len(users), True)


def test_search_is_bounded() -> None:
    consumer = FakeConsumer([log_of(["ann"] + ["bob"] * 100)])
    with reader(consumer) as found:
        search = found.newest("ann", searched_max=50)
    assert search.record is None
    assert (search.searched, search.complete) == (50, False)


def test_a_record_that_is_none_is_skipped_for_the_one_before() -> None:
    log = [*log_of(["ann"]), FakeMessage(1, b"ann", b"\0nonsense")]
    with reader(FakeConsumer([log])) as found:
        search = found.newest("ann")
        assert found.unreadable == 1
    assert search.record is not None
    assert search.record["event_id"].endswith("0")


def test_gaps_in_the_offsets_end_no_search_early_nor_let_it_hang() -> None:
    log = [one for one in log_of(["ann", "bob"] * 10) if one.at not in (17, 18)]
    with reader(FakeConsumer([log])) as found:
        search = found.newest("ann", searched_max=3)
        assert search.record is None
        assert found.newest("ann").record is not None


def test_an_empty_partition_has_nothing() -> None:
    with reader(FakeConsumer([[]])) as found:
        search = found.newest("ann")
    assert (search.record, search.searched, search.complete) == (None, 0, True)


def test_a_missing_topic_is_named_with_what_to_do() -> None:
    consumer = FakeConsumer([[]], topic="another")
    with pytest.raises(KafkaError, match=r"no topic recommendations at nowhere:1.*topics create"):
        reader(consumer)
    assert consumer.closed


def test_follow_gives_all_of_one_shopper_from_the_beginning() -> None:
    consumer = FakeConsumer([log_of(["ann", "bob", "ann"])])
    turns = iter([True, True, True, False])
    with reader(consumer) as found:
        records = list(found.follow("ann", from_beginning=True, running=lambda: next(turns)))
    assert [record["user_id"] for record in records] == ["ann", "ann"]


def test_a_line_is_the_record_with_scores_as_short_as_they_are_precise() -> None:
    record = recommendation("ann", 1) | {"scores": [0.10000000149011612, 123456.7890625]}
    line = json.loads(as_line(record))
    assert list(line) == list(recommendation("ann", 1))
    assert line["scores"] == [0.1, 123456.8]
    assert "\n" not in as_line(record)
