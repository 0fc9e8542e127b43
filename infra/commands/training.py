"""Clicks to train on, out of a file or out of Kafka, as the model will see them when it serves.

The worker does not fold impressions and searches name no item, so neither is learned from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import click
import numpy as np

from infra.cluster.region import bootstrap
from models.dataset import Clicks, gather_clicks, sort_clicks
from schemas.clicks import EVENT_TYPES, click_decoder
from schemas.errors import RecordError
from schemas.registry import codec_from_settings
from schemas.topics import CLICKS, mirrored_topic
from streams.clicks.columns import ClickColumns, concatenated
from streams.clicks.sources import ClickSource
from streams.kafka import fetch_consumer_config
from streams.readback import read_topic
from streams.settings import load_settings

IMPRESSION = EVENT_TYPES.index("impression")


def clicks_of_file(path: Path, mapping: Mapping[str, str] | None = None) -> Clicks:
    """The clicks of a file; rows that are none are left out with a warning. Raises `SourceError`."""
    source = ClickSource(path, mapping)
    clicks = clicks_of_columns(source.batches())
    if source.skipped.count:
        click.echo(f"headrace: {path.name}: {source.skipped.text()}", err=True)
    return clicks


def clicks_of_columns(batches: Iterable[ClickColumns]) -> Clicks:
    """The clicks of batches of columns, for example of the simulated shop."""
    columns = concatenated(list(batches))
    learned = np.flatnonzero(columns.event_type != IMPRESSION)
    columns = columns.take(learned)
    named = np.asarray(columns.item_id.fill_null("").to_numpy(zero_copy_only=False) != "", np.bool_)
    columns = columns.take(np.flatnonzero(named))
    users = columns.user_id.dictionary_encode()
    items = columns.item_id.dictionary_encode()
    return sort_clicks(
        np.asarray(users.indices),
        np.asarray(items.indices),
        columns.ts,
        tuple(items.dictionary.to_pylist()),
    )


def clicks_of_topic(region: str | None, servers: str | None) -> Clicks:
    """All clicks in Kafka, the region's own and its peers' mirrored ones. Raises `KafkaError`.

    Redelivered clicks count once; records that are no clicks are left out with a warning.
    """
    settings = load_settings(region=region, bootstrap=servers)
    config = fetch_consumer_config(settings, bootstrap(settings))
    decode = click_decoder(codec_from_settings(settings.registry_url))
    topics = [CLICKS.name, *(mirrored_topic(peer, CLICKS.name) for peer in settings.peers)]
    rows: dict[bytes, tuple[int, bytes, str, str]] = {}
    unreadable = 0
    for topic in topics:
        for message in read_topic(config, topic):
            try:
                found = decode(message.value() or b"")
                user, item = found.user_id.decode(), found.item_id.decode()
            except (RecordError, UnicodeDecodeError):
                unreadable += 1
                continue
            if user and item and found.event_type != IMPRESSION:
                rows[found.event_key] = (found.ts, found.event_key, user, item)
    if unreadable:
        click.echo(
            f"headrace: {unreadable:,} records of {', '.join(topics)} are no clicks", err=True
        )
    # The order of the worker's windows: time, then event id.
    return gather_clicks((user, item, ts) for ts, _, user, item in sorted(rows.values()))
