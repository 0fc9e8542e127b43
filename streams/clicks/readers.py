"""Click files as raw columns: one reader a format, all giving the same batches.

A reader knows the format and nothing of clicks. What it cannot parse it names by row, so that
nothing is lost in silence; what ends the whole file raises `SourceError`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from schemas.errors import SourceError

BATCH_ROWS: Final = 65_536
# One block is held in memory and must hold a whole row.
BLOCK_BYTES: Final = 8 * 1024 * 1024
# A longer first line or JSON line is no click.
LINE_BYTES_MAX: Final = 4 * 1024 * 1024
# JSON objects name their columns one by one; so many are looked at to find them.
SAMPLE_LINES: Final = 1_000
_DELIMITERS: Final = "\t,;| "
_TEXT: Final = (".csv", ".tsv", ".txt", ".tab", ".dat")
_JSON: Final = (".jsonl", ".ndjson", ".json")
_PARQUET: Final = (".parquet", ".pq")
_PACKED: Final = (".gz", ".bz2", ".zst", ".lz4")
FORMATS: Final = "CSV or TSV (.csv, .tsv, .txt), JSON lines (.jsonl), Parquet (.parquet), text also packed (.gz, .bz2, .zst)"


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Some rows of a file: chosen columns, still as the file has them.

    `columns`: name -> Arrow array; `rows`: int64, each row's number in the file, from 0;
    `faults`: (row number, what is wrong) of rows that are not in `columns`.
    """

    columns: dict[str, Any]
    rows: NDArray[np.int64]
    faults: list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class RawFile:
    """An opened click file.

    `names`: its columns, or "1", "2", … where it has no header line; `first_line`: number of the
    line that holds row 0, for messages; 0 where rows are no lines. `batches`: reads the named
    columns. `open_ended`: rows may have columns that `names` does not list.
    """

    names: tuple[str, ...]
    headed: bool
    first_line: int
    sample: str
    batches: Callable[[Sequence[str]], Iterator[RawBatch]]
    open_ended: bool = False


def open_raw(path: Path) -> RawFile:
    """Open a click file by its extension. Raises `SourceError`."""
    if not path.is_file():
        raise SourceError(f"no file {path}")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    try:
        if kind in _PARQUET:
            return _open_parquet(path)
        if kind in _JSON:
            return _open_json(path)
        if kind in _TEXT:
            return _open_text(path)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise SourceError(f"{path.name} cannot be read: {error}") from None
    raise SourceError(
        f"{path.name}: unknown format {kind or 'without extension'!r}; known are {FORMATS}"
    )


def _stream(path: Path) -> Any:
    return pa.input_stream(str(path), compression="detect")


def _open_text(path: Path) -> RawFile:
    with _stream(path) as stream:
        head: bytes = io.BufferedReader(stream).readline(LINE_BYTES_MAX)
    line = head.decode("utf-8-sig", "replace").rstrip("\r\n")
    if not line.strip():
        raise SourceError(f"{path.name} is empty, or its first line is")
    delimiter = max(_DELIMITERS, key=lambda one: (line.count(one), -_DELIMITERS.index(one)))
    first = next(csv.reader([line], delimiter=delimiter))
    headed = not any(_is_number(name) for name in first)
    names = (
        tuple(name.strip() for name in first)
        if headed
        else tuple(str(n + 1) for n in range(len(first)))
    )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(f"{path.name} has several columns named {', '.join(map(repr, twice))}")

    def batches(chosen: Sequence[str]) -> Iterator[RawBatch]:
        return _text_batches(path, delimiter, names, headed, chosen)

    return RawFile(names, headed, 2 if headed else 1, line[:80], batches)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text_batches(
    path: Path, delimiter: str, names: Sequence[str], headed: bool, chosen: Sequence[str]
) -> Iterator[RawBatch]:
    odd: list[tuple[int, str]] = []

    def on_odd(row: Any) -> str:
        # The parser counts from 1, the header included.
        odd.append(
            (row.number - 1 - headed, f"{row.actual_columns} columns, not {row.expected_columns}")
        )
        return "skip"

    try:
        with _stream(path) as stream:
            reader = pa_csv.open_csv(
                stream,
                # Rows are numbered by the parser only when it runs in one thread.
                pa_csv.ReadOptions(
                    use_threads=False,
                    block_size=BLOCK_BYTES,
                    column_names=list(names),
                    skip_rows=int(headed),
                ),
                pa_csv.ParseOptions(
                    delimiter=delimiter,
                    newlines_in_values=True,
                    ignore_empty_lines=False,
                    invalid_row_handler=on_odd,
                ),
                # Bytes, so that one wrong number or letter costs its row and not the block.
                pa_csv.ConvertOptions(
                    column_types={name: pa.binary() for name in chosen},
                    include_columns=list(chosen),
                    strings_can_be_null=False,
                ),
            )
            start = 0
            for batch in reader:
                ahead = [row for row, _ in odd]
                rows, start = _row_numbers(start, batch.num_rows, ahead)
                faults = [one for one in odd if one[0] < start]
                del odd[: len(faults)]
                yield RawBatch(dict(zip(chosen, batch.columns, strict=True)), rows, faults)
            if odd:
                empty = {name: pa.array([], pa.binary()) for name in chosen}
                yield RawBatch(empty, np.zeros(0, np.int64), odd)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path.name} cannot be read: {error}") from None


def _row_numbers(start: int, count: int, odd: Sequence[int]) -> tuple[NDArray[np.int64], int]:
    """Numbers of the next `count` good rows from `start`, where the `odd` ones are none."""
    parts: list[NDArray[np.int64]] = []
    for row in odd:
        if row >= start + count:
            break
        parts.append(np.arange(start, row, dtype=np.int64))
        count -= max(0, row - start)
        start = row + 1
    parts.append(np.arange(start, start + count, dtype=np.int64))
    return np.concatenate(parts), start + count


def _open_parquet(path: Path) -> RawFile:
    names = tuple(pa_parquet.ParquetFile(path).schema_arrow.names)

    def batches(chosen: Sequence[str]) -> Iterator[RawBatch]:
        start = 0
        try:
            with pa_parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=list(chosen)):
                    rows = np.arange(start, start + batch.num_rows, dtype=np.int64)
                    start += batch.num_rows
                    yield RawBatch({name: batch.column(name) for name in chosen}, rows, [])
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{path.name} cannot be read: {error}") from None

    return RawFile(names, True, 0, "", batches)


def _open_json(path: Path) -> RawFile:
    names: dict[str, None] = {}
    with _stream(path) as stream:
        lines = io.BufferedReader(stream)
        head = lines.readline(LINE_BYTES_MAX)
        line = head
        for _ in range(SAMPLE_LINES):
            # Lines that are no objects are told apart when they are read.
            with contextlib.suppress(ValueError):
                names.update(dict.fromkeys(_object(line)))
            line = lines.readline(LINE_BYTES_MAX)
            if not line:
                break
    if not names:
        raise SourceError(f"{path.name} is no JSON lines file: its first lines are no objects")

    def batches(chosen: Sequence[str]) -> Iterator[RawBatch]:
        return _json_batches(path, chosen)

    sample = head[:80].decode("utf-8", "replace").strip()
    return RawFile(tuple(names), True, 1, sample, batches, open_ended=True)


def _json_batches(path: Path, chosen: Sequence[str]) -> Iterator[RawBatch]:
    row = 0
    try:
        with _stream(path) as stream:
            lines = io.BufferedReader(stream, BLOCK_BYTES)
            while True:
                values: list[tuple[str | None, ...]] = []
                rows: list[int] = []
                faults: list[tuple[int, str]] = []
                while len(values) + len(faults) < BATCH_ROWS and (
                    line := lines.readline(LINE_BYTES_MAX)
                ):
                    if line.strip():
                        try:
                            values.append(_plain(line, chosen))
                            rows.append(row)
                        except ValueError as error:
                            faults.append((row, str(error)))
                    row += 1
                if not values and not faults:
                    return
                columns = zip(*values, strict=True) if values else [()] * len(chosen)
                arrays = [pa.array(column, pa.string()) for column in columns]
                yield RawBatch(
                    dict(zip(chosen, arrays, strict=True)), np.array(rows, np.int64), faults
                )
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path.name} cannot be read: {error}") from None


def _plain(line: bytes, chosen: Sequence[str]) -> tuple[str | None, ...]:
    value = _object(line)
    return tuple(_text(name, value.get(name)) for name in chosen)


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        raise ValueError("no JSON") from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def _text(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        if value is not None and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{name} is no UTF-8") from None
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(value)
    raise ValueError(f"{name} is neither text nor a number")
