"""A batch that was interrupted anywhere, on a real ClickHouse: after settling it is there once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from warehouse_runs import CODEC, Shop

from infra.warehouse.engine import WriteEngine, open_engine
from infra.warehouse.journal import Entry, Journal, Place
from infra.warehouse.loader import Loader
from infra.warehouse.migrate import migrate
from infra.warehouse.targets import TARGETS
from schemas.errors import WarehouseError
from streams.settings import load_settings

DAY_MS = 86_400_000
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
TARGET = {target.table: target for target in TARGETS}
AGGREGATES = ("clicks_minute", "clicks_hour", "items_hour")


class Record:
    """A record of Kafka, of one of two days."""

    def __init__(self, offset: int, value: bytes, ms: int) -> None:
        self._offset, self._value, self._ms = offset, value, ms

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b""

    def value(self) -> bytes:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return 1, self._ms


def records(seed: int, count: int) -> dict[Place, list[Record]]:
    """Clicks of two days by Kafka's time and three months by their own, on two partitions."""
    rng, shop = random.Random(seed), Shop.__new__(Shop)
    shop._rng, shop._base_ms = rng, NOON_MS
    found: dict[Place, list[Record]] = {("clicks", 0): [], ("clicks", 1): []}
    for number in range(count):
        click = shop.pair()[0]
        click["ts"] -= rng.randrange(3) * 31 * DAY_MS
        place = ("clicks", number % 2)
        value = CODEC.encode("Click", click)
        found[place].append(Record(number // 2, value, NOON_MS + (number % 3 == 0) * DAY_MS))
    return found


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WriteEngine]:
    settings = load_settings(home=tmp_path_factory.mktemp("warehouse"))
    with open_engine(settings, "a test") as (engine, _):
        migrate(engine)
        yield engine


def loader(engine: WriteEngine) -> Loader:
    return Loader(
        engine,
        TARGET["clicks"],
        CODEC,
        sink="east",
        regions={"clicks": "east"},
        skew_ms=DAY_MS,
        bytes_max=65_536,
    )


def empty(engine: WriteEngine) -> None:
    for table in ("clicks", "batches", *AGGREGATES):
        engine.command(f"TRUNCATE TABLE {table}")


def begin(engine: WriteEngine, found: dict[Place, list[Record]]) -> Entry:
    journal = Journal(engine, "east", shared=True)
    journal.open()
    return journal.begin("clicks", {place: (0, len(one)) for place, one in found.items()})


def sums(engine: WriteEngine) -> list[int]:
    return [
        int(engine.rows("SELECT count() FROM clicks")[0][0]),
        int(engine.rows("SELECT uniqExact(event_id) FROM clicks")[0][0]),
        *(int(engine.rows(f"SELECT sum(clicks) FROM {name}")[0][0]) for name in AGGREGATES),
    ]


def parts(engine: WriteEngine) -> list[tuple[str, str]]:
    """What ClickHouse commits one by one."""
    return [
        (str(table), str(part))
        for table, part in engine.rows(
            "SELECT table, partition_id FROM system.parts WHERE active"
            " AND database = currentDatabase() AND table IN ('clicks', 'clicks_minute', 'clicks_hour', 'items_hour')"
            " ORDER BY table, partition_id"
        )
    ]


def test_a_batch_is_one_part_a_day_and_a_month(engine: WriteEngine) -> None:
    empty(engine)
    found = records(1, 3_000)
    loader(engine).insert(begin(engine, found), found)
    counted = [len(list(group)) for _, group in itertools.groupby(parts(engine))]
    assert counted == [1] * len(counted)
    assert len([part for table, part in parts(engine) if table == "clicks"]) == 2
    assert sums(engine) == [3_000] * 5


def test_inserted_again_nothing_changes(engine: WriteEngine) -> None:
    empty(engine)
    found = records(2, 500)
    entry = begin(engine, found)
    for _ in range(3):
        loader(engine).insert(entry, found)
        loader(engine).settle(entry, found)
    assert sums(engine) == [500] * 5


@pytest.mark.parametrize("seed", range(12))
def test_whatever_parts_are_missing_come_back(engine: WriteEngine, seed: int) -> None:
    empty(engine)
    rng = random.Random(seed)
    found = records(seed, 400)
    entry = begin(engine, found)
    loader(engine).insert(entry, found)
    for table, part in parts(engine):
        if seed == 0 or rng.random() < 0.5:
            engine.command(f"ALTER TABLE {table} DROP PARTITION ID '{part}'")
    assert sums(engine) != [400] * 5
    loader(engine).settle(entry, found)
    assert sums(engine) == [400] * 5
    loader(engine).settle(entry, found)
    assert sums(engine) == [400] * 5


def test_a_bad_record_does_not_shift_the_others(engine: WriteEngine) -> None:
    empty(engine)
    found = records(3, 200)
    good = found[("clicks", 0)][10].value()
    header = CODEC.header("Click")
    bad = [
        good[:-5],
        good + b"more",
        header,
        header + b"\xff" * 40,
        header + b"\x48" + b"x" * 36 + b"\xff\xff\xff\xff\x07",
        b"no avro",
        b"",
        CODEC.encode("Alert", {"subject": "s", "kind": "drift", "message": "m", "raised_at": 1}),
        good.replace(good[6:42], b"0" * 36),  # no UUID
    ]
    for number, value in enumerate(bad):
        found[("clicks", 1)].append(Record(1_000 + number, value, NOON_MS))
        found[("clicks", 1)].append(found[("clicks", 1)].pop(0))
    entry = begin(engine, found)
    loader(engine).insert(entry, found)
    assert sums(engine) == [200] * 5


def test_what_workers_reject_is_not_among_the_clicks(engine: WriteEngine) -> None:
    empty(engine)
    plain = Shop.__new__(Shop)
    plain._rng, plain._base_ms = random.Random(1), NOON_MS
    wrong = [
        {"ts": NOON_MS + 3 * DAY_MS},
        {"ts": 5},
        {"user_id": ""},
        {"user_id": "u" * 129},
        {"item_id": "i" * 129},
        {"item_id": ""},
        {"item_id": "a\0b"},
        {"event_id": "no uuid"},
    ]
    clicks = [plain.pair()[0] | one for one in wrong]
    clicks += [plain.pair()[0] | {"item_id": "", "event_type": "search", "query": "lamp"}]
    found = {
        ("clicks", 0): [
            Record(n, CODEC.encode("Click", one), NOON_MS) for n, one in enumerate(clicks)
        ]
    }
    loader(engine).insert(begin(engine, found), found)
    assert engine.rows("SELECT query, kafka_offset FROM clicks") == [("lamp", len(wrong))]


def test_another_sink_of_the_region_is_noticed(engine: WriteEngine) -> None:
    empty(engine)
    one, other = (Journal(engine, "east", shared=True) for _ in range(2))
    one.open()
    one.begin("clicks", {("clicks", 0): (0, 1)})
    other.open()
    other.begin("clicks", {("clicks", 0): (1, 2)})
    with pytest.raises(WarehouseError, match="another sink writes for region east"):
        one.begin("clicks", {("clicks", 0): (1, 2)})


def test_the_folder_is_ours_alone(engine: WriteEngine) -> None:
    home = Path(engine.where).parent
    with (
        pytest.raises(WarehouseError, match=r"belongs to process \d+ \(a test, since"),
        open_engine(load_settings(home=home), "another", timeout_s=0.2),
    ):
        pass
