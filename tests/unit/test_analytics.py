"""Questions as they are asked: names, columns, periods, read-only SQL, and how answers are shown."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from infra.analytics.catalog import QUESTIONS
from infra.analytics.free import check_reading
from infra.analytics.period import END_MS, Period, parse_duration_ms, parse_period
from infra.analytics.plot import draw
from infra.analytics.question import Answer, QuestionError, Request, find_question, validate_by
from infra.analytics.show import as_csv, as_json, as_table
from infra.cli import headrace
from infra.commands.analytics import default_request
from schemas.errors import HeadraceError, SettingsError

NOW_MS = 1_760_000_000_000
HOUR_MS = 3_600_000


def test_periods_are_ages_times_or_all() -> None:
    assert parse_period("1h", "", NOW_MS) == Period(NOW_MS - HOUR_MS, NOW_MS)
    assert parse_period("2h", "1h", NOW_MS) == Period(NOW_MS - 2 * HOUR_MS, NOW_MS - HOUR_MS)
    assert parse_period("all", "", NOW_MS) == Period(0, END_MS)
    assert parse_period("all", "now", NOW_MS) == Period(0, NOW_MS)
    assert parse_period("2025-01-01", "2025-01-02T00:00+01:00", NOW_MS) == Period(
        1_735_689_600_000, 1_735_772_400_000
    )
    assert parse_duration_ms("2w") == 14 * 24 * HOUR_MS


@pytest.mark.parametrize(
    ("since", "until", "message"),
    [
        ("yesterday", "", "--since 'yesterday'"),
        ("1h", "2h", "not before"),
        ("1h", "soon", "--until 'soon'"),
    ],
)
def test_a_wrong_period_is_told(since: str, until: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_period(since, until, NOW_MS)


def test_an_unknown_question_is_told_with_all_there_are() -> None:
    with pytest.raises(QuestionError) as caught:
        find_question(QUESTIONS, "funel")
    assert "Did you mean funnel?" in str(caught.value)
    assert all(name in str(caught.value) for name in QUESTIONS)


@pytest.mark.parametrize("name", list(QUESTIONS))
def test_every_question_tells_its_columns_and_composes_as_it_is_asked_without_options(
    name: str,
) -> None:
    question = QUESTIONS[name]
    with pytest.raises(QuestionError, match=f"{name} cannot be split by 'colour'"):
        validate_by(question, ["colour"], fast=False)
    request = default_request(question)
    assert request.by == question.by
    assert question.compose(request)
    assert question.definition.endswith(".")
    assert set(question.fast_dimensions) <= set(question.dimensions)
    assert (question.compose_fast is not None) == bool(question.fast_dimensions)


def test_the_command_line_refuses_before_it_looks_for_a_warehouse() -> None:
    for arguments, message in [
        (["ctrl"], "there is no question 'ctrl'. Did you mean ctr?"),
        (
            ["ctr", "--by", "model,colour"],
            "ctr cannot be split by 'colour'; it can be split by model",
        ),
        (["latency", "--fast", "--by", "position"], "latency --fast cannot be split by 'position'"),
        (["funnel", "--steps", "view"], "--steps 'view': two or more of impression"),
        (["funnel", "--per", "visit"], "--per 'visit' is neither"),
        (["ctr", "--window", "soon"], "'soon' is no duration"),
        (["sql", "INSERT INTO clicks SELECT 1"], "sql only reads"),
    ]:
        with pytest.raises(HeadraceError) as caught:
            headrace(["analytics", *arguments], standalone_mode=False)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1", "select 1 ; ", "WITH 1 AS x SELECT x", "-- why\nSELECT ';' AS a", "/* x; */ SHOW TABLES",
        "DESCRIBE clicks", "EXPLAIN SELECT 1", "(SELECT 1) UNION ALL (SELECT 2)", "SELECT 'INTO OUTFILE'",
    ],
)  # fmt: skip
def test_statements_that_read_pass(statement: str) -> None:
    assert check_reading(statement)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("", "nothing"), ("DROP TABLE clicks", "DROP"), ("/* SELECT */ INSERT INTO clicks VALUES (1)", "INSERT"),
        ("SELECT 1; DROP TABLE clicks", "one statement"), ("SELECT 1 INTO  OUTFILE 'x'", "INTO OUTFILE"),
        ("SELECT 1 FORMAT JSON", "FORMAT"), ("ALTER TABLE clicks DELETE WHERE 1", "ALTER"), ("SET readonly = 0", "SET"),
        ("SELECT '\\'; --' ; TRUNCATE TABLE clicks", "one statement"),
    ],
)  # fmt: skip
def test_statements_that_write_do_not(statement: str, message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        check_reading(statement)


ANSWER = Answer(
    ("hour", "day", "model", "ctr", "answers", "tags", "p"),
    (
        (
            datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=1))),
            date(2026, 1, 2),
            "[b]m\x1b",
            0.12345,
            1234,
            ["a"],
            float("nan"),
        ),
        (datetime(2026, 1, 2, 3), None, None, None, None, [], None),
    ),
)


def test_json_has_times_in_utc_and_nothing_for_what_is_no_number() -> None:
    told = json.loads(as_json("ctr", Request(Period(0, NOW_MS), by=("hour",)), ANSWER))
    assert told["question"] == "ctr"
    assert (told["since"], told["until"]) == (None, "2025-10-09T08:53:20.000Z")
    assert told["by"] == ["hour"]
    assert told["truncated"] is False
    first, second = told["rows"]
    assert first == {
        "hour": "2026-01-02T02:00:00.000Z", "day": "2026-01-02", "model": "[b]m\x1b", "ctr": 0.12345,
        "answers": 1234, "tags": ["a"], "p": None,
    }  # fmt: skip
    assert second["hour"] == "2026-01-02T03:00:00.000Z"


def test_csv_has_a_header_and_empty_cells() -> None:
    lines = as_csv(ANSWER).splitlines()
    assert lines[0] == "hour,day,model,ctr,answers,tags,p"
    assert lines[1].endswith(",0.12345,1234,['a'],")
    assert lines[2] == "2026-01-02T03:00:00.000Z,,,,,[],"


def test_a_table_is_for_people_and_cannot_steer_the_terminal() -> None:
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(as_table(ANSWER))
    text = shown.get()
    assert "2026-01-02 02:00" in text
    assert "12.35 %" in text or "12.34 %" in text
    assert "1,234" in text
    assert "[b]m" in text
    assert "\x1b" not in text


def test_times_without_a_zone_are_utc() -> None:
    one = Answer(("t",), ((datetime(2026, 1, 1),), (datetime(2026, 1, 1, tzinfo=UTC),)))
    assert as_csv(one).splitlines()[1:] == ["2026-01-01T00:00:00.000Z"] * 2


@pytest.mark.parametrize(
    ("name", "by", "columns", "rows"),
    [
        ("ctr", ("hour", "model"), ("hour", "model", "ctr"), [(datetime(2026, 1, 1, hour, tzinfo=UTC), "m", hour / 10) for hour in range(5)]),
        ("ctr", ("model",), ("model", "ctr"), [("m1", 0.1), ("m2", 0.2)]),
        ("ctr", (), ("ctr",), [(0.1,)]),
        ("retention", (), ("cohort", "week", "retained"), [(date(2026, 1, 5), week, 1 / (1 + week)) for week in range(4)]),
        ("drills", (), ("ended_at", "recovery_s"), [(datetime(2026, 1, 1, tzinfo=UTC), None)]),
    ],
)  # fmt: skip
def test_pictures_are_drawn(
    tmp_path: Path, name: str, by: tuple[str, ...], columns: tuple[str, ...], rows: list[Any]
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra `analytics`")
    path = tmp_path / "a.png"
    draw(Answer(columns, tuple(rows)), QUESTIONS[name], Request(Period(0, NOW_MS), by=by), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra `analytics`")
    request = Request(Period(0, NOW_MS))
    with pytest.raises(SettingsError, match="nothing to draw"):
        draw(Answer((), ()), QUESTIONS["ctr"], request, tmp_path / "a.png")
    with pytest.raises(SettingsError, match="cannot be written"):
        draw(Answer(("ctr",), ((1.0,),)), QUESTIONS["ctr"], request, tmp_path / "a.pigment")
