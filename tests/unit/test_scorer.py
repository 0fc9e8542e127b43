"""The scorer: item ids to rows and back, and refusal of models that are not what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from encoders import make_encoder, make_manifest, write_encoder
from onnx import TensorProto, helper

from models.folder import FIRST_ITEM, HISTORY_MAX, write_folder
from models.graph import build_graph
from models.providers import has_cuda_device, open_session
from models.scorer import OnnxScorer
from schemas.errors import ModelError

ITEMS = [f"item-{number}" for number in range(120)]
WINDOW = 6


def ids(*numbers: int) -> list[bytes]:
    return [ITEMS[number].encode() for number in numbers]


@pytest.fixture(scope="module")
def encoder_and_scorer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, OnnxScorer]:
    path = tmp_path_factory.mktemp("models") / "model"
    encoder = write_encoder(path, ITEMS)
    return encoder, OnnxScorer(path, device="cpu")


@pytest.fixture(scope="module")
def scorer(encoder_and_scorer: tuple[Any, OnnxScorer]) -> OnnxScorer:
    return encoder_and_scorer[1]


def write_graph(path: Path, graph: bytes, items: int = 5) -> Path:
    write_folder(path, make_manifest(items, WINDOW), graph, tuple(ITEMS[:items]))
    return path


def make_graph(
    *,
    index_type: int = TensorProto.INT64,
    output: str = "top_indices",
    has_k: bool = True,
    first_index: int = 0,
    nan_item: int = -1,
) -> bytes:
    """Of the contract's form: any shopper gets items 0, 1, 2, 3, or NaN if they saw `nan_item`."""
    node = helper.make_node
    nodes = [
        node("Slice", ["fixed_scores", "zero", "k", "one"], ["scores"]),
        node("Slice", ["fixed_indices", "zero", "k", "one"], ["indices"]),
        node("Equal", ["items", "nan_code"], ["is_nan_item"]),
        node("Cast", ["is_nan_item"], ["ones"], to=TensorProto.FLOAT),
        node("ReduceMax", ["ones"], ["saw"], axes=[1], keepdims=1),
        node("Cast", ["saw"], ["saw_nan_item"], to=TensorProto.BOOL),
        node("Where", ["saw_nan_item", "nan", "scores"], ["top_scores"]),
        node("Shape", ["top_scores"], ["shape"]),
        node("Expand", ["indices", "shape"], [output]),
    ]
    index_dtype = helper.tensor_dtype_to_np_dtype(index_type)
    weights = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "k": np.array([5]),
        "nan": np.array(np.nan, np.float32),
        "nan_code": np.array(nan_item + FIRST_ITEM),
        "fixed_scores": np.array([[4, 3, 2, 1, -np.inf]], np.float32),
        "fixed_indices": first_index + np.arange(5, dtype=index_dtype)[None],
    }
    inputs = [helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", "history"])]
    if has_k:
        inputs.append(helper.make_tensor_value_info("k", TensorProto.INT64, [1]))
    outputs = [
        helper.make_tensor_value_info(output, index_type, None),
        helper.make_tensor_value_info("top_scores", TensorProto.FLOAT, None),
    ]
    initial = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "made", inputs, outputs, initial),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    return bytes(model.SerializeToString())


def test_ranks_as_the_network_does(encoder_and_scorer: tuple[Any, OnnxScorer]) -> None:
    encoder, scorer = encoder_and_scorer
    histories = [ids(3), ids(5, 5, 9), ids(*range(20, 70)), ids(*range(7))]
    ranking = scorer.rank(histories, 20)
    rows = np.zeros((len(histories), HISTORY_MAX), np.int64)
    for row, history in enumerate(histories):
        rows[row, -len(history) :] = [ITEMS.index(item.decode()) + FIRST_ITEM for item in history]
    with torch.inference_mode():
        scores, indices = encoder.score_rows(torch.from_numpy(rows)).topk(20)
    assert (ranking.indices == indices.numpy() - FIRST_ITEM).all()
    np.testing.assert_allclose(ranking.scores, scores.numpy(), rtol=1e-4, atol=1e-5)
    assert ranking.items[17] == b"item-17"


def test_order_of_the_history_matters(scorer: OnnxScorer) -> None:
    first, second = scorer.rank([ids(1, 2, 3), ids(3, 2, 1)], 20).scores
    assert not np.allclose(first, second)


def test_items_beyond_the_window_are_withheld_and_say_nothing(scorer: OnnxScorer) -> None:
    newest = ids(*range(6))
    best = scorer.rank([newest], 3)
    older = [best.items[index] for index in best.indices[0]]
    longer = scorer.rank([older + newest], 20)
    assert not set(longer.indices[0].tolist()) & set(best.indices[0].tolist())
    rest = scorer.rank([newest], 23)
    assert (longer.indices[0] == rest.indices[0, 3:]).all()


def test_unknown_items_do_not_fill_the_window(scorer: OnnxScorer) -> None:
    known = ids(*range(6))
    mixed = [part for item in known for part in (item, b"no such item")]
    first, second = scorer.rank([known, mixed], 20).indices
    assert (first == second).all()


def test_longer_histories_than_the_contract_says_are_cut(scorer: OnnxScorer) -> None:
    first, second = scorer.rank([ids(*range(60)), ids(*range(10, 60))], 20).indices
    assert (first == second).all()


def test_offers_no_more_than_the_manifest_promises(scorer: OnnxScorer) -> None:
    ranking = scorer.rank([ids(1)], 110)
    assert ranking.indices.shape == (1, 110)
    assert (ranking.indices[0] >= 0).tolist() == [True] * 100 + [False] * 10


def test_nothing_is_kept_between_calls(scorer: OnnxScorer) -> None:
    first = scorer.rank([ids(1)], 5)
    kept = first.indices.copy()
    scorer.rank([ids(2)], 5)
    assert (first.indices == kept).all()


def test_takes_the_name_and_version_of_the_manifest(scorer: OnnxScorer) -> None:
    assert scorer.label == "encoder@20260101T000000-00000000"
    assert scorer.tier == "model"


def test_made_graph_is_of_the_contract(tmp_path: Path) -> None:
    """The reason why the refusals below are about what was changed and nothing else."""
    scorer = OnnxScorer(write_graph(tmp_path / "model", make_graph()), device="cpu")
    assert scorer.rank([ids(4)], 5).indices.tolist() == [[0, 1, 2, 3, -1]]


@pytest.mark.parametrize(
    ("graph", "word"),
    [
        (b"", "cannot be loaded"),
        (b"no graph", "cannot be loaded"),
        (make_graph(index_type=TensorProto.INT32), "the contract says"),
        (make_graph(output="indices_of_items"), "the contract says"),
        (make_graph(has_k=False), "the contract says"),
        (make_graph(first_index=1), "or the shopper's own"),
        (make_graph(first_index=2), "outside its vocabulary"),
        (make_graph(nan_item=4), "NaN"),
    ],
    ids=["empty", "garbage", "int32", "renamed", "no-k", "own", "outside", "nan"],
)
def test_graph_that_is_not_of_the_contract(tmp_path: Path, graph: bytes, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        OnnxScorer(write_graph(tmp_path / "model", graph), device="cpu")


def test_model_of_another_vocabulary(tmp_path: Path) -> None:
    graph = build_graph(make_encoder(50))
    with pytest.raises(ModelError, match="encoder@"):
        OnnxScorer(write_graph(tmp_path / "small", graph, items=120), device="cpu")
    with pytest.raises(ModelError, match=r"outside its vocabulary|promises"):
        OnnxScorer(write_graph(tmp_path / "large", graph, items=20), device="cpu")


def test_nan_is_found_when_an_item_brings_it(tmp_path: Path) -> None:
    graph = make_graph(nan_item=3)
    scorer = OnnxScorer(write_graph(tmp_path / "model", graph), device="cpu")
    assert scorer.rank([ids(1)], 4).answered.all()
    with pytest.raises(ModelError, match="gave NaN scores"):
        scorer.rank([ids(1), ids(3, 1)], 4)


def test_auto_is_silent_and_works_where_there_is_no_gpu(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    session, provider = open_session(build_graph(make_encoder(20)), threads=1, device="auto")
    assert session.get_providers()
    assert provider == ("CUDAExecutionProvider" if has_cuda_device() else "CPUExecutionProvider")
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(has_cuda_device(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_is_asked_for_must_work(
    device: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match=f"device {device} does not work here"):
        open_session(build_graph(make_encoder(20)), threads=1, device=device)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not has_cuda_device(), reason="there is no GPU")
def test_cuda_gives_the_same_answers(tmp_path: Path) -> None:
    write_encoder(tmp_path / "model", ITEMS)
    histories = [ids(*range(number % 50 + 1)) for number in range(200)]
    on_cpu = OnnxScorer(tmp_path / "model", device="cpu").rank(histories, 20)
    on_gpu = OnnxScorer(tmp_path / "model", device="cuda").rank(histories, 20)
    np.testing.assert_allclose(on_gpu.scores, on_cpu.scores, rtol=2e-2, atol=2e-2)


def test_unknown_device() -> None:
    with pytest.raises(ModelError, match="no device 'tpu'; there are auto, cpu, cuda, tensorrt"):
        open_session(b"", threads=1, device="tpu")


def test_a_worker_loads_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, models.contract, models.folder, models.scorer, models.providers, models.dataset;"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'pyarrow'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == "[]"


def test_scoring_loads_neither_torch_nor_onnx(tmp_path: Path) -> None:
    write_encoder(tmp_path / "model", ITEMS)
    code = (
        "import sys; from pathlib import Path; from models.scorer import OnnxScorer;"
        "OnnxScorer(Path(sys.argv[1])).rank([[b'item-1']], 5);"
        "print(sorted({'torch', 'onnx'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (shown.stdout.strip(), shown.stderr) == ("[]", "")


def test_histories_without_a_known_item_are_left_to_the_next_tier(scorer: OnnxScorer) -> None:
    ranking = scorer.rank([[], ids(1), [b"no such item", b""], ids(2)], 5)
    assert ranking.answered.tolist() == [False, True, False, True]
    assert scorer.rank([[]], 5).answered.tolist() == [False]
