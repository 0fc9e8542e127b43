"""What every program gets: the same clicks, encoded beforehand, and the same small model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.click_encoder import click_encoder
from schemas.codec import Codec
from schemas.errors import ModelError
from streams.clicks.event_ids import event_ids

# Mostly views, as shops have it; searches and impressions are left out, for not all shops send them.
EVENT_SHARES: Final = {0: 0.88, 1: 0.07, 2: 0.03, 3: 0.02}
# Spread of the shoppers' activity (log-normal) and of the items' popularity (power law).
ACTIVITY_SIGMA: Final = 1.1
POPULARITY_EXPONENT: Final = 0.9
SEED: Final = 20_260_401


@dataclass(frozen=True, slots=True)
class Clicks:
    """Clicks in their order: key, wire bytes and event id of each, beside one another."""

    users: list[bytes]
    values: list[bytes]
    event_ids: list[bytes]

    def __len__(self) -> int:
        return len(self.values)

    def cut(self, start: int, count: int) -> Clicks:
        """`count` clicks from `start` on."""
        part = slice(start, start + count)
        return Clicks(self.users[part], self.values[part], self.event_ids[part])


def make_clicks(count: int, users: int, items: int, last_ts_ms: int, first_user: int = 0) -> Clicks:
    """`count` clicks of so many users on so many items, one a millisecond up to `last_ts_ms`."""
    rng = np.random.default_rng(SEED)
    activity = rng.lognormal(0.0, ACTIVITY_SIGMA, users)
    who = rng.choice(users, count, p=activity / activity.sum())
    what = draw_items(rng, count, items)
    kinds = rng.choice(list(EVENT_SHARES), count, p=list(EVENT_SHARES.values())).astype(np.uint8)
    ts = last_ts_ms - count + 1 + np.arange(count, dtype=np.int64)
    user_ids = [user_id(first_user + user) for user in who.tolist()]
    item_ids = [item_id(item).encode() for item in what.tolist()]
    sessions = [b"visit-%06d-1" % user for user in who.tolist()]
    ids = event_ids(SEED, np.arange(count, dtype=np.int64), ts, user_ids, item_ids, kinds)
    encode = click_encoder(Codec.from_lock())
    return Clicks(user_ids, encode(ids, user_ids, item_ids, kinds.tolist(), ts, sessions), ids)


def draw_items(rng: np.random.Generator, count: int, items: int) -> NDArray[np.int64]:
    """Item numbers, long-tailed: the first are the most popular."""
    weight = (1.0 + np.arange(items)) ** -POPULARITY_EXPONENT
    return rng.choice(items, count, p=weight / weight.sum())


def user_id(number: int) -> bytes:
    """The id of a user."""
    return b"shopper-%06d" % number


def item_id(number: int) -> str:
    """The id of an item."""
    return f"item-{number:05d}"


def make_model(path: Path, items: int) -> bool:
    """Write a model folder that knows all `items`; False where torch is not installed.

    One epoch over clicks drawn like the bench's own: what it recommends is of no interest, what
    it costs depends on its sizes alone, and those are the defaults of `headrace model train`.
    """
    try:
        from models.export import export_folder
        from models.train import Recipe, train
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "onnx"}:
            raise
        return False
    from models.dataset import gather_clicks

    rng = np.random.default_rng(SEED)
    # Each item once, so that all of them are in the vocabulary.
    what = np.concatenate([rng.permutation(items), draw_items(rng, items, items)])
    rows = [
        (f"u{number % 500}", item_id(item), 1_000 * number)
        for number, item in enumerate(what.tolist())
    ]
    clicks = gather_clicks(rows)
    recipe = Recipe(epochs=1, min_support=1, threads=1, batch_clicks=1024)
    manifest = export_folder(
        train(clicks, recipe), clicks, path, name="bench", now=datetime.now(UTC)
    )
    if manifest.items != items:
        raise ModelError(f"the bench's model knows {manifest.items} items, not {items}")
    return True
