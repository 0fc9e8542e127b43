"""The schema on a cluster, made of the schema on one server: replicated tables and views over them.

Each table T becomes `T_local`, replicated within its shard, and T itself a Distributed table over
all shards, so that every question and the sink's inserts keep their words. A shopper's rows are on
one shard. The result is committed in `infra/clickhouse/cluster`, for people to read; a test holds it
to what this module makes.
"""

from __future__ import annotations

import re
from typing import Final

# `migrate` puts the setting's name in; ClickHouse replaces {shard}, {replica} and {database} itself.
CLUSTER: Final = "@cluster@"
# What a table is spread by; shoppers' rows stay together, so that questions about them are local.
SHARDING: Final = {
    "clicks": "cityHash64(user_id)",
    "recommendations": "cityHash64(user_id)",
}
_TABLE: Final = re.compile(
    r"CREATE TABLE IF NOT EXISTS (\w+)\n(\(.*\n\))\nENGINE = (\w+)(?:\((.*?)\))?\n(.*)", re.DOTALL
)
_VIEW: Final = re.compile(
    r"CREATE MATERIALIZED VIEW IF NOT EXISTS (\w+) TO (\w+) AS\n(.*\nFROM )(\w+)\n(.*)", re.DOTALL
)
_PATH: Final = "'/clickhouse/tables/{shard}/{database}"


def on_cluster(statement: str) -> list[str]:
    """The statements for a cluster that stand for one of a single server."""
    found = _TABLE.fullmatch(statement)
    if found:
        name, columns, engine, arguments, rest = found.groups()
        rest = re.sub(r"\n?SETTINGS non_replicated_deduplication_window = \d+", "", rest)
        given = ", ".join(part for part in (f"{_PATH}/{name}'", "'{replica}'", arguments) if part)
        key = SHARDING.get(name, "rand()")
        return [
            f"CREATE TABLE IF NOT EXISTS {name}_local ON CLUSTER '{CLUSTER}'\n{columns}\n"
            f"ENGINE = Replicated{engine}({given})\n{rest}",
            f"CREATE TABLE IF NOT EXISTS {name} ON CLUSTER '{CLUSTER}' AS {name}_local\n"
            f"ENGINE = Distributed('{CLUSTER}', currentDatabase(), {name}_local, {key})",
        ]
    found = _VIEW.fullmatch(statement)
    if found:
        name, target, select, source, rest = found.groups()
        return [
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {name} ON CLUSTER '{CLUSTER}' TO {target}_local AS\n"
            f"{select}{source}_local\n{rest}"
        ]
    raise ValueError(f"no rule for {statement[:60]!r}")


def cluster_text(name: str, statements: tuple[str, ...]) -> str:
    """The cluster's file that stands for the file `name`."""
    made = [line for statement in statements for line in on_cluster(statement)]
    head = f"-- {name} for a cluster, made by infra/warehouse/cluster.py; what the columns mean is said there.\n"
    return head + "".join(f"\n{statement};\n" for statement in made)
