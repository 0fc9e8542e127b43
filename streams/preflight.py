"""What must be true before a worker starts, checked at once, each fault with what to do."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import KafkaError
from schemas.topics import (
    CLICKS,
    DEAD_LETTERS,
    MODELS,
    RECOMMENDATIONS,
    changelog_topic,
    mirrored_topic,
)
from streams.kafka import client_config
from streams.settings import Settings

METADATA_TIMEOUT_S: Final = 10.0


def check_topics(settings: Settings) -> int:
    """Kafka answers, the worker's topics are there, and the co-partitioned ones agree.

    Returns the number of partitions that `clicks` really has. Raises `KafkaError`.
    """
    admin = AdminClient(client_config(settings, settings.bootstrap) | {"log_level": 0})
    try:
        found = admin.list_topics(timeout=METADATA_TIMEOUT_S).topics
    except KafkaException as error:
        raise KafkaError(
            f"no Kafka at {settings.bootstrap}: {error.args[0].str()} (start one with `headrace up`)"
        ) from None
    changelog = changelog_topic(settings.group)
    needed = [CLICKS.name, RECOMMENDATIONS.name, DEAD_LETTERS.name, MODELS.name, changelog]
    missing = [topic for topic in needed if topic not in found]
    if missing:
        raise KafkaError(
            f"no topic {', '.join(missing)} at {settings.bootstrap}: run `headrace topics create`"
        )
    clicks = len(found[CLICKS.name].partitions)
    together = [changelog, *(mirrored_topic(peer, CLICKS.name) for peer in settings.peers)]
    for topic in together:
        if topic in found and len(found[topic].partitions) != clicks:
            raise KafkaError(
                f"{topic} has {len(found[topic].partitions)} partitions and {CLICKS.name} has {clicks}: "
                "they must be equal, since a shopper's clicks and state share a partition number"
            )
    return clicks
