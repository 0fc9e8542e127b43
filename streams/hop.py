"""One batch through all stages: records in, effects out.

The hop composes the stages and holds what they share (codec functions, windows, recommenders);
it moves no bytes. Its result is a value, so that the whole of what a batch does to the world can
be tested without a broker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from models.contract import Recommender
from schemas.clicks import click_decoder
from schemas.codec import Codec
from schemas.recommendations import item_wire, recommendation_encoder
from streams.stages.decode import Limits, RawRecord, Rejection, decode
from streams.stages.fold import fold
from streams.stages.rank import TierAnswer, rank
from streams.state.windows import Windows

# Item tables of the model in force, its predecessor and the popular list, which changes often.
WIRE_TABLES_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Effects:
    """What a batch does to the world, in the order in which it is to be produced.

    `recommendations`: (user id, wire bytes). `changelog`: (partition, user id, window).
    `dead_letters`: (original key, wire bytes).
    """

    recommendations: list[tuple[bytes, bytes]]
    changelog: list[tuple[int, bytes, bytes]]
    dead_letters: list[tuple[bytes | None, bytes]]
    rejections: list[Rejection]
    failures: list[tuple[Recommender, str]]
    clicks_count: int
    answered_by_tier: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HopConfig:
    """What a hop needs to know; times in ms."""

    own_topic: str
    recommendations_max: int
    record_bytes_max: int
    clock_skew_max_ms: int


def wall_ms() -> int:
    """The wall clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


class Hop:
    """All stages over one batch; called from one thread only."""

    def __init__(
        self,
        codec: Codec,
        windows: Windows,
        recommenders: Sequence[Recommender],
        config: HopConfig,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self.windows = windows
        self.recommenders: tuple[Recommender, ...] = tuple(recommenders)
        self._codec = codec
        self._config = config
        self._now_ms = now_ms
        self._decoder = click_decoder(codec)
        self._encode = recommendation_encoder(codec)
        self._wire: dict[int, tuple[Sequence[bytes], list[bytes]]] = {}

    def swap(self, recommenders: Sequence[Recommender]) -> None:
        """Put other recommenders in force, best tier first, from the next batch on."""
        self.recommenders = tuple(recommenders)

    def process(self, records: Sequence[RawRecord]) -> Effects:
        """Fold and answer a batch. Changes the windows; everything else is in the result."""
        config = self._config
        now_ms = self._now_ms()
        limits = Limits(config.record_bytes_max, now_ms + config.clock_skew_max_ms)
        decoded = decode(records, self._decoder, limits, config.own_topic)
        folded = fold(self.windows, decoded.clicks, decoded.partitions)
        clicks, snapshots = decoded.clicks, folded.snapshots
        if not all(decoded.own):
            chosen = [at for at, own in enumerate(decoded.own) if own]
            clicks = [clicks[at] for at in chosen]
            snapshots = [snapshots[at] for at in chosen]
        recommendations: list[tuple[bytes, bytes]] = []
        failures: list[tuple[Recommender, str]] = []
        by_tier: dict[str, int] = {}
        if clicks:
            ranked = rank(self.recommenders, snapshots, config.recommendations_max)
            failures = ranked.failures
            scored_at = self._now_ms()
            for answer in ranked.answers:
                recommendations += self._encode_answer(answer, clicks, snapshots, scored_at)
                tier = answer.recommender.tier
                by_tier[tier] = by_tier.get(tier, 0) + len(answer.rows)
        return Effects(
            recommendations,
            [(partition, user, window) for (partition, user), window in folded.changed.items()],
            [(one.record.key(), self._encode_rejection(one, now_ms)) for one in decoded.rejections],
            decoded.rejections,
            failures,
            len(decoded.clicks),
            by_tier,
        )

    def _encode_answer(
        self,
        answer: TierAnswer,
        clicks: Sequence[tuple[bytes, bytes, bytes, bytes, int, int]],
        snapshots: Sequence[bytes | None],
        scored_at: int,
    ) -> list[tuple[bytes, bytes]]:
        rows = answer.rows.tolist()
        if len(rows) != len(clicks):
            clicks = [clicks[row] for row in rows]
            snapshots = [snapshots[row] for row in rows]
        event_ids, _, user_ids, _, _, times = zip(*clicks, strict=True)
        as_of = [
            ts
            if window is None
            else int.from_bytes(window[24 * window[1] - 22 : 24 * window[1] - 14], "big")
            for window, ts in zip(snapshots, times, strict=True)
        ]
        recommender, ranking = answer.recommender, answer.ranking
        encoded = self._encode(
            event_ids,
            user_ids,
            times,
            as_of,
            self._wire_items(ranking.items),
            ranking.indices,
            ranking.scores,
            recommender.label,
            "",
            recommender.tier,
            scored_at,
        )
        return list(zip(user_ids, encoded, strict=True))

    def _wire_items(self, items: Sequence[bytes]) -> list[bytes]:
        held = self._wire.get(id(items))
        if held is None or held[0] is not items or len(held[1]) != len(items):
            if len(self._wire) >= WIRE_TABLES_MAX:
                self._wire.clear()
            held = self._wire[id(items)] = (items, item_wire(items))
        return held[1]

    def _encode_rejection(self, rejection: Rejection, now_ms: int) -> bytes:
        record = rejection.record
        return self._codec.encode(
            "Rejected",
            {
                "reason": rejection.reason,
                "detail": rejection.detail,
                "topic": record.topic() or "",
                "partition": record.partition() or 0,
                "offset": record.offset() or 0,
                "key": record.key(),
                "value": record.value(),
                "rejected_at": now_ms,
            },
        )
