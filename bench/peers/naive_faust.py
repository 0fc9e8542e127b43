"""What one writes first with Faust: event by event, a Table, awaited sends.

The same clicks, schemas, model and number of items as the others; nothing else is tuned.
Run as `naive_faust.py worker --without-web`.
"""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import fastavro
import faust
from yarl import URL

from models.contract import Recommender
from models.scorer import OnnxScorer
from schemas.codec import HEADER_BYTES, Codec
from schemas.files import parsed_schema
from streams.popular import PopularRecommender
from streams.settings import load_settings
from streams.state.windows import Windows

NEWEST_ITEMS: Final = 20


def make_app() -> Any:
    """The app with its one agent."""
    settings = load_settings()
    app = faust.App(
        settings.group,
        broker=URL(f"kafka://{settings.bootstrap}"),
        store="memory://",
        topic_partitions=settings.partitions,
        topic_replication_factor=1,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    clicks = app.topic("clicks", key_serializer="raw", value_serializer="raw")
    answers = app.topic("recommendations", key_serializer="raw", value_serializer="raw")
    newest = app.Table("newest", default=list, partitions=settings.partitions)
    windows = Windows()
    recommender: Recommender = (
        OnnxScorer(settings.model_dir, threads=settings.scorer_threads, device=settings.device)
        if settings.model_dir
        else PopularRecommender(windows, time.monotonic)
    )
    reader, writer = parsed_schema("Click"), parsed_schema("Recommendation")
    header = Codec.from_lock().header("Recommendation")

    @app.agent(clicks)  # type: ignore[untyped-decorator]
    async def recommend(stream: AsyncIterator[bytes]) -> None:
        async for value in stream:
            click: Any = fastavro.schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), reader, None)
            items = [*newest[click["user_id"]][1 - NEWEST_ITEMS :], click["item_id"]]
            newest[click["user_id"]] = items
            windows.counts[items[-1].encode()] += 1
            ranking = recommender.rank(
                [[item.encode() for item in items]], settings.recommendations_max
            )
            chosen = [index for index in ranking.indices[0].tolist() if index >= 0]
            out = io.BytesIO()
            out.write(header)
            answer = {
                "event_id": click["event_id"],
                "user_id": click["user_id"],
                "item_ids": [ranking.items[index].decode() for index in chosen],
                "scores": ranking.scores[0].tolist()[: len(chosen)],
                "reasons": [],
                "model": recommender.label,
                "arm": "",
                "tier": recommender.tier,
                "clicked_at": click["ts"],
                "features_as_of": click["ts"],
                "scored_at": time.time_ns() // 1_000_000,
            }
            fastavro.schemaless_writer(out, writer, answer)
            await answers.send(key=click["user_id"].encode(), value=out.getvalue())

    return app


if __name__ == "__main__":
    make_app().main()
