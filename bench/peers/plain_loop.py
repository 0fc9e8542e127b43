"""The honest baseline: a plain confluent-kafka loop, as a competent engineer would write it.

The same clicks, the same schemas, the same model and the same number of items as the worker, in
batches, with the same delivery guarantee (answers are acknowledged before their clicks are
committed). What it lacks: state that outlives the process, validation, dead letters, other
regions' clicks, models that change while it runs. Its users' newest items are in a dict.
"""

from __future__ import annotations

import io
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import fastavro
from confluent_kafka import Consumer, Message, Producer

from models.contract import Ranking, Recommender
from models.scorer import OnnxScorer
from schemas.codec import HEADER_BYTES, Codec
from schemas.files import parsed_schema
from streams.popular import PopularRecommender
from streams.settings import Settings, load_settings
from streams.state.windows import Windows

BATCH_MAX: Final = 256
WAIT_S: Final = 0.005
NEWEST_ITEMS: Final = 20
COMMIT_INTERVAL_S: Final = 1.0
FLUSH_TIMEOUT_S: Final = 30.0


class PlainLoop:
    """Consumes, scores, produces; commits once a second."""

    def __init__(self, settings: Settings) -> None:
        self._k = settings.recommendations_max
        self._newest: dict[str, list[bytes]] = {}
        windows = Windows()
        self._counts: Counter[bytes] = windows.counts
        self._recommender: Recommender = (
            OnnxScorer(settings.model_dir, threads=settings.scorer_threads, device=settings.device)
            if settings.model_dir
            else PopularRecommender(windows, time.monotonic)
        )
        self._table: Sequence[bytes] = ()
        self._names: list[str] = []
        self._reader: Any = parsed_schema("Click")
        self._writer: Any = parsed_schema("Recommendation")
        self._header = Codec.from_lock().header("Recommendation")
        self._faults: list[str] = []
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",
                "linger.ms": 1,
                "batch.num.messages": 10_000,
                "queue.buffering.max.messages": 200_000,
                "socket.nagle.disable": True,
                "delivery.report.only.error": True,
                "on_delivery": self._on_delivery,
            }
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.bootstrap,
                "group.id": f"{settings.group}-plain",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "queued.min.messages": 4 * BATCH_MAX,
                "fetch.queue.backoff.ms": 2,
                "socket.nagle.disable": True,
            }
        )
        self.stopping = False

    def run(self) -> None:
        """Until `stopping`."""
        consumer, producer = self._consumer, self._producer
        consumer.subscribe(["clicks"])
        committed_at = time.monotonic()
        dirty = False
        while not self.stopping:
            messages = [m for m in consumer.consume(BATCH_MAX, WAIT_S) if m.error() is None]
            if messages:
                self._handle(messages)
                dirty = True
            producer.poll(0)
            if dirty and time.monotonic() - committed_at > COMMIT_INTERVAL_S:
                self._commit()
                committed_at, dirty = time.monotonic(), False
        if dirty:
            self._commit()
        consumer.close()

    def _handle(self, messages: list[Message]) -> None:
        clicks: list[dict[str, Any]] = []
        histories: list[list[bytes]] = []
        for message in messages:
            body = io.BytesIO(message.value() or b"")
            body.seek(HEADER_BYTES)
            click: Any = fastavro.schemaless_reader(body, self._reader, None)
            item = click["item_id"].encode()
            newest = [*self._newest.get(click["user_id"], ())[1 - NEWEST_ITEMS :], item]
            self._newest[click["user_id"]] = newest
            self._counts[item] += 1
            clicks.append(click)
            histories.append(newest)
        self._answer(clicks, self._recommender.rank(histories, self._k))

    def _answer(self, clicks: list[dict[str, Any]], ranking: Ranking) -> None:
        if ranking.items is not self._table or len(ranking.items) != len(self._names):
            self._table, self._names = ranking.items, [item.decode() for item in ranking.items]
        names, recommender = self._names, self._recommender
        scored_at = time.time_ns() // 1_000_000
        for click, indices, scores in zip(
            clicks, ranking.indices.tolist(), ranking.scores.tolist(), strict=True
        ):
            count = indices.index(-1) if indices[-1] < 0 else len(indices)
            out = io.BytesIO()
            out.write(self._header)
            fastavro.schemaless_writer(
                out,
                self._writer,
                {
                    "event_id": click["event_id"],
                    "user_id": click["user_id"],
                    "item_ids": [names[index] for index in indices[:count]],
                    "scores": scores[:count],
                    "reasons": [],
                    "model": recommender.label,
                    "arm": "",
                    "tier": recommender.tier,
                    "clicked_at": click["ts"],
                    "features_as_of": click["ts"],
                    "scored_at": scored_at,
                },
            )
            self._producer.produce("recommendations", out.getvalue(), click["user_id"])

    def _commit(self) -> None:
        if self._producer.flush(FLUSH_TIMEOUT_S) or self._faults:
            raise SystemExit(f"not all answers were acknowledged: {self._faults[:1]}")
        self._consumer.commit(asynchronous=False)

    def _on_delivery(self, error: Any, message: Message) -> None:
        if error is not None:
            self._faults.append(str(error))


def main() -> None:
    """Run until SIGTERM."""
    loop = PlainLoop(load_settings())

    def stop(*_: object) -> None:
        loop.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    loop.run()


if __name__ == "__main__":
    main()
