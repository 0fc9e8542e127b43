"""`headrace settings`: the settings in force, or the table of all of them for the README."""

from __future__ import annotations

import json
from typing import Any

import click
from pydantic_core import PydanticUndefined
from rich.console import Console
from rich.table import Table

from streams.settings import PREFIX, Settings, load_settings


@click.command()
@click.option(
    "--markdown", is_flag=True, help="All settings with defaults and meanings, as in the README."
)
@click.option(
    "--json", "as_json", is_flag=True, help="The values in force, for programs; secrets are masked."
)
def settings(markdown: bool, as_json: bool) -> None:
    """Show the settings in force: defaults, headrace.toml, HEADRACE_* variables."""
    if markdown:
        click.echo(settings_table())
        return
    values = load_settings().model_dump(mode="json")
    if as_json:
        click.echo(json.dumps(values, indent=1))
        return
    table = Table("setting", "value", "meaning")
    for name, value in values.items():
        meaning = Settings.model_fields[name].description or ""
        table.add_row(name, str(value), meaning)
    Console().print(table)


def settings_table() -> str:
    """All settings as a markdown table, from the settings object itself."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description} |")
    return "\n".join(rows)


def _default(field: Any) -> str:
    if field.default_factory is not None:
        # Of folders only: the name says more than this machine's path.
        return {"default_home": "`.headrace`", "default_cache": "`~/.cache/headrace`"}[
            field.default_factory.__name__
        ]
    value = field.default
    if value is PydanticUndefined or value is None or str(value) in ("", "()"):
        return ""
    return f"`{value}`"
