"""The demo's model from training to its first answer, while the live run goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from infra.demo import board as steps
from infra.demo.board import Board
from infra.demo.interrupts import Interrupts
from infra.demo.screen import Screen
from infra.demo.training import NAME, Training, missing_packages
from schemas.codec import Codec
from schemas.errors import HeadraceError
from streams.announce import announce, announced, withdraw

# So that the popular offers are seen before the personal ones.
POPULAR_SHOWN_S: Final = 5.0
# An announcement is followed within a second or two.
SWAP_TIMEOUT_S: Final = 20.0


class Personal:
    """Trains, announces, and notices the first personal answer. `tick` does what is due."""

    def __init__(
        self,
        board: Board,
        screen: Screen,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        missing: Callable[[], list[str]] = missing_packages,
        open_training: Callable[..., Training] = Training,
    ) -> None:
        self._missing = missing
        self._open_training = open_training
        self._board = board
        self._screen = screen
        self._folder = folder
        self._clock = clock
        self._training: Training | None = None
        self._config: dict[str, Any] = {}
        self._codec: Codec | None = None
        self._announced_at: float | None = None
        self._over = True

    def start(self, history: Path, clicks: int, interrupts: Interrupts) -> None:
        """Start to train on the file `history`, or say why not."""
        missing = self._missing()
        if missing:
            self._give_up(
                f"no model will be trained: {' and '.join(missing)} are not installed "
                "(the `train` extra); popular offers stay"
            )
            return
        out = self._folder / "models" / time.strftime("%Y%m%d-%H%M%S")
        self._training = self._open_training(
            history, clicks, out, self._folder / "train.log", self._clock
        )
        with interrupts.held():
            self._training.start()
        self._over = False
        self._screen.say(f"a model is being trained on {clicks:,} clicks, in the background")

    def connect(self, config: dict[str, Any], codec: Codec) -> None:
        """Kafka is up: withdraw the model of an earlier demo, and leave anybody else's alone."""
        self._config, self._codec = config, codec
        found = announced(config, codec)
        others = [name for name in found if name != NAME]
        if others:
            self._give_up(f"no model of the demo's: {', '.join(others)} is announced already")
        elif NAME in found:
            withdraw(config, codec, NAME)

    def coming(self) -> bool:
        """Whether a personal recommendation is still to be expected."""
        return not self._over

    def tick(self) -> None:
        """Do what is due."""
        training = self._training
        if self._over or training is None:
            return
        if self._announced_at is not None:
            self._await_answer(self._announced_at)
        elif training.running():
            self._board.begin(
                f"training a model on {training.clicks:,} clicks, at low priority: {training.seconds():.0f} s"
            )
        elif not training.done():
            self._give_up(f"training failed: {training.reason()}; popular offers stay")
        else:
            took = f"on {training.clicks:,} clicks, in {training.seconds():.0f} s"
            self._board.reach(steps.TRAINED, took)
            self._announce_when_due(training)

    def _announce_when_due(self, training: Training) -> None:
        first = self._board.step(steps.FIRST)
        if self._codec is None or first is None or first.at_s is None:
            return
        if self._board.elapsed_s() - first.at_s < POPULAR_SHOWN_S:
            self._board.begin("the model is trained; it is announced in a moment")
            return
        record = announce(self._config, self._codec, training.out, time.time_ns() // 1_000_000)
        self._announced_at = self._clock()
        self._screen.say(
            f"announced {record['model']}@{record['version']}: the worker takes it between two batches"
        )
        self._board.begin("the model is announced")

    def _await_answer(self, announced_at: float) -> None:
        personal = self._board.step(steps.PERSONAL)
        if personal is not None and personal.at_s is not None:
            self._over = True
            self._board.begin("the model answers: the offers are personal now")
        elif self._clock() - announced_at > SWAP_TIMEOUT_S:
            self._give_up(
                f"the worker did not take the model within {SWAP_TIMEOUT_S:.0f} s: see {self._folder}/worker.log"
            )

    def _give_up(self, reason: str) -> None:
        self.stop()
        self._over = True
        for name in (steps.TRAINED, steps.PERSONAL):
            self._board.drop(name)
        self._board.begin("")
        self._screen.warn(reason)

    def withdraw(self) -> None:
        """Where Kafka is not the demo's: leave no model in force that was trained for show."""
        if self._announced_at is not None and self._codec is not None:
            with contextlib.suppress(HeadraceError):
                withdraw(self._config, self._codec, NAME)

    def stop(self) -> None:
        """End a training that still runs. Idempotent."""
        if self._training is not None:
            self._training.stop()
