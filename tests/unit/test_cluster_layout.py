"""Ports, folders and configuration files of a local region."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cluster.layout import (
    MESSAGE_BYTES_MAX,
    OTHER_PORTS,
    Layout,
    default_port,
    escaped,
    layout,
    write_configs,
)
from schemas.errors import ClusterError
from schemas.topics import TOPICS
from streams.settings import load_settings


def place(tmp_path: Path, brokers: int = 1) -> Layout:
    return Layout("east", tmp_path / "east", 19_092, brokers)


def properties(path: Path) -> dict[str, str]:
    lines = path.read_text("ascii").splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    assert len({name for name, _ in pairs}) == len(pairs), "a property is set twice"
    return {one[0]: one[1] for one in pairs}


def test_east_and_west_have_ports_of_their_own_and_others_by_name() -> None:
    assert (default_port("east"), default_port("west")) == (19_092, 29_092)
    names = [f"region-{number}" for number in range(200)]
    assert all(default_port(name) in OTHER_PORTS for name in names)
    assert default_port("north") == default_port("north") == 38_200
    assert len({default_port(name) for name in names}) > 60


def test_the_port_setting_wins(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, kafka_port=20_000)
    assert layout(settings, 3).bootstrap == "127.0.0.1:20000,127.0.0.1:20001,127.0.0.1:20002"
    assert layout(settings, 3).controller_port(2) == 20_052


def test_folders_are_absolute_however_the_home_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        layout(load_settings(home=Path("here")), 1).data(0)
        == tmp_path.resolve() / "here" / "east" / "broker-0" / "data"
    )


def test_one_broker_replicates_nothing(tmp_path: Path) -> None:
    found = properties(write_configs(place(tmp_path), 0))
    assert found["controller.quorum.voters"] == "1@127.0.0.1:19142"
    replication = [
        value
        for name, value in found.items()
        if "replication.factor" in name or name.endswith(("min.isr", "min.insync.replicas"))
    ]
    assert replication == ["1"] * len(replication)
    assert len(replication) >= 7


def test_three_brokers_survive_one(tmp_path: Path) -> None:
    found = [properties(write_configs(place(tmp_path, 3), index)) for index in range(3)]
    assert [one["node.id"] for one in found] == ["1", "2", "3"]
    assert len({one["controller.quorum.voters"] for one in found}) == 1
    assert len({one["listeners"] for one in found}) == 3
    for one in found:
        assert {value for name, value in one.items() if name.endswith("replication.factor")} == {
            "3"
        }
        assert {
            value
            for name, value in one.items()
            if name.endswith(("min.isr", "min.insync.replicas"))
        } == {"2"}


def test_nothing_listens_beyond_this_machine(tmp_path: Path) -> None:
    found = properties(write_configs(place(tmp_path), 0))
    for name in ("listeners", "advertised.listeners"):
        assert all("://127.0.0.1:" in one for one in found[name].split(","))


def test_every_topic_of_ours_fits_through_the_broker(tmp_path: Path) -> None:
    found = properties(write_configs(place(tmp_path), 0))
    largest = max(topic.message_bytes_max for topic in TOPICS)
    assert (
        largest
        < MESSAGE_BYTES_MAX
        == int(found["message.max.bytes"])
        == int(found["replica.fetch.max.bytes"])
    )


def test_a_folder_with_any_letters_is_spelt_as_java_reads_it(tmp_path: Path) -> None:
    assert escaped("a b") == "a b"
    assert escaped("é\\") == "\\u00e9\\u005c"
    assert escaped("🛒") == "\\ud83d\\uded2"
    found = properties(write_configs(Layout("east", tmp_path / "é", 1, 1), 0))
    assert found["log.dirs"].endswith("/\\u00e9/broker-0/data")


def test_a_comma_in_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="comma"):
        write_configs(Layout("east", tmp_path / "a,b", 1, 1), 0)


def test_formatting_has_a_configuration_of_its_own(tmp_path: Path) -> None:
    path = write_configs(place(tmp_path), 0, data=tmp_path / "partial")
    assert path != place(tmp_path).config(0)
    assert properties(path)["log.dirs"] == str(tmp_path / "partial")
