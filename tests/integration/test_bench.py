"""The bench runs through and says what it found; how fast anything was is not a test's business."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH_TIMEOUT_S = 240
STATE_TIMEOUT_S = 120

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def run_bench(name: str, timeout_s: float, *arguments: str) -> str:
    """Run a script of `bench/` and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / name), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, (
        f"{name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout


def test_quick_bench_prints_both_programs_and_their_ratios(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    printed = run_bench("worker.py", BENCH_TIMEOUT_S, "--quick", "--json", str(found))
    lines = [line.split() for line in printed.splitlines() if line]
    assert any(line[0] == "headrace" for line in lines)
    assert any(line[0] == "plain" for line in lines)
    assert any(line[0] == "headrace/plain" for line in lines)
    results = json.loads(found.read_text("utf-8"))
    assert results["rounds"].keys() == {"headrace", "plain"}
    assert len(results["rounds"]["headrace"]) == 1
    (ratio,) = results["ratios"]["plain"]["cpu_s_per_1000"]
    assert ratio > 0


def test_state_bench_restores_answers_and_checks(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    run_bench("state.py", STATE_TIMEOUT_S, "--users", "5000", "--events", "5", "--json", str(found))
    results = json.loads(found.read_text("utf-8"))
    assert results["users"] == 5000
    assert results["windows_checked"] > 5000
