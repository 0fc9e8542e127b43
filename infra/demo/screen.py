"""Two ways to show a run: live on a terminal, or in lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

import click
from rich.console import Console
from rich.live import Live

from infra.demo.board import Board
from infra.demo.lines import status_line, step_line, story_line
from infra.demo.view import render

# Often enough to look alive, seldom enough to cost nothing.
REFRESHES_PER_S: Final = 4
STATUS_EVERY_S: Final = 2.0
# A story in lines is told more seldom than the status.
STORY_EVERY: Final = 3


class Screen(Protocol):
    """Shows a board; a context manager. `tick` is called several times a second."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, with the terminal as it was."""

    def tick(self) -> None:
        """Show what is new."""

    def say(self, line: str) -> None:
        """Tell what is being done. From any thread."""

    def warn(self, line: str) -> None:
        """Tell what went wrong; it is told again at the end. From any thread."""


class LiveScreen:
    """The whole terminal, drawn anew by a thread of rich's; the run's own lines go into it."""

    def __init__(self, board: Board, console: Console) -> None:
        self._board = board
        self._live = Live(
            get_renderable=lambda: render(board.snapshot(), *console.size),
            console=console,
            screen=True,
            refresh_per_second=REFRESHES_PER_S,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def tick(self) -> None:
        """Nothing: the thread draws."""

    def say(self, line: str) -> None:
        """Into the view."""
        self._board.begin(line)

    def warn(self, line: str) -> None:
        """Into the view, for a while."""
        self._board.note(line)


class PlainScreen:
    """Lines on standard output: milestones as they are reached, the status every two seconds."""

    def __init__(self, board: Board, clock: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._clock = clock
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self._status_at = float("-inf")
        self._statuses = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What was reached in the last moment is told too.
        if error is None:
            self._tell_steps()

    def tick(self) -> None:
        """New milestones, and the status when it is time."""
        self._tell_steps()
        now = self._clock()
        snapshot = self._board.snapshot()
        if not snapshot.sent or now - self._status_at < STATUS_EVERY_S:
            return
        self._status_at = now
        self.say(status_line(snapshot))
        if self._statuses % STORY_EVERY == 0 and (line := story_line(snapshot)):
            self.say(line)
        self._statuses += 1

    def _tell_steps(self) -> None:
        with self._lock:
            for step in self._board.snapshot().steps:
                if step.at_s is not None and step.name not in self._told:
                    self._told.add(step.name)
                    click.echo(_stamped(step.at_s, step_line(step)))

    def say(self, line: str) -> None:
        """One line with its time, after what was reached before it."""
        self._tell_steps()
        click.echo(_stamped(self._board.elapsed_s(), line))

    def warn(self, line: str) -> None:
        """The same, and it is kept."""
        self._board.note(line)
        self.say(line)


def _stamped(at_s: float, line: str) -> str:
    return f"[{at_s:6.1f} s] {line}"
