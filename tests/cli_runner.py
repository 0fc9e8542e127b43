"""Runs `headrace` as its users do: in a process of its own, with settings from the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 90


def _environment(bootstrap: str, **settings: object) -> dict[str, str]:
    named = {f"HEADRACE_{name.upper()}": str(value) for name, value in settings.items()}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return kept | named | {"HEADRACE_BOOTSTRAP": bootstrap, "PYTHONPATH": str(ROOT)}


def run(bootstrap: str, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, at most `TIMEOUT_S`."""
    return subprocess.run(
        [sys.executable, "-m", "infra.cli", *map(str, arguments)],
        env=_environment(bootstrap, **settings),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def start(bootstrap: str, *arguments: object, **settings: object) -> subprocess.Popen[str]:
    """Start a command; the caller ends it."""
    return subprocess.Popen(
        [sys.executable, "-m", "infra.cli", *map(str, arguments)],
        env=_environment(bootstrap, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
