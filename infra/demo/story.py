"""One shopper's story: what they clicked, what they were offered, before and with the model.

And how often shoppers went on to view what they had been offered, by the tier that offered it: the
plainest sign that personal offers are worth more than popular ones.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from models.contract import TIER_MODEL

# What the highest screen shows.
EVENTS_MAX: Final = 30
# A shopper who is silent for so long is left for another one.
SILENT_S: Final = 10.0
# Whom to turn to then: one who was seen to click as often as this.
CLICKS_MIN: Final = 3
USERS_MAX: Final = 20_000
# Fewer offers than this make no share.
OFFERS_MIN: Final = 50

VIEW: Final = "view"


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


class Story:
    """Follows one shopper. `shopper` empty, or `moves` and they fall silent: whoever clicks."""

    def __init__(self, shopper: str = "", *, moves: bool = True) -> None:
        self._shopper = shopper
        self._moves = moves or not shopper
        self._events: deque[Event] = deque(maxlen=EVENTS_MAX)
        self._before: Offer | None = None
        self._now: Offer | None = None
        self._heard_at: float | None = None
        self._counts: OrderedDict[str, int] = OrderedDict()

    def clicked(self, user: str, item: str, kind: str, ts_ms: int, at: float) -> None:
        """A click of any shopper, at `at` (monotonic s)."""
        if user != self._shopper and not self._turns_to(user, at):
            return
        self._heard_at = at
        offered = kind == VIEW and self._now is not None and item in self._now.items
        self._events.append(Event(ts_ms, kind, item, offered))

    def _turns_to(self, user: str, at: float) -> bool:
        if not self._moves:
            return False
        self._counts[user] = count = self._counts.pop(user, 0) + 1
        if len(self._counts) > USERS_MAX:
            self._counts.popitem(last=False)
        if self._heard_at is None:
            # A chosen shopper is waited for like one who has just clicked.
            self._heard_at = at
        if self._shopper and (at - self._heard_at < SILENT_S or count < CLICKS_MIN):
            return False
        self._shopper = user
        self._events.clear()
        self._before = self._now = None
        return True

    def offered(self, user: str, offer: Offer) -> None:
        """A recommendation to any shopper."""
        if user != self._shopper:
            return
        if offer.tier == TIER_MODEL and self._now is not None and self._now.tier != TIER_MODEL:
            self._before = self._now
        self._now = offer

    def view(self) -> StoryView:
        """The story as it stands."""
        return StoryView(self._shopper, tuple(self._events), self._before, self._now)


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
