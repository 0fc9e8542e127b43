"""The hot path's codecs against fastavro, the referee: the same bytes, the same values, the same
refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.clicks import EVENT_TYPES, RawClick, click_decoder, event_key
from schemas.codec import Codec
from schemas.errors import RecordError
from schemas.recommendations import item_wire, recommendation_encoder
from schemas.varint import TimeEncoder, zigzag

CODEC = Codec.from_lock()
decode = click_decoder(CODEC)

text = st.text(max_size=140)
clicks = st.fixed_dictionaries(
    {
        "event_id": st.uuids().map(str),
        "user_id": text,
        "item_id": text,
        "event_type": st.sampled_from(EVENT_TYPES),
        "ts": st.integers(-(2**63), 2**63 - 1) | st.integers(946_684_800_000, 4_102_444_800_000),
        "session_id": st.just("") | st.just("visit-1") | text,
        "query": st.none() | text,
        "price": st.none() | st.floats(allow_nan=False),
        "quantity": st.none() | st.integers(-(2**31), 2**31 - 1),
    }
)
plain_click: dict[str, Any] = {
    "event_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "user_id": "user-1",
    "item_id": "item-1",
    "event_type": "cart",
    "ts": 1_396_437_466_940,
}


def carefully(value: bytes) -> RawClick | str:
    try:
        click = CODEC.decode("Click", value)
        return RawClick(
            click["event_id"].encode(),
            event_key(click["event_id"]),
            click["user_id"].encode(),
            click["item_id"].encode(),
            EVENT_TYPES.index(click["event_type"]),
            click["ts"],
        )
    except RecordError as error:
        return str(error)


def quickly(value: bytes) -> RawClick | str:
    try:
        return decode(value)
    except RecordError as error:
        return str(error)


@given(clicks)
def test_decodes_what_fastavro_decodes(click: dict[str, Any]) -> None:
    value = CODEC.encode("Click", click)
    found = quickly(value)
    assert found == carefully(value)
    assert isinstance(found, RawClick)
    assert found.ts == click["ts"]


@given(clicks)
def test_plain_clicks_are_not_left_to_the_careful_path(click: dict[str, Any]) -> None:
    """What shops send all the time must take the fast path, tail and all."""
    plain = click | {"user_id": "u", "item_id": "größe", "session_id": "s", "ts": plain_click["ts"]}
    plain["query"] = click["query"] and "lamp"
    plain["quantity"] = click["quantity"] and 3
    value = CODEC.encode("Click", plain)

    class NoFallback:
        def header(self, record: str) -> bytes:
            return CODEC.header(record)

        def decode(self, record: str, value: bytes) -> dict[str, Any]:
            raise AssertionError("left to the careful path")

    assert click_decoder(NoFallback())(value).ts == plain_click["ts"]  # type: ignore[arg-type]


@given(clicks, st.data())
def test_agrees_on_damaged_bytes(click: dict[str, Any], data: st.DataObject) -> None:
    value = bytearray(CODEC.encode("Click", click))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at] = data.draw(st.integers(0, 255))
    damaged = bytes(value[: data.draw(st.integers(0, len(value)))]) + data.draw(
        st.binary(max_size=3)
    )
    assert quickly(damaged) == carefully(damaged)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "truncated"),
        (b"\0\0\0", "truncated"),
        (b"\1" + CODEC.encode("Click", plain_click)[1:], "magic"),
        (b"\0\0\0\x27\x0f" + CODEC.encode("Click", plain_click)[5:], "schema-id"),
        (CODEC.encode("Click", plain_click)[:-9], "truncated"),
        (CODEC.encode("Click", plain_click) + b"\0", "trailing"),
        (CODEC.encode("Click", plain_click | {"event_id": "x" * 36}), "event-id"),
        (CODEC.encode("Click", plain_click).replace(b"item-1", b"it\xff\xfe-"), "utf-8"),
        (
            CODEC.encode(
                "Alert",
                {"subject": "a", "kind": "drift", "message": "", "value": None, "raised_at": 1},
            ),
            "other-schema",
        ),
    ],
)
def test_refusals_name_the_reason(value: bytes, reason: str) -> None:
    with pytest.raises(RecordError, match=f"^{reason}"):
        decode(value)


answers = st.integers(1, 20).flatmap(
    lambda k: st.lists(
        st.tuples(
            st.uuids().map(lambda one: str(one).encode()),
            st.text(min_size=1, max_size=40).map(str.encode).filter(lambda user: len(user) <= 128),
            st.integers(0, 2**42),
            st.integers(0, 2**42),
            st.lists(st.integers(0, 4), max_size=k, unique=True),
        ),
        min_size=1,
        max_size=8,
    ).map(lambda rows: (k, rows))
)


@given(answers, st.integers(0, 2**42))
def test_encodes_what_fastavro_encodes(
    case: tuple[int, list[tuple[bytes, bytes, int, int, list[int]]]], scored_at: int
) -> None:
    k, rows = case
    items = [b"a", "größe".encode(), b"x" * 128, b"item-3", b"item-4"]
    indices = np.full((len(rows), k), -1, dtype=np.int32)
    for row, chosen in enumerate(rows):
        indices[row, : len(chosen[4])] = chosen[4]
    scores = np.linspace(5, -5, indices.size, dtype=np.float32).reshape(indices.shape)
    encoded = recommendation_encoder(CODEC)(
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        [row[3] for row in rows],
        item_wire(items),
        indices,
        scores,
        "encoder@1",
        "b",
        "model",
        scored_at,
    )
    for row, (event_id, user, clicked_at, as_of, chosen) in enumerate(rows):
        expected = {
            "event_id": event_id.decode(),
            "user_id": user.decode(),
            "item_ids": [items[index].decode() for index in chosen],
            "scores": scores[row, : len(chosen)].tolist(),
            "reasons": [],
            "model": "encoder@1",
            "arm": "b",
            "tier": "model",
            "clicked_at": clicked_at,
            "features_as_of": as_of,
            "scored_at": scored_at,
        }
        assert encoded[row] == CODEC.encode("Recommendation", expected)


@given(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2**42))
def test_time_encoder_is_zigzag(value: int) -> None:
    assert TimeEncoder().encode(value) == zigzag(value)


@given(st.integers(-(2**63), 2**63 - 1))
def test_zigzag_is_avros(value: int) -> None:
    import io

    import fastavro

    out = io.BytesIO()
    fastavro.schemaless_writer(out, {"type": "long"}, value)
    assert zigzag(value) == out.getvalue()
