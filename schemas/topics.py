"""The topics of Headrace: name, record, key, retention, and whether they are mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DAY_MS: Final = 86_400_000

# A click of 2 MB is no click, but it must get as far as `dead-letters` with all its bytes;
# so `clicks` takes somewhat more, and `dead-letters` that much and its own wrapping.
CLICK_BYTES_MAX: Final = 4 * 1024 * 1024
REJECTED_BYTES_MAX: Final = CLICK_BYTES_MAX + 64 * 1024


@dataclass(frozen=True, slots=True)
class TopicDeclaration:
    """One topic as we want it.

    `partitions` 0 means: as many as the setting `partitions` says. `retention_ms` -1 means: for
    ever. Compacted topics keep the newest record of each key.
    """

    name: str
    record: str
    partitions: int
    retention_ms: int
    compacted: bool = False
    mirrored: bool = False
    message_bytes_max: int = 1_048_588

    def config(self) -> dict[str, str]:
        """The topic-level configuration that `headrace topics create` sets and compares."""
        config = {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "max.message.bytes": str(self.message_bytes_max),
        }
        if not self.compacted:
            config["retention.ms"] = str(self.retention_ms)
        return config


CLICKS: Final = TopicDeclaration(
    "clicks", "Click", 0, 7 * DAY_MS, mirrored=True, message_bytes_max=CLICK_BYTES_MAX
)
CATALOG: Final = TopicDeclaration("catalog", "Item", 1, -1, compacted=True, mirrored=True)
RECOMMENDATIONS: Final = TopicDeclaration("recommendations", "Recommendation", 0, 7 * DAY_MS)
MODELS: Final = TopicDeclaration(
    "models", "ModelAnnouncement", 1, -1, compacted=True, mirrored=True
)
ALERTS: Final = TopicDeclaration("alerts", "Alert", 1, 30 * DAY_MS)
DEAD_LETTERS: Final = TopicDeclaration(
    "dead-letters", "Rejected", 1, 30 * DAY_MS, message_bytes_max=REJECTED_BYTES_MAX
)
DRILLS: Final = TopicDeclaration("drills", "DrillResult", 1, -1, mirrored=True)

TOPICS: Final = (CLICKS, CATALOG, RECOMMENDATIONS, MODELS, ALERTS, DEAD_LETTERS, DRILLS)


def changelog_topic(group: str) -> str:
    """Name of the workers' changelog: the newest window of each user, compacted.

    Faust's own naming, `<app id>-<table>-changelog`, so that its tools find it.
    """
    return f"{group}-windows-changelog"


def mirrored_topic(peer: str, topic: str) -> str:
    """Name under which MirrorMaker's default replication policy brings a peer's topic here."""
    return f"{peer}.{topic}"
