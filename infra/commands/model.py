"""`headrace model`: train a model folder, look into one, announce it to the workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.folder import GRAPH, Manifest, load_manifest
from schemas.errors import ModelError

if TYPE_CHECKING:
    from models.dataset import Clicks
    from models.train import Recipe
    from schemas.codec import Codec


@click.group()
def model() -> None:
    """Train, inspect and announce models."""


@model.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Model folder to write; must not exist.")
@click.option("--name", default="encoder", show_default=True, help="Name of the model.")
@click.option("--seed", default=0, show_default=True, help="Seed of weights, batches and dropout.")
@click.option("--epochs", type=click.IntRange(1, 1000), help="Passes over the clicks.")
@click.option("--length", "window", type=click.IntRange(2, 50), help="Newest items that decide an answer.")
@click.option("--dim", type=click.IntRange(4, 1024), help="Width of the network.")
@click.option("--threads", type=click.IntRange(1, 256), help="CPU threads.")
@click.option("--min-support", type=click.IntRange(1), help="Items with fewer clicks are left out.")
@click.option("--refit/--no-refit", default=True, show_default=True, help="Train again on all clicks after the hold-out.")
def train(file: Path, out: Path, name: str, **options: int | None) -> None:
    """Train on the clicks of FILE (CSV, TSV or Parquet) and write a model folder.

    Columns: user_id, item_id, ts (ms), or SessionId, ItemId, Time (s) of the RecSys 2015 data.
    """
    from models.dataset import read_file

    if out.exists():
        raise ModelError(f"{out} exists already; a model folder is never overwritten: choose another place")
    clicks = read_file(file)
    manifest = _train(clicks, out, name, {key: value for key, value in options.items() if value is not None})
    _summary(manifest, out)


def _train(clicks: Clicks, out: Path, name: str, options: dict[str, int]) -> Manifest:
    try:
        from models.export import export_folder
        from models.train import Recipe
        from models.train import train as fit
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "onnx"}:
            raise
        raise ModelError("training needs the `train` extra: pip install 'headrace[train]'") from None
    recipe = Recipe(**options)  # type: ignore[arg-type]  # click has checked them
    with _bar() as bar:
        trained = fit(clicks, recipe, _progress(bar, recipe))
    return export_folder(trained, clicks, out, name=name, now=datetime.now(UTC))


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} epochs"),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _progress(bar: Progress, recipe: Recipe) -> Callable[[str, int, int, float], None]:
    tasks: dict[str, object] = {}

    def report(phase: str, done: int, total: int, loss: float) -> None:
        if phase not in tasks:
            tasks[phase] = bar.add_task(phase, total=total, loss=loss)
        bar.update(tasks[phase], completed=done, loss=loss)  # type: ignore[arg-type]

    return report


def _summary(manifest: Manifest, path: Path) -> None:
    Console().print(_table(manifest, path))


@model.command()
@click.argument("path", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The manifest as JSON.")
def show(path: Path, as_json: bool) -> None:
    """Verify the model folder DIR and show its manifest."""
    manifest = load_manifest(path)
    if as_json:
        click.echo(manifest.model_dump_json(indent=2))
    else:
        _summary(manifest, path)


def _table(manifest: Manifest, path: Path) -> Table:
    table = Table(title=manifest.label, show_header=False, title_justify="left")
    training, parity = manifest.training, manifest.parity
    rows = {
        "items": f"{manifest.items:,}",
        "sequences": f"{training.sequences:,} of {training.clicks:,} clicks",
        "trained": f"{training.seconds:.1f} s, {training.epochs} epochs, seed {training.seed}",
        "loss": f"{training.loss:.3f}",
        **{name: f"{value:,.4g}" for name, value in manifest.metrics.items()},
        "parity": f"scores within {parity.score_diff_max:.1e}, top {manifest.k} overlap {parity.overlap:.4f}, {parity.rows} rows",
        "graph": f"{manifest.files[GRAPH].bytes / 1e6:.2f} MB",
        "folder": str(path),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


@model.command("announce")
@click.argument("path", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--region", help="Region to tell (HEADRACE_REGION).")
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
def announce_command(path: Path, region: str | None, servers: str | None) -> None:
    """Announce the model folder DIR: workers verify and serve it, between two batches."""
    from streams.announce import announce

    config, codec = _connection(region, servers)
    record = announce(config, codec, path, time.time_ns() // 1_000_000)
    click.echo(f"announced {record['model']}@{record['version']} in {record['uri']}")


@model.command("withdraw")
@click.argument("name")
@click.option("--region", help="Region to tell (HEADRACE_REGION).")
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
def withdraw_command(name: str, region: str | None, servers: str | None) -> None:
    """Withdraw the model NAME: workers go back to the tiers that need no model."""
    from streams.announce import withdraw

    config, codec = _connection(region, servers)
    withdraw(config, codec, name)
    click.echo(f"withdrew {name}")


def _connection(region: str | None, servers: str | None) -> tuple[dict[str, Any], Codec]:
    from infra.cluster.region import bootstrap
    from schemas.registry import codec_from_settings
    from streams.kafka import client_config
    from streams.settings import load_settings

    settings = load_settings(region=region, bootstrap=servers)
    config = client_config(settings, bootstrap(settings))
    return config, codec_from_settings(settings.registry_url)
