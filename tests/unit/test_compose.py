"""`compose.yaml` holds together: every name in it leads somewhere. No engine runs it here, so this reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.topics import CLICK_BYTES_MAX, TOPICS
from streams.settings import PREFIX, Settings, load_settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROFILES = {"dr", "gpu", "obs", "registry", "ui", "warehouse"}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
ONCE = "service_completed_successfully"
INTERPOLATION = re.compile(r"\$\{(\w+):-([^}]*)\}")
BOOTSTRAP = re.compile(r"(BOOTSTRAP|BOOTSTRAP_URI|BOOTSTRAPSERVERS)$")
MIRRORS = [("east", "west"), ("west", "east")]


def environment(name: str) -> dict[str, str]:
    """A service's environment with the defaults of its interpolations."""
    values: dict[str, Any] = SERVICES[name].get("environment", {})
    for key, value in values.items():
        assert isinstance(value, str), (
            f"{name}: {key} is {value!r}; quote it, YAML changes such values"
        )
    return {key: INTERPOLATION.sub(r"\2", value) for key, value in values.items()}


def advertised(name: str) -> dict[str, str]:
    """Listener name -> host:port that a Kafka service tells its clients."""
    listeners = environment(name)["KAFKA_ADVERTISED_LISTENERS"].split(",")
    return dict(listener.split("://") for listener in listeners)


def kafkas() -> list[str]:
    return [name for name in SERVICES if "KAFKA_ADVERTISED_LISTENERS" in environment(name)]


def reachable() -> set[str]:
    """Every address at which another container finds a Kafka."""
    return {advertised(name)["INTERNAL"] for name in kafkas()}


def mounts() -> Iterator[tuple[str, str, str, str]]:
    """(service, source, target, mode) of every volume."""
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, target, *mode = volume.split(":")
            yield name, source, target, mode[0] if mode else "rw"


def properties(name: str) -> dict[str, str]:
    lines = (ROOT / "infra" / "templates" / name).read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def ours() -> list[str]:
    """The services that run our own image."""
    return [name for name, service in SERVICES.items() if "build" in service]


@pytest.mark.parametrize("name", SERVICES)
def test_settings_are_real_and_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {key: value for key, value in environment(name).items() if key.startswith(PREFIX)}
    unknown = {
        key for key in given if key.removeprefix(PREFIX).lower() not in Settings.model_fields
    }
    assert not unknown
    assert not given or name in ours(), "only our own image reads them"
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    settings = load_settings()
    if name in ours():
        assert settings.region in name or name.startswith("worker-gpu")
        assert settings.bootstrap == f"kafka-{settings.region}:9092"


def test_interpolated_variables_are_settings_with_a_default() -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8")
    found = INTERPOLATION.findall(text)
    assert text.count("${") == len(found), "every interpolation needs a default"
    assert {name.removeprefix(PREFIX).lower() for name, _ in found} <= Settings.model_fields.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_depends_on_is_there_when_it_is(name: str) -> None:
    profiles = set(SERVICES[name].get("profiles", []))
    assert profiles <= PROFILES
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        assert how["condition"] in CONDITIONS
        theirs = set(SERVICES[other].get("profiles", []))
        assert not theirs or profiles <= theirs, f"{other} does not run in every profile of {name}"
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        if how["condition"] == ONCE:
            assert "restart" not in SERVICES[other], "a job that is started again never completes"


def test_profiles_are_the_documented_ones() -> None:
    used = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
    assert used == PROFILES
    head = (ROOT / "compose.yaml").read_text("utf-8").split("\nname:")[0]
    assert set(re.findall(r"--profile (\w+)", head)) == PROFILES
    default = {name for name, service in SERVICES.items() if not service.get("profiles")}
    assert default == {"kafka-east", "topics-east", "worker-east"}


def test_every_long_running_service_has_a_healthcheck_and_restarts() -> None:
    jobs = {
        other
        for service in SERVICES.values()
        for other, how in service.get("depends_on", {}).items()
        if how["condition"] == ONCE
    }
    for name in SERVICES.keys() - jobs:
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD", name
        assert SERVICES[name]["restart"] == "unless-stopped", name


def test_volumes_are_declared_used_and_mounted_files_exist() -> None:
    named = set()
    for service, source, target, mode in mounts():
        assert target.startswith("/"), service
        if source.startswith("."):
            assert (ROOT / source).is_file(), f"{service}: no file {source}"
            assert mode == "ro", f"{service}: {source} is ours and not to be written"
        else:
            named.add(source)
    assert named == COMPOSE["volumes"].keys()


def test_ports_are_on_the_loopback_and_distinct() -> None:
    seen: set[str] = set()
    for name, service in SERVICES.items():
        assert service.get("network_mode") != "host"
        for port in service.get("ports", []):
            address, host, container = port.split(":")
            assert address == "127.0.0.1", f"{name}: {port}"
            assert host == container, "one number to remember"
            assert host not in seen, f"port {host} is taken twice"
            seen.add(host)


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image
    assert re.search(r"\d+\.\d+", tag), f"{name}: {tag!r} is no version"


def test_our_image_has_our_version() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    assert version
    for name in ours():
        assert SERVICES[name]["image"].split(":")[1].split("-")[0] == version[1]


def test_nothing_secret_is_in_it() -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8")
    assert not re.search(r"(PASSWORD|SECRET|TOKEN|KEY)\w*:", text)
    assert "secrets" not in COMPOSE


@pytest.mark.parametrize("name", kafkas())
def test_a_broker_advertises_what_clients_can_reach(name: str) -> None:
    values = environment(name)
    internal, host = advertised(name)["INTERNAL"], advertised(name)["HOST"]
    bound = {
        listener: address.rpartition(":")[2]
        for listener, address in (one.split("://") for one in values["KAFKA_LISTENERS"].split(","))
    }
    assert internal == f"{name}:{bound['INTERNAL']}"
    assert host == f"127.0.0.1:{bound['HOST']}"
    assert SERVICES[name]["ports"] == [f"{host}:{bound['HOST']}"]
    assert values["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"1@{name}:{bound['CONTROLLER']}"
    protocols = values["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]
    assert {one.split(":")[0] for one in protocols.split(",")} == bound.keys()
    assert len(values["CLUSTER_ID"]) == 22, "a cluster id is a UUID in base 64"
    assert values["KAFKA_LOG_DIRS"] in {
        target for service, _, target, _ in mounts() if service == name
    }


def test_every_bootstrap_address_is_a_broker() -> None:
    found = 0
    for name in SERVICES:
        for key, value in environment(name).items():
            if BOOTSTRAP.search(key):
                found += 1
                assert value in reachable(), f"{name}: {key} is {value}"
    assert found >= len(ours())


def test_workers_have_names_of_their_own_and_the_other_region_as_peer() -> None:
    workers = {
        name: environment(name) for name in ours() if SERVICES[name]["command"] == ["worker"]
    }
    ids = [values["HEADRACE_WORKER_ID"] for values in workers.values()]
    assert len(set(ids)) == len(ids)
    for values in workers.values():
        other = "west" if values["HEADRACE_REGION"] == "east" else "east"
        assert values["HEADRACE_PEERS"] == f'["{other}"]'


def test_the_gpu_worker_reserves_a_device_and_installs_its_lock() -> None:
    service = SERVICES["worker-gpu"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert service["build"]["args"] == {"LOCK": "gpu"}
    assert environment("worker-gpu")["HEADRACE_DEVICE"] == "cuda"


@pytest.mark.parametrize(("source", "target"), MIRRORS)
def test_mirrors_copy_the_mirrored_topics_by_the_default_policy(source: str, target: str) -> None:
    name = f"mirror-{source}-{target}"
    found = properties(f"{name}.properties")
    assert found["clusters"].split(",") == [source, target]
    for region in (source, target):
        assert found[f"{region}.bootstrap.servers"] == advertised(f"kafka-{region}")["INTERNAL"]
    flow = f"{source}->{target}"
    assert found[f"{flow}.enabled"] == "true"
    assert found[f"{target}->{source}.enabled"] == "false"
    assert set(found[f"{flow}.topics"].split(",")) == {
        topic.name for topic in TOPICS if topic.mirrored
    }
    assert found[f"{flow}.groups"] == Settings.model_fields["group"].default
    assert not any("replication.policy" in key for key in found), "workers count on `<peer>.clicks`"
    assert int(found[f"{target}.producer.max.request.size"]) > CLICK_BYTES_MAX
    # Without the target's name before them, the worker's settings are ignored in silence.
    prefixes = {
        key.split(".")[0] for key in found if "storage.replication" in key or "session" in key
    }
    assert prefixes == {target}
    service = SERVICES[name]
    assert service["command"][1:] == ["--clusters", target]
    assert service["command"][0] in {mount for owner, _, mount, _ in mounts() if owner == name}
    assert found["listeners"].rpartition(":")[2] == service["healthcheck"]["test"][-1]


def test_prometheus_scrapes_every_worker_on_its_port() -> None:
    config = yaml.safe_load((ROOT / "infra/templates/prometheus.yml").read_text("utf-8"))
    (job,) = config["scrape_configs"]
    (names,) = job["dns_sd_configs"]
    workers = {name for name in ours() if SERVICES[name]["command"] == ["worker"]}
    assert set(names["names"]) == workers
    for name in workers:
        values = environment(name)
        assert values["HEADRACE_WEB_PORT"] == str(names["port"])
        assert values["HEADRACE_WEB_HOST"] == "0.0.0.0"
        assert f":{names['port']}/readyz" in SERVICES[name]["healthcheck"]["test"][-1]


def test_grafana_reads_from_the_prometheus_of_the_file() -> None:
    config = yaml.safe_load((ROOT / "infra/templates/grafana-datasource.yml").read_text("utf-8"))
    (source,) = config["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "127.0.0.1:9090:9090" in SERVICES["prometheus"]["ports"]


def test_the_image_is_built_from_locks_and_runs_as_nobody_special() -> None:
    lines = (ROOT / "infra/Dockerfile").read_text("utf-8").splitlines()
    text = "\n".join(lines)
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert set(bases) == {"python:3.12-slim"}
    last = text.rpartition("FROM ")[2]
    assert "\nUSER headrace\n" in last
    assert 'ENTRYPOINT ["headrace"]' in last
    installs = [line for line in lines if "pip install" in line]
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    for lock in ("base", "gpu"):
        assert (ROOT / f"infra/locks/{lock}.txt").is_file()
    copied = [
        line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line
    ]
    ignore = (ROOT / "infra/Dockerfile.dockerignore").read_text("utf-8").splitlines()
    for source in (source for sources in copied for source in sources):
        assert (ROOT / source).exists()
        assert f"!{source.split('/')[0]}" in ignore, f"{source} is not in the build's context"


def test_what_builds_the_image_is_in_the_development_lock() -> None:
    text = (ROOT / "infra/Dockerfile").read_text("utf-8")
    names = re.search(r"for name in ([\w -]+);", text)
    assert names
    lock = (ROOT / "infra/locks/dev.txt").read_text("utf-8")
    for name in names[1].split():
        assert re.search(rf"^{name}==", lock, re.M), f"{name} is not in dev.txt"
