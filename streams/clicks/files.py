"""Clicks into files, in the columns that `streams.clicks.sources` finds again by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from schemas.clicks import EVENT_TYPES
from schemas.errors import SourceError
from streams.clicks.columns import OPTIONAL, ClickColumns

SCHEMA: Final = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("ts", pa.int64()),
        ("event_type", pa.string()),
        *OPTIONAL.items(),
    ]
)
_TYPES: Final = pa.array(EVENT_TYPES, pa.string())
_DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}


def table(clicks: ClickColumns) -> Any:
    """The clicks as an Arrow table; `ts` in ms."""
    optional = [
        pa.nulls(len(clicks), kind) if (held := getattr(clicks, name)) is None else held
        for name, kind in OPTIONAL.items()
    ]
    types = _TYPES.take(pa.array(clicks.event_type))
    return pa.Table.from_arrays(
        [clicks.user_id, clicks.item_id, pa.array(clicks.ts), types, *optional], schema=SCHEMA
    )


def write_clicks(
    path: Path,
    batches: Iterable[ClickColumns],
    progress: Callable[[int], None] = lambda written: None,
) -> int:
    """Write all clicks to a .csv, .tsv, .jsonl or .parquet file; returns how many.

    The file appears when it is whole. Raises `SourceError`.
    """
    part = path.with_name(path.name + ".part")
    written = 0
    try:
        with ExitStack() as stack:
            write = _writer(path.suffix.lower(), part, stack)
            for batch in batches:
                write(table(batch))
                written += len(batch)
                progress(written)
        part.replace(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
    return written


def _writer(suffix: str, part: Path, stack: ExitStack) -> Callable[[Any], object]:
    if suffix in _DELIMITERS:
        options = pa_csv.WriteOptions(delimiter=_DELIMITERS[suffix], quoting_style="needed")
        csv = stack.enter_context(pa_csv.CSVWriter(str(part), SCHEMA, write_options=options))
        return partial(csv.write)
    if suffix == ".parquet":
        parquet = stack.enter_context(
            pa_parquet.ParquetWriter(str(part), SCHEMA, compression="zstd")
        )
        return partial(parquet.write_table)
    if suffix == ".jsonl":
        text = stack.enter_context(part.open("w", encoding="utf-8"))

        def write(rows: Any) -> None:
            for row in rows.to_pylist():
                given = {name: value for name, value in row.items() if value is not None}
                text.write(json.dumps(given, ensure_ascii=False) + "\n")

        return write
    raise SourceError(
        f"{part.stem}: unknown format; give a name that ends in .tsv, .csv, .jsonl or .parquet"
    )
