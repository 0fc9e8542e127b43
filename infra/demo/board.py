"""What the demo knows, gathered from its threads: the feed tells of clicks, the listener of answers.

One lock; each call is short. `snapshot` gives everything at one moment, as values, to be shown.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from infra.demo.latency import Latencies, Quantiles
from infra.demo.story import HitRate, Hits, Offer, Story, StoryView
from models.contract import TIER_MODEL
from schemas.clicks import EVENT_TYPES, RawClick

# Clicks without an answer whose times are kept: what a dead worker leaves within minutes.
OPEN_MAX: Final = 200_000
NOTES_MAX: Final = 20
# A note is shown before what is being done, as long as it is new.
NOTE_S: Final = 8.0
# Rates are of so many seconds.
RATE_S: Final = 3.0

KAFKA: Final = "Kafka up"
TOPICS: Final = "topics ready"
WORKER: Final = "worker ready"
HISTORY: Final = "history answered"
FIRST: Final = "first recommendation"
TRAINED: Final = "model trained"
PERSONAL: Final = "first personal recommendation"


@dataclass(frozen=True, slots=True)
class Step:
    """A milestone: when it was reached, in seconds after the start, or None."""

    name: str
    at_s: float | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is shown, at one moment. Counts are of live clicks, without the history."""

    elapsed_s: float
    title: str
    activity: str
    steps: tuple[Step, ...]
    note: str = ""
    sent: int = 0
    acknowledged: int = 0
    answered: int = 0
    waiting: int = 0
    dead_letters: int = 0
    lag: int | None = None
    clicks_per_s: float = 0.0
    answers_per_s: float = 0.0
    recent: Quantiles | None = None
    overall: Quantiles | None = None
    tier: str = ""
    model: str = ""
    by_tier: Mapping[str, int] = field(default_factory=dict)
    hits: tuple[HitRate, ...] = ()
    story: StoryView = field(default_factory=lambda: StoryView(""))
    titles: Mapping[str, str] = field(default_factory=dict)


class _Meter:
    """Events per second over the last `RATE_S`."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def rate(self, now: float, count: int) -> float:
        self._samples.append((now, count))
        while len(self._samples) > 2 and now - self._samples[1][0] >= RATE_S:
            self._samples.popleft()
        since, before = self._samples[0]
        return (count - before) / (now - since) if now > since else 0.0


class Board:
    """Gathers and shows. `clock`: monotonic seconds; `started_at`: on it, when the demo began."""

    def __init__(
        self, clock: Callable[[], float], started_at: float, steps: tuple[str, ...]
    ) -> None:
        self.title = ""
        self.titles: Mapping[str, str] = {}
        self.lag: int | None = None
        self._clock = clock
        self._started_at = started_at
        self._lock = threading.Lock()
        self._steps: dict[str, Step] = {name: Step(name, None) for name in steps}
        self._activity = ""
        self._notes: deque[tuple[float, str]] = deque(maxlen=NOTES_MAX)
        self._open: dict[bytes, float] = {}
        self._latencies = Latencies()
        self._story = Story()
        self._hits = Hits()
        self._meters = (_Meter(), _Meter())
        self._sent = self._answered = self._dead_letters = self._others = 0
        self._acknowledged: Callable[[], int] = lambda: 0
        self._by_tier: dict[str, int] = {}
        self._tier = self._model = ""

    # -- told by the main thread

    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return self._clock() - self._started_at

    def follow(self, story: Story, acknowledged: Callable[[], int]) -> None:
        """Before the first click: whose story to tell, and who counts acknowledgements."""
        with self._lock:
            self._story = story
            self._acknowledged = acknowledged

    def reach(self, name: str, detail: str = "") -> Step | None:
        """A milestone is reached now; None where it already was."""
        with self._lock:
            return self._reach(name, detail)

    def _reach(self, name: str, detail: str = "") -> Step | None:
        if name in self._steps and self._steps[name].at_s is not None:
            return None
        step = self._steps[name] = Step(name, self.elapsed_s(), detail)
        return step

    def step(self, name: str) -> Step | None:
        """A milestone as it stands; None where it is none of this run's."""
        with self._lock:
            return self._steps.get(name)

    def drop(self, name: str) -> None:
        """A milestone will not be reached in this run."""
        with self._lock:
            self._steps.pop(name, None)

    def note(self, line: str) -> None:
        """Something worth a line."""
        with self._lock:
            self._notes.append((self._clock(), line))

    def notes(self) -> list[str]:
        """The newest notes, oldest first."""
        with self._lock:
            return [line for _, line in self._notes]

    def begin(self, activity: str) -> None:
        """What is being done now."""
        with self._lock:
            self._activity = activity

    # -- told by the feed

    def sent(self, click: RawClick) -> None:
        """A live click is handed to the producer."""
        now = self._clock()
        user, item = click.user_id.decode(), click.item_id.decode()
        kind = EVENT_TYPES[click.event_type]
        with self._lock:
            if len(self._open) >= OPEN_MAX:
                self._open.pop(next(iter(self._open)))
            self._open[click.event_id] = now
            self._sent += 1
            self._hits.clicked(user, item, kind)
            self._story.clicked(user, item, kind, click.ts, now)

    # -- told by the listener

    def received(self, event_id: bytes, record: Mapping[str, Any], at: float) -> None:
        """A recommendation came at `at` (monotonic s)."""
        tier, model = record["tier"], record["model"]
        with self._lock:
            self._tier, self._model = tier, model
            sent_at = self._open.pop(event_id, None)
            if sent_at is None:
                # Of the history, a repeated one, or to somebody else's click.
                self._others += 1
                return
            self._answered += 1
            self._latencies.add(1000 * (at - sent_at))
            self._by_tier[tier] = self._by_tier.get(tier, 0) + 1
            offer = Offer(tier, model, tuple(record["item_ids"]))
            self._hits.offered(record["user_id"], offer)
            self._story.offered(record["user_id"], offer)
            self._reach(FIRST, tier)
            if tier == TIER_MODEL:
                self._reach(PERSONAL, model)

    def rejected(self) -> None:
        """A dead letter came."""
        with self._lock:
            self._dead_letters += 1

    # -- asked

    def others(self) -> int:
        """Answers to clicks that were not live, and dead letters."""
        with self._lock:
            return self._others + self._dead_letters

    def waiting(self) -> int:
        """Live clicks without an answer."""
        with self._lock:
            return len(self._open)

    def snapshot(self) -> Snapshot:
        """Everything at this moment."""
        now = self._clock()
        with self._lock:
            clicks, answers = self._meters
            noted_at, note = self._notes[-1] if self._notes else (0.0, "")
            return Snapshot(
                now - self._started_at,
                self.title,
                self._activity,
                tuple(self._steps.values()),
                note if now - noted_at < NOTE_S else "",
                self._sent,
                self._acknowledged(),
                self._answered,
                len(self._open),
                self._dead_letters,
                self.lag,
                clicks.rate(now, self._sent),
                answers.rate(now, self._answered),
                self._latencies.recent(),
                self._latencies.overall(),
                self._tier,
                self._model,
                dict(self._by_tier),
                self._hits.rates(),
                self._story.view(),
                self.titles,
            )
