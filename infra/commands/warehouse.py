"""`headrace warehouse`: ClickHouse's tables, the sink that fills them, and what is in them."""

from __future__ import annotations

import json
import sys

import click

from infra.warehouse.engine import open_engine
from infra.warehouse.migrate import drift_of, migrate
from infra.warehouse.store import connect
from streams.settings import load_settings

DRIFT_EXIT_CODE = 3


@click.group()
def warehouse() -> None:
    """Clicks, answers, dead letters and drills in ClickHouse."""


@warehouse.command("migrate")
@click.option(
    "--check", is_flag=True, help="Change nothing; exit 3 when something is missing or drifts."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def migrate_command(check: bool, as_json: bool) -> None:
    """Make the tables, or bring them up to date; report drift (exit 3)."""
    settings = load_settings()
    applied: tuple[str, ...] = ()
    with open_engine(settings, "warehouse migrate") as (engine, _):
        if check:
            drift = drift_of(engine)
        else:
            report = migrate(engine, settings.warehouse_days)
            applied, drift = report.applied, report.drift
    if as_json:
        click.echo(json.dumps({"applied": applied, "drift": drift}))
    else:
        for name in applied:
            click.echo(f"applied {name}")
        for line in drift:
            click.echo(line, err=True)
        if not applied and not drift:
            click.echo("the schema is up to date")
    sys.exit(DRIFT_EXIT_CODE if drift else 0)


@warehouse.command("query")
@click.argument("sql")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row.")
def query_command(sql: str, as_json: bool) -> None:
    """Ask ClickHouse; reading only. Tab-separated, or JSON lines."""
    with connect(load_settings()) as store:
        table = store.query(sql)
    if as_json:
        for row in table.to_pylist():
            click.echo(json.dumps(row, default=str, ensure_ascii=False))
        return
    click.echo("\t".join(table.column_names))
    for row in table.to_pylist():
        click.echo("\t".join(str(value) for value in row.values()))
