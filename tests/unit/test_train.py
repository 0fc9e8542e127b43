"""Training learns what follows what, the same way every time, and refuses what cannot teach."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from models.dataset import Clicks, gather_clicks
from models.export import export_folder
from models.folder import load_manifest, load_vocabulary
from models.optimiser import AdamW
from models.scorer import OnnxScorer
from models.train import Recipe, Trained, train
from schemas.errors import ModelError

ITEMS = 120
NOW = datetime(2026, 4, 1, 8, 30, tzinfo=UTC)
RECIPE = Recipe(epochs=12, dim=16, learning_rate=0.02, batch_clicks=128, min_support=1, seed=3)


def cycle() -> list[str]:
    """Items in the one order in which every shopper visits them."""
    items = [f"item-{number}" for number in range(ITEMS)]
    random.Random(5).shuffle(items)
    return items


def walks(count: int = 400, steps: int = 8) -> Clicks:
    """Shoppers who each start anywhere in the cycle and follow it; one a minute."""
    order, rng = cycle(), random.Random(7)
    rows = []
    for shopper in range(count):
        start = rng.randrange(ITEMS)
        rows += [
            (f"user-{shopper}", order[(start + step) % ITEMS], 60_000 * shopper + 1000 * step)
            for step in range(steps)
        ]
    return gather_clicks(rows)


@pytest.fixture(scope="module")
def clicks() -> Clicks:
    return walks()


@pytest.fixture(scope="module")
def trained(clicks: Clicks) -> Trained:
    return train(clicks, RECIPE)


@pytest.fixture(scope="module")
def folder(clicks: Clicks, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "encoder"
    export_folder(trained, clicks, path, name="encoder", now=NOW)
    return path


def test_learns_what_follows(trained: Trained) -> None:
    """Popularity, or chance, would have a hit rate of 1/6 and a reciprocal rank of 0.03."""
    assert trained.metrics["hit_rate_20"] > 0.95
    assert trained.metrics["mrr_20"] > 0.9
    assert trained.metrics["holdout_clicks"] > 500
    assert trained.loss < 1.0


def test_the_scorer_recommends_what_follows(folder: Path) -> None:
    scorer = OnnxScorer(folder, device="cpu")
    steps = list(pairwise(cycle()))
    ranking = scorer.rank([[item.encode()] for item, _ in steps], 5)
    best = [ranking.items[index] for index in ranking.indices[:, 0]]
    right = sum(named == after.encode() for named, (_, after) in zip(best, steps, strict=True))
    assert right > 0.95 * len(steps)


def test_order_is_learned_and_not_only_the_set() -> None:
    """Of a, b the next is c, of b, a it is d: the last item alone cannot tell."""
    rng = random.Random(1)
    rows = []
    for shopper in range(600):
        other = f"x{rng.randrange(30)}"
        first, second, third = rng.choice([("a", "b", "c"), ("b", "a", "d"), ("e", "b", "f")])
        rows += [
            (f"user-{shopper}", item, 60_000 * shopper + at)
            for at, item in enumerate((first, second, third, other))
        ]
    trained = train(gather_clicks(rows), replace(RECIPE, epochs=20, dropout=0.1))
    index = {item: at for at, item in enumerate(trained.vocabulary, 2)}
    asked = torch.tensor([[index[item] for item in pair] for pair in ("ab", "ba", "eb")])
    with torch.inference_mode():
        best = trained.encoder.score_rows(asked).argmax(1).tolist()
    assert [trained.vocabulary[at - 2] for at in best] == ["c", "d", "f"]


def test_the_same_seed_gives_the_same_model(clicks: Clicks) -> None:
    short = replace(RECIPE, epochs=2, refit=False)
    torch.manual_seed(1)
    first = train(clicks, short)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    second = train(clicks, short)
    other = train(clicks, replace(short, seed=4))
    weights = [made.encoder.state_dict() for made in (first, second, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["embedding.weight"], weights[2]["embedding.weight"])
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state), (
        "training moved the caller's randomness"
    )


def test_threads_are_put_back(clicks: Clicks) -> None:
    before = torch.get_num_threads()
    train(clicks, replace(RECIPE, epochs=1, refit=False, threads=before + 1))
    assert torch.get_num_threads() == before


def test_reports_each_epoch(clicks: Clicks) -> None:
    seen: list[tuple[str, int, int]] = []
    train(
        clicks,
        replace(RECIPE, epochs=2),
        lambda phase, done, total, loss: seen.append((phase, done, total)),
    )
    assert seen == [(phase, at, 2) for phase in ("hold-out", "all clicks") for at in (1, 2)]


def test_the_hold_out_is_not_trained_on() -> None:
    """Items that only the newest clicks have cannot be in a model that was not refitted."""
    rows = [(f"user-{at}", item, 1000 * at) for at in range(300) for item in ("a", "b", "c")]
    rows += [(f"late-{at}", item, 299_000) for at in range(20) for item in ("new", "newer")]
    short = replace(RECIPE, epochs=1)
    without = train(gather_clicks(rows), replace(short, refit=False))
    assert set(without.vocabulary) == {"a", "b", "c"}
    assert without.last_ts_ms <= without.metrics["holdout_after_ts_ms"] < 200_000
    refitted = train(gather_clicks(rows), short)
    assert set(refitted.vocabulary) == {"a", "b", "c", "new", "newer"}
    assert refitted.last_ts_ms == 299_000
    assert refitted.metrics == without.metrics


def test_many_items_are_learned_from_sampled_negatives(clicks: Clicks) -> None:
    sampled = train(clicks, replace(RECIPE, negatives=40, refit=False))
    assert sampled.metrics["mrr_20"] > 0.8


def test_steps_are_those_of_torch() -> None:
    ours, theirs = (torch.nn.Linear(4, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=0.3)
    optimiser = AdamW(ours.parameters(), 0.3)
    for step in range(20):
        x = torch.linspace(-1, 1 + step, 8).view(2, 4)
        for network in (ours, theirs):
            network(x).pow(2).sum().backward()
        optimiser.step(0.1)
        reference.step()
        reference.zero_grad()
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight)


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([], "there are no clicks to train on"),
        ([("u", "a", 1), ("u", "a", 2)], "too few clicks to train on: 2 clicks, 1 items"),
        ([("u", "a", 1), ("v", "b", 2), ("w", "c", 9)], "none follows another click"),
        ([("u", item, 5) for item in "abcabc"], None),
    ],
)
def test_too_few_clicks(rows: list[tuple[str, str, int]], word: str | None) -> None:
    recipe = replace(RECIPE, epochs=1)
    if word is None:
        metrics = train(gather_clicks(rows), recipe).metrics
        assert metrics == {"holdout_after_ts_ms": 5.0, "holdout_clicks": 0.0}
        return
    with pytest.raises(ModelError, match=word):
        train(gather_clicks(rows), recipe)


def test_divergence_is_refused(clicks: Clicks) -> None:
    with pytest.raises(ModelError, match="training diverged in epoch"):
        train(clicks, replace(RECIPE, learning_rate=1e20, epochs=3))


def test_the_manifest_tells_what_it_is(folder: Path, clicks: Clicks, trained: Trained) -> None:
    manifest = load_manifest(folder)
    assert manifest.version.startswith("20260401T083000-")
    assert manifest.version.endswith(manifest.files["model.onnx"].sha256[:8])
    assert manifest.items == len(load_vocabulary(folder, manifest)) == ITEMS
    assert (manifest.training.clicks, manifest.training.sequences) == (3200, 400)
    assert (manifest.training.first_ts_ms, manifest.training.last_ts_ms) == (
        int(clicks.ts.min()),
        int(clicks.ts.max()),
    )
    assert (manifest.training.seed, manifest.training.epochs) == (3, 12)
    assert manifest.training.network["dim"] == 16
    assert manifest.metrics == trained.metrics
    assert manifest.parity.rows > 500
    assert manifest.parity.score_diff_max < 1e-4
    assert manifest.parity.overlap > 0.99
    json.loads((folder / "manifest.json").read_text(), parse_constant=pytest.fail)


def test_versions_are_in_utc(clicks: Clicks, trained: Trained, tmp_path: Path) -> None:
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    manifest = export_folder(trained, clicks, tmp_path / "model", name="encoder", now=east)
    assert manifest.version.startswith("20260401T083000-")
