"""What a bench prints and writes: one row a program and round, medians, and ratios of paired rounds."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

# One program's figures in one round; None: not measured, or it did not keep up.
Figures = Mapping[str, float | None]
LIBRARIES: Final = (
    "confluent-kafka",
    "fastavro",
    "faust-streaming",
    "numpy",
    "onnxruntime-gpu",
    "onnxruntime",
)

# Figure -> (heading, digits after the point). The order is the table's.
COLUMNS: Final[dict[str, tuple[str, int]]] = {
    "cpu_s_per_1000": ("CPU s/1,000", 4),
    "clicks_per_s": ("clicks/s", 0),
    "broker_cpu_s_per_1000": ("broker s/1,000", 4),
    "p50_ms": ("p50 ms", 1),
    "p95_ms": ("p95 ms", 1),
    "p99_ms": ("p99 ms", 1),
    "core_share": ("core", 3),
    "broker_core_share": ("broker core", 3),
    "slow_core_share": ("core slow", 3),
    "slow_p50_ms": ("p50 slow", 1),
    "rss_mb": ("RSS MB", 0),
}


def median(values: Sequence[float | None]) -> float | None:
    """The median of those that were measured; None where none was."""
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def medians(rounds: Sequence[Figures]) -> dict[str, float | None]:
    """The median of each figure over the rounds."""
    return {name: median([one.get(name) for one in rounds]) for name in COLUMNS}


def ratios(ours: Sequence[Figures], theirs: Sequence[Figures]) -> dict[str, list[float]]:
    """Ours divided by theirs, round by round, for each figure that both have."""
    found: dict[str, list[float]] = {}
    for name in COLUMNS:
        paired = [(a.get(name), b.get(name)) for a, b in zip(ours, theirs, strict=True)]
        values = [a / b for a, b in paired if a is not None and b]
        if values:
            found[name] = values
    return found


def program_table(rounds: Mapping[str, Sequence[Figures]]) -> str:
    """The medians, one row a program."""
    rows = [["program", *(heading for heading, _ in COLUMNS.values())]]
    for program, figures in rounds.items():
        middle = medians(figures)
        rows.append(
            [program, *(_text(middle[name], digits) for name, (_, digits) in COLUMNS.items())]
        )
    return aligned(rows)


def ratio_table(ours: str, rounds: Mapping[str, Sequence[Figures]]) -> str:
    """`ours` against each other program: median, least and greatest ratio of the paired rounds."""
    rows = [["ratio", "figure", "median", "least", "greatest"]]
    for other, figures in rounds.items():
        if other == ours:
            continue
        for name, values in ratios(rounds[ours], figures).items():
            numbers = (statistics.median(values), min(values), max(values))
            rows.append(
                [f"{ours}/{other}", COLUMNS[name][0], *(f"{number:.2f}" for number in numbers)]
            )
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; the first to the left, the others to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
        ).rstrip()
        for row in rows
    )


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def machine() -> dict[str, Any]:
    """What the figures depend on besides the programs."""
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except ModuleNotFoundError:
            continue
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": libraries,
        "load_average": round(os.getloadavg()[0], 2),
    }


def noise(load_average: float, idle_share: float, cores: int) -> str:
    """One line about how busy the machine is before anything is measured."""
    line = f"machine: {cores} cores, load average {load_average:.2f}, {100 * idle_share:.0f} % idle"
    if idle_share < 0.9 or load_average > 0.5 * cores:
        line += "\nNOTE: the machine is busy with other work; trust the ratios more than the figures, and neither much"
    return line


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write results in a stable form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")
