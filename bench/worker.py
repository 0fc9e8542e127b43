"""The worker beside a plain loop: CPU, throughput and latency, in interleaved rounds, as ratios.

Every run is one program as a process of its own, on fresh topics of one broker: it is started and
warmed up, gets a backlog, then clicks at 2,000 a second, then at 500. See bench/README.md.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import psutil
from cluster import BenchKafka, temporary_kafka
from measure import Bench
from programs import Program, Running, headrace, naive, plain
from report import machine, noise, program_table, ratio_table, ratios, write_json
from workload import Clicks, make_clicks, make_model

from models.contract import TIER_MODEL, TIER_POPULAR
from schemas.errors import HeadraceError

USERS: Final = 20_000
ITEMS: Final = 3_000
RATE: Final = 2_000.0
SLOW_RATE: Final = 500.0
# It handles some 1,500 clicks a second: a tenth of the backlog takes it as long as the others the whole.
NAIVE_SHARE: Final = 0.1
HOP_S: Final = 3.0
# A broker that has just started is many times slower; the first program must not pay for that.
BROKER_WARM_UP_S: Final = 8.0
BROKER_WARM_UP_RATE: Final = 5_000.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much each run gets: clicks by phase, and seconds of each steady rate."""

    warm_up: int
    backlog: int
    seconds: float
    rounds: int

    @property
    def clicks(self) -> int:
        """Clicks of a whole run."""
        return self.warm_up + self.backlog + int(self.seconds * (RATE + SLOW_RATE))


@click.command()
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1, 99), help="Interleaved rounds."
)
@click.option(
    "--clicks",
    default=60_000,
    show_default=True,
    type=click.IntRange(100),
    help="Clicks of the backlog.",
)
@click.option(
    "--seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.5),
    help="Length of each steady rate.",
)
@click.option(
    "--naive",
    "with_naive",
    is_flag=True,
    help="Also the Faust program that handles event by event.",
)
@click.option(
    "--quick", is_flag=True, help="One short round, to see that it works; its figures mean little."
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the results there.",
)
def main(
    rounds: int, clicks: int, seconds: float, with_naive: bool, quick: bool, json_path: Path | None
) -> None:
    """Measure the worker beside a plain confluent-kafka loop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = Plan(1_000, 5_000, 2.0, 1) if quick else Plan(4_000, clicks, seconds, rounds)
    try:
        result = measure(plan, [headrace(), plain(), *([naive()] if with_naive else [])])
    except HeadraceError as error:
        raise click.ClickException(str(error)) from None
    if json_path:
        write_json(json_path, result)


def measure(plan: Plan, programs: list[Program]) -> dict[str, Any]:
    """Run the rounds and print; returns the results."""
    load, idle = os.getloadavg()[0], 1.0 - psutil.cpu_percent(1.0) / 100
    print(noise(load, idle, os.cpu_count() or 1))
    clicks = make_clicks(plan.clicks, USERS, ITEMS, time.time_ns() // 1_000_000)
    rounds: dict[str, list[dict[str, float | None]]] = {program.name: [] for program in programs}
    with temporary_kafka() as kafka:
        model = kafka.folder / "model"
        scored = make_model(model, ITEMS)
        if not scored:
            print(
                "torch is not installed, so there is no model: all programs recommend what is popular"
            )
        bench = Bench(
            kafka, TIER_MODEL if scored else TIER_POPULAR, kafka.settings.recommendations_max
        )
        bench.renew("bench-hop")
        bench.hop(int(BROKER_WARM_UP_S * BROKER_WARM_UP_RATE), BROKER_WARM_UP_RATE)
        hop = bench.hop(int(HOP_S * RATE), RATE)
        print(
            f"Kafka alone, produced to consumed at {RATE:,.0f}/s: p50 {np.percentile(hop, 50):.1f} ms, p99 {np.percentile(hop, 99):.1f} ms"
        )
        for number in range(plan.rounds):
            # Whoever comes first in one round comes last in the next.
            for program in programs if number % 2 == 0 else reversed(programs):
                figures = run(
                    kafka, bench, program, plan, clicks, model if scored else None, number
                )
                rounds[program.name].append(figures)
    print_results(plan, rounds)
    return {
        "bench": "worker",
        "machine": machine() | {"load_average": round(load, 2), "idle_share": round(idle, 2)},
        "plan": {
            "rounds": plan.rounds,
            "clicks": plan.backlog,
            "seconds": plan.seconds,
            "users": USERS,
            "items": ITEMS,
            "model": scored,
        },
        "kafka_hop_ms": {
            "p50": float(np.percentile(hop, 50)),
            "p99": float(np.percentile(hop, 99)),
        },
        "rounds": rounds,
        "ratios": {
            name: ratios(rounds["headrace"], found)
            for name, found in rounds.items()
            if name != "headrace"
        },
    }


def run(
    kafka: BenchKafka,
    bench: Bench,
    program: Program,
    plan: Plan,
    clicks: Clicks,
    model: Path | None,
    number: int,
) -> dict[str, float | None]:
    """One program, once, from its start to its stop."""
    settings = bench.renew(f"bench-{program.name}-{number}")
    running = Running(program, settings, model, kafka.folder / f"{program.name}-{number}.log")
    count = plan.backlog if program.name != "naive-faust" else int(plan.backlog * NAIVE_SHARE)
    at = plan.warm_up
    running.start()
    try:
        bench.warm_up(running, clicks.cut(0, plan.warm_up))
        backlog = bench.backlog(running, clicks.cut(at, count))
        at += count
        steady = bench.steady(running, clicks.cut(at, int(plan.seconds * RATE)), RATE)
        at += int(plan.seconds * RATE)
        slow = bench.steady(running, clicks.cut(at, int(plan.seconds * SLOW_RATE)), SLOW_RATE)
        rss_mb = running.rss_mb()
    finally:
        running.stop()
    figures: dict[str, float | None] = {
        "cpu_s_per_1000": 1000 * backlog.cpu_s / backlog.clicks,
        "clicks_per_s": backlog.clicks / backlog.wall_s,
        "broker_cpu_s_per_1000": 1000 * backlog.broker_cpu_s / backlog.clicks,
        "rss_mb": rss_mb,
        "sent_late_p99_ms": steady.late_ms_p99,
    }
    # A program that falls behind has no latency but the length of the test.
    for prefix, phase in (("", steady), ("slow_", slow)):
        if phase.keeps_up:
            figures[f"{prefix}core_share"] = phase.cpu_s / phase.wall_s
            figures[f"{prefix}broker_core_share"] = phase.broker_cpu_s / phase.wall_s
            figures |= {
                f"{prefix}p{percent}_ms": phase.percentile_ms(percent) for percent in (50, 95, 99)
            }
    print(
        f"round {number + 1}, {program.name}: "
        + ", ".join(f"{name} {value:,.4g}" for name, value in figures.items() if value is not None),
        flush=True,
    )
    return figures


def print_results(plan: Plan, rounds: dict[str, list[dict[str, float | None]]]) -> None:
    """The table and the ratios."""
    print(
        f"\nmedians of {plan.rounds} round(s); p50 to p99 and core at {RATE:,.0f} clicks/s, slow: {SLOW_RATE:,.0f}/s; -: does not keep up\n"
    )
    print(program_table(rounds))
    print()
    print(ratio_table("headrace", rounds))


if __name__ == "__main__":
    main()
