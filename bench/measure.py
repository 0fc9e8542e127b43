"""The phases of one run: warm up, a backlog, a steady rate; what each cost and how long it took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from cluster import BenchKafka
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from numpy.typing import NDArray
from programs import Running, cpu_s
from workload import Clicks

from schemas.codec import Codec
from schemas.errors import KafkaError, RecordError, WorkerError
from schemas.topics import CLICKS, RECOMMENDATIONS
from streams.settings import Settings

START_TIMEOUT_S: Final = 60.0
# Answers may come this late after the last click before a run is given up: a program that falls
# behind still has to come to its end.
DRAIN_TIMEOUT_S: Final = 180.0
# More than so much of the rate still unanswered when the sending ends: it does not keep up.
BEHIND_MAX_S: Final = 0.5
POLL_S: Final = 0.01
# Where a recommendation's event id stands: 5 bytes of header, one of length.
EVENT_ID: Final = slice(6, 42)
CHECKED: Final = 50


@dataclass(frozen=True, slots=True)
class Backlog:
    """A topic full of clicks, from the first fetch to the last answer."""

    clicks: int
    wall_s: float
    cpu_s: float
    broker_cpu_s: float


@dataclass(frozen=True, slots=True)
class Steady:
    """Clicks at a steady rate. `latencies_ms`: produced to visible, in order of arrival.

    `late_ms_p99`: how late the bench itself sent; `unanswered`: how many clicks were still
    waiting when the sending ended; `keeps_up` says whether that is only what is on its way.
    """

    rate: float
    wall_s: float
    cpu_s: float
    latencies_ms: NDArray[np.float64]
    broker_cpu_s: float
    late_ms_p99: float
    unanswered: int
    keeps_up: bool

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the latencies."""
        return float(np.percentile(self.latencies_ms, percent))


class Bench:
    """Sends clicks and watches answers, for one program at a time."""

    def __init__(self, kafka: BenchKafka, tier: str, items: int) -> None:
        self._kafka = kafka
        self._tier = tier
        self._items = items
        self._codec = Codec.from_lock()
        self._producer = self._connect()

    def _connect(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._kafka.bootstrap,
                "partitioner": "murmur2_random",
                # What Kafka's own clients do by default. With less, thousands of requests a second
                # for single clicks would make the broker the thing that is measured.
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
                "delivery.report.only.error": True,
                "log_level": 0,
            }
        )

    def renew(self, group: str) -> Settings:
        """Fresh topics for `group`, and a sender that has not seen the old ones disappear."""
        settings = self._kafka.renew(group)
        self._producer = self._connect()
        return settings

    def answered(self) -> int:
        """Number of answers so far."""
        return sum(self._kafka.ends(RECOMMENDATIONS.name).values())

    def warm_up(self, running: Running, clicks: Clicks) -> float:
        """Send clicks to a program that has just been started; seconds until all are answered."""
        started = time.monotonic()
        self._send_all(clicks)
        self._wait(running, len(clicks), START_TIMEOUT_S)
        return time.monotonic() - started

    def backlog(self, running: Running, clicks: Clicks) -> Backlog:
        """Let a backlog gather while the program is held, then let it go."""
        expected = self.answered() + len(clicks)
        running.pause()
        try:
            self._send_all(clicks)
            cpu, broker = running.cpu_s(), cpu_s(self._kafka.pid)
            started = time.monotonic()
        finally:
            running.resume()
        self._wait(running, expected, DRAIN_TIMEOUT_S)
        wall_s = time.monotonic() - started
        return Backlog(len(clicks), wall_s, running.cpu_s() - cpu, cpu_s(self._kafka.pid) - broker)

    def steady(self, running: Running, clicks: Clicks, rate: float) -> Steady:
        """Send clicks at `rate` a second and wait for every one's answer."""
        watcher = self._watcher()
        try:
            return self._steady(running, clicks, rate, watcher)
        finally:
            watcher.close()

    def _steady(self, running: Running, clicks: Clicks, rate: float, watcher: Consumer) -> Steady:
        clock = time.perf_counter
        produce, topic = self._producer.produce, CLICKS.name
        count = len(clicks)
        sent_at: dict[bytes, float] = {}
        lateness = np.zeros(count)
        latencies: list[float] = []
        samples: list[bytes] = []
        sent, unanswered = 0, 0
        cpu, broker, started = running.cpu_s(), cpu_s(self._kafka.pid), clock()
        cpu_used = broker_used = wall_s = 0.0
        while sent < count or sent_at:
            now = clock()
            due = min(count, int((now - started) * rate) + 1)
            while sent < due:
                at = clock()
                lateness[sent] = at - started - sent / rate
                sent_at[clicks.event_ids[sent]] = at
                produce(topic, clicks.values[sent], clicks.users[sent])
                sent += 1
                if sent == count:
                    unanswered = len(sent_at)
                    wall_s, cpu_used = clock() - started, running.cpu_s() - cpu
                    broker_used = cpu_s(self._kafka.pid) - broker
            self._producer.poll(0)
            for value in _waiting(watcher):
                arrived = clock()
                begun = sent_at.pop(value[EVENT_ID], None)
                if begun is not None:  # else it answers a click of an earlier phase, again
                    latencies.append(arrived - begun)
                    if len(samples) < CHECKED:
                        samples.append(value)
            if now - started > count / rate + DRAIN_TIMEOUT_S:
                running.check()
                raise WorkerError(
                    f"{running.program.name} left {len(sent_at)} of {count} clicks unanswered"
                )
        self._check(samples)
        return Steady(
            rate,
            wall_s,
            cpu_used,
            1000 * np.array(latencies),
            broker_used,
            1000 * float(np.percentile(lateness, 99)),
            unanswered,
            unanswered <= BEHIND_MAX_S * rate,
        )

    def _check(self, samples: list[bytes]) -> None:
        """A program that answers less than the others is not cheaper, it is wrong."""
        for value in samples:
            answer = self._codec.decode("Recommendation", value)
            if (len(answer["item_ids"]), answer["tier"]) != (self._items, self._tier):
                raise RecordError(
                    f"an answer has {len(answer['item_ids'])} items of tier {answer['tier']}; "
                    f"{self._items} of tier {self._tier} were to come"
                )

    def hop(self, count: int, rate: float) -> NDArray[np.float64]:
        """Latencies in ms of Kafka alone: the bench's own records to and from a topic, no program."""
        watcher = self._watcher()
        clock = time.perf_counter
        latencies: list[float] = []
        sent, started = 0, clock()
        try:
            while len(latencies) < count:
                while sent < min(count, int((clock() - started) * rate) + 1):
                    self._producer.produce(
                        RECOMMENDATIONS.name, repr(clock()).encode(), str(sent).encode()
                    )
                    sent += 1
                self._producer.poll(0)
                latencies += [clock() - float(value) for value in _waiting(watcher)]
                if clock() - started > count / rate + DRAIN_TIMEOUT_S:
                    raise KafkaError(
                        f"{count - len(latencies)} of {count} records did not come back"
                    )
        finally:
            watcher.close()
        return 1000 * np.array(latencies)

    def _watcher(self) -> Consumer:
        """A consumer of the answers to come."""
        watcher = Consumer(
            {
                "bootstrap.servers": self._kafka.bootstrap,
                "group.id": "bench-watch",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 10,
                "fetch.queue.backoff.ms": 1,
                "log_level": 0,
            }
        )
        ends = self._kafka.ends(RECOMMENDATIONS.name)
        watcher.assign([TopicPartition(RECOMMENDATIONS.name, p, end) for p, end in ends.items()])
        # The first fetch is on its way only after the client knows the leaders.
        watcher.poll(0.3)
        return watcher

    def _send_all(self, clicks: Clicks) -> None:
        produce, topic = self._producer.produce, CLICKS.name
        for user, value in zip(clicks.users, clicks.values, strict=True):
            produce(topic, value, user)
        if left := self._producer.flush(START_TIMEOUT_S):
            raise KafkaError(
                f"Kafka did not take {left} of {len(clicks)} clicks within {START_TIMEOUT_S:.0f} s"
            )

    def _wait(self, running: Running, expected: int, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while (found := self.answered()) < expected:
            running.check()
            if time.monotonic() > deadline:
                raise WorkerError(
                    f"{running.program.name} answered {found} of {expected} clicks within {timeout_s:.0f} s"
                )
            time.sleep(POLL_S)


def _waiting(watcher: Consumer) -> list[bytes]:
    """What has arrived, after at most a millisecond of waiting for it."""
    first = watcher.poll(0.001)
    if first is None:
        return []
    messages: list[Message] = [first, *watcher.consume(1000, 0.0)]
    values: list[Any] = [message.value() for message in messages if message.error() is None]
    return [value for value in values if value is not None]
