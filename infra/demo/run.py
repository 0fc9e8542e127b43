"""One run of the demo: starts what it needs, shows it, and stops what it started, however it ends."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from infra.cluster.folders import make_folder
from infra.cluster.locking import locked
from infra.demo import board as steps
from infra.demo.board import Board
from infra.demo.feed import Feed
from infra.demo.howto import CLICK_FILE, write_click
from infra.demo.interrupts import Interrupts
from infra.demo.kafka import DemoKafka
from infra.demo.listen import Listener
from infra.demo.personal import Personal
from infra.demo.screen import Screen
from infra.demo.source import Source
from infra.demo.story import Story
from infra.demo.worker import STOP_TIMEOUT_S, DemoWorker
from infra.supervisor import Supervisor
from schemas.errors import ClusterError, DeliveryError
from schemas.registry import codec_from_settings
from streams.answers import read_titles
from streams.clicks.files import write_clicks
from streams.clicks.publish import publish_items
from streams.clicks.replay import ClickSender, open_producer, replay
from streams.kafka import client_config, fetch_consumer_config
from streams.preflight import check_topics
from streams.settings import Settings
from streams.topics_admin import cluster_metadata, create_topics

# Beside the regions' folders; a region's name has no underscore.
FOLDER: Final = "demo_run"
TICK_S: Final = 0.1
LAG_EVERY_S: Final = 2.0
# A file that is over goes on for so long after its first personal recommendation.
PERSONAL_SHOWN_S: Final = 10.0
# After the last click: answers that are still on their way; less when somebody waits.
ANSWERS_TIMEOUT_S: Final = 15.0
ANSWERS_INTERRUPTED_S: Final = 3.0
# No answer to the history for so long means that none will come.
HISTORY_SILENCE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `seconds`: of live clicks; None: until Ctrl-C or the end of the file."""

    rate: float
    seconds: float | None
    seed: int
    train: bool
    keep: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    `own_home`: that of the demo's own Kafka, None where another was used; `up`: whether Kafka
    still runs at `bootstrap`; `click`: a file with a click of `shopper` on `item` as it travels.
    """

    interrupted: bool
    missing: int
    bootstrap: str
    own_home: Path | None
    up: bool
    shopper: str
    item: str
    click: Path


def step_names(plan: Plan, source: Source) -> tuple[str, ...]:
    """The milestones of such a run, in their order."""
    history = (steps.HISTORY,) if len(source.history) else ()
    model = (steps.TRAINED, steps.PERSONAL) if plan.train else ()
    return (steps.KAFKA, steps.TOPICS, steps.WORKER, *history, steps.FIRST, *model)


class Demo:
    """One run. `clock`: monotonic seconds."""

    def __init__(
        self,
        plan: Plan,
        source: Source,
        settings: Settings,
        board: Board,
        screen: Screen,
        interrupts: Interrupts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._source = source
        self._settings = settings
        self._board = board
        self._screen = screen
        self._interrupts = interrupts
        self._clock = clock
        self._codec = codec_from_settings(settings.registry_url)
        home = settings.home.expanduser().resolve()
        make_folder(home, "HEADRACE_HOME")
        self._folder = home / FOLDER
        self._personal = Personal(board, screen, self._folder, clock)
        self._kafka = DemoKafka(settings, self._folder, plan.keep)
        self._lag_at = float("-inf")

    def run(self) -> Outcome:
        """Run to the end. Raises `HeadraceError`, or `KeyboardInterrupt` before any live click."""
        with ExitStack() as stack:
            try:
                self._lock(stack)
                self._train(stack)
                self._start_kafka(stack)
                worker, producer = self._start_path(stack)
                return self._finish(*self._live(stack, worker, producer))
            finally:
                # What is started from here on is only stopping.
                self._interrupts.end()
                self._board.begin("stopping what was started")
                self._screen.tick()

    def _lock(self, stack: ExitStack) -> None:
        make_folder(self._folder, "HEADRACE_HOME")
        try:
            stack.enter_context(locked(self._folder / "lock", 0.0, "another demo"))
        except ClusterError:
            raise ClusterError(
                f"another demo runs with {self._folder.parent}: end it, or set HEADRACE_HOME to another folder"
            ) from None
        # What an earlier run left is of no use to this one.
        shutil.rmtree(self._folder / "models", ignore_errors=True)
        (self._folder / "worker.log").unlink(missing_ok=True)

    def _train(self, stack: ExitStack) -> None:
        """Training needs no Kafka, so it begins while that is fetched and started."""
        history = self._source.history
        if not self._plan.train or not len(history):
            return
        path = self._folder / "history.parquet"
        write_clicks(path, [history])
        stack.callback(self._personal.stop)
        self._personal.start(path, len(history), self._interrupts)

    def _start_kafka(self, stack: ExitStack) -> None:
        stack.callback(self._kafka.stop)
        settings = self._settings = self._kafka.start(self._screen.say)
        self._board.title = f"{self._source.name}, Kafka at {settings.bootstrap}"
        config = client_config(settings, settings.bootstrap) | {"log_level": 0}
        cluster_metadata(AdminClient(config), settings.bootstrap)
        self._board.reach(steps.KAFKA, f"at {settings.bootstrap}")
        self._screen.say("creating the topics")
        create_topics(AdminClient(config), settings)
        check_topics(settings)
        self._board.reach(steps.TOPICS)
        if self._plan.train:
            self._personal.connect(config, self._codec)
            if not self._kafka.own:
                stack.callback(self._personal.withdraw)
        self._screen.tick()

    def _start_path(self, stack: ExitStack) -> tuple[DemoWorker, Producer]:
        """Worker and listener; what was clicked before is sent and waited for."""
        settings, history = self._settings, self._source.history
        reading = fetch_consumer_config(settings, settings.bootstrap)
        listener = Listener(reading, self._codec, self._board.received, self._board.rejected)
        stack.callback(listener.stop)
        listener.start()
        supervisor = Supervisor(report=self._screen.warn, stop_timeout_s=STOP_TIMEOUT_S)
        stack.callback(supervisor.stop)
        worker = DemoWorker(supervisor, settings.bootstrap, self._folder / "worker.log")
        self._screen.say("starting a worker")
        with self._interrupts.held():
            worker.start()
        producer = open_producer(settings, settings.bootstrap)
        publish_items(producer, self._codec, self._source.items(time.time_ns() // 1_000_000))
        self._board.titles = read_titles(reading, self._codec)
        if len(history):
            sender = ClickSender(producer, self._codec, seed=self._plan.seed)
            delivery = replay([history], sender)
            if delivery.acknowledged < delivery.handed:
                raise DeliveryError(
                    f"{delivery.handed - delivery.acknowledged:,} of {delivery.handed:,} clicks of "
                    f"the history were not acknowledged: {', '.join(delivery.faults)}"
                )
        worker.wait_ready(self._tick)
        self._board.reach(steps.WORKER)
        if len(history):
            self._await_history(len(history))
        return worker, producer

    def _await_history(self, count: int) -> None:
        began, heard_at, before = self._clock(), self._clock(), self._board.others()
        while (answered := self._board.others()) < count:
            now = self._clock()
            if answered != before:
                heard_at, before = now, answered
            elif now - heard_at > HISTORY_SILENCE_S:
                raise DeliveryError(
                    f"{count - answered:,} of {count:,} clicks of the history were not answered: "
                    f"see {self._folder}/worker.log"
                )
            self._board.begin(f"history: {answered:,} of {count:,} clicks answered")
            self._tick()
            time.sleep(TICK_S)
        took = self._clock() - began
        self._board.reach(
            steps.HISTORY, f"{count:,} clicks, {took:.1f} s after the worker was ready"
        )

    def _live(self, stack: ExitStack, worker: DemoWorker, producer: Producer) -> tuple[Feed, bool]:
        """The live clicks, to the end; whether that was Ctrl-C."""
        plan, source = self._plan, self._source
        feed = Feed(
            producer, self._codec, source.live(self._again), plan.rate, plan.seed, self._board.sent
        )
        stack.callback(feed.stop)
        self._board.follow(Story(source.shopper), feed.acknowledged)
        self._screen.say(f"{plan.rate:,.0f} clicks/s of {source.name}")
        began = self._clock()
        interrupted = False
        try:
            feed.start()
            while not feed.ended() and (
                plan.seconds is None or self._clock() - began < plan.seconds
            ):
                self._tick()
                self._ask_lag(worker)
                time.sleep(TICK_S)
        except KeyboardInterrupt:
            interrupted = True
        self._interrupts.end()
        feed.stop()
        deadline = self._clock() + (ANSWERS_INTERRUPTED_S if interrupted else ANSWERS_TIMEOUT_S)
        while self._board.waiting() and self._clock() < deadline:
            self._screen.tick()
            time.sleep(TICK_S)
        return feed, interrupted

    def _again(self) -> bool:
        """Whether a file that is over starts anew: to show the model, which is still coming."""
        personal = self._board.step(steps.PERSONAL)
        if self._personal.coming() or personal is None or personal.at_s is None:
            return self._personal.coming()
        return self._board.elapsed_s() - personal.at_s < PERSONAL_SHOWN_S

    def _finish(self, feed: Feed, interrupted: bool) -> Outcome:
        feed.ended()
        snapshot = self._board.snapshot()
        shopper = snapshot.story.shopper or self._source.shopper
        items = [event.item for event in snapshot.story.events if event.item]
        item = items[-1] if items else next(iter(snapshot.titles), "i0001")
        click = self._folder / CLICK_FILE
        write_click(self._codec, click, shopper, item, time.time_ns() // 1_000_000)
        missing = max(0, snapshot.acknowledged - snapshot.answered)
        return Outcome(
            interrupted,
            missing,
            self._settings.bootstrap,
            self._folder if self._kafka.own else None,
            self._kafka.stays_up,
            shopper,
            item,
            click,
        )

    def _tick(self) -> None:
        self._personal.tick()
        self._screen.tick()

    def _ask_lag(self, worker: DemoWorker) -> None:
        if self._clock() - self._lag_at >= LAG_EVERY_S:
            self._lag_at = self._clock()
            self._board.lag = worker.lag()
