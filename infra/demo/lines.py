"""The demo in plain lines: its status now and then, and what happened in the end."""

from __future__ import annotations

from collections.abc import Iterator

from infra.demo.board import Snapshot, Step
from infra.demo.latency import Quantiles
from infra.demo.view import hits, milliseconds, named, plain

STORY_ITEMS: int = 3


def status_line(snapshot: Snapshot) -> str:
    """How it goes, in one line."""
    lag = "-" if snapshot.lag is None else f"{snapshot.lag:,}"
    return (
        f"clicks {snapshot.clicks_per_s:,.0f}/s  recommendations {snapshot.answers_per_s:,.0f}/s  "
        f"{_quantiles(snapshot.recent)}  waiting {snapshot.waiting:,}  lag {lag}  "
        f"dead letters {snapshot.dead_letters:,}  tier {snapshot.tier or '-'}"
    )


def step_line(step: Step) -> str:
    """A milestone that was reached."""
    return f"{step.name}: {plain(step.detail)}" if step.detail else step.name


def story_line(snapshot: Snapshot) -> str:
    """The story as it stands, in one line; empty before anything was offered."""
    story = snapshot.story
    if story.now is None:
        return ""
    titles = snapshot.titles
    clicked = [f"{event.kind} {named(event.item, titles)}" for event in story.events[-STORY_ITEMS:]]
    offered = [named(item, titles) for item in story.now.items[:STORY_ITEMS]]
    return (
        f"shopper {plain(story.shopper)}: {', '.join(clicked) or 'no click yet'}"
        f" -> {story.now.tier}: {', '.join(offered) or 'nothing yet'}"
    )


def summary(snapshot: Snapshot, missing: int, history: int) -> Iterator[str]:
    """What happened, for the end."""
    yield "What happened, in seconds from the start:"
    for step in snapshot.steps:
        at = "     -" if step.at_s is None else f"{step.at_s:6.1f}"
        yield f"  {at}  {step_line(step)}"
    if not snapshot.sent:
        return
    yield (
        f"clicks    {snapshot.sent:,} sent, {snapshot.acknowledged:,} acknowledged, "
        f"{snapshot.answered:,} answered, {missing:,} missing, {snapshot.dead_letters:,} dead letters"
    )
    if history:
        yield f"          and {history:,} of history before them"
    yield f"latency   click to recommendation: {_quantiles(snapshot.overall)}"
    yield "tiers     " + ", ".join(f"{tier} {count:,}" for tier, count in snapshot.by_tier.items())
    if story := story_line(snapshot):
        yield f"story     {story}"
    if snapshot.hits:
        yield f"offers    the next view was among the items offered: {hits(snapshot.hits)}"


def _quantiles(found: Quantiles | None) -> str:
    if found is None:
        return "p50 -  p95 -  p99 -"
    values = (("p50", found.p50_ms), ("p95", found.p95_ms), ("p99", found.p99_ms))
    return "  ".join(f"{name} {milliseconds(value)}" for name, value in values)
