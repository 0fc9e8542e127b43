"""`headrace model train --topic`: what a model learns from is what Kafka holds, each click once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness
import pytest
from click.testing import CliRunner
from conftest import LocalKafka

from infra.commands.model import model
from infra.commands.training import clicks_of_topic
from models.scorer import OnnxScorer

pytestmark = pytest.mark.kafka

TS = 1_767_571_200_000


def record(number: int, user: str, item: str, ts: int, event_type: str = "view") -> dict[str, Any]:
    return {
        "event_id": f"00000000-0000-7000-8000-{number:012d}",
        "user_id": user,
        "item_id": item,
        "event_type": event_type,
        "ts": ts,
    }


def test_trains_on_the_clicks_in_kafka(
    fresh_kafka: LocalKafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.create_topics(fresh_kafka.bootstrap, fresh_kafka.settings)
    feeder = harness.Feeder(fresh_kafka.bootstrap)
    # Late, sent twice, of one time, and what is not learned from.
    sent = [
        record(2, "u", "b", TS + 5),
        record(1, "u", "a", TS + 5),
        record(0, "u", "first", TS),
        record(1, "u", "a", TS + 5),
        record(3, "u", "seen", TS + 6, "impression"),
        record(4, "u", "", TS + 7, "search"),
        record(5, "v", "a", TS + 8),
    ]
    for one in sent:
        feeder.send_record(one)
    feeder.send_raw(b"no click", b"u")
    feeder.send_raw(None, b"u")
    feeder.flush()

    clicks = clicks_of_topic("east", fresh_kafka.bootstrap)

    learned = [
        (user, clicks.item_ids[item], ts)
        for user, item, ts in zip(clicks.users, clicks.items, clicks.ts, strict=True)
    ]
    users = dict.fromkeys(clicks.users.tolist())
    by_user = sorted([[row[1:] for row in learned if row[0] == user] for user in users], key=len)
    assert by_user == [
        [("a", TS + 8)],
        [("first", TS), ("a", TS + 5), ("b", TS + 5)],
    ]
    assert "2 records of clicks are no clicks" in capsys.readouterr().err

    for number in range(200):
        feeder.send_record(record(100 + number, f"w{number // 4}", f"i{number % 20}", TS + number))
    feeder.flush()
    out = tmp_path / "model"
    arguments = ["train", "--topic", "--bootstrap", fresh_kafka.bootstrap, "--epochs", "1"]
    result = CliRunner().invoke(model, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, (result.output, result.exception)
    assert OnnxScorer(out, device="cpu").rank([[b"i3"]], 5).answered.all()
