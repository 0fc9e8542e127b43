"""Kafka's bytes as an Avro file: fastavro, which knows nothing of ours, reads the same records."""

from __future__ import annotations

import io
import uuid
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.warehouse.avro_block import Block, BlockBuilder
from infra.warehouse.targets import OFFSET, SEAL, SOURCE, TARGETS, TIME
from schemas.codec import Codec
from schemas.errors import RecordError

CODEC = Codec.from_lock()
BY_TABLE = {target.table: target for target in TARGETS}
CLICKS = BY_TABLE["clicks"]
BYTES_MAX = 65_536
text = st.text(max_size=80).filter(lambda one: one.isprintable())


class Record:
    """A record as the Kafka client hands it over."""

    def __init__(
        self, offset: int, value: bytes | None, key: bytes = b"k", ms: int = 1_700
    ) -> None:
        self._offset, self._value, self._key, self._ms = offset, value, key, ms

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return 1, self._ms


clicks = st.fixed_dictionaries(
    {
        "event_id": st.uuids().map(str),
        "user_id": text,
        "item_id": text,
        "event_type": st.sampled_from(["view", "search", "purchase"]),
        "ts": st.integers(0, 2**45),
        "session_id": text,
        "query": st.none() | text,
        "price": st.none() | st.floats(0, 1e6),
        "quantity": st.none() | st.integers(-5, 5),
    }
)


def read(block: Block) -> list[dict[str, Any]]:
    """The records of a file without the one that seals its end; every seal is in its place."""
    found = list(fastavro.reader(io.BytesIO(block.data)))
    assert {one.pop(SEAL) for one in found} <= {block.seal}
    assert [one[SOURCE] == 0 for one in found] == [False] * block.records + [True] * bool(found)
    return found[:-1]


@given(st.lists(st.lists(clicks, max_size=5), max_size=4), st.booleans())
def test_any_clicks_come_out_as_they_went_in(
    sources: list[list[dict[str, Any]]], careful: bool
) -> None:
    builder = BlockBuilder(CLICKS, CODEC, BYTES_MAX)
    records = [
        [Record(1_000 * s + n, CODEC.encode("Click", one)) for n, one in enumerate(found)]
        for s, found in enumerate(sources, 1)
    ]
    block = builder.build(records, careful=careful)
    expected = [
        {**one, SOURCE: s, OFFSET: float(1_000 * s + n), TIME: 1_700.0}
        for s, found in enumerate(sources, 1)
        for n, one in enumerate(found)
    ]
    assert read(block) == expected
    assert block.unreadable == ()


@given(st.lists(clicks, min_size=2, max_size=4), st.binary(max_size=60), st.booleans(), st.data())
def test_careful_leaves_out_what_cannot_be_read_and_nothing_else(
    good: list[dict[str, Any]], junk: bytes, headed: bool, data: st.DataObject
) -> None:
    value = CODEC.header("Click") + junk if headed else junk
    at = data.draw(st.integers(0, len(good)))
    values = [CODEC.encode("Click", one) for one in good]
    values.insert(at, value)
    block = BlockBuilder(CLICKS, CODEC, BYTES_MAX).build(
        [[Record(n, one) for n, one in enumerate(values)]], careful=True
    )
    try:
        CODEC.decode("Click", value)
    except RecordError:
        assert [offset for _, offset, _ in block.unreadable] == [at]
        assert len(read(block)) == len(good)
    else:
        assert len(read(block)) == len(good) + 1


def test_too_large_and_empty_records_are_left_out() -> None:
    click = {
        "event_id": str(uuid.UUID(int=1)),
        "user_id": "u" * 500,
        "item_id": "i",
        "event_type": "view",
        "ts": 1,
    }
    value = CODEC.encode("Click", click)
    block = BlockBuilder(CLICKS, CODEC, 300).build([[Record(0, value), Record(1, None)]])
    assert [why.split()[0] for _, _, why in block.unreadable] == ["too-large:", "null"]
    assert block.records == 0
    assert list(fastavro.reader(io.BytesIO(block.data))) == []


def test_a_withdrawn_model_is_a_row_with_an_empty_version() -> None:
    builder = BlockBuilder(BY_TABLE["models"], CODEC, BYTES_MAX)
    (row,) = read(builder.build([[Record(3, None, b"shop-model", 1_234)]]))
    assert (row["model"], row["version"], row["announced_at"]) == ("shop-model", "", 1_234)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.table)
def test_every_record_has_an_end_that_seals(target: Any) -> None:
    blank = BlockBuilder(target, CODEC, BYTES_MAX)._empty()
    CODEC.decode(target.record, CODEC.header(target.record) + blank)
