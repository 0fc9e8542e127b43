"""What the demo shows: a fixed run on small and large screens, in lines, and in the end."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from infra.demo import board as steps
from infra.demo.board import Snapshot, Step
from infra.demo.howto import howto
from infra.demo.latency import Quantiles
from infra.demo.lines import status_line, story_line, summary
from infra.demo.story import Event, HitRate, Offer, StoryView
from infra.demo.view import render

TITLES = {f"i{at}": f"Brook Warm Kettle {at}" for at in range(100)}

EMPTY = Snapshot(
    1.2, "", "starting Kafka", tuple(Step(name, None) for name in (steps.KAFKA, steps.TOPICS))
)

RUN = Snapshot(
    elapsed_s=75.0,
    title="1,000 simulated shoppers, Kafka at 127.0.0.1:19092",
    activity="the model answers: the offers are personal now",
    steps=(
        Step(steps.KAFKA, 3.2, "at 127.0.0.1:19092"),
        Step(steps.TOPICS, 3.9),
        Step(steps.WORKER, 6.1),
        Step(steps.HISTORY, 7.7, "30,000 clicks"),
        Step(steps.FIRST, 7.8, "popular"),
        Step(steps.TRAINED, 28.0, "on 30,000 clicks, in 26 s"),
        Step(steps.PERSONAL, 28.9, "demo@20260401-1"),
    ),
    sent=13_440,
    acknowledged=13_440,
    answered=13_438,
    waiting=2,
    lag=1,
    clicks_per_s=200.0,
    answers_per_s=199.6,
    recent=Quantiles(2_000, 8.04, 12.2, 112.7),
    overall=Quantiles(13_438, 8.4, 13.3, 25_100.0),
    tier="model",
    model="demo@20260401-1",
    by_tier={"popular": 4_220, "model": 9_218},
    hits=(HitRate("popular", 1_000, 20), HitRate("model", 2_000, 600)),
    story=StoryView(
        "s0042",
        tuple(Event(1_770_000_000_000 + at, "view", f"i{at}", at == 11) for at in range(12)),
        Offer("popular", "popular", tuple(f"i{at}" for at in range(20, 40))),
        Offer("model", "demo@20260401-1", tuple(f"i{at}" for at in range(50, 70))),
    ),
    titles=TITLES,
)


def screen(snapshot: Snapshot, width: int, height: int) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None)
    with console.screen(hide_cursor=False):
        console.print(render(snapshot, width, height), end="", height=height)
    text = out.getvalue().replace("\x1b[?1049h", "").replace("\x1b[?1049l", "")
    return text.replace("\x1b[H", "").rstrip("\n").split("\n")


@pytest.mark.parametrize("snapshot", [EMPTY, RUN], ids=["empty", "run"])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60), (60, 20)])
def test_fills_the_screen_and_no_more(snapshot: Snapshot, width: int, height: int) -> None:
    lines = screen(snapshot, width, height)
    assert len(lines) == height
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_shows_what_matters_on_every_usual_screen(width: int, height: int) -> None:
    text = "\n".join(screen(RUN, width, height))
    for part in (
        "clicks/s 200",
        "recommendations/s 200",
        "lag 1",
        "dead letters 0",
        "p50 8.0 ms",
        "p95 12.2 ms",
        "p99 113 ms",
        "tier  model",
        "demo@20260401-1",
        "popular 2.0 %, model 30.0 %",
        "✓ Kafka",
        "first personal",
        "28.9",
        "shopper s0042",
        "before: popular",
        "now: model",
        "★ Brook Warm Kettle 11",
        "Brook Warm Kettle 50",
        "Brook Warm Kettle 20",
        "Ctrl-C ends it",
        "the model answers",
    ):
        assert part in text, f"{part!r} is not shown at {width}x{height}"


def test_before_any_click_it_says_so() -> None:
    text = "\n".join(screen(EMPTY, 80, 24))
    assert "nobody has clicked yet" in text
    assert "starting Kafka" in text


def test_a_note_comes_before_what_is_being_done() -> None:
    text = "\n".join(screen(replace(RUN, note="worker ended with code 70"), 80, 24))
    assert "worker ended with code 70" in text
    assert "the model answers" not in text


def test_ids_of_others_neither_steer_the_terminal_nor_are_markup() -> None:
    bad = "\x1b[31m[bold]x[/]"
    story = StoryView(bad, (Event(0, "view", bad, False),), None, Offer("popular", bad, (bad,)))
    text = "\n".join(screen(replace(RUN, story=story, model=bad), 120, 40))
    assert "\x1b[31m" not in text
    assert "[bold]x[/]" in text


def test_status_is_one_line() -> None:
    assert status_line(RUN) == (
        "clicks 200/s  recommendations 200/s  p50 8.0 ms  p95 12.2 ms  p99 113 ms  waiting 2  "
        "lag 1  dead letters 0  tier model"
    )
    assert status_line(EMPTY).endswith("tier -")


def test_story_line_tells_clicks_and_offers() -> None:
    assert story_line(EMPTY) == ""
    assert story_line(RUN) == (
        "shopper s0042: view Brook Warm Kettle 9, view Brook Warm Kettle 10, "
        "view Brook Warm Kettle 11 -> model: Brook Warm Kettle 50, Brook Warm Kettle 51, "
        "Brook Warm Kettle 52"
    )


def test_summary_lists_milestones_and_counts() -> None:
    text = "\n".join(summary(RUN, 2, 30_000))
    for part in (
        "     3.2  Kafka up: at 127.0.0.1:19092",
        "    28.9  first personal recommendation: demo@20260401-1",
        "13,440 sent, 13,440 acknowledged, 13,438 answered, 2 missing, 0 dead letters",
        "30,000 of history",
        "p50 8.4 ms  p95 13.3 ms  p99 25.1 s",
        "popular 4,220, model 9,218",
        "model 30.0 %",
    ):
        assert part in text
    assert [line.split() for line in summary(EMPTY, 0, 0)][1:] == [
        ["-", "Kafka", "up"],
        ["-", "topics", "ready"],
    ]


def test_howto_names_the_real_address_shopper_and_home(tmp_path: Path) -> None:
    click = tmp_path / "click.avro"
    stopped = "\n".join(howto("h:9092", "a b", "i1", click, up=False, own_home=tmp_path))
    assert f"export HEADRACE_HOME={tmp_path}" in stopped
    assert "headrace up" in stopped or "infra.cli up" in stopped
    assert "recommendations get 'a b'" in stopped
    assert "ClickProducer('h:9092')" in stopped
    assert "kcat -P -b h:9092 -t clicks -k 'a b'" in stopped
    other = "\n".join(howto("h:9092", "u", "i1", click, up=True, own_home=None))
    assert "HEADRACE_HOME" not in other
    assert "recommendations get u --bootstrap h:9092" in other
    assert " down" not in other
