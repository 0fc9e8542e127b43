"""Every setting of Headrace: one typed object, read from the environment and `headrace.toml`.

Order of precedence: arguments given in code, `HEADRACE_*` environment variables, the file named
by `HEADRACE_SETTINGS` (default `headrace.toml` in the working folder), the defaults below.
All faults are reported at once; secrets print as `**********`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from schemas.errors import SettingsError

PREFIX: Final = "HEADRACE_"


def default_home() -> Path:
    """Folder of the local Kafka's data, logs and pid files: `.headrace` in the working folder."""
    return Path(".headrace")


def default_cache() -> Path:
    """Folder of downloaded Kafka archives: the user's cache folder (XDG Base Directory)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headrace"


class Settings(BaseSettings):
    """The settings in force; field descriptions become the table in the README."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    # -- region and Kafka
    region: str = Field(
        "east", pattern=r"^[a-z][a-z0-9-]{0,30}$", description="Region this process serves."
    )
    peers: tuple[str, ...] = Field(
        (), description="Other regions whose mirrored clicks (`<peer>.clicks`) are folded too."
    )
    bootstrap: str = Field(
        "", description="Kafka bootstrap servers; empty: the local region's broker."
    )
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="security.protocol of every client."
    )
    kafka_sasl_mechanism: str = Field(
        "SCRAM-SHA-512", description="sasl.mechanism, where SASL is used."
    )
    kafka_username: str = Field("", description="SASL user name.")
    kafka_password: SecretStr = Field(SecretStr(""), description="SASL password.")
    kafka_ca_file: Path | None = Field(None, description="PEM file of the certificate authority.")
    partitions: int = Field(
        8,
        ge=1,
        le=1024,
        description="Partitions of every event topic; bounds the number of workers.",
    )
    replication: int = Field(
        0, ge=0, le=7, description="Replication factor; 0: 3 where three brokers are up, else 1."
    )

    # -- schemas
    registry_url: str = Field(
        "", description="Confluent-compatible schema registry; empty: the committed id lock."
    )

    # -- worker
    group: str = Field(
        "headrace",
        pattern=r"^[A-Za-z0-9_-]{1,60}$",
        description="Consumer group and Faust app id of the workers.",
    )
    worker_id: str = Field(
        "0",
        pattern=r"^[A-Za-z0-9_-]{1,40}$",
        description="Static group membership: one name per worker of a region, kept over restarts.",
    )
    session_timeout_s: float = Field(
        10.0,
        ge=6.0,
        le=300.0,
        description="Group session: a worker silent for so long loses its partitions.",
    )
    batch_max: int = Field(
        512, ge=1, le=10_000, description="Most clicks in one pass (one model call)."
    )
    linger_ms: float = Field(
        20.0,
        ge=0.0,
        le=1000.0,
        description="Longest time for which clicks gather on the broker before they are fetched.",
    )
    commit_interval_s: float = Field(
        1.0, ge=0.05, le=60.0, description="Time between offset commits."
    )
    stall_timeout_s: float = Field(
        30.0,
        ge=2.0,
        le=3600.0,
        description="The worker ends itself after so long with lag and no progress.",
    )
    recommendations_max: int = Field(20, ge=1, le=100, description="Items in one recommendation.")
    clock_skew_max_s: float = Field(
        86_400.0, ge=0.0, description="Clicks dated further in the future are rejected."
    )
    record_bytes_max: int = Field(65_536, ge=256, description="Larger click records are rejected.")
    web_host: str = Field("127.0.0.1", description="Address of /livez, /readyz and /metrics.")
    web_port: int = Field(
        0, ge=0, le=65_535, description="Port of the same; 0: any free one, printed at the start."
    )

    # -- models
    model_dir: Path | None = Field(
        None,
        description="Model folder to load at the start; later ones come by the `models` topic.",
    )
    scorer_threads: int = Field(
        1, ge=1, le=256, description="Threads of one model call on the CPU."
    )
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto", description="Where the model runs; auto: CUDA where the machine has it."
    )

    # -- warehouse
    warehouse_url: str = Field(
        "",
        description="ClickHouse server, `http://host:8123` or `https://host:8443`; empty: embedded, in the folder `warehouse` of the home folder.",
    )
    warehouse_user: str = Field("default", description="ClickHouse user.")
    warehouse_password: SecretStr = Field(
        SecretStr(""),
        description="Its password; with an embedded warehouse, what its HTTP port asks for.",
    )
    warehouse_database: str = Field(
        "headrace", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,60}$", description="ClickHouse database."
    )
    warehouse_cluster: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_-]{0,60}$",
        description="ClickHouse cluster; set: the tables are replicated and distributed.",
    )
    warehouse_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="HTTP port of the embedded warehouse, on loopback; 0: any free one.",
    )
    warehouse_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Rows are kept for so many days after Kafka had them; 0: for ever. Minutes and hours stay.",
    )
    warehouse_linger_s: float = Field(
        5.0,
        ge=0.1,
        le=600.0,
        description="Longest wait to gather a batch for the warehouse.",
    )

    # -- local Kafka
    home: Path = Field(
        default_factory=default_home,
        description="Folder of the local Kafka's data, logs and pid files.",
    )
    cache: Path = Field(
        default_factory=default_cache, description="Folder of the downloaded Kafka jars."
    )
    kafka_home: Path | None = Field(
        None, description="An unpacked Kafka to use instead of the downloaded jars (KAFKA_HOME)."
    )
    java: Path | None = Field(
        None, description="A java binary to use instead of the bundled runtime."
    )
    kafka_heap_mb: int = Field(256, ge=96, le=65_536, description="Heap of one local broker, MB.")
    kafka_port: int = Field(
        0,
        ge=0,
        le=65_000,
        description="First port of the local region; 0: by region (east 19092, west 29092).",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = Path(os.environ.get(PREFIX + "SETTINGS", "headrace.toml"))
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path))


def load_settings(**overrides: Any) -> Settings:
    """The settings in force, with `overrides` (None means: not given) on top.

    Raises `SettingsError` listing every wrong value and every unknown name at once.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    unknown = sorted(
        key
        for key in os.environ
        if key.startswith(PREFIX)
        and key != PREFIX + "SETTINGS"
        and key.removeprefix(PREFIX).lower() not in Settings.model_fields
    )
    faults = [f"{key}: no such setting" for key in unknown]
    named = os.environ.get(PREFIX + "SETTINGS")
    if named and not Path(named).is_file():
        faults.append(f"HEADRACE_SETTINGS: no file {named}")
    try:
        settings = Settings(**given)
    except ValidationError as error:
        faults += [
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']} (value: {_shown(fault)})"
            for fault in error.errors()
        ]
        raise SettingsError("wrong settings: " + "; ".join(faults)) from None
    except ValueError as error:  # a TOML file that is no TOML
        raise SettingsError(f"headrace.toml cannot be read: {error}") from None
    if faults:
        raise SettingsError("wrong settings: " + "; ".join(faults))
    return settings


def _shown(fault: Any) -> str:
    secret = any("password" in str(part) for part in fault["loc"])
    return "**********" if secret else repr(fault.get("input"))
