"""The dashboards' files are what the code makes, and name only metrics that workers have."""

from __future__ import annotations

import json
import re

from prometheus_client import generate_latest

from infra.analytics.dashboards import EARNINGS, FOLDER, SERVICE, boards, text_of
from streams.metrics import WorkerMetrics


def test_the_files_are_what_the_code_makes() -> None:
    made = boards()
    assert sorted(path.name for path in FOLDER.glob("*.json")) == sorted(made)
    for name, board in made.items():
        assert (FOLDER / name).read_text("utf-8") == text_of(board), (
            "run python -m infra.analytics.dashboards"
        )


def test_panels_do_not_overlap_and_have_a_source() -> None:
    for board in boards().values():
        places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
        assert len(set(places)) == len(places) == len({panel["id"] for panel in board["panels"]})
        assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"${source}"}
        assert json.loads(text_of(board)) == board


def test_every_metric_exists() -> None:
    told = generate_latest(WorkerMetrics("east", "0").registry).decode()
    names = set(re.findall(r"^# HELP (\S+)", told, re.MULTILINE))
    for title, _, _, query in SERVICE:
        for name in re.findall(r"headrace_\w+", query):
            assert name.removesuffix("_bucket") in names, (title, name, sorted(names))


def test_the_times_of_the_reader_are_in_every_question_but_drills() -> None:
    for title, _, _, query in EARNINGS:
        assert ("$__timeFilter(" in query) == (title != "Drills")
