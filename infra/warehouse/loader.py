"""Batches into tables, each exactly once: the insert, and settling one whose fate is unknown.

ClickHouse commits parts one by one: the table's own (one for each day) and those of its aggregates
(one for each month). A process that dies in between leaves some of them. Which ones can be seen,
since every row names its batch, and a part is there whole or not at all. So settling reads the
same records again into a table beside, attaches the days that are missing, and inserts the months
that are missing; it may itself be interrupted and repeated. ClickHouse's own deduplication by
token is given too, but not relied upon: on a table that is not replicated its log is written before the part.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from infra.warehouse.avro_block import BlockBuilder, Taken
from infra.warehouse.journal import Entry
from infra.warehouse.targets import Aggregate, Selection, Target, structure
from schemas.codec import Codec
from schemas.errors import WarehouseAwayError, WarehouseError

log = logging.getLogger(__name__)

# A batch is one block, so one part a day and a month: bounds far above `sink.BATCH_ROWS_MAX`.
_ONE_BLOCK: Final[Mapping[str, int]] = {
    "async_insert": 0,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "distributed_foreground_insert": 1,
    "max_threads": 1,
    "max_insert_threads": 1,
    "max_insert_block_size": 100_000_000,
    "min_insert_block_size_rows": 100_000_000,
    "min_insert_block_size_bytes": 1 << 32,
    # A replay of old clicks touches many months of the aggregates.
    "max_partitions_per_insert_block": 0,
    # Far above what a batch takes: bytes that claim to be a giant array are refused.
    "max_memory_usage": 1 << 30,
}


class LoadingEngine(Protocol):
    """What loading needs of ClickHouse."""

    def command(self, sql: str, parameters: dict[str, Any] | None = None) -> None:
        """Run a statement without a result."""

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query."""

    def insert_select(
        self, insert: str, select: str, structure: str, data: bytes, settings: Mapping[str, Any]
    ) -> None:
        """Insert what `select` makes of an Avro file, which it names `{block}`."""


class Loader:
    """Loads the batches of one target."""

    def __init__(
        self,
        engine: LoadingEngine,
        target: Target,
        codec: Codec,
        *,
        sink: str,
        regions: Mapping[str, str],
        skew_ms: int,
        bytes_max: int,
        replicated: bool = False,
    ) -> None:
        self.target = target
        self._engine = engine
        self._builder = BlockBuilder(target, codec, bytes_max)
        self._sink = sink
        self._regions = regions
        self._skew_ms = skew_ms
        self._replicated = replicated
        self._structure = structure(target)

    def insert(self, entry: Entry, records: Mapping[tuple[str, int], Sequence[Taken]]) -> None:
        """Insert a batch that has never been tried.

        After `WarehouseAwayError` its fate is unknown and `settle` must follow.
        """
        settings = {**_ONE_BLOCK, "insert_deduplication_token": entry.token}
        self._load(self.target.table, entry, records, settings)

    def settle(self, entry: Entry, records: Mapping[tuple[str, int], Sequence[Taken]]) -> None:
        """Make sure that a batch is there exactly once, whatever became of it before.

        `records`: those that the entry covers, all of them.
        """
        if not any(records.values()):
            return
        if self._replicated:  # there, parts and tokens are committed together
            self.insert(entry, records)
            return
        engine, table = self._engine, self.target.table
        beside = f"{table}_settling"
        engine.command(f"DROP TABLE IF EXISTS {beside} SYNC")
        engine.command(f"CREATE TABLE {beside} AS {table}")
        # Kept as they are: aggregates count the records, not what a merge leaves of them.
        self._load(beside, entry, records, {**_ONE_BLOCK, "optimize_on_insert": 0})
        for aggregate in self.target.aggregates:
            self._complete(aggregate, entry, beside)
        self._attach(entry, beside)
        engine.command(f"DROP TABLE {beside} SYNC")

    def _attach(self, entry: Entry, beside: str) -> None:
        """Take over the days that the table lacks."""
        table = self.target.table
        days = self._engine.rows(
            f"SELECT DISTINCT _partition_id FROM {beside} WHERE _partition_id NOT IN"
            f" (SELECT DISTINCT _partition_id FROM {table} WHERE {self._marked('batch', entry)})"
        )
        for (day,) in days:
            self._engine.command(f"ALTER TABLE {table} ATTACH PARTITION ID '{day}' FROM {beside}")

    def _complete(self, aggregate: Aggregate, entry: Entry, beside: str) -> None:
        """Insert the months that an aggregate lacks, as its view would have."""
        select = self._view(aggregate.view, beside)
        there = (
            f"SELECT DISTINCT {aggregate.period} FROM {aggregate.table}"
            f" WHERE {self._marked('last_batch', entry)}"
        )
        options = ", ".join(f"{name} = {value}" for name, value in _ONE_BLOCK.items())
        self._engine.command(
            f"INSERT INTO {aggregate.table} SELECT * FROM ({select})"
            f" WHERE {aggregate.period} NOT IN ({there}) SETTINGS {options}, insert_deduplicate = 0"
        )

    def _view(self, view: str, beside: str) -> str:
        ((select,),) = self._engine.rows(
            "SELECT as_select FROM system.tables WHERE database = currentDatabase() AND name = {view:String}",
            {"view": view},
        )
        text, count = re.subn(rf"\bFROM \S*\b{self.target.table}\b", f"FROM {beside}", str(select))
        if count != 1:
            raise WarehouseError(f"the view {view} does not read {self.target.table}: {select}")
        return text

    def _marked(self, column: str, entry: Entry) -> str:
        return f"sink = '{self._sink}' AND {column} = {entry.batch}"

    def _load(
        self,
        table: str,
        entry: Entry,
        records: Mapping[tuple[str, int], Sequence[Taken]],
        settings: Mapping[str, Any],
    ) -> None:
        """Insert all records, or those that can be read where the batch as it is cannot."""
        try:
            self._load_block(table, entry, records, settings, careful=False)
        except WarehouseAwayError:
            raise
        except WarehouseError:
            # Nothing was written: a file is parsed whole before its first part.
            self._load_block(table, entry, records, settings, careful=True)

    def _load_block(
        self,
        table: str,
        entry: Entry,
        records: Mapping[tuple[str, int], Sequence[Taken]],
        settings: Mapping[str, Any],
        *,
        careful: bool,
    ) -> None:
        places = [place for place, found in sorted(records.items()) if found]
        block = self._builder.build([records[place] for place in places], careful=careful)
        for index, offset, why in block.unreadable[:3]:
            topic, partition = places[index - 1]
            log.warning("left out: %s[%d]@%d: %s", topic, partition, offset, why)
        if len(block.unreadable) > 3:
            log.warning("left out: %d records in all", len(block.unreadable))
        if not block.records:
            return
        sources = [(topic, self._regions[topic], partition) for topic, partition in places]
        selection = Selection(
            self.target, sources, self._sink, entry.batch, block.seal, self._skew_ms
        )
        self._engine.insert_select(
            f"INSERT INTO {table} ({', '.join(selection.columns())})",
            selection.select("{block}"),
            self._structure,
            block.data,
            settings,
        )
