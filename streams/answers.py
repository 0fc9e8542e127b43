"""Recommendations out of their topic: a shopper's newest one, or all as they come.

A shopper's answers are in one partition, so `newest` searches that one backwards from its end in
growing chunks. Records that cannot be read are skipped and counted; they are somebody else's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka import KafkaError as ClientError

from schemas.codec import Codec
from schemas.errors import KafkaError, RecordError
from schemas.topics import CATALOG, RECOMMENDATIONS
from streams.partitioner import partition_of
from streams.topics_admin import cluster_metadata

# The first look back: most shoppers who are asked for have just clicked.
CHUNK_FIRST: Final = 2_000
CHUNK_GROWTH: Final = 4
CHUNK_MAX: Final = 200_000
# How far back a search goes unless told otherwise: about 20 s of reading.
SEARCHED_MAX: Final = 2_000_000
FETCHED_MAX: Final = 5_000
POLL_S: Final = 0.25
# Brokers that send nothing of what they say they have.
SILENCE_MAX_S: Final = 15.0
REQUEST_TIMEOUT_S: Final = 5.0
# Titles are a courtesy: a catalogue that takes longer is shown by its ids.
TITLES_TIMEOUT_S: Final = 5.0
TITLES_MAX: Final = 200_000

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found: the record or None, and how far it looked.

    `searched`: offsets looked at; `complete`: whether that was all that the partition holds.
    """

    record: Record | None
    partition: int
    searched: int
    complete: bool


class AnswerReader:
    """Reads `recommendations` with one consumer that joins no group; a context manager.

    `config`: a consumer's; `open_consumer` makes it. Raises `KafkaError` where there is no Kafka
    or no such topic.
    """

    def __init__(
        self,
        config: dict[str, Any],
        codec: Codec,
        open_consumer: Callable[[dict[str, Any]], Any] = Consumer,
    ) -> None:
        self.unreadable = 0
        self._trouble = ""
        self._codec = codec
        self._where = str(config["bootstrap.servers"])
        self._consumer = open_consumer(
            # Its own log repeats each failed connection; a message says it once.
            config
            | {
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 100,
                "log_level": 0,
                "error_cb": self._on_error,
            }
        )
        try:
            found = cluster_metadata(self._consumer, self._where).topics.get(RECOMMENDATIONS.name)
            if found is None or found.error is not None:
                raise KafkaError(
                    f"no topic {RECOMMENDATIONS.name} at {self._where}: run `headrace topics create`"
                )
        except BaseException:
            self._consumer.close()
            raise
        self._partitions = len(found.partitions)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._consumer.close()

    def newest(self, user: str, searched_max: int = SEARCHED_MAX) -> Search:
        """The newest recommendation of a shopper, among the newest `searched_max` records."""
        key = user.encode()
        partition = partition_of(key, self._partitions)
        low, high = self._ends(partition)
        lowest = max(low, high - searched_max)
        stop, size = high, CHUNK_FIRST
        while stop > lowest:
            start = max(lowest, stop - size)
            record = self._last_of(key, partition, start, stop)
            if record is not None:
                return Search(record, partition, high - start, start == low)
            stop, size = start, min(CHUNK_GROWTH * size, CHUNK_MAX)
        return Search(None, partition, high - lowest, lowest == low)

    def _last_of(self, key: bytes, partition: int, start: int, stop: int) -> Record | None:
        """The last readable record of `key` with an offset from `start` to before `stop`."""
        self._consumer.assign([TopicPartition(RECOMMENDATIONS.name, partition, start)])
        found: list[Message] = []
        heard_at = time.monotonic()
        while True:
            messages = self._consumer.consume(min(FETCHED_MAX, stop - start), POLL_S)
            if messages:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENCE_MAX_S:
                raise KafkaError(
                    f"{self._where} sent no recommendations for {SILENCE_MAX_S:.0f} s: "
                    "see `headrace status`"
                )
            for message in messages:
                error = message.error()
                if error is not None and error.code() != ClientError._PARTITION_EOF:
                    raise KafkaError(f"reading {RECOMMENDATIONS.name}: {error.str()}")
                if error is not None or (message.offset() or 0) >= stop:
                    return self._newest_readable(found)
                if message.key() == key:
                    found.append(message)
                if message.offset() == stop - 1:
                    return self._newest_readable(found)

    def _newest_readable(self, messages: list[Message]) -> Record | None:
        return next((one for one in map(self._read, reversed(messages)) if one is not None), None)

    def follow(
        self,
        user: str | None = None,
        *,
        from_beginning: bool = False,
        running: Callable[[], bool] = lambda: True,
        troubled: Callable[[str], None] = lambda reason: None,
    ) -> Iterator[Record]:
        """Recommendations as they come, of one shopper or of all, as long as `running` says so.

        It starts at the present ends, unless `from_beginning`. `troubled` is told when Kafka does
        not answer any more, once each time; reading goes on when it is back.
        """
        key = None if user is None else user.encode()
        chosen = range(self._partitions) if key is None else [partition_of(key, self._partitions)]
        self._consumer.assign(
            [
                TopicPartition(
                    RECOMMENDATIONS.name, one, self._ends(one)[0 if from_beginning else 1]
                )
                for one in chosen
            ]
        )
        told = False
        while running():
            # `consume` waits for the full number; so first for one, then for what else is there.
            messages = self._consumer.consume(1, POLL_S)
            messages += self._consumer.consume(FETCHED_MAX, 0) if messages else []
            for message in messages:
                error = message.error()
                if error is not None:
                    if error.code() != ClientError._PARTITION_EOF:
                        self._trouble = error.str()
                    continue
                told, self._trouble = False, ""
                if key is None or message.key() == key:
                    record = self._read(message)
                    if record is not None:
                        yield record
            if self._trouble and not told:
                told = True
                troubled(self._trouble)

    def _on_error(self, error: ClientError) -> None:
        # Single connections come and go; only when no broker is left does anybody have to know.
        if error.code() == ClientError._ALL_BROKERS_DOWN:
            self._trouble = error.str()

    def _read(self, message: Message) -> Record | None:
        try:
            return self._codec.decode("Recommendation", message.value())
        except RecordError:
            self.unreadable += 1
            return None

    def _ends(self, partition: int) -> tuple[int, int]:
        """Offsets of the first record and of the one that comes next."""
        try:
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(RECOMMENDATIONS.name, partition), timeout=REQUEST_TIMEOUT_S
            )
        except KafkaException as error:
            raise KafkaError(
                f"{self._where} does not say where partition {partition} of "
                f"{RECOMMENDATIONS.name} ends: {error.args[0].str()}"
            ) from None
        return int(low), int(high)


def read_titles(
    config: dict[str, Any], codec: Codec, wanted: Container[str] | None = None
) -> dict[str, str]:
    """Item id -> title, of the items in `wanted` or of all, as the catalogue says now.

    Never raises for Kafka's sake: without a catalogue, or within `TITLES_TIMEOUT_S`, it returns
    what it has.
    """
    titles: dict[str, str] = {}
    deadline = time.monotonic() + TITLES_TIMEOUT_S
    consumer = Consumer(
        config | {"enable.partition.eof": True, "fetch.wait.max.ms": 50, "log_level": 0}
    )
    try:
        consumer.assign([TopicPartition(CATALOG.name, 0, 0)])
        while time.monotonic() < deadline and len(titles) < TITLES_MAX:
            for message in consumer.consume(FETCHED_MAX, 0.1):
                if message.error() is not None:
                    return titles
                _note_title(titles, codec, message, wanted)
    finally:
        consumer.close()
    return titles


def _note_title(
    titles: dict[str, str], codec: Codec, message: Message, wanted: Container[str] | None
) -> None:
    item = (message.key() or b"").decode("utf-8", "replace")
    if wanted is not None and item not in wanted:
        return
    try:
        title = codec.decode("Item", message.value())["title"]
    except RecordError:  # a removed item, or nothing of ours
        title = ""
    if title:
        titles[item] = title
    else:
        titles.pop(item, None)
