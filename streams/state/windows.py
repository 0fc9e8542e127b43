"""All windows of the partitions that a worker owns, and the item counts derived from them.

Popularity is derived, not counted beside: an item's count is the number of events with it in the
windows of the owned partitions. It goes up when a fold inserts an event and down when one is
pushed out, so it is a function of the windows alone; redelivery cannot inflate it, a restored
worker has the same counts, and it needs no changelog of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from streams.state.window import items_of


class Windows:
    """Windows by partition and user id. Not thread-safe: one thread at a time."""

    def __init__(self) -> None:
        self.partitions: dict[int, dict[bytes, bytes]] = {}
        self.counts: Counter[bytes] = Counter()

    def restore(
        self, partition: int, keys: Iterable[bytes], values: Iterable[bytes | None]
    ) -> None:
        """Take changelog records into a partition, in their order; None removes a user.

        Counts are not kept here, since a user may come many times: call `recount` at the end.
        """
        users = self.partitions.setdefault(partition, {})
        for key, value in zip(keys, values, strict=True):
            if value is None:
                users.pop(key, None)
            else:
                users[key] = value

    def recount(self) -> None:
        """Derive the counts anew from all windows: about 3 s for a million full ones."""
        counts: Counter[bytes] = Counter()
        update = counts.update
        for users in self.partitions.values():
            for window in users.values():
                update(items_of(window))
        counts.pop(b"", None)
        self.counts = counts

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget partitions that went to another worker."""
        for partition in partitions:
            self.partitions.pop(partition, None)

    @property
    def users_count(self) -> int:
        """Number of users in all owned partitions."""
        return sum(len(users) for users in self.partitions.values())
