"""`headrace demo` as its users run it: it shows, it ends, and nothing of it stays."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import LocalKafka, free_base_port

from infra.cluster.state import FILE, read_state
from infra.demo.run import FOLDER

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
# Starting everything takes ten seconds; a machine that is busy with other tests takes longer.
LINE_TIMEOUT_S = 120.0
END_TIMEOUT_S = 60.0


class Run:
    """A demo in a process of its own; `lines` holds what it has printed."""

    def __init__(self, home: Path, port: int, *arguments: str) -> None:
        self.home = home
        self.lines: list[str] = []
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "infra.cli", "demo", *arguments],
            env=kept
            | {
                "HEADRACE_HOME": str(home),
                "HEADRACE_KAFKA_PORT": str(port),
                "PYTHONPATH": str(ROOT),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._rest = b""

    def read(self, timeout_s: float) -> bool:
        """Read what there is; False at the end."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                return True
        found = os.read(self.process.stdout.fileno(), 65_536)
        *whole, self._rest = (self._rest + found).split(b"\n")
        self.lines += [line.decode() for line in whole]
        return bool(found)

    def wait_for(self, words: str) -> str:
        """The first line with these words; fails with all lines when it does not come."""
        deadline = time.monotonic() + LINE_TIMEOUT_S
        while True:
            for line in self.lines:
                if words in line:
                    return line
            assert time.monotonic() < deadline, f"no {words!r} in time:\n{self.text()}"
            assert self.read(1.0), f"it ended without {words!r}:\n{self.text()}"

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def end(self, timeout_s: float = END_TIMEOUT_S) -> int:
        """Its exit code; fails with all lines when it does not end."""
        deadline = time.monotonic() + timeout_s
        while self.read(1.0):
            assert time.monotonic() < deadline, f"it does not end:\n{self.text()}"
        return self.process.wait(timeout_s)

    def text(self) -> str:
        return "\n".join(self.lines)

    def close(self) -> None:
        """Whatever happened, leave nothing to other tests."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(END_TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        for process in left_over(self.home):
            process.kill()


def left_over(home: Path) -> list[psutil.Process]:
    """Living processes that were started with this home, at any remove."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if (
            environment.get("HEADRACE_HOME") == str(home)
            and process.status() != psutil.STATUS_ZOMBIE
        ):
            found.append(process)
    return found


@pytest.fixture
def demos(tmp_path: Path) -> Iterator[list[Run]]:
    """Runs to be closed in the end."""
    runs: list[Run] = []
    yield runs
    for run in runs:
        run.close()


def assert_nothing_left(home: Path) -> None:
    assert left_over(home) == []
    for path in home.rglob(FILE):
        state = read_state(path.parent)
        assert state is not None
        assert state.processes == (None,) * state.brokers, f"{path} names a process"


def test_shows_a_run_and_then_another_of_a_file(tmp_path: Path, demos: list[Run]) -> None:
    home, port = tmp_path / "home", free_base_port()
    first = Run(
        home,
        port,
        "--seconds",
        "3",
        "--rate",
        "100",
        "--shoppers",
        "50",
        "--items",
        "200",
        "--plain",
        "--no-train",
    )
    demos.append(first)
    assert first.end(LINE_TIMEOUT_S + END_TIMEOUT_S) == 0, first.text()
    counts = re.search(
        r"([\d,]+) sent, ([\d,]+) acknowledged, ([\d,]+) answered, 0 missing, 0 dead", first.text()
    )
    assert counts is not None, first.text()
    assert len({*counts.groups()}) == 1
    for part in (
        "Kafka up: at 127.0.0.1:",
        "worker ready",
        "30,000 clicks",
        "first recommendation: popular",
        "p50",
        "recommendations get s",
    ):
        assert part in first.text()
    assert "Traceback" not in first.text()
    assert_nothing_left(home)

    file = tmp_path / "theirs.csv"
    rows = [f"v{at % 20},p{at % 30},{1_770_000_000 + at}" for at in range(400)]
    file.write_text("\n".join(["visitor,sku,when", *rows]) + "\n")
    second = Run(
        home,
        port,
        "--events",
        str(file),
        "--map",
        "user_id=visitor,item_id=sku,ts=when",
        "--rate",
        "400",
        "--plain",
        "--no-train",
    )
    demos.append(second)
    # It ends by itself when the file is over.
    assert second.end(LINE_TIMEOUT_S + END_TIMEOUT_S) == 0, second.text()
    assert "400 sent, 400 acknowledged, 400 answered, 0 missing, 0 dead letters" in second.text()
    # Nothing of the first shop is offered in the second one.
    story = second.wait_for("shopper v")
    assert re.search(r"-> popular: (p\d+|nothing yet)", story), story
    assert_nothing_left(home)


@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        ("starting 1 broker", signal.SIGINT, 130),
        ("starting a worker", signal.SIGTERM, 130),
        ("worker ready", signal.SIGINT, 130),
        ("first recommendation", signal.SIGINT, 0),
    ],
)
def test_an_interrupt_at_any_moment_leaves_nothing(
    words: str, number: signal.Signals, code: int, tmp_path: Path, demos: list[Run]
) -> None:
    home = tmp_path / "home"
    run = Run(home, free_base_port(), "--plain")
    demos.append(run)
    run.wait_for(words)
    run.interrupt(number)
    # A second one, of an impatient user, changes nothing, unless all is stopped already.
    time.sleep(0.1)
    run.interrupt(number)
    found = run.end()
    # Between two milestones either is right.
    codes = {code, -number, 0} if words == "worker ready" else {code, -number}
    assert found in codes, run.text()
    assert "Traceback" not in run.text()
    assert_nothing_left(home)


def test_a_kafka_that_is_up_is_used_and_left_up(fresh_kafka: LocalKafka, demos: list[Run]) -> None:
    settings = fresh_kafka.settings
    run = Run(settings.home, settings.kafka_port, "--seconds", "2", "--plain", "--no-train")
    demos.append(run)
    assert run.end(LINE_TIMEOUT_S + END_TIMEOUT_S) == 0, run.text()
    assert f"Kafka up: at {fresh_kafka.bootstrap}" in run.text()
    assert f"--bootstrap {fresh_kafka.bootstrap}" in run.text()
    state = read_state(settings.home / "east")
    assert state is not None
    assert all(state.living())


def test_keep_leaves_kafka_up_in_the_demos_own_home(tmp_path: Path, demos: list[Run]) -> None:
    home, port = tmp_path / "home", free_base_port()
    run = Run(home, port, "--seconds", "1", "--plain", "--no-train", "--keep")
    demos.append(run)
    assert run.end(LINE_TIMEOUT_S + END_TIMEOUT_S) == 0, run.text()
    assert f"export HEADRACE_HOME={home / FOLDER}" in run.text()
    state = read_state(home / FOLDER / "east")
    assert state is not None
    assert all(state.living())
    shopper = run.wait_for("recommendations get ").split()[-1]
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "recommendations", "get", shopper, "--json"],
        env=os.environ | {"HEADRACE_HOME": str(home / FOLDER), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=END_TIMEOUT_S,
        check=False,
    )
    assert json.loads(done.stdout)["user_id"] == shopper, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--events", "nowhere.csv"), "no file nowhere.csv"),
        (("--map", "user_id=a"), "--events"),
        (("--rate", "0"), "--rate"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    arguments: tuple[str, ...], words: str, tmp_path: Path, demos: list[Run]
) -> None:
    run = Run(tmp_path / "home", free_base_port(), *arguments, "--plain")
    demos.append(run)
    assert run.end() == 2
    assert words in run.text()
    assert "Traceback" not in run.text()
    assert not (tmp_path / "home").exists()


def test_a_file_without_the_columns_is_one_message(tmp_path: Path, demos: list[Run]) -> None:
    file = tmp_path / "theirs.csv"
    file.write_text("visitor,sku,when\nv1,p1,1770000000\n")
    run = Run(tmp_path / "home", free_base_port(), "--events", str(file), "--plain")
    demos.append(run)
    assert run.end() == 2
    (line,) = run.lines
    assert "theirs.csv: no column for user_id and ts" in line
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
def test_the_model_takes_over_while_it_runs(tmp_path: Path, demos: list[Run]) -> None:
    home = tmp_path / "home"
    run = Run(home, free_base_port(), "--plain")
    demos.append(run)
    run.wait_for("first recommendation: popular")
    run.wait_for("model trained: on 30,000 clicks")
    run.wait_for("first personal recommendation: demo@")
    run.wait_for("tier model")
    run.interrupt()
    assert run.end() == 0, run.text()
    assert re.search(r"tiers +popular [\d,]+, model [\d,]+", run.text()), run.text()
    assert " 0 missing" in run.text()
    assert_nothing_left(home)
