"""The cache of Kafka's jars, with a fake network."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.cluster.jars import (
    KAFKA_VERSION,
    LOCK_FILE,
    MARKER,
    ROOTS,
    Fetcher,
    Jar,
    cached_classpath,
    read_lock,
    write_lock,
)
from schemas.errors import ClusterError


def jar(name: str, content: bytes) -> Jar:
    return Jar(hashlib.sha256(content).hexdigest(), "org.example", name, "1.0", f"{name}-1.0.jar")


JARS = (jar("one", b"first"), jar("two", b"second"), jar("three", b"third"))
CONTENTS = dict(zip((one.filename for one in JARS), (b"first", b"second", b"third"), strict=True))


class FakeNetwork:
    """Serves `contents`; a missing one fails as a broken network does."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = dict(contents)
        self.asked: list[str] = []

    def fetch(self, jar: Jar, folder: Path) -> Path:
        self.asked.append(jar.filename)
        if jar.filename not in self.contents:
            raise ConnectionError("network is unreachable\nand a long explanation")
        path = folder / "somewhere" / jar.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.contents[jar.filename])
        return path


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork(CONTENTS)


def no_network() -> Fetcher:
    raise AssertionError("the network was asked for")


def install(cache: Path, network: FakeNetwork) -> list[Path]:
    return cached_classpath(cache, JARS, lambda: network)


def test_the_first_start_fetches_every_jar(tmp_path: Path, network: FakeNetwork) -> None:
    messages: list[str] = []
    paths = cached_classpath(tmp_path, JARS, lambda: network, messages.append)
    assert [path.name for path in paths] == [one.filename for one in JARS]
    assert [path.read_bytes() for path in paths] == [b"first", b"second", b"third"]
    assert "fetching 3 jars" in messages[0]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted([MARKER, *CONTENTS])


def test_a_later_start_never_asks_the_network(tmp_path: Path, network: FakeNetwork) -> None:
    install(tmp_path, network)
    messages: list[str] = []
    assert len(cached_classpath(tmp_path, JARS, no_network, messages.append)) == 3
    assert messages == []


def test_a_corrupt_jar_is_fetched_again_and_no_other(tmp_path: Path, network: FakeNetwork) -> None:
    broken = install(tmp_path, network)[1]
    broken.write_bytes(b"half")
    network.asked.clear()
    assert install(tmp_path, network)[1].read_bytes() == b"second"
    assert network.asked == [broken.name]


def test_a_missing_jar_is_fetched_again(tmp_path: Path, network: FakeNetwork) -> None:
    gone = install(tmp_path, network)[2]
    gone.unlink()
    network.asked.clear()
    assert install(tmp_path, network)[2].read_bytes() == b"third"
    assert network.asked == [gone.name]


@pytest.mark.parametrize(
    "damage",
    [lambda marker: marker.unlink(), lambda marker: marker.write_text("{half")],
    ids=["gone", "half"],
)
def test_without_its_marker_the_cache_is_hashed_not_fetched(
    tmp_path: Path, network: FakeNetwork, damage: Callable[[Path], None]
) -> None:
    damage(install(tmp_path, network)[0].with_name(MARKER))
    assert len(cached_classpath(tmp_path, JARS, no_network)) == 3
    assert len(cached_classpath(tmp_path, JARS, no_network)) == 3


def test_a_cache_copied_from_elsewhere_is_good(tmp_path: Path, network: FakeNetwork) -> None:
    install(tmp_path / "theirs", network)
    shutil.copytree(tmp_path / "theirs", tmp_path / "ours", copy_function=shutil.copyfile)
    os.utime(tmp_path / "ours" / f"kafka-{KAFKA_VERSION}" / JARS[0].filename, (1, 1))
    assert len(cached_classpath(tmp_path / "ours", JARS, no_network)) == 3


def test_a_jar_with_another_checksum_never_enters_the_cache(
    tmp_path: Path, network: FakeNetwork
) -> None:
    network.contents[JARS[1].filename] = b"malice"
    with pytest.raises(
        ClusterError, match=r"org\.example:two:1\.0 .*came with SHA-256 .* cut short, or changed"
    ):
        install(tmp_path, network)
    assert not (tmp_path / f"kafka-{KAFKA_VERSION}" / JARS[1].filename).exists()


def test_no_network_is_one_clear_line_and_what_came_stays(
    tmp_path: Path, network: FakeNetwork
) -> None:
    del network.contents[JARS[2].filename]
    with pytest.raises(ClusterError) as caught:
        install(tmp_path, network)
    message = str(caught.value)
    assert message.startswith(
        "cannot fetch org.example:three:1.0 (ConnectionError: network is unreachable)."
    )
    assert "HEADRACE_KAFKA_HOME" in message
    assert "\n" not in message
    network.contents[JARS[2].filename] = b"third"
    network.asked.clear()
    install(tmp_path, network)
    assert JARS[2].filename in network.asked
    assert not list((tmp_path / f"kafka-{KAFKA_VERSION}").glob("fetch-*"))


def test_a_jar_that_fails_once_is_tried_again(tmp_path: Path, network: FakeNetwork) -> None:
    class Flaky(FakeNetwork):
        def fetch(self, jar: Jar, folder: Path) -> Path:
            if jar.filename not in self.asked:
                self.asked.append(jar.filename)
                raise TimeoutError("read timed out")
            return super().fetch(jar, folder)

    assert len(install(tmp_path, Flaky(CONTENTS))) == 3


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, network: FakeNetwork) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClusterError, match=r"cannot be created .* set HEADRACE_CACHE"):
        install(tmp_path / "file" / "cache", network)


def test_the_lock_pins_all_of_one_kafka() -> None:
    jars = read_lock()
    coordinates = {one.coordinate for one in jars}
    assert coordinates >= set(ROOTS)
    assert {one.version for one in jars if one.group == "org.apache.kafka"} == {KAFKA_VERSION}
    assert len({one.artifact for one in jars}) == len(jars)
    assert all(one.filename == f"{one.artifact}-{one.version}.jar" for one in jars)
    slf4j = [one.version for one in jars if one.artifact == "slf4j-api"]
    assert slf4j[0].startswith("1.7.")
    assert "://" not in LOCK_FILE.read_text()


def test_a_lock_reads_back_as_written(tmp_path: Path) -> None:
    write_lock(JARS, tmp_path / "lock")
    assert sorted(read_lock(tmp_path / "lock"), key=str) == sorted(JARS, key=str)


@pytest.mark.parametrize(
    "line", ["abc  g:a:1  f.jar", f"{'a' * 64}  g:a  f.jar", f"{'a' * 64}  g:a:1"]
)
def test_a_broken_lock_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "lock").write_text(f"# comment\n{line}\n")
    with pytest.raises(ClusterError, match="lock, line 2"):
        read_lock(tmp_path / "lock")
