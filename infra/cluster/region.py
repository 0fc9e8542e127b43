"""A local region: one or three brokers that start, stop, and are wiped together."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from infra.cluster.archive import archive_for
from infra.cluster.broker import Runtime, mark, start_broker, stop_processes
from infra.cluster.folders import check_disk, check_unknown, make_folder, remove_region
from infra.cluster.formatting import format_folders
from infra.cluster.jars import MARKER, Fetcher, cached_classpath
from infra.cluster.java import find_java
from infra.cluster.layout import BROKER_COUNTS, Layout, layout, region_folder
from infra.cluster.locking import locked
from infra.cluster.ports import check_ports
from infra.cluster.ready import wait_ready
from infra.cluster.state import RegionState, read_state, write_state
from schemas.errors import ClusterError
from streams.settings import Settings

# A few topics' active segments and indexes; below this even the demo is at risk.
DISK_FREE_MIN_MB: Final = 512
# As long as the first download and a start on an overloaded machine may take together.
LOCK_TIMEOUT_S: Final = 700.0

Report = Callable[[str], None]


def quiet(message: str) -> None:
    """A report that goes nowhere."""


def bootstrap(settings: Settings) -> str:
    """Bootstrap servers for clients: the setting, else the running region's brokers, else its default port."""
    if settings.bootstrap:
        return settings.bootstrap
    state = read_state(region_folder(settings))
    if state is not None and any(state.living()):
        return layout_of(settings, state).bootstrap
    return layout(settings, state.brokers if state else 1).bootstrap


def layout_of(settings: Settings, state: RegionState) -> Layout:
    """The layout of a region as it was last started, whatever the settings say now."""
    return Layout(state.region, region_folder(settings), state.base_port, state.brokers)


def start(settings: Settings, brokers: int | None = None, report: Report = quiet) -> RegionState:
    """Start the region, or what is missing of it, and return when it is ready.

    `brokers` None means: as many as it was formatted for, else one. A region that runs already is
    left alone. When the start fails or is interrupted, all that it started is stopped again.
    """
    if brokers is not None and brokers not in BROKER_COUNTS:
        raise ClusterError(f"a local region has 1 or 3 brokers, not {brokers}")
    make_folder(region_folder(settings).parent, "HEADRACE_HOME")
    with _lock(settings):
        state = read_state(region_folder(settings))
        if state is None:
            return _start_first(settings, brokers or 1, report)
        if brokers not in (None, state.brokers):
            raise ClusterError(
                f"region {state.region} was formatted for {state.brokers} broker(s), and {brokers} were asked for: "
                f"`headrace down --wipe --region {state.region}` removes its data; then start it anew"
            )
        if all(state.living()):
            # Perhaps only just: its starter may have been killed before it was ready.
            wait_ready(layout_of(settings, state), {}, {})
            report(f"region {state.region} is already running")
            return state
        return _start_missing(settings, state, report)


def stop(settings: Settings, *, wipe: bool = False, report: Report = quiet) -> bool:
    """Stop the region's brokers and, with `wipe`, remove its data. True if any broker was running."""
    folder = region_folder(settings)
    if not folder.parent.is_dir():
        return False
    with _lock(settings):
        running = find_brokers(folder)
        killed = stop_processes(running)
        if killed:
            report(
                f"{len(killed)} broker(s) did not stop in time and were killed; their next start checks their data"
            )
        state = _readable_state(folder, wipe)
        if state is not None:
            _make_archive(settings, state)
        if wipe:
            foreign = remove_region(folder)
            if foreign:
                report(f"{folder} stays, since these are not ours: {', '.join(foreign[:5])}")
        elif state is not None:
            write_state(folder, state.stopped())
    return bool(running)


def _readable_state(folder: Path, wipe: bool) -> RegionState | None:
    try:
        return read_state(folder)
    except ClusterError:
        if wipe:  # it is the way out of a damaged file
            return None
        raise


def find_brokers(folder: Path) -> list[psutil.Process]:
    """All living brokers of the region in `folder`, also those that its state file does not know.

    They are known by an argument that names the folder, so a lost or damaged file strands nothing.
    """
    prefix = mark(folder / "broker-")
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if any(argument.startswith(prefix) for argument in process.cmdline()):
                found.append(process)
    return found


def runtime(
    settings: Settings, report: Report = quiet, fetcher: Callable[[], Fetcher] | None = None
) -> Runtime:
    """What starts a Kafka class on this machine: Java and the jars, fetched if need be."""
    java, version = find_java(settings.java)
    if settings.kafka_home is None:
        classpath = cached_classpath(
            settings.cache.expanduser().absolute(), fetcher=fetcher, report=report
        )
        folder = classpath[0].parent
        return Runtime(
            java,
            version,
            tuple(classpath),
            settings.kafka_heap_mb,
            archive_for(folder, java, (folder / MARKER).read_text("utf-8")),
        )
    classpath = sorted((settings.kafka_home.expanduser().absolute() / "libs").glob("*.jar"))
    if not any(path.name.startswith("kafka_2.13-4.") for path in classpath):
        raise ClusterError(
            f"{settings.kafka_home} is no unpacked Kafka 4 (no libs/kafka_2.13-4.*.jar in it): correct HEADRACE_KAFKA_HOME"
        )
    return Runtime(java, version, tuple(classpath), settings.kafka_heap_mb)


def _make_archive(settings: Settings, state: RegionState) -> None:
    """After a region that noted its classes has stopped: have them archived for the next starts."""
    noted = layout_of(settings, state).classes
    if not noted.is_file():
        return
    with contextlib.suppress(ClusterError):  # without jars there is nothing to make faster
        java = runtime(settings, fetcher=_no_fetcher)
        if java.archive:
            java.archive.make(noted, java.jvm(), java.environment())
    noted.unlink(missing_ok=True)


def _no_fetcher() -> Fetcher:
    raise ClusterError("a stop fetches nothing")


def _start_first(settings: Settings, brokers: int, report: Report) -> RegionState:
    """The first start of a region; if its format fails, nothing is left of it."""
    folder = region_folder(settings)
    check_unknown(folder)
    state = RegionState(
        settings.region, new_cluster_id(), layout(settings, brokers).base_port, (None,) * brokers
    )
    formatted = False

    def note() -> None:
        nonlocal formatted
        formatted = True

    try:
        return _start_missing(settings, state, report, note)
    except BaseException:
        if not formatted:
            remove_region(folder)
        raise


def _start_missing(
    settings: Settings,
    state: RegionState,
    report: Report,
    formatted: Callable[[], None] = lambda: None,
) -> RegionState:
    """Format and start the brokers that do not run; `formatted` is called between the two."""
    living = state.living()
    if not any(living):
        # A region that is down may move to another port; one that half runs may not.
        state = state.stopped(layout(settings, state.brokers).base_port)
    place = layout_of(settings, state)
    missing = [index for index, process in enumerate(living) if process is None]
    # A starter that was killed between starting a broker and noting it leaves a stranger behind,
    # which would fight the new broker for its folder.
    known = {process.pid for process in living if process is not None}
    strays = [process for process in find_brokers(place.folder) if process.pid not in known]
    if strays:
        report(f"stopping {len(strays)} broker(s) that an unfinished start left behind")
        stop_processes(strays)
    check_ports(place, missing)
    check_disk(place.folder, DISK_FREE_MIN_MB, "HEADRACE_HOME")
    java = runtime(settings, report)
    make_folder(place.folder, "HEADRACE_HOME")
    write_state(place.folder, state)
    format_folders(place, missing, state.cluster_id, java)
    formatted()
    return _start_and_wait(place, state, missing, java, report)


def _start_and_wait(
    place: Layout, state: RegionState, missing: list[int], java: Runtime, report: Report
) -> RegionState:
    children: dict[int, subprocess.Popen[bytes]] = {}
    report(f"starting {len(missing)} broker(s) of region {place.region}")
    offsets = {index: _size(place.log(index)) for index in missing}
    try:
        for index in missing:
            children[index], record = start_broker(place, index, java)
            # Written at once: should this process be killed, `headrace down` still finds them.
            state = state.with_process(index, record)
            write_state(place.folder, state)
        wait_ready(place, children, offsets)
    except BaseException:
        _abandon(place, state, children)
        raise
    for child in children.values():
        # The brokers are meant to outlive this object; without a code it would warn about that.
        child.returncode = 0
    return state


def _abandon(
    place: Layout, state: RegionState, children: dict[int, subprocess.Popen[bytes]]
) -> None:
    """Stop what an unfinished start has started, and note that it is stopped."""
    processes = []
    for child in children.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(child.pid))
    stop_processes(processes)
    for index, child in children.items():
        child.wait(timeout=1)
        state = state.with_process(index, None)
    write_state(place.folder, state)


def _lock(settings: Settings) -> contextlib.AbstractContextManager[None]:
    folder = region_folder(settings)
    return locked(
        folder.with_name(f"{folder.name}.lock"),
        LOCK_TIMEOUT_S,
        f"another start or stop of region {settings.region}",
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def new_cluster_id() -> str:
    """A cluster id as Kafka makes them: a UUID in URL-safe base 64, which no option parser takes for a flag."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
