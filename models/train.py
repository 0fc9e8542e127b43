"""Training: from clicks to an encoder with its hold-out metrics. Imports torch; workers never do.

The newest part of the clicks is held out, the encoder is trained on the rest and asked for each
held-out click that is new to its shopper (clicks on items already seen are no recommendation).
Then the same recipe is trained on everything: the newest day is what a shop's next day resembles
most, and the metrics describe the recipe, which is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.dataset import Clicks, cut_queries, cut_windows, make_sequences, make_vocabulary, until
from models.folder import FIRST_ITEM, HISTORY_MAX, PADDING
from models.network import MASKED, Encoder, Shape
from models.optimiser import AdamW
from schemas.errors import ModelError

# Cut-off of the metrics: what one recommendation carries by default.
TOP: Final = 20
# Share of the optimiser's steps in which the learning rate rises.
WARM_UP: Final = 0.05
QUERIES_PER_CALL: Final = 1024
# Batches that are sorted by length together.
POOL_BATCHES: Final = 16

# Called after each epoch with its phase ("hold-out" or "all clicks"), epochs done, epochs in all
# and the epoch's mean loss in nats.
Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the outcome besides the clicks."""

    window: int = 20
    dim: int = 32
    heads: int = 1
    layers: int = 1
    dropout: float = 0.3
    epochs: int = 20
    # Next items learned in one step of the optimiser.
    batch_clicks: int = 256
    learning_rate: float = 4e-3
    weight_decay: float = 0.2
    # Vocabularies up to this size get the full softmax, larger ones as many uniform negatives.
    negatives: int = 8192
    min_support: int = 2
    seed: int = 0
    threads: int = 1
    # Newest part that is held out; shorter where the clicks span less than three times as long.
    holdout_ms: int = 86_400_000
    # Train again on all clicks once the hold-out is measured.
    refit: bool = True


@dataclass(frozen=True, slots=True)
class Trained:
    """An encoder, in evaluation mode, and what its manifest says about it."""

    encoder: Encoder
    vocabulary: tuple[str, ...]
    clicks: int
    sequences: int
    first_ts_ms: int
    last_ts_ms: int
    loss: float
    seconds: float
    metrics: dict[str, float]
    recipe: Recipe


def train(clicks: Clicks, recipe: Recipe, progress: Progress | None = None) -> Trained:
    """Train by `recipe`; the same clicks, recipe and machine give the same weights.

    Raises `ModelError` when the clicks are too few to learn from, or the loss is not finite.
    """
    began = time.monotonic()
    if len(clicks) == 0:
        raise ModelError("there are no clicks to train on")
    report = progress or (lambda phase, done, total, loss: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    try:
        cutoff_ms = _cutoff(clicks, recipe.holdout_ms)
        older = until(clicks, cutoff_ms)
        vocabulary = make_vocabulary(older, recipe.min_support)
        encoder, loss, sequences = _fit(older, vocabulary, recipe, "hold-out", report)
        metrics = measure(encoder, clicks, vocabulary, cutoff_ms)
        used = older
        if recipe.refit:
            used = clicks
            vocabulary = make_vocabulary(clicks, recipe.min_support)
            encoder, loss, sequences = _fit(clicks, vocabulary, recipe, "all clicks", report)
    finally:
        torch.set_num_threads(threads)
    return Trained(
        encoder=encoder,
        vocabulary=vocabulary,
        clicks=len(used),
        sequences=sequences,
        first_ts_ms=int(used.ts.min()),
        last_ts_ms=int(used.ts.max()),
        loss=loss,
        seconds=time.monotonic() - began,
        metrics=metrics,
        recipe=recipe,
    )


def _cutoff(clicks: Clicks, holdout_ms: int) -> int:
    """Event time of the last click to train on before the hold-out."""
    first, last = int(clicks.ts.min()), int(clicks.ts.max())
    return last - min(holdout_ms, (last - first) // 3)


def measure(
    encoder: Encoder, clicks: Clicks, vocabulary: tuple[str, ...], after_ms: int
) -> dict[str, float]:
    """Hit rate and mean reciprocal rank at `TOP` over the clicks after `after_ms`.

    Only clicks on items of the vocabulary that the shopper had not clicked before, after at least
    one such click; the items clicked before are not offered. A target's rank counts ties against it.
    Where nothing was held out there is no rate.
    """
    rows, targets = cut_queries(make_sequences(clicks, vocabulary), after_ms, HISTORY_MAX)
    ranks = np.empty(len(rows), np.int64)
    with torch.inference_mode():
        for begin in range(0, len(rows), QUERIES_PER_CALL):
            part = slice(begin, begin + QUERIES_PER_CALL)
            scores = encoder.score_rows(torch.from_numpy(rows[part]))
            own = torch.from_numpy(targets[part])[:, None]
            ranks[part] = (scores >= scores.gather(1, own)).sum(1).numpy()
    counted = {"holdout_after_ts_ms": float(after_ms), "holdout_clicks": float(len(rows))}
    if not len(rows):
        return counted
    gains = np.where(ranks <= TOP, 1.0 / ranks, 0.0)
    return counted | {
        f"hit_rate_{TOP}": float((gains > 0).mean()),
        f"mrr_{TOP}": float(gains.mean()),
    }


def _fit(
    clicks: Clicks, vocabulary: tuple[str, ...], recipe: Recipe, phase: str, report: Progress
) -> tuple[Encoder, float, int]:
    """One training from scratch; returns the encoder, the last epoch's loss and the sequences."""
    sequences = make_sequences(clicks, vocabulary)
    windows = cut_windows(sequences, recipe.window)
    fresh = _fresh(windows)
    taught = fresh.any(axis=1)
    windows, fresh = windows[taught], fresh[taught]
    if not len(windows):
        raise ModelError(
            f"too few clicks to train on: of {len(clicks)} clicks by {len(sequences)} shoppers "
            "none follows another click on a different item"
        )
    # The caller's random state stays as it was: dropout and initial weights have no other seed.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        encoder = Encoder(_shape(len(vocabulary), recipe))
        loss = _descend(
            encoder, torch.from_numpy(windows), torch.from_numpy(fresh), recipe, phase, report
        )
    encoder.eval()
    return encoder, loss, len(sequences)


def _shape(items: int, recipe: Recipe) -> Shape:
    return Shape(
        items=items,
        window=recipe.window,
        dim=recipe.dim,
        heads=recipe.heads,
        layers=recipe.layers,
        hidden=2 * recipe.dim,
        dropout=recipe.dropout,
    )


def _fresh(windows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool [rows, window]: positions whose next item is not among the row's items so far.

    Serving withholds what the shopper has seen, so only these next items are worth learning.
    """
    inputs, targets = windows[:, :-1], windows[:, 1:]
    fresh = inputs >= FIRST_ITEM
    for position in range(inputs.shape[1]):
        seen = (inputs[:, : position + 1] == targets[:, position, None]).any(axis=1)
        fresh[:, position] &= ~seen
    return fresh


def _descend(
    encoder: Encoder,
    windows: torch.Tensor,
    fresh: torch.Tensor,
    recipe: Recipe,
    phase: str,
    report: Progress,
) -> float:
    optimiser = AdamW(encoder.parameters(), recipe.weight_decay)
    lengths = (windows[:, :-1] >= FIRST_ITEM).sum(1)
    learned = fresh.sum(1)
    mean = float("nan")
    encoder.train()
    for epoch in range(recipe.epochs):
        total = 0.0
        batches = _batches(lengths, learned, recipe.batch_clicks)
        for step, part in enumerate(batches):
            done = (epoch + step / len(batches)) / recipe.epochs
            width = int(lengths[part].max())
            loss, count = _loss(encoder, windows[part, -width - 1 :], fresh[part, -width:], recipe)
            (loss / count).backward()
            optimiser.step(recipe.learning_rate * _rate_share(done))
            total += loss.item()
        mean = total / int(learned.sum())
        if not np.isfinite(mean):
            raise ModelError(
                f"training diverged in epoch {epoch + 1}: loss {mean}; try a lower learning rate"
            )
        report(phase, epoch + 1, recipe.epochs, mean)
    return mean


def _rate_share(done: float) -> float:
    """Share of the learning rate at the share `done` of the training: a short rise, then a line
    to zero."""
    return min(1.0, done / WARM_UP + 0.01) * (1 - done)


def _batches(lengths: torch.Tensor, learned: torch.Tensor, clicks: int) -> list[torch.Tensor]:
    """Row numbers in random batches that each teach about `clicks` next items.

    A batch has rows of similar length, so that little of it is padding; rows are sorted only
    within pools of several batches, so that batches stay mixed.
    """
    batches: list[torch.Tensor] = []
    rows_in_pool = max(1, int(POOL_BATCHES * clicks / learned.float().mean().item()))
    for pool in torch.randperm(len(lengths)).split(rows_in_pool):
        ordered = pool[lengths[pool].argsort()]
        number = (learned[ordered].cumsum(0) - 1) // clicks
        batches += ordered.split(torch.unique_consecutive(number, return_counts=True)[1].tolist())
    return [batches[place] for place in torch.randperm(len(batches)).tolist()]


def _loss(
    encoder: Encoder, windows: torch.Tensor, fresh: torch.Tensor, recipe: Recipe
) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy of the fresh next items, and their number."""
    inputs, targets = windows[:, :-1], windows[:, 1:]
    row, position = fresh.nonzero(as_tuple=True)
    vectors = encoder(inputs)[row, position]
    wanted = targets[row, position]
    items = encoder.shape.items
    if items <= recipe.negatives:
        # What the shopper has seen is no negative: serving withholds it.
        later = torch.arange(inputs.shape[1])[None, :] > position[:, None]
        seen = inputs[row].masked_fill(later, PADDING)
        scores = encoder.score(vectors).scatter(1, seen, MASKED)
        return functional.cross_entropy(scores, wanted, reduction="sum"), len(row)
    drawn = torch.randint(FIRST_ITEM, items + FIRST_ITEM, (recipe.negatives,))
    own = (vectors * encoder.embedding(wanted)).sum(1) + encoder.item_bias[wanted]
    others = vectors @ encoder.embedding(drawn).T + encoder.item_bias[drawn]
    others = others.masked_fill(drawn[None, :] == wanted[:, None], MASKED)
    scores = torch.cat([own[:, None], others], dim=1)
    return functional.cross_entropy(scores, torch.zeros_like(wanted), reduction="sum"), len(row)


def network_sizes(trained: Trained) -> dict[str, float]:
    """The encoder's sizes and the recipe's numbers by name, for the manifest."""
    sizes = asdict(trained.encoder.shape) | asdict(replace(trained.recipe))
    return {name: float(value) for name, value in sizes.items() if not isinstance(value, bool)}
