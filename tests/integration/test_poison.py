"""A thousand poisoned records among ten thousand good ones: the good are answered, the bad are on
`dead-letters` with the right reason and all their bytes, and the worker never stops."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import harness
import pytest
from conftest import LocalKafka

from schemas.errors import RecordError

pytestmark = pytest.mark.kafka

GOOD = 10_000
POISONED_EACH = 111


def good_click(rng: random.Random, **changes: Any) -> dict[str, Any]:
    click = harness.click_record(rng, time.time_ns() // 1_000_000, 300, 500)
    return click | changes


def poison(rng: random.Random) -> dict[str, bytes | None]:
    """One record of each kind of poison, by the reason that it must get."""
    encode = harness.CODEC.encode
    whole = encode("Click", good_click(rng))
    foreign = {
        "subject": "s",
        "kind": "drift",
        "message": "no click",
        "value": None,
        "raised_at": 1,
    }
    with pytest.raises(RecordError):
        harness.CODEC.decode("Click", encode("Alert", foreign))
    return {
        "truncated": whole[: rng.randrange(6, len(whole) - 1)],
        "magic": bytes([rng.randrange(1, 256)]) + whole[1:],
        "schema-id": b"\0" + (9_000 + rng.randrange(1000)).to_bytes(4, "big") + whole[5:],
        "other-schema": encode("Alert", foreign),
        "user-id": encode("Click", good_click(rng, user_id="")),
        "null": None,
        "too-large": encode("Click", good_click(rng, query="q" * 2_000_000)),
        "time": encode("Click", good_click(rng, ts=rng.choice([0, 86_400_000, 4_102_444_800_000]))),
        "utf-8": whole.replace(b"shopper-", b"shop\xff\xfe\xfd-"),
        "event-id": encode("Click", good_click(rng, event_id=f"not-{uuid.UUID(int=0)}")),
    }


def test_poison_is_set_aside_and_the_good_is_answered(
    fresh_kafka: LocalKafka, tmp_path: Path
) -> None:
    settings, bootstrap = fresh_kafka.settings, fresh_kafka.bootstrap
    harness.create_topics(bootstrap, settings)
    rng = random.Random(7)
    feeder = harness.Feeder(bootstrap)
    sent: Counter[str] = Counter()
    values: dict[str, set[bytes | None]] = {}
    worker = harness.start_worker(settings, bootstrap, tmp_path)
    try:
        for number in range(GOOD):
            feeder.send_record(good_click(rng))
            if number % (GOOD // POISONED_EACH) == 0:
                for reason, value in poison(rng).items():
                    # A hundred records of 2 MB prove no more than three do.
                    if reason != "too-large" or sent[reason] < 3:
                        feeder.send_raw(value, b"key-%d" % number)
                        sent[reason] += 1
                        values.setdefault(reason, set()).add(value)
        feeder.flush()
        found = harness.wait_answered(settings, bootstrap, set(feeder.acked))
        deadline = time.monotonic() + harness.ANSWER_TIMEOUT_S
        while len(letters := harness.dead_letters(settings, bootstrap)) < sent.total():
            assert time.monotonic() < deadline, f"{len(letters)} of {sent.total()} rejected"
            time.sleep(0.3)
    finally:
        assert worker.terminate(harness.STOP_TIMEOUT_S) == 0, worker.log_tail()
    assert len(feeder.acked) == GOOD
    assert found.keys() == set(feeder.acked)
    assert Counter(letter["reason"] for letter in letters) == sent
    for letter in letters:
        assert letter["value"] in values[letter["reason"]]
        assert letter["key"].startswith(b"key-")
        assert letter["topic"] == "clicks"
        assert letter["offset"] >= 0
    harness.assert_state_equals_oracle(settings, bootstrap)
