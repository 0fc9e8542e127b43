"""What one row of the scorer costs, by batch size: mapping ids to rows, the ONNX call, the rest.

    python bench/scorer.py DIR [--k 20] [--threads 1] [--device cpu] [--length 5] [--rounds 5]

CPU microseconds a row (user and system time of the process), the median of the rounds, and
milliseconds a call. Histories are drawn from the model's vocabulary, popular items first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from models.folder import load_manifest, load_vocabulary
from models.scorer import OnnxScorer

BATCHES = (1, 8, 64, 256, 512)
# Rows of one measurement: some tenths of a second, so that the clock's 10 ms do not matter.
ROWS = 30_000
# Different batches, taken in turn.
BATCHES_DRAWN = 16


def make_histories(vocabulary: list[bytes], rows: int, length: int) -> list[list[bytes]]:
    """Histories of 1 to 50 items, `length` on average, items by a power law of their rank."""
    rng = np.random.default_rng(0)
    odds = 1.0 / np.arange(1, len(vocabulary) + 1) ** 0.8
    lengths = np.minimum(rng.geometric(1 / length, rows), 50)
    drawn = rng.choice(len(vocabulary), lengths.sum(), p=odds / odds.sum())
    cuts = np.cumsum(lengths)[:-1]
    return [[vocabulary[item] for item in part.tolist()] for part in np.split(drawn, cuts)]


def cpu_us(call: Callable[[int], object], batches: int) -> float:
    """CPU microseconds of one `call`, over all batches."""
    began = time.process_time()
    for batch in range(batches):
        call(batch)
    return (time.process_time() - began) / batches * 1e6


@click.command()
@click.argument("path", metavar="DIR", type=click.Path(path_type=Path, exists=True))
@click.option("--k", default=20, show_default=True, help="Items in an answer.")
@click.option("--threads", default=1, show_default=True, help="CPU threads of one call.")
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or tensorrt.")
@click.option("--length", default=5, show_default=True, help="Mean length of a history.")
@click.option("--rounds", default=5, show_default=True, help="Rounds; the median is shown.")
def main(path: Path, k: int, threads: int, device: str, length: int, rounds: int) -> None:
    """Print what a row costs by batch size."""
    scorer = OnnxScorer(path, threads=threads, device=device)
    vocabulary = [item.encode() for item in load_vocabulary(path, load_manifest(path))]
    print(f"{scorer.label}, {len(vocabulary)} items, k {k}, {scorer.provider}, {threads} thread(s)")
    print(f"{'batch':>6} {'us/row':>8} {'mapping':>8} {'onnx':>8} {'rest':>8} {'ms/call':>8}")
    for size in BATCHES:
        whole, mapping, onnx, rest = measure(scorer, vocabulary, size, k, length, rounds)
        print(
            f"{size:>6} {whole / size:>8.2f} {mapping / size:>8.2f} {onnx / size:>8.2f} "
            f"{rest / size:>8.2f} {whole / 1000:>8.3f}"
        )


def measure(
    scorer: OnnxScorer, vocabulary: list[bytes], size: int, k: int, length: int, rounds: int
) -> list[float]:
    """CPU microseconds of one call with `size` rows: whole, mapping, ONNX, rest."""
    histories = make_histories(vocabulary, BATCHES_DRAWN * size, length)
    batches = [histories[begin : begin + size] for begin in range(0, len(histories), size)]
    feeds = [{"items": scorer._encode(batch)[0], "k": np.array([k])} for batch in batches]
    count = max(20, ROWS // size)
    figures = []
    for _ in range(rounds):
        mapping = cpu_us(lambda at: scorer._encode(batches[at % BATCHES_DRAWN]), count)
        onnx = cpu_us(lambda at: scorer._session.run(None, feeds[at % BATCHES_DRAWN]), count)
        whole = cpu_us(lambda at: scorer.rank(batches[at % BATCHES_DRAWN], k), count)
        figures.append((whole, mapping, onnx, whole - mapping - onnx))
    return [statistics.median(column) for column in zip(*figures, strict=True)]


if __name__ == "__main__":
    main()
