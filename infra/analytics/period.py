"""The time that a question is about: from --since to --until, in event time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from schemas.errors import SettingsError

UNITS_MS: Final = {
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
}
DURATION: Final = re.compile(r"(\d{1,9})\s*([smhdw])")
# The last millisecond that ClickHouse's DateTime64(3) holds with room to add a window.
END_MS: Final = 9_000_000_000_000


@dataclass(frozen=True)
class Period:
    """Milliseconds since the epoch: from `since_ms` on, before `until_ms`."""

    since_ms: int
    until_ms: int

    @property
    def span_ms(self) -> int:
        return self.until_ms - self.since_ms

    @property
    def bounded(self) -> bool:
        """Whether it began at a moment, and not with the first event."""
        return self.since_ms > 0


def parse_duration_ms(text: str) -> int:
    """`90s`, `30m`, `1h`, `7d`, `2w` in milliseconds."""
    found = DURATION.fullmatch(text.strip().lower())
    if not found:
        raise SettingsError(f"{text!r} is no duration; write 90s, 30m, 1h, 7d or 2w")
    return min(int(found[1]) * UNITS_MS[found[2]], END_MS)


def parse_period(since: str, until: str, now_ms: int) -> Period:
    """The period between two moments, each an age (`24h`), a UTC time, `now` or `all`."""
    begin = 0 if since == "all" else _moment_ms(since, "--since", now_ms)
    # With everything asked for, also what clocks that go ahead have dated into the future.
    end = (
        END_MS
        if until in ("", "all") and since == "all"
        else _moment_ms(until or "now", "--until", now_ms)
    )
    if begin >= end:
        raise SettingsError(f"--since {since} is not before --until {until or 'now'}")
    return Period(begin, end)


def _moment_ms(text: str, option: str, now_ms: int) -> int:
    if text == "now":
        return now_ms
    if DURATION.fullmatch(text.strip().lower()):
        return max(0, now_ms - parse_duration_ms(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"{option} {text!r} is neither an age (1h, 7d), nor a time (2026-05-01T12:00), nor all"
        ) from None
    zoned = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return min(max(0, round(zoned.timestamp() * 1000)), END_MS)
