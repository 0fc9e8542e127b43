"""Which topic fills which table, column by column: declarations, and the SQL made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas.clicks import ITEM_ID_BYTES_MAX, USER_ID_BYTES_MAX
from schemas.files import load_schema
from schemas.topics import (
    ALERTS,
    CLICKS,
    DEAD_LETTERS,
    DRILLS,
    MODELS,
    RECOMMENDATIONS,
    TopicDeclaration,
    mirrored_topic,
)
from streams.settings import Settings
from streams.stages.decode import TS_MIN_MS

# Fields that precede each record's own in the Avro that the sink builds (`avro_block`).
SEAL, SOURCE, OFFSET, TIME = "_seal", "_source", "_offset", "_time"
LEAD_TYPES: Final = {SEAL: "string", SOURCE: "int", OFFSET: "double", TIME: "double"}
_TYPES: Final = {
    "string": "String",
    "bytes": "String",
    "int": "Int32",
    "long": "Int64",
    "float": "Float32",
    "double": "Float64",
    "boolean": "Bool",
    "enum": "String",
}
_UUID: Final = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A table kept by a materialized view. `period`: its partition, of one of its rows."""

    table: str
    view: str
    period: str


@dataclass(frozen=True, slots=True)
class Target:
    """A table and the topic that fills it.

    `times`: fields in ms since the epoch. `renamed`: field -> column. `wanted`: what a record must
    satisfy, else it is left out, as SQL over the fields with `{name}` limits.
    """

    table: str
    topic: TopicDeclaration
    times: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...] = ()
    uuids: tuple[str, ...] = ()
    wanted: str = "1"
    mirrored: bool = False
    own_region: bool = False
    aggregates: tuple[Aggregate, ...] = ()
    by_day: bool = True

    @property
    def record(self) -> str:
        """Name of the record."""
        return self.topic.record

    @property
    def day(self) -> str:
        """The table's partition, of one of its rows."""
        return "toYYYYMMDD(kafka_time)" if self.by_day else "0"


def _minutes(name: str, view_column: str) -> Aggregate:
    return Aggregate(name, f"{name}_view", f"toYYYYMM({view_column})")


# Limits of a click are those of `streams.stages.decode`: what a worker rejects is on `dead-letters`
# and not among the clicks. `{skew_ms}` counts from Kafka's time, so that a repetition decides alike.
_CLICK_WANTED: Final = (
    f"match(event_id, '{_UUID.replace('{', '{{').replace('}', '}}')}')"
    f" AND length(user_id) BETWEEN 1 AND {USER_ID_BYTES_MAX}"
    f" AND length(item_id) <= {ITEM_ID_BYTES_MAX} AND position(item_id, '\\0') = 0"
    " AND (item_id != '' OR event_type = 'search')"
    " AND isValidUTF8(user_id) AND isValidUTF8(item_id) AND isValidUTF8(session_id)"
    " AND isValidUTF8(ifNull(query, ''))"
    f" AND ts BETWEEN {TS_MIN_MS} AND _time + {{skew_ms}}"
)
TARGETS: Final = (
    Target(
        "clicks",
        CLICKS,
        ("ts",),
        uuids=("event_id",),
        wanted=_CLICK_WANTED,
        mirrored=True,
        aggregates=(
            _minutes("clicks_minute", "minute"),
            _minutes("clicks_hour", "hour"),
            _minutes("items_hour", "hour"),
        ),
    ),
    Target(
        "recommendations",
        RECOMMENDATIONS,
        ("clicked_at", "features_as_of", "scored_at"),
        uuids=("event_id",),
        aggregates=(_minutes("answers_minute", "minute"), _minutes("answers_hour", "hour")),
    ),
    Target("alerts", ALERTS, ("raised_at",)),
    Target(
        "dead_letters",
        DEAD_LETTERS,
        ("rejected_at",),
        renamed=(
            ("topic", "origin_topic"),
            ("partition", "origin_partition"),
            ("offset", "origin_offset"),
        ),
        aggregates=(_minutes("rejections_hour", "hour"),),
    ),
    Target("models", MODELS, ("announced_at",), by_day=False),
    Target(
        "drills",
        DRILLS,
        ("started_at", "ended_at"),
        mirrored=True,
        own_region=True,
        by_day=False,
    ),
)


def topics_of(target: Target, settings: Settings) -> dict[str, str]:
    """Topic -> the region that its records come from."""
    topics = {target.topic.name: settings.region}
    if target.mirrored:
        topics |= {mirrored_topic(peer, target.topic.name): peer for peer in settings.peers}
    return topics


def writer_schema(target: Target) -> dict[str, Any]:
    """The Avro schema of the blocks: the leading fields, then today's record."""
    lead = [{"name": name, "type": kind} for name, kind in LEAD_TYPES.items()]
    own = [
        {"name": field["name"], "type": field["type"]}
        for field in load_schema(target.record)["fields"]
    ]
    return {"type": "record", "name": target.record, "fields": lead + own}


def structure(target: Target) -> str:
    """The same as ClickHouse's structure of a table function."""
    return ", ".join(
        f"`{field['name']}` {_type(field['type'])}" for field in writer_schema(target)["fields"]
    )


def _type(avro: Any) -> str:
    if isinstance(avro, list):
        (inner,) = (one for one in avro if one != "null")
        return f"Nullable({_type(inner)})"
    if isinstance(avro, dict):
        return f"Array({_type(avro['items'])})" if avro["type"] == "array" else _TYPES[avro["type"]]
    return _TYPES[avro]


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows of a block as SQL. `sources`: (topic, region, partition), counted from 1 by `_source`."""

    target: Target
    sources: Sequence[tuple[str, str, int]]
    sink: str
    batch: int
    seal: str
    skew_ms: int

    def columns(self) -> tuple[str, ...]:
        """Columns of the table, as `select` gives them."""
        return tuple(name for name, _ in self._columns())

    def select(self, block: str, *, only: str = "1") -> str:
        """All columns of the wanted rows of `block`, a table expression; `only`: a condition on them.

        Fails as a whole where a record does not end where the next one begins.
        """
        listed = ", ".join(f"{text} AS {name}" for name, text in self._columns())
        wanted = self.target.wanted.format(skew_ms=self.skew_ms)
        inner = (
            f"SELECT * FROM {block} WHERE throwIf({SEAL} != '{self.seal}', 'misaligned') = 0"
            f" AND {SOURCE} != 0 AND {wanted}"
        )
        return f"SELECT * FROM (SELECT {listed} FROM ({inner}) AS taken) AS shaped WHERE {only}"

    def _columns(self) -> list[tuple[str, str]]:
        target = self.target
        renamed = dict(target.renamed)
        made = []
        for field in writer_schema(target)["fields"][len(LEAD_TYPES) :]:
            name = field["name"]
            text = f"taken.`{name}`"
            if name in target.times:
                text = f"fromUnixTimestamp64Milli({text}, 'UTC')"
            elif name in target.uuids:
                text = f"toUUIDOrZero({text})"
            elif _type(field["type"]) == "Nullable(String)" and name == "query":
                text = f"ifNull({text}, '')"
            made.append((renamed.get(name, name), text))
        source = f"taken.{SOURCE}"
        if not target.own_region:
            made.append(("region", _pick([region for _, region, _ in self.sources], source)))
        made += [
            ("sink", _quoted(self.sink)),
            ("kafka_topic", _pick([topic for topic, _, _ in self.sources], source)),
            ("kafka_partition", f"[{', '.join(str(p) for _, _, p in self.sources)}][{source}]"),
            ("kafka_offset", f"toUInt64(taken.{OFFSET})"),
            ("kafka_time", f"fromUnixTimestamp64Milli(toInt64(taken.{TIME}), 'UTC')"),
            ("batch", f"toUInt64({self.batch})"),
        ]
        return made


def _pick(values: Sequence[str], index: str) -> str:
    if len(set(values)) == 1:
        return _quoted(values[0])
    return f"[{', '.join(_quoted(value) for value in values)}][{index}]"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
