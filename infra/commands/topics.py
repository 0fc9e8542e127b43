"""`headrace topics`: the topics as declared, and as they are."""

from __future__ import annotations

import click
from confluent_kafka.admin import AdminClient
from rich.console import Console
from rich.table import Table

from infra.cluster.region import bootstrap
from streams.kafka import client_config
from streams.settings import Settings, load_settings
from streams.topic_plan import TopicReport, wanted_topics
from streams.topics_admin import cluster_metadata, create_topics

DRIFT_EXIT_CODE = 3


@click.group()
def topics() -> None:
    """Create all topics; report drift."""


@topics.command()
@click.option(
    "--fix",
    is_flag=True,
    help="Set configurations as declared, and add partitions where that is safe.",
)
@click.option(
    "--bootstrap",
    "servers",
    help="Kafka bootstrap servers (default: the setting, or the local region).",
)
def create(fix: bool, servers: str | None) -> None:
    """Create the topics that are missing, and report those that are not as declared.

    Exits with 3 when any topic differs from its declaration and still does in the end.
    """
    settings, admin = _connect(servers)
    report = create_topics(admin, settings, fix=fix)
    for topic in report.topics:
        state = "created" if topic.created else "is there"
        click.echo(
            f"{topic.name:<32} {state:<9} {topic.partitions} partitions, {topic.replication} replicas"
        )
    if any(topic.differences for topic in report.topics):
        _print_differences(report)
    if report.drifted:
        raise click.exceptions.Exit(DRIFT_EXIT_CODE)


@topics.command(name="list")
@click.option(
    "--bootstrap",
    "servers",
    help="Kafka bootstrap servers (default: the setting, or the local region).",
)
def list_topics(servers: str | None) -> None:
    """List the topics of this region, declared and mirrored, as they are in Kafka."""
    settings, admin = _connect(servers)
    metadata = cluster_metadata(admin, settings.bootstrap)
    declared = {topic.name for topic in wanted_topics(settings, len(metadata.brokers))}
    names = sorted(declared | {name for name in metadata.topics if not name.startswith("__")})
    for name in names:
        found = metadata.topics.get(name)
        if found is None:
            state = "missing: run `headrace topics create`"
        else:
            replicas = min((len(one.replicas) for one in found.partitions.values()), default=0)
            state = f"{len(found.partitions)} partitions, {replicas} replicas"
        click.echo(f"{name:<40} {state}{'' if name in declared else '  (not ours, or mirrored)'}")


def _connect(servers: str | None) -> tuple[Settings, AdminClient]:
    settings = load_settings(bootstrap=servers)
    settings = settings.model_copy(update={"bootstrap": bootstrap(settings)})
    # The client's own log repeats each failed connection; the command says it once.
    return settings, AdminClient(client_config(settings, settings.bootstrap) | {"log_level": 0})


def _print_differences(report: TopicReport) -> None:
    table = Table("topic", "what", "declared", "found", "to do")
    for topic in report.topics:
        for one in topic.differences:
            table.add_row(
                topic.name, one.what, one.wanted, one.found, "fixed" if one.fixed else one.advice
            )
    Console(width=None if Console().is_terminal else 160).print(table)
