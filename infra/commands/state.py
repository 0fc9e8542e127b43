"""`headrace state`: look into the feature state, digest it, and hold it against the clicks."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from infra.cluster.region import bootstrap
from schemas.clicks import EVENT_TYPES
from schemas.registry import codec_from_settings
from schemas.topics import CLICKS, changelog_topic, mirrored_topic
from streams.kafka import fetch_consumer_config
from streams.readback import read_topic
from streams.settings import Settings, load_settings
from streams.stages.decode import Limits
from streams.state.audit import State, differences, digest, oracle_of, state_of
from streams.state.window import unpack

SHOWN_MAX = 20


@click.group()
def state() -> None:
    """Digest, verify and look into the feature state."""


def _settings(region: str | None, servers: str | None) -> tuple[Settings, dict[str, Any]]:
    settings = load_settings(region=region, bootstrap=servers)
    settings = settings.model_copy(update={"bootstrap": bootstrap(settings)})
    return settings, fetch_consumer_config(settings, settings.bootstrap)


def _read_state(settings: Settings, config: dict[str, Any]) -> State:
    return state_of(read_topic(config, changelog_topic(settings.group)))


@state.command("digest")
@click.option("--region", help="Region to read (HEADRACE_REGION).")
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def digest_command(region: str | None, servers: str | None, as_json: bool) -> None:
    """Digest of each partition's windows, from the changelog."""
    settings, config = _settings(region, servers)
    found = _read_state(settings, config)
    rows = [
        {"partition": partition, "users": len(found[partition]), "sha256": digest(found[partition])}
        for partition in sorted(found)
    ]
    if as_json:
        click.echo(json.dumps({"region": settings.region, "partitions": rows}))
        return
    table = Table("partition", "users", "sha256", title=f"State of {settings.region}")
    for row in rows:
        table.add_row(str(row["partition"]), str(row["users"]), str(row["sha256"]))
    Console().print(table)


@state.command("show")
@click.argument("user")
@click.option("--region", help="Region to read (HEADRACE_REGION).")
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show_command(user: str, region: str | None, servers: str | None, as_json: bool) -> None:
    """The events in a shopper's window, newest last."""
    settings, config = _settings(region, servers)
    found = _read_state(settings, config)
    windows = [users[user.encode()] for users in found.values() if user.encode() in users]
    if not windows:
        raise click.ClickException(f"no window of user {user!r} in region {settings.region}")
    events = [
        {
            "ts": e.ts,
            "event_type": EVENT_TYPES[e.event_type],
            "item_id": e.item_id.decode(),
            "event_id": e.event_key.hex(),
        }
        for window in windows
        for e in unpack(window)
    ]
    if as_json:
        click.echo(json.dumps({"user_id": user, "events": events}))
        return
    table = Table("time", "event", "item", title=f"Window of {user}")
    for event in events:
        table.add_row(
            time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(int(str(event["ts"])) / 1000)),
            str(event["event_type"]),
            str(event["item_id"]),
        )
    Console().print(table)


@state.command("verify")
@click.option("--region", help="Region to read (HEADRACE_REGION).")
@click.option(
    "--peer", "peers", multiple=True, help="Another region whose mirrored clicks are folded too."
)
@click.option("--bootstrap", "servers", help="Kafka bootstrap servers; default: the local region.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def verify_command(
    region: str | None, peers: tuple[str, ...], servers: str | None, as_json: bool
) -> None:
    """Hold the state against an oracle that sorts all clicks; exit 1 on any difference."""
    settings, config = _settings(region, servers)
    topics = [CLICKS.name, *(mirrored_topic(peer, CLICKS.name) for peer in peers or settings.peers)]
    limits = Limits(
        settings.record_bytes_max, int(1000 * (time.time() + settings.clock_skew_max_s))
    )
    oracle = oracle_of(
        (record for topic in topics for record in read_topic(config, topic)),
        codec_from_settings(settings.registry_url),
        limits,
    )
    found = _read_state(settings, config)
    differ = differences(found, oracle)
    users = sum(len(users) for users in oracle.values())
    if as_json:
        shown = [
            {"partition": d.partition, "user_id": d.user.decode(errors="replace")} for d in differ
        ]
        click.echo(json.dumps({"equal": not differ, "users": users, "differ": shown}))
    elif not differ:
        click.echo(f"equal: {users} users, byte for byte what the clicks say")
    else:
        click.echo(f"{len(differ)} of {users} users differ:")
        for one in differ[:SHOWN_MAX]:
            click.echo(f"  partition {one.partition} user {one.user.decode(errors='replace')}")
    sys.exit(1 if differ else 0)
