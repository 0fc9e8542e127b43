"""Raw columns to the fields of a click, a column at a time; a value that is none costs its row."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.clicks import EVENT_TYPES
from schemas.errors import SourceError

# Year 9999: the last that ISO 8601 text and most programs can say.
TS_MS_MAX: Final = 253_402_300_799_999
UNITS: Final[dict[str, float]] = {"s": 1000.0, "ms": 1.0}
# A time in seconds stays below this until the year 5138; in ms it is above since March 1973.
_SECONDS_BELOW: Final = 1e11
# Milliseconds stay below this until the year 5138.
_MILLISECONDS_BELOW: Final = 1e14
_NUMBER: Final = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_NULLS: Final = ("", "null", "NULL", "nan", "NaN", "None")
# What other shops call ours.
EVENT_NAMES: Final[dict[str, str]] = {
    "click": "view",
    "detail": "view",
    "pageview": "view",
    "addtocart": "cart",
    "add_to_cart": "cart",
    "add": "cart",
    "transaction": "purchase",
    "buy": "purchase",
    "order": "purchase",
    "remove_from_cart": "remove",
    "removefromcart": "remove",
    "show": "impression",
} | {name: name for name in EVENT_TYPES}

Mask = NDArray[np.bool_]


def texts(column: Any) -> tuple[Any, Mask]:
    """The column as strings (null: nothing there), and where it is no UTF-8."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    nothing = np.zeros(len(column), np.bool_)
    if pa.types.is_floating(kind):
        # Identifiers that a data frame made floats because some were missing.
        whole = pc.fill_null(pc.equal(pc.floor(column), column), True)
        if bool(pc.all(whole, min_count=0).as_py()):
            column = pc.if_else(pc.is_finite(column), column, None).cast(pa.int64())
    try:
        return column.cast(pa.string()), nothing
    except pa.ArrowNotImplementedError:
        raise SourceError(f"a column of type {kind} is no text") from None
    except pa.ArrowInvalid:
        values = [_utf8(value) for value in column.to_pylist()]
    return (
        pa.array([None if value is False else value for value in values], pa.string()),
        np.array([value is False for value in values], np.bool_),
    )


def _utf8(value: bytes | None) -> Any:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return False


@functools.cache
def _nulls() -> Any:
    # Not at import: pyarrow's first array out of Python objects imports pandas where it is there.
    return pa.array(_NULLS)


def numbers(column: Any) -> tuple[Any, Mask]:
    """The column as float64 (null: nothing there), and where it is no finite number."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        column, wrong = texts(column)
        column = pc.if_else(pc.is_in(column, value_set=_nulls()), None, column)
        try:
            column = column.cast(pa.float64())
        except pa.ArrowInvalid:
            column = pc.utf8_trim_whitespace(column)
            fits = pc.fill_null(pc.match_substring_regex(column, _NUMBER), True)
            wrong |= ~_mask(fits)
            column = pc.if_else(fits, column, None).cast(pa.float64())
    else:
        column = column.cast(pa.float64(), safe=False)
        column = pc.if_else(pc.is_nan(column), None, column)
        wrong = np.zeros(len(column), np.bool_)
    return column, wrong | ~_mask(pc.fill_null(pc.is_finite(column), True))


def _mask(column: Any) -> Mask:
    mask: Mask = column.to_numpy(zero_copy_only=False)
    return mask.astype(np.bool_)


def time_unit(column: Any) -> str | None:
    """`s` or `ms`, whichever the numbers of the column must be; None where it has no numbers.

    Raises `SourceError` where they can be neither.
    """
    if pa.types.is_temporal(column.type):
        return None
    values, _ = numbers(column)
    middle = pc.approximate_median(values).as_py()
    if middle is None:
        return None
    if abs(middle) < _SECONDS_BELOW:
        return "s"
    if abs(middle) < _MILLISECONDS_BELOW:
        return "ms"
    raise SourceError(
        f"times like {middle:.0f} are neither seconds nor milliseconds since the epoch"
    )


def times(column: Any, unit: str) -> tuple[NDArray[np.int64], Mask]:
    """Milliseconds since the epoch, and where there are none.

    Numbers are in `unit`; texts are numbers or ISO 8601, in UTC where they name no zone.
    """
    if pa.types.is_temporal(column.type):
        if pa.types.is_time(column.type) or pa.types.is_duration(column.type):
            raise SourceError(f"a column of type {column.type} is no point in time")
        zone = getattr(column.type, "tz", None)
        ms = column.cast(pa.timestamp("ms", zone), safe=False).cast(pa.int64())
        wrong = _mask(pc.is_null(ms))
        ts = pc.fill_null(ms, 0).to_numpy().astype(np.int64)
        return ts, wrong | (ts < 0) | (ts > TS_MS_MAX)
    values, wrong = numbers(column)
    wrong |= _mask(pc.is_null(values))
    scaled = pc.fill_null(values, 0.0).to_numpy() * UNITS[unit]
    outside = ~((scaled >= 0) & (scaled <= TS_MS_MAX)) | wrong
    ts = np.where(outside, 0.0, np.rint(scaled)).astype(np.int64)
    if wrong.any() and not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        _read_dates(column, np.flatnonzero(wrong), ts, outside)
    return ts, outside


def _read_dates(column: Any, rows: NDArray[np.int64], ts: NDArray[np.int64], wrong: Mask) -> None:
    """Read the texts at `rows` as ISO 8601 into `ts`, and clear `wrong` where that succeeds."""
    found, _ = texts(column)
    for row, text in zip(rows.tolist(), found.take(pa.array(rows)).to_pylist(), strict=True):
        ms = _date_ms(text or "")
        if 0 <= ms <= TS_MS_MAX:
            ts[row], wrong[row] = ms, False


def _date_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text.strip().removesuffix(" UTC"))
    except ValueError:
        return -1
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return round(moment.timestamp() * 1000)
    except (OverflowError, ValueError):
        return -1


def event_types(column: Any) -> tuple[NDArray[np.uint8], Mask]:
    """Codes of event types, the empty one being a view, and where the name is unknown."""
    names, wrong = texts(column)
    coded = pc.dictionary_encode(pc.fill_null(names, ""))
    code_of = {name: EVENT_TYPES.index(ours) for name, ours in EVENT_NAMES.items()} | {"": 0}
    lookup: Callable[[str], int] = lambda name: code_of.get(name.strip().lower(), 255)  # noqa: E731
    table = np.array([lookup(name) for name in coded.dictionary.to_pylist()] or [0], np.uint8)
    codes = table[coded.indices.to_numpy()] if len(column) else np.zeros(0, np.uint8)
    return np.where(codes == 255, 0, codes).astype(np.uint8), wrong | (codes == 255)
