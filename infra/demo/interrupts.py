"""Ctrl-C, SIGTERM and SIGHUP: at once, a moment later, or not any more."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final, Self

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Each of the signals raises `KeyboardInterrupt` in the main thread, but only once.

    A context manager for the main thread. After the first, what cleans up is not interrupted; its
    own waits are bounded.
    """

    def __init__(self) -> None:
        self._ended = False
        self._held = False
        self._pending = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No interrupt within, so that what is started is also noted; then the one that came."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending:
            self._interrupt()

    def end(self) -> None:
        """From now on signals are ignored: the end has begun anyway."""
        self._ended = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._pending = True
        elif not self._ended:
            self._interrupt()

    def _interrupt(self) -> None:
        self._ended = True
        raise KeyboardInterrupt
