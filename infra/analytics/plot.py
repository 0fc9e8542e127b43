"""An answer as a picture, by matplotlib where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from infra.analytics.question import TIMES, Answer, Plot, Question, Request
from schemas.errors import SettingsError

# More bars than that cannot be read, more lines not told apart.
BARS_MAX: Final = 30
LINES_MAX: Final = 8


def series_of(answer: Answer, plot: Plot, by: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The columns to draw: what stands below, and what is measured. `""`: nothing stands below."""
    measures = tuple(name for name in plot.y if name in answer.columns)
    times = [name for name in by if name in TIMES]
    below = plot.x if plot.x in answer.columns else next(iter([*times, *by]), "")
    return below, measures


def draw(answer: Answer, question: Question, request: Request, path: Path) -> None:
    """Write the picture; its kind is told by the file's ending. Raises where it cannot be."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise SettingsError(
            "--plot needs matplotlib, which is not installed: pip install 'headrace[analytics]'; "
            "or take --csv, or `headrace analytics report`"
        ) from None
    below, measures = series_of(answer, question.plot, request.by)
    if not answer.rows or not measures:
        raise SettingsError(f"{question.name} has nothing to draw in this period")
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rest = tuple(name for name in request.by if name != below)
    if below in TIMES or (question.plot.kind == "lines" and below and below == question.plot.x):
        _lines(axes, answer, below, measures, rest)
    else:
        _bars(axes, answer, measures[0], below, rest)
    axes.set_title(question.summary)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise SettingsError(f"the picture {path} cannot be written: {error}") from None


def _lines(
    axes: Any, answer: Answer, below: str, measures: tuple[str, ...], rest: tuple[str, ...]
) -> None:
    # `retention` has a line for each cohort, though nobody asked for it by name.
    apart = rest or tuple(name for name in ("cohort",) if name in answer.columns)
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in answer.records():
        groups.setdefault(tuple(row[name] for name in apart), []).append(row)
    for key, rows in list(groups.items())[-LINES_MAX:]:
        for measure in measures:
            label = " ".join([*map(str, key), measure])
            axes.plot([row[below] for row in rows], [row[measure] for row in rows], label=label)
    axes.set_xlabel(below)
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.grid(visible=True, alpha=0.3)


def _bars(axes: Any, answer: Answer, measure: str, below: str, rest: tuple[str, ...]) -> None:
    rows = answer.records()[:BARS_MAX]
    names = [name for name in (below, *rest) if name]
    labels = [" ".join(str(row[name]) for name in names) or "all" for row in rows]
    places = list(range(len(rows)))
    axes.barh(places, [row[measure] or 0 for row in rows])
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.set_xlabel(measure)
