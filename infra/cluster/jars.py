"""The jars of Kafka: pinned by a lock file of ours, checked by SHA-256, cached for good.

`kafka-jars.lock` names every jar with its checksum. A jar is hashed when it enters the cache;
later starts only compare size and modification time with the marker that was written then, and
hash again what differs. Once the marker is there, no network is needed.

`python -m infra.cluster.jars --relock` resolves the roots below anew and rewrites the lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from infra.cluster.folders import check_disk, make_folder
from infra.cluster.locking import locked
from schemas.errors import ClusterError

KAFKA_VERSION: Final = "4.1.0"
LOG4J_VERSION: Final = "2.24.3"

# Connect and MirrorMaker start from the same classpath as the broker. Kafka is compiled against
# slf4j 1.7, so the binding is log4j-slf4j-impl and not log4j-slf4j2-impl.
ROOTS: Final = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}",
    f"org.apache.kafka:connect-runtime:{KAFKA_VERSION}",
    f"org.apache.kafka:connect-mirror:{KAFKA_VERSION}",
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}",
    f"org.apache.logging.log4j:log4j-core:{LOG4J_VERSION}",
)

LOCK_FILE: Final = Path(__file__).with_name("kafka-jars.lock")
MARKER: Final = "complete.json"

# All jars are 54 MB; the rest is room for the archive of loaded classes.
DISK_FREE_MIN_MB: Final = 200
# More connections than this gain nothing and look like abuse to a repository.
FETCHES_MAX: Final = 6
# A first download takes 20-60 s; a second process waits for it instead of doing it too.
LOCK_TIMEOUT_S: Final = 600.0
# Longest time without any jar arriving; the largest is 10 MB.
FETCH_TIMEOUT_S: Final = 120.0
FETCH_TRIES: Final = 2
# How long an interrupted fetch waits for its threads; what they leave is removed by the next one.
CANCEL_TIMEOUT_S: Final = 2.0
SCRATCH: Final = "fetch-"
ADVICE: Final = (
    "Kafka's jars are fetched once, which needs the network; without one, set HEADRACE_KAFKA_HOME to an "
    "unpacked Kafka 4, or bring the cache folder (HEADRACE_CACHE) from a machine that has it"
)


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock file."""

    sha256: str
    group: str
    artifact: str
    version: str
    filename: str

    @property
    def coordinate(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


class Fetcher(Protocol):
    """The seam to the network; `infra.cluster.maven` has the real one."""

    def fetch(self, jar: Jar, folder: Path) -> Path:
        """Bring `jar` into `folder` (made if need be) and return its path; raise on any failure.

        It is called from several threads.
        """
        ...


def read_lock(path: Path = LOCK_FILE) -> tuple[Jar, ...]:
    """The jars that the lock names, in classpath order."""
    jars = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split()
        coordinate = fields[1].split(":") if len(fields) == 3 else []
        if len(coordinate) != 3 or len(fields[0]) != 64:
            raise ClusterError(
                f"{path.name}, line {number}: not `sha256  group:artifact:version  filename`"
            )
        group, artifact, version = coordinate
        jars.append(Jar(fields[0], group, artifact, version, fields[2]))
    return tuple(jars)


def write_lock(jars: Iterable[Jar], path: Path = LOCK_FILE) -> None:
    """Write the lock file, sorted, so that a change of one version is a change of one line."""
    head = f"# Jars of Kafka {KAFKA_VERSION}: sha256  group:artifact:version  filename\n"
    lines = [
        f"{jar.sha256}  {jar.coordinate}  {jar.filename}\n"
        for jar in sorted(jars, key=lambda jar: jar.coordinate)
    ]
    path.write_text(head + "".join(lines), "utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_classpath(
    cache: Path,
    jars: Sequence[Jar] | None = None,
    fetcher: Callable[[], Fetcher] | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> list[Path]:
    """Paths of all jars in `cache`, fetching what is missing or corrupt.

    `fetcher` is called only when something must be fetched. Raises `ClusterError` when a jar
    cannot be had; what was fetched and checked until then stays for the next try.
    """
    wanted = read_lock() if jars is None else tuple(jars)
    folder = cache / f"kafka-{KAFKA_VERSION}"
    if _stamped(folder) == _stamps(folder, wanted):
        return [folder / jar.filename for jar in wanted]
    make_folder(folder, "HEADRACE_CACHE")
    with locked(
        cache / f"kafka-{KAFKA_VERSION}.lock",
        LOCK_TIMEOUT_S,
        "the download of Kafka by another process",
    ):
        missing = [jar for jar in wanted if not _intact(folder / jar.filename, jar)]
        if missing:
            _fetch_all(missing, folder, (fetcher or _maven_fetcher)(), report)
        _write_marker(folder, wanted)
    return [folder / jar.filename for jar in wanted]


def _maven_fetcher() -> Fetcher:
    from infra.cluster.maven import MavenFetcher

    return MavenFetcher()


def _stamps(folder: Path, jars: Sequence[Jar]) -> dict[str, list[object]] | None:
    """What the marker must say for these jars: checksum, size and modification time of each."""
    stamps: dict[str, list[object]] = {}
    for jar in jars:
        try:
            stat = (folder / jar.filename).stat()
        except OSError:
            return None
        stamps[jar.filename] = [jar.sha256, stat.st_size, stat.st_mtime_ns]
    return stamps


def _stamped(folder: Path) -> object:
    try:
        return json.loads((folder / MARKER).read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _write_marker(folder: Path, jars: Sequence[Jar]) -> None:
    partial = folder / f"{MARKER}.{os.getpid()}"
    partial.write_text(json.dumps(_stamps(folder, jars), indent=0), "utf-8")
    partial.replace(folder / MARKER)


def _intact(path: Path, jar: Jar) -> bool:
    return path.is_file() and sha256_of(path) == jar.sha256


def _fetch_all(
    jars: Sequence[Jar], folder: Path, fetcher: Fetcher, report: Callable[[str], None]
) -> None:
    check_disk(folder, DISK_FREE_MIN_MB, "HEADRACE_CACHE")
    report(f"fetching {len(jars)} jars of Kafka {KAFKA_VERSION} into {folder} (once)")
    for stale in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(stale, ignore_errors=True)
    todo: queue.SimpleQueue[Jar] = queue.SimpleQueue()
    done: queue.SimpleQueue[ClusterError | None] = queue.SimpleQueue()
    for jar in jars:
        todo.put(jar)
    cancelled = threading.Event()
    with tempfile.TemporaryDirectory(
        prefix=SCRATCH, dir=folder, ignore_cleanup_errors=True
    ) as scratch:

        def work() -> None:
            while not cancelled.is_set() and not todo.empty():
                with contextlib.suppress(queue.Empty):
                    done.put(_fetch(todo.get_nowait(), folder, Path(scratch), fetcher))

        # Daemon threads, so that Ctrl-C need not wait for a slow download to end.
        threads = [
            threading.Thread(target=work, daemon=True) for _ in range(min(FETCHES_MAX, len(jars)))
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in jars:
                failure = _next(done)
                if failure is not None:
                    raise failure
        finally:
            cancelled.set()
            deadline = time.monotonic() + CANCEL_TIMEOUT_S
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))


def _next(done: queue.SimpleQueue[ClusterError | None]) -> ClusterError | None:
    try:
        return done.get(timeout=FETCH_TIMEOUT_S)
    except queue.Empty:
        return ClusterError(
            f"no jar of Kafka arrived within {FETCH_TIMEOUT_S:.0f} s: the network is too slow now. {ADVICE}"
        )


def _fetch(jar: Jar, folder: Path, scratch: Path, fetcher: Fetcher) -> ClusterError | None:
    """Bring one jar into the cache; returns, not raises, why it cannot be had."""
    problem = ""
    for attempt in range(FETCH_TRIES):
        try:
            # A folder for each try: what the last one left may be half a jar.
            fetched = fetcher.fetch(jar, scratch / str(attempt))
            actual = sha256_of(fetched)
            if actual == jar.sha256:
                fetched.replace(folder / jar.filename)
                return None
            problem = f"it came with SHA-256 {actual}, the lock says {jar.sha256}: cut short, or changed on the way"
        except Exception as error:
            problem = _first_line(error)
    return ClusterError(f"cannot fetch {jar.coordinate} ({problem}). {ADVICE}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__


def relock(report: Callable[[str], None], path: Path = LOCK_FILE) -> None:
    """Resolve the roots, fetch every jar, and write its checksum into the lock file."""
    from infra.cluster.maven import MavenFetcher, resolve

    fetcher = MavenFetcher()
    with tempfile.TemporaryDirectory(prefix="headrace-relock-") as scratch:
        jars = []
        for jar in resolve(ROOTS):
            digest = sha256_of(fetcher.fetch(jar, Path(scratch)))
            jars.append(Jar(digest, jar.group, jar.artifact, jar.version, jar.filename))
            report(f"{digest}  {jar.coordinate}")
    write_lock(jars, path)


if __name__ == "__main__":
    import sys

    import click

    if sys.argv[1:] != ["--relock"]:
        click.echo("usage: python -m infra.cluster.jars --relock", err=True)
        sys.exit(2)
    relock(click.echo)
