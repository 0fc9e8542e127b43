"""A broker that is away must not fill the disk with its absence."""

from __future__ import annotations

import logging

from streams.quietlog import INTERVAL_S, Throttle


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("librdkafka", logging.ERROR, "", 0, message, args, None)


def test_one_line_of_a_kind_then_a_count() -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    kept = []
    for number in range(100):
        now[0] = number * INTERVAL_S / 40
        line = record("FAIL [%s] connect failed after %d ms", "consumer-1", number)
        if throttle.filter(line):
            kept.append(line.getMessage())
    assert kept == [
        "FAIL [consumer-1] connect failed after 0 ms",
        "FAIL [consumer-1] connect failed after 40 ms (and 39 more like it)",
        "FAIL [consumer-1] connect failed after 80 ms (and 39 more like it)",
    ]


def test_other_kinds_are_not_held_back() -> None:
    throttle = Throttle(lambda: 0.0)
    assert throttle.filter(record("FAIL [a] x"))
    assert throttle.filter(record("GETPID [a] x"))
    assert not throttle.filter(record("FAIL [a] y"))
