"""`headrace model`: from a click file to a folder, and one clear message for whatever is wrong."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infra.commands.model import model
from infra.commands.training import clicks_of_columns, clicks_of_file
from models.folder import load_manifest
from models.scorer import OnnxScorer
from schemas.errors import HeadraceError
from streams.clicks.columns import limited
from streams.clicks.simulate import Shop


def run(*arguments: object) -> Result:
    return CliRunner().invoke(model, [str(argument) for argument in arguments])


def fault(*arguments: object) -> str:
    """The message that the command ended with."""
    result = run(*arguments)
    assert isinstance(result.exception, HeadraceError), result.output
    return str(result.exception)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = random.Random(1)
    rows = ["SessionId\tItemId\tTime"]
    for session in range(200):
        start = rng.randrange(30)
        rows += [
            f"{session}\t0{(start + step) % 30}\t{1396437466.94 + 60 * session + step}"
            for step in range(4)
        ]
    path = tmp_path / "clicks.tsv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_trains_shows_and_loads(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "encoder"
    result = run("train", file, "--out", out, "--epochs", 2, "--dim", 8, "--seed", 5, "--length", 4)
    assert result.exit_code == 0, result.output
    manifest = load_manifest(out)
    assert (manifest.items, manifest.training.clicks, manifest.training.seed) == (30, 800, 5)
    assert (manifest.features.window, manifest.training.network["dim"]) == (4, 8)
    for shown in (manifest.label, "hit_rate_20", "mrr_20", "parity", "2014-04-02", str(out.name)):
        assert shown in result.output
    # Ids are text: 07 is not 7.
    ranking = OnnxScorer(out, device="cpu").rank([[b"07"], [b"7"]], 3)
    assert ranking.answered.tolist() == [True, False]
    as_json = run("show", out, "--json")
    assert json.loads(as_json.output) == json.loads((out / "manifest.json").read_text())
    assert manifest.label in run("show", out).output


def test_existing_folder(file: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert "exists already" in fault("train", file, "--out", tmp_path / "model")


def test_missing_file(tmp_path: Path) -> None:
    message = fault("train", tmp_path / "none.csv", "--out", tmp_path / "model")
    assert "none.csv" in message
    assert not (tmp_path / "model").exists()


def test_missing_column(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("user_id,ts\nu,1\n")
    assert "item_id" in fault("train", path, "--out", tmp_path / "model")


def test_too_few_clicks(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("user_id,item_id,ts\nu,a,1396437466000\nu,a,1396437467000\n")
    message = fault("train", path, "--out", tmp_path / "model")
    assert message.startswith("too few clicks to train on")
    assert not (tmp_path / "model").exists()


def test_bad_name_is_refused_before_training(file: Path, tmp_path: Path) -> None:
    result = run("train", file, "--out", tmp_path / "model", "--name", "a/b")
    assert result.exit_code == 2
    assert "a/b" in result.output


@pytest.mark.parametrize("arguments", [[], ["clicks.csv", "--topic"]])
def test_a_file_or_the_topic(arguments: list[str], tmp_path: Path) -> None:
    result = run("train", *arguments, "--out", tmp_path / "model")
    assert result.exit_code == 2
    assert "either a FILE of clicks or --topic" in result.output


@pytest.mark.parametrize("missing", ["torch", "onnx"])
def test_without_the_train_extra(
    file: Path, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    message = fault("train", file, "--out", tmp_path / "model")
    assert message == "training needs the `train` extra: pip install 'headrace[train]'"


def test_showing_what_is_no_model(tmp_path: Path) -> None:
    assert "has no manifest.json" in fault("show", tmp_path)


def test_impressions_and_searches_are_not_learned_from(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text(
        "user_id,item_id,ts,event_type,query\n"
        "u,a,1396437466000,view,\n"
        "u,b,1396437467000,impression,\n"
        "u,,1396437468000,search,shoes\n"
        "u,c,1396437469000,cart,\n"
    )
    clicks = clicks_of_file(path)
    assert [clicks.item_ids[item] for item in clicks.items] == ["a", "c"]


def test_the_simulated_shop_can_be_learned_from() -> None:
    clicks = clicks_of_columns(limited(Shop(shoppers=50, items=100).clicks(), 2_000))
    assert 1_000 < len(clicks) <= 2_000
    assert clicks.users.max() < 50
    assert "" not in clicks.item_ids
