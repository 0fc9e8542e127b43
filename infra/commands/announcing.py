"""`headrace model announce` and `withdraw`: which model the workers serve."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from infra.cluster.region import bootstrap
from schemas.codec import Codec
from schemas.registry import codec_from_settings
from streams.announce import announce, withdraw
from streams.kafka import client_config
from streams.settings import load_settings


@click.command("announce")
@click.argument("path", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--region", help="Region to tell (HEADRACE_REGION).")
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
def announce_command(path: Path, region: str | None, servers: str | None) -> None:
    """Announce the model folder DIR: workers verify and serve it, between two batches."""
    config, codec = _connection(region, servers)
    record = announce(config, codec, path, time.time_ns() // 1_000_000)
    click.echo(f"announced {record['model']}@{record['version']} in {record['uri']}")


@click.command("withdraw")
@click.argument("name")
@click.option("--region", help="Region to tell (HEADRACE_REGION).")
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
def withdraw_command(name: str, region: str | None, servers: str | None) -> None:
    """Withdraw the model NAME: workers go back to the tiers that need no model."""
    config, codec = _connection(region, servers)
    withdraw(config, codec, name)
    click.echo(f"withdrew {name}")


def _connection(region: str | None, servers: str | None) -> tuple[dict[str, Any], Codec]:
    settings = load_settings(region=region, bootstrap=servers)
    config = client_config(settings, bootstrap(settings))
    return config, codec_from_settings(settings.registry_url)
