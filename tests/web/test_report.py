"""The report: one page that needs nothing else, and that a browser really draws."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infra.analytics.period import Period
from infra.analytics.report import build_report
from infra.analytics.svg import bars, lines, nice_top, shown

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
NOW_MS = 1_767_225_600_000
HOUR_MS = 3_600_000
HOSTILE = "<script>alert(1)</script>"
TIMEOUT_S = 60


class FakeWarehouse:
    """Answers by what is asked for, with rows that a shop may have."""

    def __init__(self, *, empty: bool = False) -> None:
        self.empty = empty

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        rows = [] if self.empty else _rows(sql)
        return pa.Table.from_pylist(rows) if rows else pa.table({})


def _rows(sql: str) -> list[dict[str, Any]]:
    hours = [datetime.fromtimestamp(NOW_MS / 1000 - 3600 * back, UTC) for back in range(23, 0, -1)]
    if "windowFunnel" in sql:
        return [
            {"step": step, "users": 1000 >> (2 * at), "of_first": 1.0, "of_previous": 1.0}
            for at, step in enumerate(("impression", "view", "cart", "purchase"))
        ]
    if "users_in_two_arms" in sql:
        return [
            {
                "arm": arm,
                "users": 5000,
                "answers": 20_000,
                "clicked": 1000 + 300 * at,
                "nn": 1e5,
                "xx": 1500.0,
                "nx": 6e3,
                "users_in_two_arms": 0,
            }
            for at, arm in enumerate(("control", HOSTILE))
        ]
    if "converted" in sql:
        return [
            {
                "answers": 20_000,
                "converted": 10,
                "conversion": 0.0005,
                "purchases": 10,
                "revenue": 1234.5,
            }
        ]
    if "AS ctr" in sql:
        return [
            {
                "hour": at,
                "position": place,
                "model": HOSTILE,
                "tier": "model",
                "answers": 900,
                "clicked": 90,
                "ctr": 0.1 + 0.01 * (place % 5),
            }
            for place, at in enumerate(hours, 1)
        ]
    if "AS taken" in sql:
        return [
            {
                "hour": at,
                "answers": 900,
                "ms_p50": 4.0,
                "ms_p95": 9.0 + n % 3,
                "ms_p99": 14.0 + n % 5,
                "ms_max": 30,
            }
            for n, at in enumerate(hours)
        ]
    if "behind_ms" in sql:
        return [
            {
                "tier": "model",
                "answers": 900,
                "fresh": 0.98,
                "ms_p50": 0.0,
                "ms_p95": 0.0,
                "ms_p99": 3.0,
                "ms_max": 9,
            }
        ]
    if "items_hour" in sql:
        return [{"item_id": f"item-{n}", "touches": 1000 // (n + 1)} for n in range(10)]
    if "FROM clicks_hour" in sql:
        return [
            {"at": at, "event_type": kind, "n": 500 + 10 * n}
            for n, at in enumerate(hours)
            for kind in ("view", "cart")
        ]
    if "dead_letters" in sql:
        return [
            {"reason": "undecodable", "origin_topic": "clicks", "letters": 3, "last": hours[-1]}
        ]
    if "FROM drills" in sql:
        return [
            {
                "ended_at": hours[-1],
                "name": "broker-loss",
                "region": "east",
                "verdict": "pass",
                "recovery_s": 2.5,
            }
        ]
    raise AssertionError(f"the report asks something else: {sql}")


class Reader(HTMLParser):
    """Collects what a page refers to, and its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [
            value or "" for name, value in attrs if name in ("src", "href", "action")
        ]


@pytest.fixture
def page() -> str:
    return build_report(FakeWarehouse(), Period(NOW_MS - 24 * HOUR_MS, NOW_MS), NOW_MS)


def test_the_page_stands_alone_and_others_text_stays_text(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert not reader.references
    assert "script" not in reader.tags
    assert "://" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert reader.tags.count("svg") == 7
    assert HOSTILE not in page
    assert "better" in page
    assert "$" not in page


def test_an_empty_warehouse_makes_a_page_too() -> None:
    page = build_report(FakeWarehouse(empty=True), Period(0, NOW_MS), NOW_MS)
    assert page.count("nothing in this period") == 10
    assert "everything there is" in page


def test_charts_are_scaled_and_named() -> None:
    assert [nice_top(value) for value in (0, 0.7, 1, 1.1, 2.2, 4, 60)] == [1, 1, 1, 2, 2.5, 5, 100]
    assert [shown(0.1234, "%"), shown(12_345), shown(2_500_000), shown(7), shown(7.25, "ms")] == [
        "12.3 %",
        "12.3k",
        "2.5M",
        "7",
        "7.25 ms",
    ]
    one = lines({"a": [(0.0, 5.0)]})
    assert "<circle" in one
    drawn = bars([("x" * 40, 2.0), ("y", 0.0)])
    assert "…" in drawn
    assert "x" * 40 in drawn
    assert date(1970, 1, 1).strftime("%d %b") not in drawn


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_draws_it(page: str, tmp_path: Path, width: int) -> None:
    file, picture = tmp_path / "report.html", tmp_path / "report.png"
    # The page tells by its title whether anything sticks out of the window.
    probe = "<script>document.title = document.documentElement.scrollWidth > innerWidth ? 'too wide' : 'fits'</script>"
    file.write_text(page.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2400",
    ]  # fmt: skip
    done = subprocess.run(
        [str(CHROMIUM), *flags, f"--screenshot={picture}", file.as_uri()],
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert picture.exists(), done.stderr[-2000:]
    assert colours_in(picture) > 50
    dom = subprocess.run(
        [str(CHROMIUM), *flags, "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    ).stdout
    assert re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1] == "fits"  # type: ignore[index]


def colours_in(picture: Path) -> int:
    """How many different values the rows of a PNG have: a blank page has next to none."""
    data = picture.read_bytes()
    packed, at = b"", 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        packed += data[at + 8 : at + 8 + size] if data[at + 4 : at + 8] == b"IDAT" else b""
        at += size + 12
    return len(set(zlib.decompress(packed)))
