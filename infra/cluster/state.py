"""What was started: `region.json`, with enough about each process never to signal another's."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import psutil

from schemas.errors import ClusterError

FILE: Final = "region.json"
# A start time is computed from the boot time, which a clock correction may move a little.
START_TOLERANCE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process that was started: its pid alone may be another's by now.

    `mark` is an argument of its command line that no other process has.
    """

    pid: int
    started_at: float
    mark: str

    def find(self) -> psutil.Process | None:
        """The living process, if it is the one that was recorded."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            if abs(process.create_time() - self.started_at) > START_TOLERANCE_S:
                return None
            return process if self.mark in process.cmdline() else None
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return None


@dataclass(frozen=True, slots=True)
class RegionState:
    """A region as it was last started; `processes` has one entry a broker, None where stopped."""

    region: str
    cluster_id: str
    base_port: int
    processes: tuple[ProcessRecord | None, ...]

    @property
    def brokers(self) -> int:
        return len(self.processes)

    def living(self) -> list[psutil.Process | None]:
        """The process of each broker, None where it does not run."""
        return [record.find() if record else None for record in self.processes]

    def stopped(self, base_port: int | None = None) -> RegionState:
        """The same region with no process, and perhaps on another port."""
        return replace(
            self, base_port=base_port or self.base_port, processes=(None,) * self.brokers
        )

    def with_process(self, index: int, record: ProcessRecord | None) -> RegionState:
        processes = (*self.processes[:index], record, *self.processes[index + 1 :])
        return replace(self, processes=processes)


def read_state(folder: Path) -> RegionState | None:
    """The state in a region's folder; None where it was never started."""
    path = folder / FILE
    try:
        content = json.loads(path.read_text("utf-8"))
        return RegionState(
            region=str(content["region"]),
            cluster_id=str(content["cluster_id"]),
            base_port=int(content["base_port"]),
            processes=tuple(
                ProcessRecord(int(one["pid"]), float(one["started_at"]), str(one["mark"]))
                if one
                else None
                for one in content["processes"]
            ),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(
            f"{path} cannot be read ({error}): stop its brokers if any run, then `headrace down --wipe` starts afresh"
        ) from None


def write_state(folder: Path, state: RegionState) -> None:
    """Replace the state file at once: a reader sees the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{FILE}.{os.getpid()}"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(asdict(state), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / FILE)
