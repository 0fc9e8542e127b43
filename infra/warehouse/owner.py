"""Who owns the embedded warehouse's folder: one process, by a lock that the kernel frees.

ClickHouse's files must never be opened by two processes. The owner holds an advisory lock on
`warehouse.lock` beside the folder, and writes into it who it is and where it answers queries.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from schemas.errors import WarehouseError

POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that owns a folder. `port` 0: it answers no queries. `started_at`: Unix time.

    `key`: the password of that port for whoever may read the lock, which is the owner's user.
    """

    pid: int
    what: str
    started_at: float
    port: int = 0
    key: str = ""

    def text(self) -> str:
        """For messages."""
        since = time.strftime("%H:%M:%S", time.localtime(self.started_at))
        return f"process {self.pid} ({self.what}, since {since})"


class Ownership:
    """A folder that is ours as long as `held` lasts."""

    def __init__(self, file: TextIOWrapper, what: str) -> None:
        self._file = file
        self._what = what
        self._started_at = time.time()
        self.publish(0)

    def publish(self, port: int, key: str = "") -> None:
        """Say where queries are answered."""
        text = json.dumps(asdict(Owner(os.getpid(), self._what, self._started_at, port, key)))
        # One write, padded, so that a reader never sees half of a new and half of an old one.
        self._file.seek(0)
        self._file.write(text.ljust(400) + "\n")
        self._file.flush()


def lock_path(folder: Path) -> Path:
    """The lock of a folder, beside it."""
    return folder.with_name(folder.name + ".lock")


@contextmanager
def held(folder: Path, what: str, timeout_s: float) -> Iterator[Ownership]:
    """Own `folder`; raises `WarehouseError` naming the owner when it stays taken for `timeout_s`."""
    path = lock_path(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8")
    except OSError as error:
        raise WarehouseError(f"the warehouse folder {folder} cannot be used: {error}") from None
    with file:
        deadline = time.monotonic() + timeout_s
        while not _locked(file):
            if time.monotonic() >= deadline:
                owner = _read(path)
                who = owner.text() if owner else "another process"
                raise WarehouseError(
                    f"the warehouse {folder} belongs to {who}: one process can own it; "
                    "stop that one, or ask it (`headrace warehouse query` does)"
                )
            time.sleep(POLL_S)
        yield Ownership(file, what)
        file.seek(0)
        file.truncate()


def owner_of(folder: Path) -> Owner | None:
    """The process that owns the folder now, or None."""
    path = lock_path(folder)
    try:
        with path.open("r+", encoding="utf-8") as file:
            if _locked(file):
                return None
        return _read(path)
    except OSError:
        return None


def _locked(file: TextIOWrapper) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
