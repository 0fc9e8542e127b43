"""How long each named question takes on ten million simulated events.

    python bench/analytics.py [--events 10000000] [--days 14] [--keep DIR] [--only ctr,funnel]

ClickHouse itself makes the events, in a folder of its own: half of them clicks, half of them the
answers to those clicks with 20 items each, spread over the days, a half per cent of the answers
twice. Four columns of each question: over its default period, over everything, and the same by the
aggregates where they know it; milliseconds, the fastest of some rounds (of everything: one), and in brackets the CPU
milliseconds of all cores in that round.

The time of a question depends on the answers in its period, so compare machines with equal --days.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click

from infra.analytics.catalog import QUESTIONS
from infra.analytics.period import parse_period
from infra.analytics.question import Question, Request, ask
from infra.commands.analytics import default_request
from infra.warehouse.engine import WriteEngine, open_engine
from infra.warehouse.migrate import migrate
from infra.warehouse.store import Store, connect
from schemas.errors import WarehouseError
from streams.settings import Settings, load_settings

CLICKS_PER_VISIT: Final = 5
ITEMS: Final = 20_000
ITEMS_SHOWN: Final = 20
# One insert: a day's worth of memory at most, whatever --events says.
INSERT_ROWS: Final = 1_000_000
REPEATED_ONE_IN: Final = 200
ROUNDS: Final = 5
DAY_MS: Final = 86_400_000

# Popular items first, as a power law would have it.
_ITEM = f"concat('i', toString(toUInt32(pow({{draw}} / 4294967296, 3) * {ITEMS})))"
_CLICKS = """
    INSERT INTO clicks (event_id, user_id, item_id, event_type, ts, session_id, price, quantity, region,
                        sink, kafka_topic, kafka_partition, kafka_offset, kafka_time, batch)
    SELECT reinterpretAsUUID(reverse(unhex(concat(hex(toUInt64(number)), hex(sipHash64(number)))))),
           concat('u', toString(intHash64(visit) % {users})), {item},
           ['impression', 'impression', 'impression', 'view', 'view', 'view', 'view', 'view', 'cart', 'purchase'][1 + intHash32(number * 7) % 10] AS kind,
           fromUnixTimestamp64Milli(toInt64({begin} + visit * {visit_ms} + place * 40000 + intHash32(number) % 30000), 'UTC') AS at,
           if(visit % 10 = 0, '', concat('s', toString(visit))),
           5 + intHash32(number * 3) % 50, if(kind = 'purchase', 1, NULL), if(visit % 4 = 0, 'west', 'east') AS home, 'east',
           if(home = 'east', 'clicks', 'west.clicks'), visit % 8, number, at + toIntervalMillisecond(2), 1
    FROM (SELECT number, intDiv(number, {per_visit}) AS visit, number % {per_visit} AS place FROM numbers({first}, {rows}))"""
_ANSWERS = """
    INSERT INTO recommendations (event_id, user_id, item_ids, scores, reasons, model, arm, tier, clicked_at,
                                 features_as_of, scored_at, region, sink, kafka_topic, kafka_partition,
                                 kafka_offset, kafka_time, batch)
    SELECT event_id, user_id,
           arrayMap(place -> {item}, range({shown})), arrayMap(place -> toFloat32(1 / (1 + place)), range({shown})), [],
           ['model-7', 'model-8'][1 + cityHash64(user_id) % 2], ['control', 'new'][1 + cityHash64(user_id) % 2],
           if(kafka_offset % 20 = 0, 'popular', 'model'), ts, ts,
           kafka_time + toIntervalMillisecond(3 + intHash32(kafka_offset) % 9), region, 'east', 'recommendations', kafka_partition,
           kafka_offset + {shift}, kafka_time + toIntervalMillisecond(14), 1
    FROM clicks WHERE kafka_offset >= {first} AND kafka_offset < {first} + {rows} {some}"""
_LETTERS = """
    INSERT INTO dead_letters (reason, detail, origin_topic, origin_partition, origin_offset, rejected_at,
                              region, sink, kafka_topic, kafka_partition, kafka_offset, kafka_time, batch)
    SELECT ['undecodable', 'too-large', 'future'][1 + number % 3], 'seen', 'clicks', number % 8, number,
           fromUnixTimestamp64Milli(toInt64({begin} + number * {apart}), 'UTC') AS at, 'east', 'east', 'dead-letters', 0, number, at, 1
    FROM numbers({rows})"""
_DRILLS = """
    INSERT INTO drills (drill_id, name, region, seed, verdict, measure_names, measure_values, started_at,
                        ended_at, sink, kafka_topic, kafka_offset, kafka_time, batch)
    SELECT toString(number), ['broker', 'worker', 'region'][1 + number % 3], 'east', number, 'pass', ['recovery_s'],
           [1 + number % 7], fromUnixTimestamp64Milli(toInt64({begin} + number * 3600000), 'UTC') AS at, at + 60, 'east', 'drills', number, at, 1
    FROM numbers(300)"""


@dataclass(frozen=True)
class Timing:
    """The fastest round."""

    wall_ms: float
    cpu_ms: float

    def text(self) -> str:
        return f"{self.wall_ms:>6,.0f} ({self.cpu_ms:>6,.0f})"


def fill(engine: WriteEngine, events: int, days: int, end_ms: int) -> None:
    """Simulate the events up to `end_ms`, then merge, as a warehouse does overnight."""
    clicks = events // 2
    begin = end_ms - days * DAY_MS
    visits = max(1, clicks // CLICKS_PER_VISIT)
    common = {
        "users": max(1, clicks // 15),
        "begin": begin,
        "visit_ms": days * DAY_MS / visits,
        "per_visit": CLICKS_PER_VISIT,
        "shown": ITEMS_SHOWN,
    }
    engine.command("SET max_insert_threads = 2")
    for first in range(0, clicks, INSERT_ROWS):
        part = common | {"first": first, "rows": min(INSERT_ROWS, clicks - first)}
        item = _ITEM.format(draw="intHash32(number * 11)")
        engine.command(_CLICKS.format(item=item, **part))
        item = _ITEM.format(draw="intHash32(kafka_offset * 20 + place)")
        engine.command(_ANSWERS.format(item=item, shift=0, some="", **part))
        some = f"AND kafka_offset % {REPEATED_ONE_IN} = 0"
        engine.command(_ANSWERS.format(item=item, shift=clicks, some=some, **part))
    engine.command(_LETTERS.format(begin=begin, rows=10_000, apart=days * DAY_MS // 10_000))
    engine.command(_DRILLS.format(begin=begin))
    for (table,) in engine.rows(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
    ):
        engine.command(f"OPTIMIZE TABLE {table} FINAL")


def measure(store: Store, question: Question, request: Request, rounds: int) -> Timing:
    """The fastest of the rounds; ClickHouse keeps no results between them."""
    timings = []
    for _ in range(rounds):
        began, cpu = time.perf_counter(), time.process_time()
        try:
            ask(store, question, request)
        except WarehouseError:
            # Over the time or memory that a question may take.
            return Timing(math.inf, math.inf)
        timings.append(
            Timing((time.perf_counter() - began) * 1000, (time.process_time() - cpu) * 1000)
        )
    return min(timings, key=lambda timing: timing.wall_ms)


def table(store: Store, names: list[str], rounds: int, now_ms: int) -> None:
    """Print each question's times."""
    print(
        f"{'question':<14}{'since':>6}{'default, ms (CPU)':>20}{'all, ms (CPU)':>20}{'fast, ms (CPU)':>20}{'fast, all':>20}"
    )
    slowest: list[float] = []
    for name in names:
        question = QUESTIONS[name]
        usual = replace(default_request(question), period=parse_period(question.since, "", now_ms))
        whole = replace(usual, period=parse_period("all", "", now_ms))
        timings = [measure(store, question, usual, rounds), measure(store, question, whole, 1)]
        if question.compose_fast is not None:
            timings += [
                measure(store, question, replace(request, fast=True), rounds)
                for request in (usual, whole)
            ]
        slowest.append(timings[0].wall_ms)
        print(
            f"{name:<14}{question.since:>6}" + "".join(f"{one.text():>20}" for one in timings),
            flush=True,
        )
    print(
        f"default periods: slowest {max(slowest):,.0f} ms, median {statistics.median(slowest):,.0f} ms"
    )


@click.command()
@click.option(
    "--events", default=10_000_000, show_default=True, help="Clicks and answers together."
)
@click.option("--days", default=14, show_default=True, help="Days that they are spread over.")
@click.option("--rounds", default=ROUNDS, show_default=True, help="The fastest one counts.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Keep the events here, and use them again."
)
@click.option("--only", default="", help="Only these questions, by commas.")
def main(events: int, days: int, rounds: int, keep: Path | None, only: str) -> None:
    """Simulate, ask, print."""
    home = keep or Path(tempfile.mkdtemp(prefix="headrace-analytics-"))
    names = only.split(",") if only else list(QUESTIONS)
    try:
        settings = load_settings(home=home)
        now_ms = _filled(settings, events, days)
        print(
            f"{events:,} events over {days} days, {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}"
        )
        with connect(settings) as store:
            table(store, names, rounds, now_ms)
    finally:
        if keep is None:
            shutil.rmtree(home, ignore_errors=True)


def _filled(settings: Settings, events: int, days: int) -> int:
    """The time that is now for the events: that of the newest one."""
    with open_engine(settings, "filling") as (engine, _):
        migrate(engine)
        if not engine.rows("SELECT 1 FROM clicks LIMIT 1"):
            began = time.perf_counter()
            fill(engine, events, days, time.time_ns() // 1_000_000)
            print(f"simulated in {time.perf_counter() - began:,.0f} s")
        return int(engine.rows("SELECT toUnixTimestamp64Milli(max(ts)) FROM clicks")[0][0])


if __name__ == "__main__":
    main()
