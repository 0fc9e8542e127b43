"""The ONNX graph against the trained network, which is the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from encoders import make_encoder, make_rows
from numpy.typing import NDArray

from models.export import check_parity
from models.folder import FIRST_ITEM, K_MAX
from models.graph import build_graph
from models.network import Encoder
from models.providers import open_session
from schemas.errors import ModelError

ITEMS = 150


def ask(encoder: Encoder, rows: NDArray[np.int64], **more: NDArray[np.int64]) -> list[NDArray]:  # type: ignore[type-arg]
    session, provider = open_session(build_graph(encoder), threads=1, device="cpu")
    assert provider == "CPUExecutionProvider"
    answer: list[NDArray] = session.run(["top_indices", "top_scores"], {"items": rows, **more})  # type: ignore[type-arg]
    return answer


@pytest.mark.parametrize("history", [6, 7, 50])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"heads": 2},
        {"layers": 2},
        {"layers": 3, "heads": 4, "dim": 24, "hidden": 20},
    ],
    ids=str,
)
def test_graph_and_network_agree(sizes: dict[str, int], history: int) -> None:
    encoder = make_encoder(ITEMS, **sizes)
    parity = check_parity(build_graph(encoder), encoder, make_rows(ITEMS, 120, history))
    assert parity.rows == 120
    assert parity.score_diff_max < 5e-5
    assert parity.overlap > 0.99


def test_parity_is_refused_to_another_network() -> None:
    rows = make_rows(ITEMS, 30, 10)
    with pytest.raises(ModelError, match="scores differ from torch by"):
        check_parity(build_graph(make_encoder(ITEMS, seed=1)), make_encoder(ITEMS), rows)


def test_parity_sees_a_single_weight() -> None:
    encoder = make_encoder(ITEMS)
    graph = build_graph(encoder)
    with torch.no_grad():
        encoder.layers[0].distance[0, 3] += 0.5
    with pytest.raises(ModelError, match="scores differ"):
        check_parity(graph, encoder, make_rows(ITEMS, 30, 10))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    encoder = make_encoder(ITEMS)
    with torch.no_grad():
        encoder.norm.weight[0] = value
    with pytest.raises(ModelError, match="weights that are no numbers"):
        build_graph(encoder)


def test_parity_sees_nan() -> None:
    encoder = make_encoder(ITEMS)
    graph = build_graph(encoder)
    with torch.no_grad():
        encoder.norm.weight[0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        check_parity(graph, encoder, make_rows(ITEMS, 30, 10))


def test_padding_means_nothing_wherever_it_ends() -> None:
    encoder = make_encoder(ITEMS)
    narrow = make_rows(ITEMS, 50, 6)[1:]
    narrow = narrow[(narrow > 0).any(axis=1)]
    wide = np.concatenate([np.zeros((len(narrow), 4), np.int64), narrow], axis=1)
    unknown = np.where(wide == 0, 1, wide)
    first = ask(encoder, narrow)
    for rows in (wide, unknown):
        indices, scores = ask(encoder, rows)
        assert (indices == first[0]).all()
        np.testing.assert_allclose(scores, first[1], rtol=1e-5)


def test_the_newest_items_decide_and_all_are_withheld() -> None:
    encoder = make_encoder(ITEMS)
    newest = make_rows(ITEMS, 7, 6)[6:]
    assert (newest > 0).all()
    older = [item for item in range(FIRST_ITEM, FIRST_ITEM + 20) if item not in newest][:3]
    long = np.concatenate([[older], newest], axis=1)
    short_scores = dict(zip(*(part[0].tolist() for part in ask(encoder, newest)), strict=True))
    indices, scores = ask(encoder, long)
    for index, score in zip(indices[0].tolist(), scores[0].tolist(), strict=True):
        if index in short_scores:
            assert score == pytest.approx(short_scores[index], rel=1e-5)
    shown = set(indices[0].tolist())
    assert not shown & {item - FIRST_ITEM for item in [*older, *newest[0].tolist()]}


def test_outputs_are_indices_of_the_vocabulary() -> None:
    indices, scores = ask(make_encoder(ITEMS), make_rows(ITEMS, 40, 10))
    assert indices.dtype == np.int64
    assert scores.dtype == np.float32
    assert indices.shape == scores.shape == (40, K_MAX)
    assert indices.min() == 0
    assert indices.max() == ITEMS - 1


def test_fewer_items_than_k() -> None:
    indices, scores = ask(
        make_encoder(3), np.array([[0, 2], [3, 4], [0, 0]]) @ np.eye(2, 6, 4, int)
    )
    assert indices.shape == (3, 3)
    assert np.isfinite(scores).sum(1).tolist() == [2, 1, 3]
    assert indices[1, 0] == 0


def test_k_may_be_asked_for() -> None:
    encoder, rows = make_encoder(ITEMS), make_rows(ITEMS, 20, 10)
    fewer, _ = ask(encoder, rows, k=np.array([7], np.int64))
    assert (fewer == ask(encoder, rows)[0][:, :7]).all()


def test_the_same_encoder_gives_the_same_bytes() -> None:
    assert build_graph(make_encoder(ITEMS)) == build_graph(make_encoder(ITEMS))
