"""A local region: one or three brokers that start, stop, and are wiped together."""

from __future__ import annotations

import base64
import contextlib
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import psutil

from infra.cluster.broker import Runtime, format_folder, start_broker, stop_processes
from infra.cluster.jars import cached_classpath
from infra.cluster.java import find_java
from infra.cluster.layout import BROKER_COUNTS, Layout, default_port, layout, region_folder
from infra.cluster.locking import locked
from infra.cluster.ports import check_ports
from infra.cluster.ready import wait_ready
from infra.cluster.state import RegionState, read_state, write_state
from schemas.errors import ClusterError
from streams.settings import Settings

# Kafka keeps an active segment of up to 1 GB a partition; below this even the demo is at risk.
DISK_FREE_MIN_MB: Final = 512
# As long as a start on an overloaded machine and the first download may take together.
LOCK_TIMEOUT_S: Final = 700.0

Report = Callable[[str], None]


def bootstrap(settings: Settings) -> str:
    """Bootstrap servers for clients: the setting, else the region's brokers, else its default port."""
    if settings.bootstrap:
        return settings.bootstrap
    state = read_state(region_folder(settings))
    if state is None:
        return f"127.0.0.1:{settings.kafka_port or default_port(settings.region)}"
    return layout_of(settings, state).bootstrap


def layout_of(settings: Settings, state: RegionState) -> Layout:
    """The layout of a region as it was last started, whatever the settings say now."""
    return Layout(state.region, region_folder(settings), state.base_port, state.brokers)


def start(settings: Settings, brokers: int | None = None, report: Report = lambda message: None) -> RegionState:
    """Start the region, or what is missing of it, and return when it is ready.

    `brokers` None means: as many as it was formatted for, else one. A region that runs already is
    left alone. When the start fails or is interrupted, all that it started is stopped again.
    """
    if brokers is not None and brokers not in BROKER_COUNTS:
        raise ClusterError(f"a local region has 1 or 3 brokers, not {brokers}")
    with locked(_lock_file(settings), LOCK_TIMEOUT_S, f"another start or stop of region {settings.region}"):
        state = read_state(region_folder(settings))
        if state is not None and brokers not in (None, state.brokers):
            raise ClusterError(
                f"region {state.region} was formatted for {state.brokers} broker(s), and {brokers} were asked for: "
                f"`headrace down --wipe --region {state.region}` removes its data, then start it anew"
            )
        if state is not None and all(state.living()):
            report(f"region {state.region} is already running at {layout_of(settings, state).bootstrap}")
            return state
        return _start_missing(settings, state, brokers or 1, report)


def stop(settings: Settings, *, wipe: bool = False, report: Report = lambda message: None) -> bool:
    """Stop the region's brokers and, with `wipe`, remove its data. True if any broker was running."""
    folder = region_folder(settings)
    with locked(_lock_file(settings), LOCK_TIMEOUT_S, f"another start or stop of region {settings.region}"):
        state = read_state_or_wipe(folder, wipe)
        running = [process for process in state.living() if process] if state else []
        killed = stop_processes(running)
        if killed:
            report(f"{len(killed)} broker(s) did not stop in time and were killed; their next start checks their data")
        if state:
            write_state(folder, RegionState(state.region, state.cluster_id, state.base_port, (None,) * state.brokers))
        if wipe:
            _remove(folder)
    return bool(running)


def read_state_or_wipe(folder: Path, wipe: bool) -> RegionState | None:
    """The state; with `wipe`, an unreadable one counts as none, since `--wipe` is the way out of it."""
    try:
        return read_state(folder)
    except ClusterError:
        if not wipe:
            raise
        return None


def runtime(settings: Settings, report: Report = lambda message: None) -> Runtime:
    """What starts a Kafka class on this machine: Java and the jars, fetched if need be."""
    java, version = find_java(settings.java)
    if settings.kafka_home is None:
        classpath = cached_classpath(settings.cache.expanduser(), report=report)
    else:
        classpath = sorted((settings.kafka_home.expanduser() / "libs").glob("*.jar"))
        if not any(path.name.startswith("kafka_2") for path in classpath):
            raise ClusterError(f"{settings.kafka_home} is no unpacked Kafka (no libs/kafka_2*.jar in it): correct HEADRACE_KAFKA_HOME")
    return Runtime(java, version, tuple(path.absolute() for path in classpath), settings.kafka_heap_mb)


def _start_missing(settings: Settings, state: RegionState | None, brokers: int, report: Report) -> RegionState:
    folder = region_folder(settings)
    if state is None:
        _check_unknown_folder(folder)
        state = RegionState(settings.region, new_cluster_id(), 0, (None,) * brokers)
    living = state.living()
    if not any(living):
        # A region that is down may move to another port; one that half runs may not.
        state = RegionState(state.region, state.cluster_id, layout(settings, 1).base_port, (None,) * state.brokers)
    place = layout_of(settings, state)
    missing = [index for index, process in enumerate(living) if process is None]
    check_ports(place, missing)
    _check_disk(folder)
    java = runtime(settings, report)
    with _undone(folder, existed=(folder / "region.json").exists()):
        _format_all(place, missing, state.cluster_id, java)
    return _start_and_wait(place, state, missing, java, report)


def _start_and_wait(place: Layout, state: RegionState, missing: list[int], java: Runtime, report: Report) -> RegionState:
    children: dict[int, subprocess.Popen[bytes]] = {}
    offsets = {index: _size(place.log(index)) for index in range(place.brokers)}
    report(f"starting {len(missing)} broker(s) of region {place.region}")
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


def _abandon(place: Layout, state: RegionState, children: dict[int, subprocess.Popen[bytes]]) -> None:
    """Stop what an unfinished start has started, and note that it is stopped."""
    processes = []
    for child in children.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(child.pid))
    stop_processes(processes)
    for index, child in children.items():
        child.poll()
        child.returncode = child.returncode or 0
        state = state.with_process(index, None)
    write_state(place.folder, state)


def _format_all(place: Layout, indexes: list[int], cluster_id: str, java: Runtime) -> None:
    with ThreadPoolExecutor(max_workers=len(indexes)) as pool:
        futures = [pool.submit(format_folder, place, index, cluster_id, java) for index in indexes]
    for future in futures:
        future.result()


@contextlib.contextmanager
def _undone(folder: Path, *, existed: bool) -> Iterator[None]:
    """Remove the folder of a region whose very first format fails: it holds nothing yet."""
    try:
        yield
    except BaseException:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_unknown_folder(folder: Path) -> None:
    strange = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []
    if strange:
        raise ClusterError(
            f"{folder} holds {', '.join(strange[:5])} but no region.json, so it is no region of ours or a damaged one: "
            "`headrace down --wipe` removes it, or set HEADRACE_HOME to another folder"
        )


def _check_disk(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free_mb = shutil.disk_usage(folder).free // 1_000_000
    except OSError as error:
        raise ClusterError(f"{folder} cannot be used ({error}): set HEADRACE_HOME to a folder that can be written") from None
    if free_mb < DISK_FREE_MIN_MB:
        raise ClusterError(f"{free_mb} MB are free in {folder}, and a region needs {DISK_FREE_MIN_MB}: free some, or set HEADRACE_HOME to another disk")


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ClusterError(f"{folder} could not be removed completely ({error}): remove it by hand") from None


def _lock_file(settings: Settings) -> Path:
    folder = region_folder(settings)
    return folder.with_name(f"{folder.name}.lock")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def new_cluster_id() -> str:
    """A cluster id as Kafka makes them: a UUID in URL-safe base 64, which no option parser takes for a flag."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
