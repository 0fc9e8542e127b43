"""One broker: what starts it, its process, and how that is stopped."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from infra.cluster.archive import Archive
from infra.cluster.layout import Layout, write_configs
from infra.cluster.state import ProcessRecord
from schemas.errors import ClusterError

# A clean stop takes half a second; a broker that syncs much data on a busy disk takes longer.
STOP_TIMEOUT_S: Final = 30.0
KILL_TIMEOUT_S: Final = 10.0
PROBE_TIMEOUT_S: Final = 0.5
POLL_S: Final = 0.02

# The serial collector and the first compiler alone start a broker in half the time and the
# memory; a laptop's broker never runs hot long enough to miss the second compiler.
JVM_FLAGS: Final = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
)
HEAP_MIN_MB: Final = 96


@dataclass(frozen=True, slots=True)
class Runtime:
    """What starts a Kafka class: the java binary, its major version, the classpath, the heap.

    `archive` is None where the jars are not ours to keep one beside them.
    """

    java: Path
    java_version: int
    classpath: tuple[Path, ...]
    heap_mb: int
    archive: Archive | None = None

    def environment(self) -> dict[str, str]:
        """The environment: the classpath goes in here, since as an argument it fills the process list."""
        hidden = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "KAFKA_OPTS")
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        # Java opens files whose names are not ASCII only under a locale that can spell them.
        locale = {"LC_ALL": "C.UTF-8"} if sys.platform == "linux" else {}
        return kept | locale | {"CLASSPATH": os.pathsep.join(str(path) for path in self.classpath)}

    def jvm(self) -> list[str]:
        """The JVM with its flags, which an archive must have been made with."""
        quiet = ["--enable-native-access=ALL-UNNAMED"] if self.java_version >= 22 else []
        quiet += ["--sun-misc-unsafe-memory-access=allow"] if self.java_version >= 24 else []
        heap = [f"-Xms{min(HEAP_MIN_MB, self.heap_mb)}m", f"-Xmx{self.heap_mb}m"]
        return [str(self.java), *heap, *JVM_FLAGS, *quiet]

    def command(
        self, main: str, arguments: Sequence[str], properties: Sequence[str] = ()
    ) -> list[str]:
        """The command line that runs the class `main`."""
        archived = self.archive.options() if self.archive else []
        return [*self.jvm(), *archived, *properties, main, *arguments]


def mark(broker_folder: Path) -> str:
    """The argument by which a broker's process is known to be this one."""
    return f"-Dheadrace.broker={broker_folder}"


def start_broker(
    place: Layout, index: int, runtime: Runtime
) -> tuple[subprocess.Popen[bytes], ProcessRecord]:
    """Start a broker's process in a session of its own, so that Ctrl-C in a terminal does not reach it."""
    config = write_configs(place, index)
    marked = mark(place.broker_folder(index))
    # One broker's classes are all brokers' classes.
    noted = (
        [f"-XX:DumpLoadedClassList={place.classes}"]
        if index == 0 and runtime.archive and runtime.archive.wanted()
        else []
    )
    command = runtime.command(
        "kafka.Kafka", [str(config)], [marked, *noted, *logging_options(place, index)]
    )
    try:
        # What the JVM itself prints (a crash, no memory) belongs into the same log.
        with place.log(index).open("ab") as log:
            child = subprocess.Popen(
                command,
                env=runtime.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=place.broker_folder(index),
            )
    except OSError as error:
        raise ClusterError(
            f"broker {index} of {place.region} could not be started: {error}"
        ) from None
    try:
        started_at = psutil.Process(child.pid).create_time()
    except psutil.NoSuchProcess:
        started_at = 0.0
    return child, ProcessRecord(child.pid, started_at, marked)


def stop_processes(
    processes: Sequence[psutil.Process], timeout_s: float = STOP_TIMEOUT_S
) -> list[int]:
    """Stop processes: SIGTERM to all, and SIGKILL to those that live on after `timeout_s`.

    Returns the pids that had to be killed. psutil refuses to signal a pid that was recycled.
    """
    for process in processes:
        _signal(process.terminate)
    alive = _living(processes, timeout_s)
    for process in alive:
        _signal(process.kill)
    immortal = _living(alive, KILL_TIMEOUT_S)
    if immortal:
        raise ClusterError(
            f"processes {', '.join(str(p.pid) for p in immortal)} did not end even by SIGKILL: is their disk hanging?"
        )
    return [process.pid for process in alive]


def _living(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until all have ended; returns those that have not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    living = list(processes)
    while living := [process for process in living if not _ended(process)]:
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)
    return living


def _ended(process: psutil.Process) -> bool:
    try:
        process.wait(0)  # reaps a child of ours
        return True
    except psutil.TimeoutExpired:
        # The child of a process that lives on and does not look is a zombie: ended all the same.
        with contextlib.suppress(psutil.NoSuchProcess):
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        return True


def answers(port: int) -> bool:
    """Whether something on this machine accepts connections on `port`."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def last_error(log: Path, since: int = 0) -> str:
    """The line of a broker's log that best tells why it ended: the last ERROR or FATAL, or the last."""
    try:
        with log.open("rb") as file:
            file.seek(since)
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return "its log cannot be read"
    errors = [
        line for line in lines if " ERROR " in line or " FATAL " in line or "Exception" in line
    ]
    return (errors or lines or ["its log is empty"])[-1].strip()[:400]


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        send()


def logging_options(place: Layout, index: int) -> list[str]:
    """JVM options that send a broker's log into its file."""
    return [
        f"-Dlog4j2.configurationFile={place.log_config(index).as_uri()}",
        f"-Dheadrace.log={place.log(index)}",
    ]
