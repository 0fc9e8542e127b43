"""Audits the feature state: what the changelog holds against what the clicks say it must be.

The oracle does not fold. It collects every event of a user, sorts, keeps one of each key and
cuts: the definition itself, in other words than the worker's, so that both cannot be wrong alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from schemas.clicks import click_decoder
from schemas.codec import Codec
from streams.stages.decode import Limits, decode
from streams.stages.fold import IMPRESSION
from streams.state.window import WindowEvent, pack

State = dict[int, dict[bytes, bytes]]


class StoredRecord(Protocol):
    """A record as read back from Kafka."""

    def topic(self) -> str | None:
        """Its topic."""

    def partition(self) -> int | None:
        """Its partition."""

    def offset(self) -> int | None:
        """Its offset."""

    def key(self) -> bytes | None:
        """Its key."""

    def value(self) -> bytes | None:
        """Its value."""


def state_of(changelog: Iterable[StoredRecord]) -> State:
    """Partition -> user -> window, from changelog records in order."""
    state: State = {}
    for record in changelog:
        users = state.setdefault(record.partition() or 0, {})
        key, value = record.key() or b"", record.value()
        if value is None:
            users.pop(key, None)
        else:
            users[key] = value
    return state


def oracle_of(clicks: Iterable[StoredRecord], codec: Codec, limits: Limits) -> State:
    """The state that these clicks must lead to, whatever their order and repetitions."""
    decoder = click_decoder(codec)
    events: dict[tuple[int, bytes], list[WindowEvent]] = {}
    for record in clicks:
        decoded = decode([record], decoder, limits, "")
        for click in decoded.clicks:
            if click.event_type != IMPRESSION:
                events.setdefault((record.partition() or 0, click.user_id), []).append(
                    WindowEvent(click.ts, click.event_key, click.event_type, click.item_id)
                )
    state: State = {}
    for (partition, user), happened in events.items():
        state.setdefault(partition, {})[user] = pack(happened)
    return state


def digest(users: Mapping[bytes, bytes]) -> str:
    """SHA-256 over a partition's users in order of their ids, each with its window."""
    total = hashlib.sha256()
    for user in sorted(users):
        window = users[user]
        total.update(len(user).to_bytes(4, "big") + user + len(window).to_bytes(4, "big") + window)
    return total.hexdigest()


@dataclass(frozen=True, slots=True)
class Difference:
    """One user whose window is not the same in two states; None: not there at all."""

    partition: int
    user: bytes
    left: bytes | None
    right: bytes | None


def differences(left: State, right: State) -> list[Difference]:
    """The users that differ, by partition and user id."""
    found: list[Difference] = []
    for partition in sorted(left.keys() | right.keys()):
        ours, theirs = left.get(partition, {}), right.get(partition, {})
        for user in sorted(ours.keys() | theirs.keys()):
            if ours.get(user) != theirs.get(user):
                found.append(Difference(partition, user, ours.get(user), theirs.get(user)))
    return found
