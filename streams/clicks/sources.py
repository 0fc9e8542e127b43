"""Clicks out of files: finds the columns, reads them in batches, and says which rows were none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.clicks import EVENT_TYPES, ITEM_ID_BYTES_MAX, USER_ID_BYTES_MAX
from schemas.errors import SourceError
from streams.clicks.columns import OPTIONAL, ClickColumns, concatenated
from streams.clicks.fields import event_types, numbers, texts, time_unit, times
from streams.clicks.readers import RawBatch, RawFile, open_raw

TimeUnit = Literal["s", "ms", "auto"]

# Names under which files have our fields, best first; compared in lower case without "_" and "-".
NAMES: Final[dict[str, tuple[str, ...]]] = {
    "user_id": ("userid", "user", "visitorid", "customerid", "sessionid", "usersession"),
    "item_id": ("itemid", "item", "productid", "product", "sku", "articleid"),
    "ts": ("ts", "timestamp", "time", "eventtime", "datetime", "date"),
    "event_type": ("eventtype", "event", "action", "type"),
    "session_id": ("sessionid", "usersession", "session"),
    "query": ("query", "searchquery"),
    "price": ("price",),
    "quantity": ("quantity", "qty"),
}
NEEDED: Final = ("user_id", "item_id", "ts")
# Given as a column's name, it means: do not read this field.
NO_COLUMN: Final = "-"
SHOWN_MAX: Final = 5
_SEARCH: Final = EVENT_TYPES.index("search")
_INT32_MAX: Final = (1 << 31) - 1


@dataclass(slots=True)
class Skipped:
    """Rows that were no clicks: how many, why, and where the first ones stand.

    `blank_count` rows had nothing in any column that was read; they are no fault.
    """

    count: int = 0
    blank_count: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, reason: str) -> None:
        """One more row."""
        self.count += 1
        self.by_reason[reason] = self.by_reason.get(reason, 0) + 1
        if len(self.first) < SHOWN_MAX:
            self.first.append((line, reason))

    def text(self) -> str:
        """One line for people."""
        where = ", ".join(f"line {line} ({reason})" for line, reason in sorted(self.first))
        more = f" and {self.count - len(self.first):,} more" if self.count > len(self.first) else ""
        return f"{self.count:,} rows skipped: {where}{more}"


class ClickSource:
    """One click file, read in batches; `skipped` is complete when the last batch was read.

    `mapping`: our field -> column name, or number of the column from 1 where the file has no
    header line; fields that it does not name are found by their usual names. Raises `SourceError`.
    """

    def __init__(
        self,
        path: Path,
        mapping: Mapping[str, str] | None = None,
        *,
        unit: TimeUnit = "auto",
        strict: bool = False,
    ) -> None:
        self.path = path
        self.skipped = Skipped()
        self._unit: str | None = None if unit == "auto" else unit
        self._strict = strict
        self._raw = open_raw(path)
        self.mapping = _mapped(path.name, self._raw, mapping or {})

    def batches(self) -> Iterator[ClickColumns]:
        """The clicks in the file's order. Raises `SourceError`; with `strict` on a wrong row."""
        self.skipped = Skipped()
        for raw in self._raw.batches(sorted(set(self.mapping.values()))):
            clicks = self._clicks(raw)
            if len(clicks):
                yield clicks

    def _clicks(self, raw: RawBatch) -> ClickColumns:
        columns = {ours: raw.columns[theirs] for ours, theirs in self.mapping.items()}
        faults = _Faults(len(raw.rows))
        try:
            if self._unit is None:
                self._unit = time_unit(columns["ts"])
            user, wrong = texts(columns["user_id"])
            faults.add("user is no UTF-8", wrong)
            item, wrong = texts(columns["item_id"])
            faults.add("item is no UTF-8", wrong)
            if "event_type" in columns:
                kind, wrong = event_types(columns["event_type"])
                faults.add("unknown event type", wrong)
            else:
                kind = np.zeros(len(raw.rows), np.uint8)
            faults.add("no user", _empty(user))
            faults.add("no item", _empty(item) & (kind != _SEARCH))
            faults.add("NUL in the item", _has_nul(item))
            faults.add(
                f"user of more than {USER_ID_BYTES_MAX} bytes", _longer(user, USER_ID_BYTES_MAX)
            )
            faults.add(
                f"item of more than {ITEM_ID_BYTES_MAX} bytes", _longer(item, ITEM_ID_BYTES_MAX)
            )
            ts, wrong = times(columns["ts"], self._unit or "ms")
            faults.add("no time", wrong)
            optional = {
                name: _optional(name, columns[name], faults) for name in OPTIONAL if name in columns
            }
        except SourceError as error:
            raise SourceError(f"{self.path.name}: {error}") from None
        self._report(raw, columns, faults)
        clicks = ClickColumns(
            user,
            pc.fill_null(item, ""),
            ts,
            kind,
            raw.rows,
            **{name: value for name, value in optional.items() if value.null_count < len(value)},
        )
        return clicks.take(np.flatnonzero(faults.codes == 0)) if faults.codes.any() else clicks

    def _report(self, raw: RawBatch, columns: Mapping[str, Any], faults: _Faults) -> None:
        wrong = faults.codes > 0
        if wrong.any():
            blank = wrong.copy()
            for column in columns.values():
                blank &= _nothing(column)
            self.skipped.blank_count += int(blank.sum())
            wrong &= ~blank
        found = [
            (int(raw.rows[at]), faults.reasons[faults.codes[at] - 1])
            for at in np.flatnonzero(wrong)
        ]
        for row, reason in sorted([*found, *raw.faults]):
            self.skipped.add(row + (self._raw.first_line or 1), reason)
        if self._strict and self.skipped.count:
            raise SourceError(
                f"{self.path.name}: {self.skipped.text()}; without --strict they are left out"
            )


class _Faults:
    """The first fault of each row: 0 for none, else 1 + index into `reasons`."""

    def __init__(self, count: int) -> None:
        self.codes: NDArray[np.uint8] = np.zeros(count, np.uint8)
        self.reasons: list[str] = []

    def add(self, reason: str, wrong: NDArray[np.bool_]) -> None:
        self.reasons.append(reason)
        if wrong.any():
            self.codes[wrong & (self.codes == 0)] = len(self.reasons)


def _optional(name: str, column: Any, faults: _Faults) -> Any:
    if name in ("session_id", "query"):
        value, wrong = texts(column)
        faults.add(f"{name} is no UTF-8", wrong)
        return pc.if_else(pc.equal(value, ""), None, value) if name == "query" else value
    value, wrong = numbers(column)
    if name == "quantity":
        numeric = pc.fill_null(value, 0.0).to_numpy()
        wrong = wrong | (np.abs(numeric) > _INT32_MAX) | (np.rint(numeric) != numeric)
        value = pc.if_else(pa.array(wrong), None, value).cast(pa.int32())
    faults.add(f"{name} is no number", wrong)
    return value


def _empty(column: Any) -> NDArray[np.bool_]:
    empty: NDArray[np.bool_] = pc.fill_null(pc.equal(pc.binary_length(column), 0), True).to_numpy(
        zero_copy_only=False
    )
    return empty.astype(np.bool_)


def _longer(column: Any, bytes_max: int) -> NDArray[np.bool_]:
    lengths: NDArray[np.int64] = pc.fill_null(pc.binary_length(column), 0).to_numpy()
    return lengths > bytes_max


def _has_nul(column: Any) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.fill_null(pc.match_substring(column, "\0"), False).to_numpy(
        zero_copy_only=False
    )
    return found.astype(np.bool_)


def _nothing(column: Any) -> NDArray[np.bool_]:
    if pa.types.is_binary(column.type) or pa.types.is_string(column.type):
        return _empty(column)
    nothing: NDArray[np.bool_] = pc.is_null(column).to_numpy(zero_copy_only=False).astype(np.bool_)
    return nothing


def _mapped(file: str, raw: RawFile, given: Mapping[str, str]) -> dict[str, str]:
    """Our field -> the file's column. Raises `SourceError` naming all that is missing at once."""
    unknown = sorted(set(given) - set(NAMES))
    if unknown:
        raise SourceError(
            f"--map: no field {', '.join(unknown)}; the fields are {', '.join(NAMES)}"
        )
    absent = sorted(
        {name for name in given.values() if name != NO_COLUMN and name not in raw.names}
    )
    if absent:
        raise SourceError(f"{file}: no column {', '.join(map(repr, absent))}; {_what_it_has(raw)}")
    usual = {name.lower().replace("_", "").replace("-", ""): name for name in reversed(raw.names)}
    mapping = {ours: theirs for ours, theirs in given.items() if theirs != NO_COLUMN}
    for ours, names in NAMES.items():
        found = next((usual[name] for name in names if name in usual), None)
        if found is None and raw.open_ended and ours not in NEEDED:
            # A field that only later rows have must not be lost.
            found = ours
        if ours not in given and found is not None:
            mapping[ours] = found
    missing = [name for name in NEEDED if name not in mapping]
    if missing:
        raise SourceError(
            f"{file}: no column for {' and '.join(missing)}; {_what_it_has(raw)}. A click needs user_id, "
            f"item_id and ts (its time): name their columns with --map {_hint(raw, mapping)}"
        )
    return mapping


def _what_it_has(raw: RawFile) -> str:
    if raw.headed:
        return f"its columns are {', '.join(raw.names)}"
    return f"it has no header line and {len(raw.names)} columns ({raw.sample!r}), named 1 to {len(raw.names)}"


def _hint(raw: RawFile, mapping: Mapping[str, str]) -> str:
    # Columns without names are likely in this order; those with names say themselves what they are.
    free = iter(() if raw.headed else [name for name in raw.names if name not in mapping.values()])
    return ",".join(f"{ours}={mapping.get(ours) or next(free, 'COLUMN')}" for ours in NEEDED)


@dataclass(frozen=True, slots=True)
class ClickFile:
    """A whole file: its clicks in time order, and the rows that were none."""

    clicks: ClickColumns
    skipped: Skipped


def read_clicks(
    path: Path,
    mapping: Mapping[str, str] | None = None,
    *,
    unit: TimeUnit = "auto",
    strict: bool = False,
    as_is: bool = False,
) -> ClickFile:
    """All clicks of a CSV, TSV, JSON lines or Parquet file, oldest first unless `as_is`.

    Arguments as for `ClickSource`. Raises `SourceError`.
    """
    source = ClickSource(path, mapping, unit=unit, strict=strict)
    clicks = concatenated(list(source.batches()))
    return ClickFile(clicks if as_is else clicks.in_time_order(), source.skipped)
