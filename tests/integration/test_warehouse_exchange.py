"""A rebuild that dies at any step of its exchange is finished by the next owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from infra.warehouse.engine import WriteEngine, beside, open_engine
from infra.warehouse.exchange import EXCHANGED, exchange, finish, rebuild_database
from infra.warehouse.migrate import drift_of, migrate
from streams.settings import Settings, load_settings


class Died(BaseException):
    """The process is killed here."""


class Mortal:
    """An engine that dies before its statement number `steps`."""

    def __init__(self, engine: WriteEngine, steps: int) -> None:
        self._engine, self.left = engine, steps

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._engine.rows(sql, parameters)

    def command(self, sql: str) -> None:
        if self.left == 0:
            raise Died
        self.left -= 1
        self._engine.command(sql)

    @contextmanager
    def at_once(self) -> Iterator[Any]:
        yield self.command


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(home=tmp_path_factory.mktemp("warehouse"))


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[WriteEngine]:
    with open_engine(settings, "a test") as (engine, _):
        yield engine


def model(name: str) -> str:
    return (
        "INSERT INTO models (model, uri, announced_at, kafka_offset) SETTINGS async_insert = 0"
        f" VALUES ('{name}', generateUUIDv4(), now64(3), rand64())"
    )


def click(user: str) -> str:
    return (
        "INSERT INTO clicks (event_id, user_id, event_type, ts, kafka_time) SETTINGS async_insert = 0"
        f" VALUES (generateUUIDv4(), '{user}', 'view', now64(3), now64(3))"
    )


def test_it_ends_with_all_of_the_old_or_all_of_the_new(
    settings: Settings, engine: WriteEngine
) -> None:
    exchanged = 0
    # Every statement once, and the exchanges of tables are the greater part of them.
    for step in range(0, 3 * len(EXCHANGED) + 30, 3):
        migrate(engine)
        for table in EXCHANGED:
            engine.command(f"TRUNCATE TABLE {table}")
        engine.command(model("old"))
        engine.command(click("old"))
        other = rebuild_database(settings)
        engine.command(f"CREATE DATABASE {other}")
        with beside(settings, engine, other) as fresh:
            migrate(fresh)
            for _ in range(2):
                fresh.command(model("new"))
                fresh.command(click("new"))
        mortal = Mortal(engine, step)
        try:
            exchange(settings, mortal)  # type: ignore[arg-type]
        except Died:
            finish(engine, settings)
        found = [
            engine.rows("SELECT count(), any(model) FROM models")[0],
            engine.rows("SELECT count(), any(user_id) FROM clicks")[0],
        ]
        count = {"old": 1, "new": 2}[found[0][1]]
        assert found == [(count, found[0][1])] * 2
        assert engine.rows("SELECT sum(clicks) FROM clicks_minute") == [(count,)]
        # The views are there, and fill what is in force now.
        engine.command(click("later"))
        assert engine.rows("SELECT sum(clicks) FROM items_hour") == [(count + 1,)]
        assert engine.rows(f"SELECT count() FROM system.databases WHERE name = '{other}'") == [(0,)]
        assert drift_of(engine) == ()
        exchanged += count == 2
        if mortal.left > 0:
            break
    assert mortal.left > 0, "the exchange has more steps than were tried"
    assert exchanged > 5
