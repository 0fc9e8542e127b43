"""From trained weights to the ONNX graph that workers run.

The graph is built operator by operator and not traced from torch: it does only what serving
needs (the last layer's queries and feed-forward for the newest position alone), withholds the
shopper's own items and picks the best in one call, and needs no exporter beside `onnx`.
The trainer's network is the reference; `models.export.check_parity` compares the two.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.folder import FIRST_ITEM, K_MAX
from models.network import MASKED, Encoder

# Old enough for onnxruntime 1.22 and TensorRT 10, new enough for LayerNormalization.
OPSET: Final = 17
IR_VERSION: Final = 10


class _Graph:
    """Collects nodes and weights; `add` returns the name of the node's output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: dict[str, Any] = {}

    def weight(self, name: str, value: NDArray[Any]) -> str:
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def ints(self, *values: int) -> str:
        return self.weight("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name


def build_graph(encoder: Encoder) -> bytes:
    """The serialised ONNX model of `encoder`; inputs and outputs as `models.folder` says."""
    shape = encoder.shape
    weights = {name: value.detach().numpy() for name, value in encoder.state_dict().items()}
    graph = _Graph()
    # Placeholders score -inf for ever, so that TopK needs no further mask for them.
    table = graph.weight("table", weights["embedding.weight"])
    bias = weights["item_bias"].copy()
    bias[:FIRST_ITEM] = -np.inf
    recent = graph.add("Slice", "items", graph.ints(-shape.window), graph.ints(2**31), graph.ints(1))
    padded = graph.add("Less", recent, graph.weight("first_item", np.array(FIRST_ITEM, np.int64)))
    # [batch, 1, 1, window], added to the attention's logits.
    masked = graph.add(
        "Where",
        graph.add("Unsqueeze", padded, graph.ints(1, 2)),
        graph.weight("masked", np.array(MASKED, np.float32)),
        graph.weight("open", np.array(0.0, np.float32)),
    )
    x = graph.add("Gather", table, recent)
    for number in range(shape.layers):
        last = number == shape.layers - 1
        x = _layer(graph, x, masked, weights, f"layers.{number}.", encoder, last)
    x = _norm(graph, x, weights, "norm")
    vector = graph.add("Squeeze", x, graph.ints(1))
    scores = graph.add("Gemm", vector, table, graph.weight("bias", bias), transB=1)
    _rank(graph, scores)
    k = min(K_MAX, shape.items)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "headrace",
            [helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", "history"])]
            # An input with a default: callers that want fewer items than `k` say so.
            + [helper.make_tensor_value_info("k", TensorProto.INT64, [1])],
            [
                helper.make_tensor_value_info("top_indices", TensorProto.INT64, ["batch", "k_asked"]),
                helper.make_tensor_value_info("top_scores", TensorProto.FLOAT, ["batch", "k_asked"]),
            ],
            [*graph.weights.values(), numpy_helper.from_array(np.array([k], np.int64), "k")],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="headrace",
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _rank(graph: _Graph, scores: str) -> None:
    """Withhold the row's own items, then take the best k; names the graph's outputs."""
    batch = graph.add("Shape", "items")
    low = graph.add(
        "ConstantOfShape", batch, value=helper.make_tensor("low", TensorProto.FLOAT, [1], [-np.inf])
    )
    open_scores = graph.add("ScatterElements", scores, "items", low, axis=1)
    graph.nodes.append(helper.make_node("TopK", [open_scores, "k"], ["top_scores", "raw"], axis=1))
    offset = graph.weight("offset", np.array(FIRST_ITEM, np.int64))
    graph.nodes.append(helper.make_node("Sub", ["raw", offset], ["top_indices"]))


def _norm(graph: _Graph, x: str, weights: dict[str, NDArray[Any]], name: str) -> str:
    return graph.add(
        "LayerNormalization",
        x,
        graph.weight(f"{name}.weight", weights[f"{name}.weight"]),
        graph.weight(f"{name}.bias", weights[f"{name}.bias"]),
        axis=-1,
        epsilon=1e-5,
    )


def _layer(
    graph: _Graph,
    x: str,
    masked: str,
    weights: dict[str, NDArray[Any]],
    prefix: str,
    encoder: Encoder,
    last: bool,
) -> str:
    """One layer; [batch, window, dim] in, the same out, or [batch, 1, dim] where it is the last."""
    shape = encoder.shape
    size = shape.dim // shape.heads

    def linear(value: str, name: str, scale: float = 1.0) -> str:
        product = graph.add(
            "MatMul", value, graph.weight(prefix + name, weights[f"{prefix}{name}.weight"].T * np.float32(scale))
        )
        bias = weights.get(f"{prefix}{name}.bias")
        return product if bias is None else graph.add("Add", product, graph.weight(prefix + name + ".b", bias))

    def newest(value: str) -> str:
        if not last:
            return value
        return graph.add("Slice", value, graph.ints(-1), graph.ints(2**31), graph.ints(1))

    def heads(value: str, *order: int) -> str:
        split = graph.add("Reshape", value, graph.ints(0, -1, shape.heads, size))
        return graph.add("Transpose", split, perm=list(order))

    normed = _norm(graph, x, weights, prefix + "norm_attention")
    asked = newest(normed)
    logits = graph.add(
        "MatMul",
        heads(linear(asked, "query", size**-0.5), 0, 2, 1, 3),
        heads(linear(normed, "key"), 0, 2, 3, 1),
    )
    places = np.arange(shape.window)
    back = places[:, None] - places[None, :]
    bias = np.where(back < 0, np.float32(MASKED), weights[prefix + "distance"][:, np.maximum(back, 0)])
    bias = bias[:, -1:] if last else bias
    logits = graph.add("Add", logits, graph.weight(prefix + "distance", bias[None].astype(np.float32)))
    shares = graph.add("Softmax", graph.add("Add", logits, masked), axis=-1)
    mixed = graph.add("MatMul", shares, heads(linear(normed, "value"), 0, 2, 1, 3))
    mixed = graph.add("Transpose", mixed, perm=[0, 2, 1, 3])
    mixed = linear(graph.add("Reshape", mixed, graph.ints(0, -1, shape.dim)), "out")
    gate = graph.add("Sigmoid", linear(asked, "gate_attention"))
    x = graph.add("Add", newest(x), graph.add("Mul", mixed, gate))
    normed = _norm(graph, x, weights, prefix + "norm_feed")
    swish = linear(normed, "swish")
    swish = graph.add("Mul", swish, graph.add("Sigmoid", swish))
    fed = linear(graph.add("Mul", swish, linear(normed, "up")), "down")
    gate = graph.add("Sigmoid", linear(normed, "gate_feed"))
    return graph.add("Add", x, graph.add("Mul", fed, gate))
