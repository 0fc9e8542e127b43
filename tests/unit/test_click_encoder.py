"""The batch encoder of clicks against `Codec.encode`, the referee."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.click_encoder import click_encoder, varints
from schemas.clicks import EVENT_TYPES, click_decoder
from schemas.codec import Codec
from schemas.errors import RecordError
from schemas.varint import zigzag

CODEC = Codec.from_lock()
encode_batch = click_encoder(CODEC)

# Long texts cross the lengths at which Avro's length prefix grows (64 and 8,192 bytes).
text = st.text(max_size=90) | st.sampled_from(["é" * 64, "x" * 255, "x" * 256, "x" * 9_000])
click = st.fixed_dictionaries(
    {
        "event_id": st.uuids().map(str),
        "user_id": text,
        "item_id": text,
        "event_type": st.sampled_from(EVENT_TYPES),
        "ts": st.integers(-(2**63), 2**63 - 1) | st.integers(946_684_800_000, 4_102_444_800_000),
        "session_id": text,
        "query": st.none() | text,
        "price": st.none() | st.floats(allow_nan=False),
        "quantity": st.none() | st.integers(-(2**31), 2**31 - 1),
    }
)


def encoded(clicks: list[dict[str, Any]], **without: None) -> list[bytes]:
    """The batch through the encoder, optional columns named in `without` left out."""
    columns: dict[str, Any] = {
        "session_ids": [one["session_id"].encode() for one in clicks],
        "queries": [None if one["query"] is None else one["query"].encode() for one in clicks],
        "prices": [one["price"] for one in clicks],
        "quantities": [one["quantity"] for one in clicks],
    }
    return encode_batch(
        [one["event_id"].encode() for one in clicks],
        [one["user_id"].encode() for one in clicks],
        [one["item_id"].encode() for one in clicks],
        [EVENT_TYPES.index(one["event_type"]) for one in clicks],
        np.array([one["ts"] for one in clicks], np.int64),
        **(columns | without),
    )


@given(st.lists(click, max_size=8))
def test_the_same_bytes_as_the_referee(clicks: list[dict[str, Any]]) -> None:
    assert encoded(clicks) == [CODEC.encode("Click", one) for one in clicks]


@given(st.lists(click, min_size=1, max_size=4))
def test_a_column_that_is_left_out_is_the_schemas_default(clicks: list[dict[str, Any]]) -> None:
    defaults = {"session_id": "", "query": None, "price": None, "quantity": None}
    left_out = encoded(clicks, session_ids=None, queries=None, prices=None, quantities=None)
    assert left_out == [CODEC.encode("Click", one | defaults) for one in clicks]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_varints_are_avros(values: list[int]) -> None:
    assert varints(np.array(values, np.int64)) == [zigzag(value) for value in values]


def test_the_workers_decoder_reads_it() -> None:
    value = encode_batch(
        [b"01890a5d-ac96-774b-bcce-b302099a8057"],
        [b"u"],
        [b"i"],
        [2],
        np.array([1_700_000_000_000]),
    )[0]
    read = click_decoder(CODEC)(value)
    assert (read.user_id, read.item_id, read.event_type, read.ts) == (
        b"u",
        b"i",
        2,
        1_700_000_000_000,
    )


@pytest.mark.parametrize("quantity", [2**31, -(2**31) - 1])
def test_a_quantity_that_does_not_fit_is_refused(quantity: int) -> None:
    with pytest.raises(RecordError, match="32 bits"):
        encode_batch([b"x" * 36], [b"u"], [b"i"], [0], np.array([0]), quantities=[quantity])


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(RecordError, match="36 characters"):
        encode_batch([b"short"], [b"u"], [b"i"], [0], np.array([0]))
    with pytest.raises(ValueError, match="zip"):
        encode_batch([b"x" * 36], [b"u", b"v"], [b"i"], [0], np.array([0]))
    with pytest.raises(ValueError, match="zip"):
        encode_batch(
            [b"x" * 36] * 2, [b"u"] * 2, [b"i"] * 2, [0] * 2, np.array([0, 0]), prices=[1.0]
        )
