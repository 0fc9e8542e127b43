"""`headrace schemas`: whether a change may go live, and which ids schemas have."""

from __future__ import annotations

import json

import click

from schemas.codec import current_schemas
from schemas.errors import SchemaError, SettingsError
from schemas.files import FILES, LOCK_PATH, load_schema, read_lock, write_lock
from schemas.lock import check as check_lock
from schemas.lock import extended, versions_of
from schemas.registry import Registry, subject_of
from streams.settings import load_settings


@click.group()
def schemas() -> None:
    """Check schema compatibility; register schemas."""


@schemas.command()
@click.option(
    "--registry",
    is_flag=True,
    help="Ask the configured registry too whether it has today's schemas.",
)
def check(registry: bool) -> None:
    """Fail on an incompatible change, and where lock and files disagree.

    Every locked version must read what today's file writes, and the reverse.
    """
    locked, current = read_lock(), current_schemas()
    check_lock(locked, current)
    if registry:
        _registry().codec()
    versions = sum(len(versions_of(locked, record)) for record in current)
    click.echo(
        f"{len(current)} schemas, {versions} versions: all read one another, and the lock is up to date"
    )


@schemas.command()
def lock() -> None:
    """Accept compatible changes: give each changed schema a new version and id in the lock."""
    locked = read_lock() if LOCK_PATH.exists() else []
    longer = extended(locked, current_schemas())
    for one in longer[len(locked) :]:
        click.echo(f"{one.record} version {one.version} has id {one.schema_id}")
    if len(longer) == len(locked):
        click.echo("nothing changed")
    else:
        write_lock(longer)


@schemas.command()
@click.argument("records", nargs=-1, type=click.Choice(list(FILES)))
def register(records: tuple[str, ...]) -> None:
    """Register today's schemas (all, or RECORDS) at the configured registry."""
    registry = _registry()
    check_lock(read_lock(), current_schemas())
    for record in records or FILES:
        click.echo(f"{subject_of(record):<24} id {registry.register(record)}")


@schemas.command()
@click.argument("record", type=click.Choice(list(FILES)))
@click.option("--version", type=click.IntRange(min=1), help="A locked version instead of the file.")
def show(record: str, version: int | None) -> None:
    """Print a record's schema, as JSON."""
    schema = load_schema(record)
    if version is not None:
        versions = versions_of(read_lock(), record)
        if version > len(versions):
            raise SchemaError(f"{record} has the versions 1 to {len(versions)}, not {version}")
        schema = versions[version - 1].schema
    click.echo(json.dumps(schema, indent=2, ensure_ascii=False))


def _registry() -> Registry:
    settings = load_settings()
    if not settings.registry_url:
        raise SettingsError("no registry is configured: set HEADRACE_REGISTRY_URL to its address")
    return Registry(settings.registry_url)
