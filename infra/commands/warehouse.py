"""`headrace warehouse`: ClickHouse's tables, the sink that fills them, and what is in them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from infra.cluster.region import bootstrap
from infra.commands.sending import interruptible
from infra.commands.worker import configure_logging
from infra.warehouse.engine import open_engine
from infra.warehouse.exchange import finish
from infra.warehouse.migrate import RECORD_TABLES, drift_of, migrate
from infra.warehouse.owner import owner_of
from infra.warehouse.rebuild import rebuild
from infra.warehouse.run import run_sink
from infra.warehouse.store import connect, warehouse_folder
from schemas.errors import WarehouseError
from streams.settings import load_settings

DRIFT_EXIT_CODE = 3


@click.group()
def warehouse() -> None:
    """Clicks, answers, dead letters and drills in ClickHouse."""


@warehouse.command("run")
@click.option("--region", help="Region whose Kafka to read (HEADRACE_REGION).")
@click.option(
    "--peer", "peers", multiple=True, help="Another region, whose mirrored clicks come too."
)
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
@click.option("--once", is_flag=True, help="Take what Kafka has now, and end.")
@click.option("--anew", multiple=True, metavar="TOPIC", help="Read this topic from its beginning.")
@click.option("--json", "as_json", is_flag=True, help="With --once: what was done, for programs.")
def run_command(
    region: str | None,
    peers: tuple[str, ...],
    servers: str | None,
    once: bool,
    anew: tuple[str, ...],
    as_json: bool,
) -> None:
    """Take clicks, answers, alerts, dead letters, models and drills from Kafka into ClickHouse.

    SIGTERM and Ctrl-C load what was gathered, and end. An embedded ClickHouse answers
    the other commands' queries on a port of loopback meanwhile.
    """
    settings = load_settings(region=region, peers=peers or None, bootstrap=servers)
    configure_logging("INFO")
    with interruptible() as stopped:
        progress = run_sink(settings, bootstrap(settings), stopped, once=once, anew=frozenset(anew))
    if as_json:
        click.echo(json.dumps(asdict(progress)))
    else:
        click.echo(f"{progress.records:,} records in {progress.batches:,} batches", err=True)


@warehouse.command("rebuild")
@click.option("--region", help="Region whose Kafka to read (HEADRACE_REGION).")
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def rebuild_command(region: str | None, servers: str | None, as_json: bool) -> None:
    """Make everything anew from Kafka, beside what is there, and put it in its place.

    Rows that Kafka does not have any more are taken over. Stop the sink before.
    """
    settings = load_settings(region=region, bootstrap=servers)
    configure_logging("INFO")
    with interruptible() as stopped:
        progress = rebuild(settings, bootstrap(settings), stopped)
    if progress is None:
        raise WarehouseError("interrupted: nothing has changed")
    if as_json:
        click.echo(json.dumps(asdict(progress)))
    else:
        click.echo(f"rebuilt from {progress.records:,} records")


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
            drift = drift_of(engine, cluster=settings.warehouse_cluster)
        else:
            finish(engine, settings)
            report = migrate(engine, settings.warehouse_days, cluster=settings.warehouse_cluster)
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


@warehouse.command("status")
@click.option("--key", is_flag=True, help="Only the password of the HTTP port, for curl.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status_command(key: bool, as_json: bool) -> None:
    """Who owns the warehouse, where it answers, and what is in it."""
    settings = load_settings()
    owner = None if settings.warehouse_url else owner_of(warehouse_folder(settings))
    if key:
        if owner is None or not owner.key:
            raise WarehouseError("nobody answers queries here: `headrace warehouse run` does")
        click.echo(owner.key)
        return
    with connect(settings) as store:
        counts = {
            table: store.query(f"SELECT count() AS n FROM {table}").to_pylist()[0]["n"]
            for table in RECORD_TABLES
        }
        where = store.where
    url = f"http://127.0.0.1:{owner.port}" if owner and owner.port else settings.warehouse_url
    if as_json:
        click.echo(json.dumps({"where": where, "url": url, "rows": counts}))
        return
    click.echo(where)
    if owner and owner.port:
        click.echo(
            f'curl -H "X-ClickHouse-Key: $(headrace warehouse status --key)" {url} -d "SELECT 1"'
        )
    for table, count in counts.items():
        click.echo(f"{count:>14,} {table}")


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
