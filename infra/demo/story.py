"""One shopper's story: what they clicked, what they were offered, before and with the model.

And how often shoppers went on to view what they had been offered, by the tier that offered it: the
plainest sign that personal offers are worth more than popular ones.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from models.contract import TIER_MODEL

# What a high screen shows of one shopper, and how many shoppers are remembered.
EVENTS_MAX: Final = 24
USERS_MAX: Final = 5_000
# A shopper who is silent for so long is left for another one, who clicks now and has a story.
SILENT_S: Final = 6.0
EVENTS_MIN: Final = 4
# Fewer offers than this make no share.
OFFERS_MIN: Final = 50

VIEW: Final = "view"
IMPRESSION: Final = "impression"


@dataclass(frozen=True, slots=True)
class Event:
    """A click of the shopper; `offered`: it is of an item that they had just been offered."""

    ts_ms: int
    kind: str
    item: str
    offered: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """A recommendation to the shopper."""

    tier: str
    model: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoryView:
    """The story as it stands. `before`: the last offer by a lower tier, once the model offers."""

    shopper: str
    events: tuple[Event, ...] = ()
    before: Offer | None = None
    now: Offer | None = None


@dataclass(slots=True)
class _Trace:
    """What is remembered of a shopper: newest clicks, and the last offer of either kind."""

    events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS_MAX))
    before: Offer | None = None
    now: Offer | None = None


class Story:
    """Follows one shopper, and turns to another when that one falls silent.

    `shopper`: whom to follow first; empty: whoever clicks. The newest `USERS_MAX` are remembered,
    so that whoever is turned to has a past.
    """

    def __init__(self, shopper: str = "") -> None:
        self._shopper = shopper
        self._heard_at: float | None = None
        self._traces: OrderedDict[str, _Trace] = OrderedDict()

    def clicked(self, user: str, item: str, kind: str, ts_ms: int, at: float) -> None:
        """A click of any shopper, at `at` (monotonic s)."""
        if kind == IMPRESSION:  # the shop's doing, not the shopper's
            return
        trace = self._trace(user)
        offered = kind == VIEW and trace.now is not None and item in trace.now.items
        trace.events.append(Event(ts_ms, kind, item, offered))
        # A chosen shopper is waited for like one who has just clicked.
        silent_s = at - (at if self._heard_at is None else self._heard_at)
        if not self._shopper or (silent_s >= SILENT_S and len(trace.events) >= EVENTS_MIN):
            self._shopper = user
        if user == self._shopper or self._heard_at is None:
            self._heard_at = at

    def offered(self, user: str, offer: Offer) -> None:
        """A recommendation to any shopper."""
        trace = self._trace(user)
        trace.now = offer
        if offer.tier != TIER_MODEL:
            trace.before = offer

    def _trace(self, user: str) -> _Trace:
        trace = self._traces.pop(user, None) or _Trace()
        self._traces[user] = trace
        if len(self._traces) > USERS_MAX:
            self._traces.popitem(last=False)
        return trace

    def view(self) -> StoryView:
        """The story as it stands."""
        trace = self._traces.get(self._shopper) or _Trace()
        before = trace.before if trace.before is not trace.now else None
        return StoryView(self._shopper, tuple(trace.events), before, trace.now)


@dataclass(frozen=True, slots=True)
class HitRate:
    """Of `views` that followed an offer by `tier`, so many were of an item in it."""

    tier: str
    views: int
    hits: int

    @property
    def share(self) -> float:
        """Hits among the views."""
        return self.hits / self.views if self.views else 0.0


class Hits:
    """Counts views of what had been offered last; bounded to the newest `USERS_MAX` shoppers."""

    def __init__(self) -> None:
        self._offers: OrderedDict[str, Offer] = OrderedDict()
        self._counts: dict[str, list[int]] = {}

    def offered(self, user: str, offer: Offer) -> None:
        """A recommendation to any shopper."""
        self._offers.pop(user, None)
        self._offers[user] = offer
        if len(self._offers) > USERS_MAX:
            self._offers.popitem(last=False)

    def clicked(self, user: str, item: str, kind: str) -> None:
        """A click of any shopper."""
        offer = self._offers.pop(user, None) if kind == VIEW else None
        if offer is not None and offer.items:
            counts = self._counts.setdefault(offer.tier, [0, 0])
            counts[0] += 1
            counts[1] += item in offer.items

    def rates(self) -> tuple[HitRate, ...]:
        """By tier, where there are enough views to tell."""
        return tuple(
            HitRate(tier, views, hits)
            for tier, (views, hits) in self._counts.items()
            if views >= OFFERS_MIN
        )
