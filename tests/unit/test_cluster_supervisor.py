"""The supervisor, with real tiny processes; only its clock is sometimes ours."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.supervisor import BACKOFF_MAX_S, HEALTHY_AFTER_S, ChildStatus, Supervisor, backoff_s
from schemas.errors import ClusterError

WAIT_S = 20.0
# /bin/sh starts in a millisecond, Python in thirty.
SLEEP = ("/bin/sh", "-c", "exec sleep 60")
DIE = ("/bin/sh", "-c", "echo dying; exit 7")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_S} s for {what}"
        time.sleep(0.01)


def only(supervisor: Supervisor) -> ChildStatus:
    (status,) = supervisor.status()
    return status


class Clock:
    """A clock that the test moves; the supervisor's thread still polls in real time."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def supervisor(clock: Clock, lines: list[str]) -> Iterator[Supervisor]:
    def wait(event: threading.Event, seconds: float) -> bool:
        return event.wait(min(seconds, 0.01))

    with Supervisor(clock=clock, wait=wait, report=lines.append, stop_timeout_s=5.0) as one:
        yield one


def test_the_first_restart_is_immediate_and_later_ones_wait_longer() -> None:
    assert [backoff_s(failures) for failures in (1, 2, 3, 4, 5, 6, 7, 1_000_000)] == [
        0,
        0.5,
        1,
        2,
        4,
        8,
        BACKOFF_MAX_S,
        BACKOFF_MAX_S,
    ]


def test_a_child_runs_with_its_environment_and_log(supervisor: Supervisor, tmp_path: Path) -> None:
    log = tmp_path / "deep" / "child.log"
    supervisor.start(
        "child",
        ("/bin/sh", "-c", 'echo "$GREETING"; echo oops >&2; exec sleep 60'),
        log=log,
        environment={"GREETING": "hello", "PATH": os.environ["PATH"]},
    )
    wait_until(lambda: log.read_text() == "hello\noops\n", "the child's output")
    status = only(supervisor)
    assert status.pid is not None
    assert (status.name, status.restarts, status.exit_code) == ("child", 0, None)


def test_a_child_leads_its_own_session(supervisor: Supervisor, tmp_path: Path) -> None:
    pid = supervisor.start("child", SLEEP, log=tmp_path / "log")
    assert os.getsid(pid) == pid != os.getsid(0)


def test_a_killed_child_is_restarted_at_once(
    supervisor: Supervisor, tmp_path: Path, lines: list[str]
) -> None:
    first = supervisor.start("child", SLEEP, log=tmp_path / "log")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: only(supervisor).pid not in (None, first), "a second life")
    status = only(supervisor)
    assert (status.restarts, status.exit_code) == (1, -signal.SIGKILL)
    assert "child ended with code -9; it starts again in 0.0 s" in lines[0]


def test_a_child_that_keeps_dying_waits_longer_each_time(
    supervisor: Supervisor, clock: Clock, tmp_path: Path, lines: list[str]
) -> None:
    supervisor.start("child", DIE, log=tmp_path / "log")
    waited = [0.0]
    for step in (0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        deaths = len(waited) + 1
        wait_until(lambda deaths=deaths: len(lines) == deaths, f"death {deaths}")
        assert f"starts again in {step:.1f} s" in lines[-1]
        restarts = only(supervisor).restarts
        clock.now_s += step - 0.01
        time.sleep(0.05)
        assert only(supervisor).restarts == restarts
        clock.now_s += 0.02
        waited.append(step)
    assert only(supervisor).exit_code == 7
    assert (tmp_path / "log").read_text().startswith("dying\ndying\n")


def test_a_minute_of_health_forgives(
    supervisor: Supervisor, clock: Clock, tmp_path: Path, lines: list[str]
) -> None:
    pid = supervisor.start("child", SLEEP, log=tmp_path / "log")
    for deaths, lived_s in enumerate((0.0, 0.0, HEALTHY_AFTER_S), start=1):
        clock.now_s += lived_s
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda deaths=deaths: len(lines) == deaths, f"death {deaths}")
        if deaths == 2:
            assert "in 0.5 s" in lines[-1]
            clock.now_s += 0.5
        wait_until(lambda: only(supervisor).pid is not None, "the next life")
        pid = only(supervisor).pid or 0
    assert "in 0.0 s" in lines[-1]


def test_other_children_are_left_alone_when_one_dies(
    supervisor: Supervisor, tmp_path: Path, lines: list[str]
) -> None:
    calm = supervisor.start("calm", SLEEP, log=tmp_path / "calm")
    supervisor.start("restless", DIE, log=tmp_path / "restless")
    wait_until(lambda: len(lines) >= 2, "two deaths")
    assert supervisor.status()[0] == ChildStatus("calm", calm, 0, None, "")


def test_stop_ends_all_and_restarts_none(supervisor: Supervisor, tmp_path: Path) -> None:
    pids = [supervisor.start(f"child-{number}", SLEEP, log=tmp_path / "log") for number in range(3)]
    supervisor.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert [status.exit_code for status in supervisor.status()] == [-signal.SIGTERM] * 3
    time.sleep(0.05)
    assert all(status.pid is None for status in supervisor.status())
    supervisor.stop()
    with pytest.raises(ClusterError, match="supervisor was stopped"):
        supervisor.start("late", SLEEP, log=tmp_path / "log")


def test_a_deaf_child_and_its_children_are_killed(tmp_path: Path) -> None:
    deaf = "trap '' TERM; sleep 60 & echo $!; while true; do sleep 0.1; done"
    log = tmp_path / "log"
    with Supervisor(stop_timeout_s=0.3) as supervisor:
        pid = supervisor.start("deaf", ("/bin/sh", "-c", deaf), log=log)
        wait_until(lambda: log.read_text().endswith("\n"), "its child")
    grandchild = int(log.read_text())
    assert not psutil.pid_exists(pid)
    wait_until(lambda: not _alive(grandchild), "the grandchild's end")


def test_what_a_dead_child_started_goes_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pid = supervisor.start(
        "parent", ("/bin/sh", "-c", "sleep 60 & echo $!; exec sleep 61"), log=log
    )
    wait_until(lambda: log.read_text().endswith("\n"), "its child")
    grandchild = int(log.read_text())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _alive(grandchild), "the grandchild's end")


def test_stop_waits_for_a_child_that_ends_well(supervisor: Supervisor, tmp_path: Path) -> None:
    log = tmp_path / "log"
    polite = "import signal,sys,time\nsignal.signal(signal.SIGTERM, lambda *a: (time.sleep(0.3), print('bye', flush=True), sys.exit(0)))\nprint('hi', flush=True)\ntime.sleep(60)"
    supervisor.start("polite", (sys.executable, "-c", polite), log=log)
    wait_until(lambda: "hi" in log.read_text(), "its start")
    supervisor.stop()
    assert log.read_text() == "hi\nbye\n"
    assert only(supervisor).exit_code == 0


def test_one_child_can_be_removed(supervisor: Supervisor, tmp_path: Path) -> None:
    gone = supervisor.start("gone", SLEEP, log=tmp_path / "log")
    kept = supervisor.start("kept", SLEEP, log=tmp_path / "log")
    supervisor.remove("gone")
    supervisor.remove("never was")
    assert not psutil.pid_exists(gone)
    assert only(supervisor).pid == kept
    assert supervisor.start("gone", SLEEP, log=tmp_path / "log") != gone


def test_a_program_that_is_not_there_is_told_at_once(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match=r"ghost cannot be started: .*No such file"):
        supervisor.start("ghost", ("/no/such/program",), log=tmp_path / "log")
    assert supervisor.status() == []


def test_a_program_that_vanishes_is_retried(
    supervisor: Supervisor, clock: Clock, tmp_path: Path, lines: list[str]
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    pid = supervisor.start("child", (str(program),), log=tmp_path / "log")
    wait_until(lambda: psutil.Process(pid).name() == "sleep", "the script to be read")
    program.rename(tmp_path / "elsewhere")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: only(supervisor).problem != "", "a failed restart")
    assert "No such file" in lines[-1]
    (tmp_path / "elsewhere").rename(program)
    clock.now_s += BACKOFF_MAX_S
    wait_until(lambda: only(supervisor).pid is not None, "a restart")
    assert only(supervisor).problem == ""


def test_a_name_is_used_once(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start("child", SLEEP, log=tmp_path / "log")
    with pytest.raises(ClusterError, match="already supervised"):
        supervisor.start("child", SLEEP, log=tmp_path / "log")


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
