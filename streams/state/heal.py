"""Puts a changelog right that another worker wrote into after it had lost the partition.

A worker that was frozen may, on waking, still send what its client had queued: older windows, on
top of newer ones in the changelog. Nothing is lost by that, since windows are sets: the owner folds
the foreign window's events into its own (which changes nothing, or adds events it had not seen yet)
and writes the union over it.
"""

from __future__ import annotations

from collections.abc import Iterable

from streams.state.window import fold, pack_key, unpack
from streams.state.windows import Windows


def heal(
    windows: Windows, partition: int, written: Iterable[tuple[bytes, bytes | None]]
) -> list[tuple[int, bytes, bytes]]:
    """What to write so that the changelog's newest windows are those in memory.

    `written`: the changelog records, in order, that may be foreign; those of our own among them do
    no harm. Folds their events into `windows` (counts are left to `Windows.recount`) and returns
    (partition, user id, window) for each user whose newest record is not the window in memory.
    """
    users = windows.partitions.setdefault(partition, {})
    newest: dict[bytes, bytes | None] = {}
    for user, value in written:
        newest[user] = value
        if value is None:
            continue
        window = users.get(user)
        if window == value:
            continue
        for event in unpack(value):
            window, _ = fold(
                window, pack_key(event.ts, event.event_key), event.event_type, event.item_id
            )
        if window is not None:
            users[user] = window
    return [
        (partition, user, users[user])
        for user, value in newest.items()
        if user in users and users[user] != value
    ]
