"""`headrace model`: train a model folder, look into one, announce it to the workers."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra.commands.announcing import announce_command, withdraw_command
from infra.commands.clicks import Mapping
from models.folder import GRAPH, NAME, Manifest, load_manifest
from schemas.errors import ModelError

if TYPE_CHECKING:
    from models.dataset import Clicks
    from models.train import Recipe

# Width of a program's output, where no terminal says its own.
WIDTH: Final = 120


@click.group()
def model() -> None:
    """Train, inspect and announce models."""


model.add_command(announce_command)
model.add_command(withdraw_command)


@model.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--topic", is_flag=True, help="Train on the clicks in Kafka instead of a FILE.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Model folder to write; must not exist.",
)
@click.option("--name", default="encoder", show_default=True, help="Name of the model.")
@click.option("--seed", default=0, show_default=True, help="Seed of weights, batches and dropout.")
@click.option("--epochs", type=click.IntRange(1, 1000), help="Passes over the clicks.  [20]")
@click.option(
    "--length",
    "window",
    type=click.IntRange(2, 50),
    help="Newest items that decide an answer.  [20]",
)
@click.option("--dim", type=click.IntRange(4, 1024), help="Width of the network.  [32]")
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    help="CPU threads; a small network is fastest on one.  [1]",
)
@click.option(
    "--min-support",
    type=click.IntRange(1),
    help="Items with fewer clicks are left out.  [2]",
)
@click.option(
    "--refit/--no-refit",
    default=True,
    show_default=True,
    help="Train again on all clicks once the newest day was held out and measured.",
)
@click.option("--map", "mapping", type=Mapping(), help="Columns of FILE: user_id=…,item_id=…,ts=…")
@click.option("--region", help="Region whose Kafka is read (HEADRACE_REGION).")
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
def train(
    file: Path | None,
    topic: bool,
    out: Path,
    name: str,
    mapping: dict[str, str] | None,
    region: str | None,
    servers: str | None,
    **recipe: int | None,
) -> None:
    """Train on the clicks of FILE, or of Kafka with --topic, and write a model folder.

    FILE is what `headrace clicks replay` reads: CSV, TSV, Parquet or JSON lines with a user, an
    item and a time.
    """
    if (file is None) != topic:
        raise click.UsageError("give either a FILE of clicks or --topic")
    if out.exists():
        raise ModelError(f"{out} exists already; a model folder is never overwritten")
    if re.fullmatch(NAME, name) is None:
        raise click.BadParameter(f"{name!r}: letters, digits, - and _ only", param_hint="--name")
    # Torch is asked for before anything is read: reading takes longer.
    _need_training()
    from infra.commands.training import clicks_of_file, clicks_of_topic

    clicks = clicks_of_topic(region, servers) if file is None else clicks_of_file(file, mapping)
    given = {option: value for option, value in recipe.items() if value is not None}
    _show(_train(clicks, out, name, given), out)


def _need_training() -> None:
    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "onnx"}:
            raise
        raise ModelError(
            "training needs the `train` extra: pip install 'headrace[train]'"
        ) from None


def _train(clicks: Clicks, out: Path, name: str, options: dict[str, int]) -> Manifest:
    from models import export
    from models.train import Recipe
    from models.train import train as fit

    recipe = Recipe(**options)  # type: ignore[arg-type]  # click has checked them
    with _bar() as bar:
        trained = fit(clicks, recipe, _reporter(bar, recipe))
    return export.export_folder(trained, clicks, out, name=name, now=datetime.now(UTC))


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} epochs, loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _reporter(bar: Progress, recipe: Recipe) -> Callable[[str, int, int, float], None]:
    phases = ("hold-out", "all clicks") if recipe.refit else ("hold-out",)
    tasks: dict[str, TaskID] = {
        phase: bar.add_task(phase, total=recipe.epochs, loss="-", start=phase == phases[0])
        for phase in phases
    }

    def report(phase: str, done: int, total: int, loss: float) -> None:
        bar.start_task(tasks[phase])
        bar.update(tasks[phase], completed=done, total=total, loss=f"{loss:.3f}")

    return report


@model.command()
@click.argument("path", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The manifest, for programs.")
def show(path: Path, as_json: bool) -> None:
    """Verify the model folder DIR and show its manifest."""
    manifest = load_manifest(path)
    if as_json:
        click.echo(manifest.model_dump_json(indent=2))
    else:
        _show(manifest, path)


def _show(manifest: Manifest, path: Path) -> None:
    training, parity, metrics = manifest.training, manifest.parity, manifest.metrics
    table = Table(title=manifest.label, show_header=False, title_justify="left")
    rows = {
        "items": f"{manifest.items:,}; up to {manifest.k} in an answer",
        "clicks": f"{training.clicks:,} in {training.sequences:,} sequences",
        "from": _time(training.first_ts_ms),
        "to": _time(training.last_ts_ms),
        "trained": f"{training.seconds:.1f} s, {training.epochs} epochs, seed {training.seed}",
        "loss": f"{training.loss:.3f}",
        **{name: _measured(name, value) for name, value in metrics.items()},
        "parity": (
            f"scores within {parity.score_diff_max:.1e} of torch, "
            f"best {manifest.k} the same for {parity.overlap:.2%}, {parity.rows} rows"
        ),
        "graph": f"{manifest.files[GRAPH].bytes / 1e6:.2f} MB",
        "folder": str(path),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def _measured(name: str, value: float) -> str:
    """A metric as people read it: times as times, counts as counts."""
    if name.endswith("_ts_ms"):
        return _time(int(value))
    return f"{value:,.0f}" if value.is_integer() and value > 1 else f"{value:.4f}"


def _time(ts_ms: int) -> str:
    return f"{datetime.fromtimestamp(ts_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
