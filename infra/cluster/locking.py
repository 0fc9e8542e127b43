"""One process at a time: an advisory lock on a file, waited for with a bound."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from schemas.errors import ClusterError

POLL_S: Final = 0.1


@contextmanager
def locked(path: Path, timeout_s: float, what: str) -> Iterator[None]:
    """Hold the lock file `path`; raise `ClusterError` naming `what` after `timeout_s`.

    The file stays: removing it would let two processes lock two different files of one name.
    The kernel frees the lock when its holder dies, however it dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_s
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    raise ClusterError(
                        f"waited {timeout_s:.0f} s for {what} (lock {path}); try again when it has ended"
                    ) from None
                time.sleep(POLL_S)
        yield
