"""Where a region lives: its ports, its folders, and the configuration files of its brokers."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from schemas.errors import ClusterError
from schemas.topics import TOPICS
from streams.settings import Settings

BASE_PORTS: Final = {"east": 19_092, "west": 29_092}
# Other regions get a port from their name: stable, so that clients need no discovery.
OTHER_PORTS: Final = range(31_000, 39_001, 100)
CONTROLLER_OFFSET: Final = 50

BROKER_COUNTS: Final = (1, 3)
# Each partition costs files and threads; eight are plenty for a laptop's consumer groups.
OFFSETS_PARTITIONS: Final = 8
# Above the largest topic's own limit, so that only the topics' limits are ever met.
MESSAGE_BYTES_MAX: Final = max(topic.message_bytes_max for topic in TOPICS) + 1024 * 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """Ports and folders of one region; `index` counts brokers from 0, Kafka's `node.id` from 1."""

    region: str
    folder: Path
    base_port: int
    brokers: int

    def port(self, index: int) -> int:
        return self.base_port + index

    def controller_port(self, index: int) -> int:
        return self.base_port + CONTROLLER_OFFSET + index

    def broker_folder(self, index: int) -> Path:
        return self.folder / f"broker-{index}"

    def data(self, index: int) -> Path:
        return self.broker_folder(index) / "data"

    def log(self, index: int) -> Path:
        return self.broker_folder(index) / "log" / "server.log"

    def config(self, index: int) -> Path:
        return self.broker_folder(index) / "server.properties"

    def log_config(self, index: int) -> Path:
        return self.broker_folder(index) / "log4j2.properties"

    @property
    def classes(self) -> Path:
        """Where the first broker notes the classes that it loads, for the archive."""
        return self.broker_folder(0) / "classes"

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{self.port(index)}" for index in range(self.brokers))


def region_folder(settings: Settings) -> Path:
    """Folder of the region of `settings`; absolute, since brokers outlive the working folder."""
    return settings.home.expanduser().resolve() / settings.region


def default_port(region: str) -> int:
    """First port of a region that names none: fixed for east and west, else from the name."""
    return BASE_PORTS.get(region) or OTHER_PORTS[zlib.crc32(region.encode()) % len(OTHER_PORTS)]


def layout(settings: Settings, brokers: int) -> Layout:
    """The layout of the region of `settings` with so many brokers."""
    return Layout(
        settings.region,
        region_folder(settings),
        settings.kafka_port or default_port(settings.region),
        brokers,
    )


def write_configs(place: Layout, index: int, data: Path | None = None) -> Path:
    """Write both configuration files of one broker and return the path of `server.properties`.

    `data` overrides the data folder: formatting works on another one than the broker.
    """
    replicated = place.brokers >= 3
    path = place.config(index) if data is None else place.broker_folder(index) / "format.properties"
    folder = data or place.data(index)
    if any(mark in str(folder) for mark in (",", "\n")):
        raise ClusterError(
            f"Kafka cannot have a comma in its data folder ({folder}): set HEADRACE_HOME to another"
        )
    text = _template("server.properties").substitute(
        node_id=index + 1,
        voters=",".join(
            f"{i + 1}@127.0.0.1:{place.controller_port(i)}" for i in range(place.brokers)
        ),
        port=place.port(index),
        controller_port=place.controller_port(index),
        data=escaped(str(folder)),
        replication=3 if replicated else 1,
        min_isr=2 if replicated else 1,
        offsets_partitions=OFFSETS_PARTITIONS,
        message_bytes_max=MESSAGE_BYTES_MAX,
    )
    place.log(index).parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    place.log_config(index).write_text(_text("log4j2.properties"), "utf-8")
    return path


def escaped(value: str) -> str:
    """A value as a Java properties file spells it: ASCII, everything else by its UTF-16 number."""
    units = value.encode("utf-16-be")
    numbers = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    return "".join(
        chr(number) if 32 <= number < 127 and number != 92 else f"\\u{number:04x}"
        for number in numbers
    )


def _text(name: str) -> str:
    return (files("infra") / "templates" / name).read_text("utf-8")


def _template(name: str) -> Template:
    return Template(_text(name))
