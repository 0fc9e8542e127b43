"""Second hop: fold the clicks of a batch into the windows of their shoppers.

An impression is what the shop showed, not what the shopper did: it is answered like any event,
but it is not folded, or a page of twenty impressions would push half a window out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.clicks import RawClick
from streams.state.window import fold as fold_event
from streams.state.window import pack_key
from streams.state.windows import Windows

IMPRESSION: Final = 5


@dataclass(frozen=True, slots=True)
class Folded:
    """What folding a batch changed.

    `snapshots`: for each click, the window right after it was folded (None: no window, the user
    only ever saw impressions). `changed`: (partition, user id) -> new window, one entry a user.
    """

    snapshots: list[bytes | None]
    changed: dict[tuple[int, bytes], bytes]


def fold(windows: Windows, clicks: Sequence[RawClick], partitions: Sequence[int]) -> Folded:
    """Fold a batch, in order; updates `windows` and its counts in place.

    Folding the same batch again changes nothing and reports no change.
    """
    snapshots: list[bytes | None] = []
    changed: dict[tuple[int, bytes], bytes] = {}
    counts = windows.counts
    by_partition = windows.partitions
    for click, partition in zip(clicks, partitions, strict=True):
        _, event_key, user, item, event_type, ts = click
        users = by_partition.get(partition)
        if users is None:
            users = by_partition[partition] = {}
        before = users.get(user)
        if event_type == IMPRESSION:
            snapshots.append(before)
            continue
        after, pushed_out = fold_event(before, pack_key(ts, event_key), event_type, item)
        snapshots.append(after)
        if after is before or after is None:
            continue
        users[user] = after
        changed[partition, user] = after
        if item:
            counts[item] += 1
        if pushed_out:
            counts[pushed_out] -= 1
    return Folded(snapshots, changed)
