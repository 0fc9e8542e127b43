"""The live view: a snapshot as what rich draws. Pure, so that it is tested without a run.

It fits 80 columns and 24 lines, and fills whatever there is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from infra.demo import board
from infra.demo.board import PERSONAL, Snapshot, Step
from infra.demo.latency import Quantiles
from infra.demo.story import Event, HitRate, Offer, StoryView
from models.contract import TIER_MODEL

# From so many lines on, milestones stand below one another.
TALL: Final = 32
# From so many columns on, clicks have their times and items their ranks.
WIDE: Final = 100
_PATH_LINES: Final = 6
_STEPS_LINES: Final = 5
# Milestones behind one another have to be short.
_SHORT: Final = {
    board.KAFKA: "Kafka",
    board.TOPICS: "topics",
    board.WORKER: "worker",
    board.HISTORY: "history",
    board.FIRST: "first offer",
    board.TRAINED: "model trained",
    board.PERSONAL: "first personal offer",
}
_KINDS: Final = {
    "purchase": ("buy", "bold magenta"),
    "cart": ("cart", "magenta"),
    "remove": ("drop", "red"),
}
_LABEL: Final = "bold cyan"
_DIM: Final = "bright_black"


def render(snapshot: Snapshot, width: int, height: int) -> RenderableType:
    """The whole screen."""
    tall = height >= TALL
    steps = _steps_list(snapshot) if tall else _steps_flow(snapshot)
    steps_lines = len(snapshot.steps) + 3 if tall else _STEPS_LINES
    layout = Layout()
    layout.split_column(
        Layout(_head(snapshot), size=1),
        Layout(_panel(_path(snapshot), "the path of a click"), size=_PATH_LINES),
        Layout(_panel(steps, "seconds from the start"), size=steps_lines),
        Layout(_story(snapshot, width, height - 1 - _PATH_LINES - steps_lines)),
    )
    return layout


def _panel(content: RenderableType, title: str) -> Panel:
    return Panel(content, title=title, title_align="left", border_style=_DIM, padding=(0, 1))


def _head(snapshot: Snapshot) -> RenderableType:
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    line.add_column(justify="right", no_wrap=True)
    left = Text.assemble((" Headrace ", "bold reverse"), " ", snapshot.title)
    line.add_row(left, Text(f"{clock(snapshot.elapsed_s)}  Ctrl-C ends it ", _DIM))
    return line


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds."""
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def _path(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        *_cells(
            ("clicks/s", f"{snapshot.clicks_per_s:,.0f}"),
            ("recommendations/s", f"{snapshot.answers_per_s:,.0f}"),
            ("waiting", f"{snapshot.waiting:,}"),
            ("lag", _lag(snapshot)),
            ("dead letters", f"{snapshot.dead_letters:,}"),
        )
    )
    latency = Text.assemble(("click to recommendation  ", _LABEL), *_quantiles(snapshot.recent))
    tier = Text.assemble(
        ("tier  ", _LABEL),
        (snapshot.tier or "-", _tier_style(snapshot.tier)),
        f"  {plain(snapshot.model)}" if snapshot.model not in ("", snapshot.tier) else "",
    )
    offers = Text.assemble(("next view was among the offers  ", _LABEL), hits(snapshot.hits) or "-")
    for text in (latency, tier, offers):
        text.no_wrap, text.overflow = True, "ellipsis"
    return Group(grid, latency, tier, offers)


def _cells(*pairs: tuple[str, str]) -> list[Text]:
    return [Text.assemble((name, _LABEL), " ", (value, "bold")) for name, value in pairs]


def _lag(snapshot: Snapshot) -> str:
    return "-" if snapshot.lag is None else f"{snapshot.lag:,}"


def _quantiles(found: Quantiles | None) -> list[str | tuple[str, str]]:
    if found is None:
        return ["-"]
    parts: list[str | tuple[str, str]] = []
    for name, value in (("p50", found.p50_ms), ("p95", found.p95_ms), ("p99", found.p99_ms)):
        parts += [f"{name} ", (milliseconds(value), "bold"), "  "]
    return [*parts, (f"last {found.count:,}", _DIM)]


def milliseconds(value: float) -> str:
    """A latency with as many digits as mean something."""
    if value >= 10_000:
        return f"{value / 1000:,.1f} s"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"


def hits(rates: Sequence[HitRate]) -> str:
    """How often the next view was among the items offered, by tier."""
    return ", ".join(f"{rate.tier} {100 * rate.share:.1f} %" for rate in rates)


def _tier_style(tier: str) -> str:
    return "bold green" if tier == TIER_MODEL else "bold yellow"


def _mark(step: Step, name: str) -> Text:
    if step.at_s is None:
        return Text(f"· {name}", _DIM)
    style = "bold green" if step.name == PERSONAL else "green"
    return Text.assemble(("✓ ", style), name, (f" {step.at_s:.1f}", "bold"))


def _steps_flow(snapshot: Snapshot) -> RenderableType:
    """Milestones behind one another, and what is being done: three lines."""
    marks = [_mark(step, _SHORT.get(step.name, step.name)) for step in snapshot.steps]
    first = Text("  ").join(marks[:4])
    rest = Text("  ").join(marks[4:])
    for line in (first, rest):
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(first, rest, _doing(snapshot))


def _steps_list(snapshot: Snapshot) -> RenderableType:
    lines: list[Text] = []
    for step in snapshot.steps:
        line = _mark(step, step.name)
        if step.detail:
            line.append(f"  {plain(step.detail)}", _DIM)
        line.no_wrap, line.overflow = True, "ellipsis"
        lines.append(line)
    return Group(*lines, _doing(snapshot))


def _doing(snapshot: Snapshot) -> Text:
    line = Text(plain(snapshot.note or snapshot.activity), "italic")
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _story(snapshot: Snapshot, width: int, lines: int) -> RenderableType:
    story = snapshot.story
    if not story.shopper:
        return _panel(Text("nobody has clicked yet", _DIM), "one shopper")
    # Two lines of frame, one of heading.
    rows = max(1, lines - 3)
    table = Table(expand=True, box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("clicked", ratio=5, no_wrap=True, overflow="ellipsis")
    columns = [_clicked(story.events[-rows:], snapshot.titles, width >= WIDE)]
    for heading, offer in _offers(story):
        table.add_column(heading, ratio=4, no_wrap=True, overflow="ellipsis")
        columns.append(_items(offer, snapshot.titles, rows, width >= WIDE))
    for row in range(max(len(column) for column in columns)):
        table.add_row(*(column[row] if row < len(column) else Text() for column in columns))
    frame = _panel(table, f"shopper {plain(story.shopper)}")
    frame.subtitle, frame.subtitle_align = "★ had just been offered", "right"
    return frame


def _offers(story: StoryView) -> list[tuple[Text, Offer]]:
    offers = (
        [(Text.assemble("before: ", (story.before.tier, "yellow")), story.before)]
        if story.before
        else []
    )
    if story.now is not None:
        heading = Text.assemble(
            "offered: " if story.before is None else "now: ",
            (story.now.tier, _tier_style(story.now.tier)),
        )
        offers.append((heading, story.now))
    return offers


def _clicked(events: Sequence[Event], titles: Mapping[str, str], timed: bool) -> list[Text]:
    """The clicks, newest first."""
    lines = []
    for event in reversed(events):
        moment = time.strftime("%H:%M:%S ", time.localtime(event.ts_ms / 1000)) if timed else ""
        kind, style = _KINDS.get(event.kind, (event.kind, ""))
        star = "★ " if event.offered else "  "
        title = named(event.item, titles)
        lines.append(
            Text.assemble((moment, _DIM), (f"{kind:<6}", style), (star, "bold yellow"), title)
        )
    return lines


def _items(offer: Offer, titles: Mapping[str, str], rows: int, numbered: bool) -> list[Text]:
    """The items offered, best first."""
    if not offer.items:
        return [Text("nothing yet", _DIM)]
    shown = [named(item, titles) for item in offer.items[:rows]]
    return [Text(f"{at:>2} {title}" if numbered else title) for at, title in enumerate(shown, 1)]


def named(item: str, titles: Mapping[str, str]) -> str:
    """An item's title, or its id where it has none."""
    return plain(titles.get(item) or item or "-")


def plain(text: str) -> str:
    """Text of others without what would steer a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
