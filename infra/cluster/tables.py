"""The report of `headrace status` as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

Json = dict[str, Any]
INTERNAL_PREFIX: Final = "__"


def render(report: Json) -> RenderableType:
    """One region: a headline, its problems, and the tables that have rows."""
    if report["healthy"]:
        mark = "[green]healthy[/]"
    else:
        mark = "[yellow]impaired[/]" if report["up"] else "[red]down[/]"
    parts: list[RenderableType] = [
        f"[bold]{escape(report['region'])}[/] {mark} {escape(report['bootstrap'])}"
    ]
    parts += [f"  {escape(problem)}" for problem in report["problems"]]
    for table in TABLES:
        parts += table(report)
    return Group(*parts)


def brokers(report: Json) -> Iterator[RenderableType]:
    if not report["brokers"]:
        return
    table = _table("broker", ">port", ">pid", "state", ">memory, MB")
    for row in report["brokers"]:
        state = "[green]up[/]" if row["up"] else "[red]down[/]"
        if row["node"] == report["controller"]:
            state += ", controller"
        memory = "" if row["rss_bytes"] is None else str(row["rss_bytes"] // 1_000_000)
        table.add_row(str(row["node"]), str(row["port"]), str(row["pid"] or ""), state, memory)
    yield table


def topics(report: Json) -> Iterator[RenderableType]:
    # Kafka's own topics only matter to people when something is wrong with them.
    shown = [
        row
        for row in report["topics"]
        if not row["topic"].startswith(INTERNAL_PREFIX)
        or row["under_replicated"]
        or row["leaderless"]
    ]
    if not shown:
        return
    table = _table("topic", ">partitions", ">replicas", ">under-replicated", ">leaderless")
    for row in shown:
        counts = [
            str(row[key]) if not row[key] else f"[red]{row[key]}[/]"
            for key in ("under_replicated", "leaderless")
        ]
        table.add_row(escape(row["topic"]), str(row["partitions"]), str(row["replicas"]), *counts)
    yield table


def group(report: Json) -> Iterator[RenderableType]:
    found = report["group"]
    if found["state"] in (None, "absent"):
        return
    table = _table(f"group {escape(found['group'])}", ">partitions", ">lag")
    for row in found["topics"]:
        table.add_row(escape(row["topic"]), str(row["partitions"]), f"{row['lag']:,}")
    table.add_row(found["state"], "", "" if found["lag"] is None else f"{found['lag']:,}")
    yield table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=True,
        )
    return table


TABLES: Final[tuple[Callable[[Json], Iterator[RenderableType]], ...]] = (brokers, topics, group)
