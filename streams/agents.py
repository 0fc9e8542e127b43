"""The agents: they only move bytes; what happens to a batch is in `streams.hop`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from faust.channels import Channel
from faust.types import ChannelT
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from streams.fetch import Batch
from streams.group import HeadraceApp


class BatchChannel(Channel):  # type: ignore[misc]
    """A Faust channel whose values are whole fetched batches.

    All clones share one queue. The queue is outside Faust's flow control, which empties queues at
    a rebalance: a batch is never lost, but refused by `DataPath.handle` when its assignment is
    over. It is bounded by `streams.fetch.BATCHES_AHEAD`.
    """

    def __init__(self, app: HeadraceApp, **kwargs: Any) -> None:
        if kwargs.get("queue") is None:
            kwargs["queue"] = ThrowableQueue(flow_control=FlowControlEvent())
        super().__init__(app, **kwargs)

    def _clone_args(self) -> dict[str, Any]:
        return {**super()._clone_args(), "queue": self.queue}

    def derive(self, **kwargs: Any) -> ChannelT[Any]:
        """This channel: it has no configuration to derive from."""
        return self

    def deliver_batch(self, batch: Batch) -> None:
        """Put a batch; on the event loop only."""
        self.queue.put_nowait(batch)


def declare(app: HeadraceApp) -> BatchChannel:
    """Declare the agents of `app`; returns the channel that feeds the hot path."""
    batches = BatchChannel(app)

    @app.agent(batches, name="headrace.recommend")  # type: ignore[untyped-decorator]
    async def recommend(stream: AsyncIterator[Batch]) -> None:
        """Clicks in, recommendations out."""
        async for batch in stream:
            try:
                await app.path.handle(batch, app.commit_offsets)
            except Exception as error:
                # Faust would acknowledge the batch and go on (faust-streaming issues 315, 527).
                app.fail(error)
                return

    return batches
