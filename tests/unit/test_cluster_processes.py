"""Processes of a local region: whose they are, how they stop, who holds a port or a lock."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from infra.cluster.archive import ATTEMPT_MAX_S, Archive, archive_for
from infra.cluster.broker import last_error, mark, stop_processes
from infra.cluster.folders import check_disk, check_unknown, remove_region
from infra.cluster.formatting import check_folder
from infra.cluster.java import bundled_java, find_java, java_version
from infra.cluster.layout import Layout
from infra.cluster.locking import locked
from infra.cluster.ports import check_ports, is_free
from infra.cluster.region import bootstrap, find_brokers, new_cluster_id
from infra.cluster.state import ProcessRecord, RegionState, read_state, write_state
from schemas.errors import ClusterError
from streams.settings import load_settings

WAIT_S = 20.0
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for child in started:
        child.kill()
        child.wait(WAIT_S)
        if child.stdout:
            child.stdout.close()


def spawn(
    children: list[subprocess.Popen[bytes]], code: str, *arguments: str
) -> subprocess.Popen[bytes]:
    """A Python child that has run `code` and then waits; returns when it has."""
    script = f"import signal, time\n{code}\nprint('ready', flush=True)\ntime.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE)
    children.append(child)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def record(child: subprocess.Popen[bytes], text: str) -> ProcessRecord:
    return ProcessRecord(child.pid, psutil.Process(child.pid).create_time(), text)


class TestProcessRecord:
    def test_finds_its_process(self, children: list[subprocess.Popen[bytes]]) -> None:
        child = spawn(children, "", "--mark")
        found = record(child, "--mark").find()
        assert found is not None
        assert found.pid == child.pid

    def test_never_takes_a_recycled_pid_for_its_own(
        self, children: list[subprocess.Popen[bytes]]
    ) -> None:
        child = spawn(children, "", "--mark")
        right = record(child, "--mark")
        assert ProcessRecord(right.pid, right.started_at - 60, right.mark).find() is None
        assert ProcessRecord(right.pid, right.started_at, "--other").find() is None

    def test_the_dead_are_dead(self, children: list[subprocess.Popen[bytes]]) -> None:
        child = spawn(children, "", "--mark")
        dead = record(child, "--mark")
        child.kill()
        deadline = time.monotonic() + WAIT_S
        while dead.find() is not None:  # a zombie by then, since nobody waits for it
            assert time.monotonic() < deadline
        child.wait(WAIT_S)
        assert dead.find() is None


class TestState:
    STATE = RegionState("east", CLUSTER, 19_092, (ProcessRecord(7, 1.5, "-Dmark"), None, None))

    def test_reads_back_as_written(self, tmp_path: Path) -> None:
        write_state(tmp_path / "east", self.STATE)
        assert read_state(tmp_path / "east") == self.STATE
        assert [path.name for path in (tmp_path / "east").iterdir()] == ["region.json"]

    def test_a_region_that_never_was_has_none(self, tmp_path: Path) -> None:
        assert read_state(tmp_path / "east") is None

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"region": "east"}'])
    def test_a_damaged_file_is_one_clear_message(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "region.json").write_text(text)
        with pytest.raises(ClusterError, match=r"region\.json cannot be read .* down --wipe"):
            read_state(tmp_path)

    def test_clients_find_the_default_port_of_a_region_that_is_down(self, tmp_path: Path) -> None:
        settings = load_settings(home=tmp_path, region="west")
        assert bootstrap(settings) == "127.0.0.1:29092"
        write_state(tmp_path / "west", RegionState("west", CLUSTER, 5555, (None, None, None)))
        assert bootstrap(settings) == "127.0.0.1:29092,127.0.0.1:29093,127.0.0.1:29094"
        assert bootstrap(load_settings(home=tmp_path, bootstrap="there:1")) == "there:1"

    def test_clients_find_a_running_region_wherever_it_listens(
        self, tmp_path: Path, children: list[subprocess.Popen[bytes]]
    ) -> None:
        child = spawn(children, "", "--mark")
        write_state(
            tmp_path / "east", RegionState("east", CLUSTER, 5555, (record(child, "--mark"),))
        )
        assert bootstrap(load_settings(home=tmp_path)) == "127.0.0.1:5555"


class TestStop:
    def test_stops_politely(self, children: list[subprocess.Popen[bytes]]) -> None:
        child = spawn(children, "")
        assert stop_processes([psutil.Process(child.pid)], timeout_s=WAIT_S) == []

    def test_kills_the_deaf(self, children: list[subprocess.Popen[bytes]]) -> None:
        child = spawn(children, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
        assert stop_processes([psutil.Process(child.pid)], timeout_s=0.2) == [child.pid]
        assert not psutil.pid_exists(child.pid)

    def test_the_already_dead_are_no_error(self, children: list[subprocess.Popen[bytes]]) -> None:
        child = spawn(children, "")
        process = psutil.Process(child.pid)
        child.send_signal(signal.SIGKILL)
        child.wait(WAIT_S)
        assert stop_processes([process]) == []

    def test_a_zombie_of_another_process_has_ended(
        self, children: list[subprocess.Popen[bytes]]
    ) -> None:
        neglect = "import subprocess\nchild = subprocess.Popen(['sleep', '60'])\nprint(child.pid, flush=True)"
        parent = subprocess.Popen(
            [sys.executable, "-c", f"{neglect}\nimport time\ntime.sleep(60)"],
            stdout=subprocess.PIPE,
        )
        children.append(parent)
        assert parent.stdout is not None
        neglected = psutil.Process(int(parent.stdout.readline()))
        assert stop_processes([neglected], timeout_s=WAIT_S) == []
        assert neglected.status() == psutil.STATUS_ZOMBIE

    def test_brokers_are_found_without_their_state_file(
        self, tmp_path: Path, children: list[subprocess.Popen[bytes]]
    ) -> None:
        child = spawn(children, "", mark(tmp_path / "east" / "broker-0"))
        spawn(children, "", mark(tmp_path / "east-2" / "broker-0"))
        assert [process.pid for process in find_brokers(tmp_path / "east")] == [child.pid]


class TestPorts:
    def test_a_taken_port_is_named_with_its_owner(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert not is_free(port)
            with pytest.raises(
                ClusterError,
                match=rf"port\(s\) {port} \(process {os.getpid()}, .*HEADRACE_KAFKA_PORT",
            ):
                check_ports(Layout("east", tmp_path, port, 1), [0])
        assert is_free(port)

    def test_a_server_on_all_addresses_counts(self) -> None:
        with socket.create_server(("0.0.0.0", 0)) as server:
            assert not is_free(server.getsockname()[1])


class TestLock:
    def test_one_at_a_time(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "lock"
        waits = pytest.raises(ClusterError, match=r"waited 0 s for another test .*lock")
        with locked(path, 1.0, "a test"), waits, locked(path, 0.2, "another test"):
            pass
        with locked(path, 1.0, "a third"):
            pass

    def test_a_dead_holder_frees_it(
        self, tmp_path: Path, children: list[subprocess.Popen[bytes]]
    ) -> None:
        path = tmp_path / "lock"
        hold = f"import fcntl\nfile = open({str(path)!r}, 'a')\nfcntl.flock(file, fcntl.LOCK_EX)"
        child = spawn(children, hold)
        with ExitStack() as stack:
            with pytest.raises(ClusterError):
                stack.enter_context(locked(path, 0.1, "it"))
            child.kill()
            stack.enter_context(locked(path, WAIT_S, "it"))


class TestFolders:
    META = f"#\n#Fri Nov 21\ncluster.id={CLUSTER}\ndirectory.id=yB9X\nnode.id=1\nversion=1\n"

    def test_a_formatted_folder_passes(self, tmp_path: Path) -> None:
        (tmp_path / "meta.properties").write_text(self.META)
        check_folder(tmp_path, 0, CLUSTER)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, r"half formatted \(meta.properties: missing\)"),
            ("", "lacks cluster.id, directory.id, node.id, version"),
            (META[: META.index("node.id")], "lacks node.id, version"),
            (
                META.replace("node.id=1", "node.id=2"),
                "belongs to another broker .node.id is 2, and 1",
            ),
            (META.replace(CLUSTER, "other"), "belongs to another broker .cluster.id is other"),
        ],
    )
    def test_any_other_says_what_is_wrong_and_what_to_do(
        self, tmp_path: Path, text: str | None, said: str
    ) -> None:
        if text is not None:
            (tmp_path / "meta.properties").write_text(text)
        with pytest.raises(ClusterError, match=f"{said}.*down --wipe"):
            check_folder(tmp_path, 0, CLUSTER)

    def test_too_little_disk_is_told_before_anything_is_made(self, tmp_path: Path) -> None:
        class Usage:
            free = 3_000_000

        folder = tmp_path / "not" / "yet"
        with pytest.raises(
            ClusterError, match=r"3 MB are free in .*, and 512 are needed.*HEADRACE_HOME"
        ):
            check_disk(folder, 512, "HEADRACE_HOME", lambda path: Usage())
        check_disk(folder, 3, "HEADRACE_HOME", lambda path: Usage())
        check_disk(folder, 1, "HEADRACE_HOME")
        assert not folder.parent.exists()

    def test_wiping_removes_what_is_ours_and_nothing_else(self, tmp_path: Path) -> None:
        (tmp_path / "east" / "broker-0" / "data").mkdir(parents=True)
        (tmp_path / "east" / "region.json").write_text("{}")
        (tmp_path / "east" / "thesis.tex").write_text("years of work")
        assert remove_region(tmp_path / "east") == ["thesis.tex"]
        assert [path.name for path in (tmp_path / "east").iterdir()] == ["thesis.tex"]
        (tmp_path / "east" / "thesis.tex").unlink()
        assert remove_region(tmp_path / "east") == []
        assert not (tmp_path / "east").exists()
        assert remove_region(tmp_path / "east") == []

    def test_a_folder_of_somebody_else_is_not_used(self, tmp_path: Path) -> None:
        check_unknown(tmp_path / "nowhere")
        check_unknown(tmp_path)
        (tmp_path / "broker-0").mkdir()
        with pytest.raises(ClusterError, match="damaged region"):
            check_unknown(tmp_path)
        (tmp_path / "notes").write_text("")
        with pytest.raises(ClusterError, match=r"no region of ours .it holds broker-0, notes"):
            check_unknown(tmp_path)


class TestJava:
    @staticmethod
    def fake(tmp_path: Path, answer: str, code: int = 0) -> Path:
        path = tmp_path / "java"
        path.write_text(f"#!/bin/sh\necho '{answer}' >&2\nexit {code}\n")
        path.chmod(0o755)
        return path

    def test_the_given_one_wins(self, tmp_path: Path) -> None:
        java = self.fake(tmp_path, 'openjdk version "21.0.2" 2024-01-16')
        assert find_java(java) == (java, 21)

    def test_else_the_one_from_pip(self) -> None:
        assert find_java(None) == bundled_java()

    def test_what_cannot_run_kafka_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match="is Java 11, and Kafka needs 17"):
            java_version(self.fake(tmp_path, 'openjdk version "11.0.1"'))
        with pytest.raises(ClusterError, match="does not answer like Java"):
            java_version(self.fake(tmp_path, "hello"))
        with pytest.raises(ClusterError, match="does not answer like Java"):
            java_version(self.fake(tmp_path, 'openjdk version "21"', code=1))
        with pytest.raises(ClusterError, match="does not run as Java"):
            java_version(tmp_path / "nothing")


class TestLog:
    def test_the_error_of_this_start_is_found(self, tmp_path: Path) -> None:
        log = tmp_path / "server.log"
        assert last_error(log) == "its log cannot be read"
        log.write_text("old ERROR of yesterday\n")
        since = log.stat().st_size
        assert last_error(log, since) == "its log is empty"
        with log.open("a") as file:
            file.write("a INFO x\nb ERROR the disk is full\n\tat java.lang.Thread\nc INFO bye\n")
        assert last_error(log, since) == "b ERROR the disk is full"


class TestArchive:
    ENVIRONMENT: ClassVar = {"PATH": os.environ["PATH"]}

    @staticmethod
    def wait(archive: Archive) -> None:
        deadline = time.monotonic() + WAIT_S
        while archive.classes.exists() or archive.partial.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @pytest.fixture
    def archive(self, tmp_path: Path) -> Archive:
        (tmp_path / "noted").write_text("java/lang/Object\n")
        return archive_for(tmp_path, Path(sys.executable), "stamp")

    def test_it_appears_when_it_is_whole(self, archive: Archive, tmp_path: Path) -> None:
        jvm = ["/bin/sh", "-c", 'for last; do :; done; echo made > "${last#*=}"', "jvm"]
        assert archive.wanted()
        assert archive.options() == []
        archive.make(tmp_path / "noted", jvm, self.ENVIRONMENT)
        assert not archive.wanted()
        self.wait(archive)
        assert archive.path.read_text() == "made\n"
        assert archive.options() == [f"-XX:SharedArchiveFile={archive.path}"]
        assert not archive.wanted()

    def test_a_failure_is_not_repeated(self, archive: Archive, tmp_path: Path) -> None:
        archive.make(tmp_path / "noted", ["/bin/false"], self.ENVIRONMENT)
        self.wait(archive)
        assert archive.failed.exists()
        assert not archive.wanted()
        assert archive.options() == []

    def test_an_attempt_that_died_is(self, archive: Archive) -> None:
        archive.partial.touch()
        assert not archive.wanted()
        long_ago = time.time() - ATTEMPT_MAX_S - 1
        os.utime(archive.partial, (long_ago, long_ago))
        assert archive.wanted()

    def test_other_jars_or_another_java_have_another(self, tmp_path: Path) -> None:
        java = Path(sys.executable)
        other = tmp_path / "java"
        shutil.copyfile(java, other)
        assert archive_for(tmp_path, java, "a") == archive_for(tmp_path, java, "a")
        assert (
            len(
                {
                    archive_for(tmp_path, one, stamp).path
                    for one in (java, other)
                    for stamp in ("a", "b")
                }
            )
            == 4
        )


def test_a_cluster_id_is_a_uuid_that_is_no_option() -> None:
    ids = {new_cluster_id() for _ in range(300)}
    assert len(ids) == 300
    assert all(len(one) == 22 and not one.startswith("-") for one in ids)
