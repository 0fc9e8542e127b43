"""Formatting the data folders of brokers: all at once, and either whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.cluster.broker import Runtime, logging_options
from infra.cluster.layout import Layout, write_configs
from schemas.errors import ClusterError

# One takes a second or two; three at once on an overloaded machine have taken twenty.
FORMAT_TIMEOUT_S: Final = 120.0
KILL_TIMEOUT_S: Final = 10.0


def format_folders(
    place: Layout, indexes: Iterable[int], cluster_id: str, runtime: Runtime
) -> None:
    """Format the data folders of these brokers, or check those that are formatted already.

    A folder appears under its name only when it is complete, so an interrupted format leaves
    nothing behind that looks like data. Raises `ClusterError` for a folder that is damaged or
    another broker's.
    """
    jobs: list[_Job] = []
    deadline = time.monotonic() + FORMAT_TIMEOUT_S
    try:
        for index in indexes:
            if place.data(index).exists():
                check_folder(place.data(index), index, cluster_id)
            else:
                jobs.append(_begin(place, index, cluster_id, runtime))
        for job in jobs:
            job.finish(cluster_id, deadline)
    except OSError as error:
        raise ClusterError(f"cannot format {place.folder}: {error}") from None
    finally:
        for job in jobs:
            job.discard()


@dataclass(slots=True)
class _Job:
    """One `StorageTool` at work on a folder that gets its name at the end."""

    index: int
    data: Path
    partial: Path
    config: Path
    process: subprocess.Popen[str]

    def finish(self, cluster_id: str, deadline: float) -> None:
        try:
            output, _ = self.process.communicate(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise ClusterError(
                f"formatting {self.partial} took more than {FORMAT_TIMEOUT_S:.0f} s: the machine is overloaded; try again"
            ) from None
        if self.process.returncode != 0:
            raise ClusterError(f"Kafka could not format {self.partial}: {_last_line(output)}")
        check_folder(self.partial, self.index, cluster_id)
        self.partial.rename(self.data)

    def discard(self) -> None:
        """Leave no process, no half folder and no file of this job."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=KILL_TIMEOUT_S)
        self.config.unlink(missing_ok=True)
        shutil.rmtree(self.partial, ignore_errors=True)


def _begin(place: Layout, index: int, cluster_id: str, runtime: Runtime) -> _Job:
    data = place.data(index)
    partial = data.with_name("data.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    config = write_configs(place, index, data=partial)
    command = runtime.command(
        "kafka.tools.StorageTool",
        ["format", "-t", cluster_id, "-c", str(config)],
        logging_options(place, index),
    )
    process = subprocess.Popen(
        command,
        env=runtime.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    return _Job(index, data, partial, config, process)


def check_folder(data: Path, index: int, cluster_id: str) -> None:
    """Raise `ClusterError` unless `data` is completely formatted for this broker of this cluster."""
    advice = "its data cannot be used: `headrace down --wipe` removes it, and `headrace up` starts afresh"
    try:
        text = (data / "meta.properties").read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(
            f"{data} is half formatted (meta.properties: {_cause(error)}); {advice}"
        ) from None
    found = dict(
        line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")
    )
    lacking = sorted({"cluster.id", "directory.id", "node.id", "version"} - found.keys())
    if lacking:
        raise ClusterError(
            f"{data} is half formatted (meta.properties lacks {', '.join(lacking)}); {advice}"
        )
    expected = {"cluster.id": cluster_id, "node.id": str(index + 1)}
    for name, value in expected.items():
        if found[name] != value:
            raise ClusterError(
                f"{data} belongs to another broker ({name} is {found[name]}, and {value} was expected); {advice}"
            )


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:400] if lines else "it said nothing"


def _cause(error: Exception) -> str:
    return "missing" if isinstance(error, FileNotFoundError) else str(error)
