"""Kafka's side of the sink: a consumer that is told its offsets, and can read a range again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka import KafkaError as ClientError

from infra.warehouse.journal import Place
from schemas.errors import KafkaError, WarehouseError
from streams.kafka import fetch_consumer_config
from streams.settings import Settings

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S: Final = 10.0
# Reading one batch again takes a second or two; brokers that are silent for so long are away.
SILENCE_MAX_S: Final = 60.0
CHUNK_RECORDS: Final = 5_000
_PASSING: Final = frozenset(
    {
        ClientError._TRANSPORT,
        ClientError._ALL_BROKERS_DOWN,
        ClientError._TIMED_OUT,
        ClientError._RESOLVE,
        ClientError.LEADER_NOT_AVAILABLE,
        ClientError.NOT_LEADER_FOR_PARTITION,
        ClientError.REQUEST_TIMED_OUT,
        ClientError.UNKNOWN_TOPIC_OR_PART,
    }
)


class Source:
    """Reads the topics of the sink; offsets are committed for people and tools to look at.

    The group is `<group>-warehouse`; nobody joins it, since where to go on is in the journal.
    """

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        config: dict[str, Any] = fetch_consumer_config(settings, bootstrap) | {
            "group.id": f"{settings.group}-warehouse",
            "fetch.wait.max.ms": 200,
            "queued.min.messages": 20_000,
            "queued.max.messages.kbytes": 16_384,
            # Many records a request: the sink is in no hurry, and pays by the request.
            "fetch.min.bytes": 65_536,
            "enable.partition.eof": True,
        }
        self._where = bootstrap
        self._consumer = Consumer(config)
        self._assigned: dict[Place, int] = {}

    def close(self) -> None:
        """Let go."""
        self._consumer.close()

    def places(self, topics: Iterable[str]) -> list[Place]:
        """The partitions of those topics that are there. Raises `KafkaError`."""
        wanted = set(topics)
        try:
            found = self._consumer.list_topics(timeout=REQUEST_TIMEOUT_S).topics
        except KafkaException as error:
            raise KafkaError(
                f"Kafka at {self._where} does not answer: {error.args[0].str()}"
            ) from None
        return [
            (name, partition)
            for name, topic in found.items()
            if name in wanted and topic.error is None
            for partition in topic.partitions
        ]

    def watermarks(self, place: Place) -> tuple[int, int]:
        """Offsets of a partition's first record and of the one that comes next."""
        try:
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(*place), timeout=REQUEST_TIMEOUT_S
            )
        except KafkaException as error:
            raise KafkaError(
                f"Kafka at {self._where} does not say where {place[0]}[{place[1]}] ends: "
                f"{error.args[0].str()}"
            ) from None
        return int(low), int(high)

    def assign(self, offsets: Mapping[Place, int]) -> None:
        """Read these partitions from these offsets on."""
        self._assigned = dict(offsets)
        self._consumer.assign([TopicPartition(*place, at) for place, at in offsets.items()])

    def pause(self) -> None:
        """Fetch no more for now."""
        self._consumer.pause([TopicPartition(*place) for place in self._assigned])

    def resume(self) -> None:
        """Go on fetching."""
        self._consumer.resume([TopicPartition(*place) for place in self._assigned])

    def take(self, count: int, timeout_s: float) -> tuple[list[Message], set[Place]]:
        """Records as they come, at most `count`, and the partitions whose end was reached."""
        # `consume` waits for the full number; so first for one, then for what else is there.
        messages = self._consumer.consume(1, timeout_s)
        if messages:
            messages += self._consumer.consume(count, 0)
        taken: list[Message] = []
        ended: set[Place] = set()
        for message in messages:
            error = message.error()
            if error is None:
                taken.append(message)
            elif error.code() == ClientError._PARTITION_EOF:
                ended.add((str(message.topic()), int(message.partition() or 0)))
            elif error.code() not in _PASSING:
                raise KafkaError(f"reading {message.topic()}: {error.str()}")
        return taken, ended

    def read_again(self, ranges: Mapping[Place, tuple[int, int]]) -> dict[Place, list[Message]]:
        """All records that are still there of offsets from `first` to before `end`, by partition.

        Leaves nothing assigned. Raises `KafkaError` when the brokers fall silent.
        """
        found: dict[Place, list[Message]] = {
            place: [] for place, (first, end) in ranges.items() if end > first
        }
        starts = {}
        for place in list(found):
            low, high = self.watermarks(place)
            first, end = ranges[place]
            if low > first:
                log.warning("%s[%d]: %d records before %d are gone", *place, low - first, low)
            if max(first, low) < min(end, high):
                starts[place] = max(first, low)
        left = set(starts)
        self.assign(starts)
        heard_at = time.monotonic()
        while left:
            taken, ended = self.take(CHUNK_RECORDS, 0.5)
            if taken or ended:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENCE_MAX_S:
                raise KafkaError(f"Kafka at {self._where} sent nothing for {SILENCE_MAX_S:.0f} s")
            for message in taken:
                place = (str(message.topic()), int(message.partition() or 0))
                offset, end = int(message.offset() or 0), ranges[place][1]
                if offset < end:
                    found[place].append(message)
                if offset >= end - 1:
                    left.discard(place)
            left -= ended
        self.assign({})
        return found

    def commit(self, ends: Mapping[Place, int]) -> None:
        """Tell Kafka how far the warehouse is; a failure is only logged, for nothing depends on it."""
        try:
            self._consumer.commit(
                offsets=[TopicPartition(*place, end) for place, end in ends.items()],
                asynchronous=False,
            )
        except KafkaException as error:
            log.warning("offsets not committed: %s", error.args[0].str())


def start_offsets(
    source: Source, ends: Mapping[Place, int], places: Iterable[Place], anew: frozenset[str]
) -> dict[Place, int]:
    """Where to begin each partition: where the journal stands, else at its first record.

    `anew`: topics to read from their beginnings whatever the journal says. Raises `WarehouseError`
    for a partition that ends before the journal's offset: it is not the one that was read.
    """
    starts = {}
    for place in places:
        low, high = source.watermarks(place)
        at = ends.get(place, 0) if place[0] not in anew else 0
        if at > high:
            raise WarehouseError(
                f"{place[0]}[{place[1]}] ends at offset {high}, and the warehouse has read up to {at}: "
                f"the topic was made anew or has lost records. To read it from its beginning: "
                f"`headrace warehouse run --anew {place[0]}`"
            )
        if at < low and place in ends and place[0] not in anew:
            log.warning(
                "%s[%d]: offsets %d to %d were deleted before the warehouse read them",
                *place,
                at,
                low - 1,
            )
        starts[place] = max(at, low)
    return starts
