"""Where the demo's clicks come from: a simulated shop, or a file of a shop's own clicks.

Both give a history, which is sent at once and trained on, and the clicks after it, which are sent
live; so the model never saw what it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from schemas.errors import SourceError
from streams.clicks.columns import ClickColumns, concatenated, limited
from streams.clicks.simulate import Shop
from streams.clicks.sources import ClickSource

HISTORY_CLICKS: Final = 30_000
# More of a file is trained on than of the simulation, for a shop has more items; but not more
# than a laptop trains on in half a minute.
FILE_HISTORY_MAX: Final = 60_000
FILE_HISTORY_SHARE: Final = 2 / 3
# A file is held in memory in order of time; at 200 clicks/s, so many last for 40 minutes.
FILE_CLICKS_MAX: Final = 500_000
# The story is easiest to follow when its shopper comes by every few seconds.
STORY_CLICKS_PER_S: Final = 1.5
# Whose clicks come soon: those of the first minute.
SOON_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Source:
    """Clicks to show. `live` is called with `again`, which says whether a file starts over.

    `items`: the catalogue's records, at a time in ms. `shopper`: whose story to tell first.
    """

    name: str
    history: ClickColumns
    live: Callable[[Callable[[], bool]], Iterator[ClickColumns]]
    items: Callable[[int], Iterator[Mapping[str, Any]]]
    shopper: str
    warning: str = ""


def simulated(shoppers: int, items: int, seed: int, rate: float) -> Source:
    """Shoppers without an end; the same for the same sizes and seed."""
    shop = Shop(shoppers, items, seed)
    batches = shop.clicks()
    taken: list[ClickColumns] = []
    left = HISTORY_CLICKS
    rest = None
    while left > 0:
        batch = next(batches)
        taken.append(batch.slice(0, min(left, len(batch))))
        rest = batch.slice(min(left, len(batch)), len(batch))
        left -= len(batch)

    def live(again: Callable[[], bool]) -> Iterator[ClickColumns]:
        if rest is not None and len(rest):
            yield rest
        yield from batches

    history = concatenated(taken)
    return Source(
        f"{shoppers:,} simulated shoppers",
        history,
        live,
        shop.catalogue.records,
        _shopper(history, rate),
    )


def from_file(path: Path, mapping: Mapping[str, str] | None, rate: float, train: bool) -> Source:
    """A file of clicks. Raises `SourceError` where it is none, or lacks a column.

    Without `train` there is no history: every click is live.
    """
    source = ClickSource(path, mapping)
    clicks = concatenated(list(limited(source.batches(), FILE_CLICKS_MAX))).in_time_order()
    if not len(clicks):
        skipped = f": {source.skipped.text()}" if source.skipped.count else ""
        raise SourceError(f"{path} has no clicks{skipped}")
    cut = min(math.floor(len(clicks) * FILE_HISTORY_SHARE), FILE_HISTORY_MAX) if train else 0
    history, rest = clicks.slice(0, cut), clicks.slice(cut, len(clicks))

    def live(again: Callable[[], bool]) -> Iterator[ClickColumns]:
        yield rest
        while again():
            yield rest

    return Source(
        path.name,
        history,
        live,
        lambda now_ms: iter(()),
        _shopper(rest.slice(0, min(len(rest), math.ceil(SOON_S * rate))), rate),
        warning="; ".join(_warnings(path, len(clicks), source)),
    )


def _warnings(path: Path, count: int, source: ClickSource) -> Iterator[str]:
    if count == FILE_CLICKS_MAX:
        yield f"of {path.name} only the first {count:,} clicks are taken"
    if source.skipped.count:
        yield source.skipped.text()


def _shopper(clicks: ClickColumns, rate: float) -> str:
    """Whose share of these clicks comes nearest to the pace of a good story."""
    counts = pc.value_counts(clicks.user_id)
    shares = counts.field("counts").to_numpy() / len(clicks)
    at = int(np.argmin(np.abs(shares * rate - STORY_CLICKS_PER_S)))
    shopper: str = counts.field("values")[at].as_py()
    return shopper
