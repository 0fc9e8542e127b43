"""Click files in every format and unit; what is no click is counted, named by line, and kept out."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.clicks import EVENT_TYPES
from schemas.errors import SourceError
from streams.clicks.columns import OPTIONAL, ClickColumns, concatenated, limited
from streams.clicks.files import write_clicks
from streams.clicks.simulate import Shop
from streams.clicks.sources import ClickSource, read_clicks

T = 1_700_000_000
YOOCHOOSE = "SessionId\tItemId\tTime\n3\t214716935\t1396437466.94\n6\t7\t1396437460.5\n3\t9\t1396438212.318\n"


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(clicks: ClickColumns) -> list[tuple[Any, ...]]:
    return list(
        zip(
            clicks.user_id.to_pylist(),
            clicks.item_id.to_pylist(),
            clicks.ts.tolist(),
            [EVENT_TYPES[code] for code in clicks.event_type],
            strict=True,
        )
    )


def test_three_columns_in_seconds(tmp_path: Path) -> None:
    clicks = read_clicks(put(tmp_path, "y.tsv", YOOCHOOSE)).clicks
    assert rows(clicks) == [
        ("6", "7", 1_396_437_460_500, "view"),
        ("3", "214716935", 1_396_437_466_940, "view"),
        ("3", "9", 1_396_438_212_318, "view"),
    ]
    assert clicks.row.tolist() == [1, 0, 2], "row numbers are the file's, not those of the order"
    assert clicks.session_id.to_pylist() == ["6", "3", "3"]


def test_as_is_keeps_the_files_order(tmp_path: Path) -> None:
    clicks = read_clicks(put(tmp_path, "y.tsv", YOOCHOOSE), as_is=True).clicks
    assert clicks.row.tolist() == [0, 1, 2]


def test_clicks_of_one_moment_keep_their_order(tmp_path: Path) -> None:
    lines = "".join(f"u,{at},{T + at % 2}\n" for at in range(10))
    clicks = read_clicks(put(tmp_path, "y.csv", "user,item,time\n" + lines)).clicks
    assert clicks.item_id.to_pylist() == ["0", "2", "4", "6", "8", "1", "3", "5", "7", "9"]


@pytest.mark.parametrize(
    ("unit", "value", "ms"),
    [
        ("auto", "1396437466.94", 1_396_437_466_940),
        ("auto", "1396437466", 1_396_437_466_000),
        ("auto", "1396437466940", 1_396_437_466_940),
        ("auto", "1.39643746694e9", 1_396_437_466_940),
        ("s", "86400", 86_400_000),
        ("ms", "86400", 86_400),
        ("auto", "2014-04-02T11:17:46.94Z", 1_396_437_466_940),
        ("auto", "2014-04-02T13:17:46.940+02:00", 1_396_437_466_940),
        ("auto", "2014-04-02 11:17:46 UTC", 1_396_437_466_000),
        ("auto", "2014-04-02 11:17:46", 1_396_437_466_000),
        ("auto", "2014-04-02", 1_396_396_800_000),
    ],
)
def test_times(tmp_path: Path, unit: Any, value: str, ms: int) -> None:
    path = put(tmp_path, "t.csv", f"user_id,item_id,ts\nu,i,{value}\n")
    assert read_clicks(path, unit=unit).clicks.ts.tolist() == [ms]


def test_dates_and_numbers_in_one_column(tmp_path: Path) -> None:
    path = put(
        tmp_path, "t.csv", f"user_id,item_id,ts\nu,i,{T}\nu,i,2023-11-14T22:13:21Z\nu,i, {T + 2} \n"
    )
    assert read_clicks(path).clicks.ts.tolist() == [T * 1000, T * 1000 + 1000, T * 1000 + 2000]


def test_times_that_are_neither_unit_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", f"user_id,item_id,ts\nu,i,{T}000000000\n")
    with pytest.raises(SourceError, match="neither seconds nor milliseconds"):
        read_clicks(path)


def test_all_columns_under_other_names(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "shop.csv",
        "event_time,event_type,product_id,price,user_id,user_session,Query,qty\n"
        "2023-11-14 22:13:20 UTC,cart,7,19.9,u,v,,2\n"
        "2023-11-14 22:13:21 UTC,remove_from_cart,7,,u,v,,\n"
        '2023-11-14 22:13:22 UTC,Search,,,u,v,"red, ""big"" pan",\n',
    )
    clicks = read_clicks(path).clicks
    assert [row[3] for row in rows(clicks)] == ["cart", "remove", "search"]
    assert clicks.item_id.to_pylist() == ["7", "7", ""]
    assert clicks.price.to_pylist() == [19.9, None, None]
    assert clicks.quantity.to_pylist() == [2, None, None]
    assert clicks.query.to_pylist() == [None, None, 'red, "big" pan']
    assert clicks.session_id.to_pylist() == ["v", "v", "v"]


def test_a_mapping_overrides_and_leaves_out(tmp_path: Path) -> None:
    path = put(tmp_path, "m.csv", f"a,b,c,event\nu,i,{T},weird\n")
    with pytest.raises(SourceError, match="user_id and item_id and ts"):
        read_clicks(path)
    clicks = read_clicks(
        path, {"user_id": "a", "item_id": "b", "ts": "c", "event_type": "-"}
    ).clicks
    assert rows(clicks) == [("u", "i", T * 1000, "view")]


def test_columns_by_position_where_there_is_no_header(tmp_path: Path) -> None:
    path = put(tmp_path, "p.txt", f"1 6393 {T}\n2 13504 {T + 1}\n")
    clicks = read_clicks(path, {"user_id": "1", "item_id": "2", "ts": "3"}).clicks
    assert clicks.user_id.to_pylist() == ["1", "2"]
    assert clicks.row.tolist() == [0, 1]


def test_a_file_without_times_says_what_is_missing(tmp_path: Path) -> None:
    path = put(tmp_path, "games.txt", "1 6393\n1 13504\n")
    with pytest.raises(SourceError) as caught:
        read_clicks(path, {"user_id": "1", "item_id": "2"})
    message = str(caught.value)
    assert "no column for ts;" in message
    assert "no header line and 2 columns" in message
    assert "--map user_id=1,item_id=2,ts=COLUMN" in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("gone.csv", None, "no file"),
        ("x.xlsx", "a", "unknown format"),
        ("x", "a", "unknown format"),
        ("x.csv", "", "empty"),
        ("x.jsonl", "", "no JSON lines"),
        ("x.jsonl", "[1]\n", "no JSON lines"),
        ("x.parquet", "PAR1", "cannot be read"),
        ("x.csv.gz", "not packed", "cannot be read"),
        ("x.csv", "user,user,ts\n1,2,3\n", "several columns named 'user'"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, name: str, content: str | None, expected: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(SourceError, match=expected):
        read_clicks(path)


def test_mappings_that_cannot_be_followed(tmp_path: Path) -> None:
    path = put(tmp_path, "y.tsv", YOOCHOOSE)
    with pytest.raises(SourceError, match="no field user;"):
        read_clicks(path, {"user": "SessionId"})
    with pytest.raises(
        SourceError, match="no column 'Session'; its columns are SessionId, ItemId, Time"
    ):
        read_clicks(path, {"user_id": "Session"})


WRONG = (
    b"user_id,item_id,ts,event_type,price,quantity\n"
    b"u,i,1700000000,view,,\n"  # line 2, a click
    b",i,1700000000,view,,\n"
    b"u,,1700000000,view,,\n"
    b"u,i,soon,view,,\n"
    b"u,i,,view,,\n"
    b"u,i,1700000000,look,,\n"
    b"\n"  # line 8: nothing at all
    b"u,i,1700000000\n"
    b"u,\xff,1700000000,view,,\n"
    b"u,i,1700000000,view,cheap,\n"
    b"u,i,1700000000,view,,1.5\n"
    b"u,i,-5,view,,\n"
    b"u,i,1e300,view,,\n" + b"u" * 129 + b",i,1700000000,view,,\n"
    b"u,i\0,1700000000,view,,\n"
    b"u,,1700000001,search,,\n"  # line 17, a click
)


def test_wrong_rows_are_counted_and_named(tmp_path: Path) -> None:
    source = ClickSource(put(tmp_path, "w.csv", WRONG))
    clicks = concatenated(list(source.batches()))
    assert rows(clicks) == [("u", "i", T * 1000, "view"), ("u", "", T * 1000 + 1000, "search")]
    assert clicks.row.tolist() == [0, 15]
    skipped = source.skipped
    assert skipped.count == 13
    assert skipped.blank_count == 1
    assert sum(skipped.by_reason.values()) == 13
    assert skipped.by_reason["no time"] == 4
    assert skipped.first == [
        (3, "no user"),
        (4, "no item"),
        (5, "no time"),
        (6, "no time"),
        (7, "unknown event type"),
    ]
    assert skipped.text().startswith("13 rows skipped: line 3 (no user), line 4 (no item)")
    assert skipped.text().endswith("and 8 more")


def test_strict_refuses_wrong_rows_but_not_blank_ones(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"w\.csv: 13 rows skipped: line 3 \(no user\)"):
        read_clicks(put(tmp_path, "w.csv", WRONG), strict=True)
    assert len(read_clicks(put(tmp_path, "b.tsv", YOOCHOOSE + "\n\n"), strict=True).clicks) == 3


def test_lines_are_named_right_far_into_a_file(tmp_path: Path) -> None:
    lines = [f"u{at},i,{T + at}" for at in range(300_000)]
    wrong = {50_000: "one,two", 150_000: "a,b,c,d", 290_000: ",i,5"}
    for at, line in wrong.items():
        lines[at] = line
    found = read_clicks(put(tmp_path, "long.csv", "user,item,ts\n" + "\n".join(lines)))
    assert [line for line, _ in found.skipped.first] == [at + 2 for at in wrong]
    assert len(found.clicks) == 300_000 - 3
    assert np.array_equal(found.clicks.row, np.setdiff1d(np.arange(300_000), list(wrong)))


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        json.dumps({"user_id": "ü", "item_id": 42, "ts": T, "price": 1.5, "extra": {"a": [1]}}),
        "not json",
        json.dumps([1]),
        "",
        json.dumps({"user_id": "u", "item_id": True, "ts": T}),
        json.dumps({"user_id": "u", "item_id": "i"}),
        json.dumps({"user_id": "\ud800", "item_id": "i", "ts": T}),
        json.dumps({"item_id": "i2", "ts": f"{T + 1}", "user_id": "u", "event_type": "cart"}),
    ]
    found = read_clicks(put(tmp_path, "c.jsonl", "\n".join(lines)))
    assert rows(found.clicks) == [
        ("ü", "42", T * 1000, "view"),
        ("u", "i2", T * 1000 + 1000, "cart"),
    ]
    assert found.skipped.first == [
        (2, "no JSON"),
        (3, "no JSON object"),
        (5, "item_id is neither text nor a number"),
        (6, "no time"),
        (7, "user_id is no UTF-8"),
    ]


def test_json_fields_that_come_late_are_read(tmp_path: Path) -> None:
    lines = [json.dumps({"visitorid": 1, "item": 2, "time": T})] * 1_500
    lines.append(json.dumps({"visitorid": 1, "item": 2, "time": T, "price": 2.5}))
    clicks = read_clicks(put(tmp_path, "c.jsonl", "\n".join(lines))).clicks
    assert clicks.price.to_pylist() == [None] * 1_500 + [2.5]


@pytest.mark.parametrize("kind", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_parquet(tmp_path: Path, kind: str, zone: str | None) -> None:
    moment = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    times = [moment if zone else moment.replace(tzinfo=None), None]
    table = pa.table(
        {
            "user_id": pa.array(["u", "v"]).dictionary_encode(),
            "item_id": pa.array([7.0, None], pa.float64()),
            "ts": pa.array(times, pa.timestamp(kind, zone)),
            "quantity": pa.array([3, None], pa.int64()),
        }
    )
    path = tmp_path / "c.parquet"
    pa_parquet.write_table(table, path)
    found = read_clicks(path)
    assert rows(found.clicks) == [("u", "7", T * 1000, "view")]
    assert found.clicks.quantity.to_pylist() == [3]
    assert found.skipped.count == 1


def test_parquet_columns_that_are_no_text_or_time(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    good = {"user_id": pa.array(["u"]), "item_id": pa.array(["i"]), "ts": pa.array([T])}
    for name, column in (
        ("user_id", pa.array([["u"]])),
        ("ts", pa.array([timedelta(1)], pa.duration("ms"))),
    ):
        pa_parquet.write_table(pa.table(good | {name: column}), path)
        with pytest.raises(SourceError, match=r"c\.parquet: a column of type"):
            read_clicks(path)


def test_packed_text_and_a_byte_order_mark(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + YOOCHOOSE.replace("\n", "\r\n").encode()
    clicks = read_clicks(put(tmp_path, "y.tsv.gz", gzip.compress(content))).clicks
    assert clicks.user_id.to_pylist() == ["6", "3", "3"]


def test_semicolons_and_line_breaks_in_quotes(tmp_path: Path) -> None:
    path = put(tmp_path, "q.csv", f'user;item;ts;query\nu;i;{T};"two\nlines"\n;i;{T};\n')
    found = read_clicks(path)
    assert found.clicks.query.to_pylist() == ["two\nlines"]
    assert found.skipped.first == [(3, "no user")]


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    clicks = concatenated(list(limited(Shop(50, 60, 3).clicks(), 3_000)))
    path = tmp_path / f"c{suffix}"
    assert write_clicks(path, [clicks.slice(0, 1_000), clicks.slice(1_000, 3_000)]) == 3_000
    read = read_clicks(path, strict=True).clicks
    assert rows(read) == rows(clicks)
    assert read.row.tolist() == clicks.row.tolist()
    for name in OPTIONAL:
        assert getattr(read, name).to_pylist() == getattr(clicks, name).to_pylist(), name
    assert list(tmp_path.iterdir()) == [path], "a part file was left"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be written"):
        write_clicks(tmp_path / "no" / "c.tsv", [])
    with pytest.raises(SourceError, match="unknown format"):
        write_clicks(tmp_path / "c.xlsx", [])


words = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1, max_size=12
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.lists(st.tuples(words, words, st.integers(0, 253_402_300_799_999)), min_size=1, max_size=12)
)
def test_any_text_survives_csv(tmp_path: Path, clicks: list[tuple[str, str, int]]) -> None:
    path = tmp_path / "any.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["user_id", "item_id", "ts"])
        writer.writerows(clicks)
    read = read_clicks(path, unit="ms", strict=True).clicks
    expected = sorted(enumerate(clicks), key=lambda one: (one[1][2], one[0]))
    assert [row[:3] for row in rows(read)] == [one for _, one in expected]


def test_zones_of_dates(tmp_path: Path) -> None:
    moment = datetime(
        2024, 2, 29, 23, 59, 59, 999_000, tzinfo=timezone(timedelta(hours=-9, minutes=-30))
    )
    path = put(tmp_path, "z.csv", f"user,item,ts\nu,i,{moment.isoformat()}\n")
    assert read_clicks(path).clicks.ts.tolist() == [round(moment.timestamp() * 1000)]
