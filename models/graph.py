"""From trained weights to the ONNX graph that workers run.

The graph is built operator by operator and not traced from torch: it does only what serving
needs, withholds the shopper's own items, picks the best in one call, and needs no exporter beside
`onnx`. Three things make it cheap, and none changes an answer:

- what the first layer computes of an item alone (its norm and projections) is computed here for
  every item, so that serving looks it up;
- the last layer asks and feeds forward for the newest position only;
- items are ordered by popularity, so that TopK, which keeps a heap of the best so far, meets the
  likely ones first and seldom changes it.

The trainer's network is the reference; `models.export.check_parity` compares the two.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.folder import FIRST_ITEM, K_MAX
from models.network import MASKED, Encoder, Shape
from schemas.errors import ModelError

# Old enough for onnxruntime 1.22 and TensorRT 10, new enough for LayerNormalization.
OPSET: Final = 17
IR_VERSION: Final = 10
EPSILON: Final = 1e-5

Weights = dict[str, NDArray[np.float32]]


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
        return self.split(operator, 1, *inputs, **attributes)[0]

    def split(self, operator: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        number = len(self.nodes)
        names = [f"{operator.lower()}_{number}_{output}" for output in range(outputs)]
        self.nodes.append(
            helper.make_node(operator, list(inputs), names, name=names[0], **attributes)
        )
        return names


class _Normed:
    """The normalised input of a layer's attention, ready to be multiplied with its weights.

    The first layer's is looked up by item, later ones' are computed. `whole` are all positions
    of the window, `newest` is the last one; both keep [batch, positions, ...].
    """

    def __init__(
        self, graph: _Graph, weights: Weights, prefix: str, whole: str, newest: str
    ) -> None:
        self._graph, self._prefix = graph, prefix
        self._scale, self._shift = weights[prefix + "weight"], weights[prefix + "bias"]
        self._whole, self._newest = whole, newest
        self._table: NDArray[np.float32] | None = None

    def by_item(self, table: NDArray[np.float32]) -> _Normed:
        """Take `whole` and `newest` for item indices into `table`, [items + 2, dim]."""
        centred = table - table.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(EPSILON))
        self._table = centred / deviation * self._scale + self._shift
        return self

    def by_value(self) -> _Normed:
        """Take `whole` and `newest` for values and normalise them."""
        self._whole = _norm(self._graph, self._whole, self._prefix, self._scale, self._shift)
        self._newest = _norm(self._graph, self._newest, self._prefix, self._scale, self._shift)
        return self

    def times(self, name: str, matrix: NDArray[np.float32], *, newest: bool) -> str:
        """[batch, positions, dim] @ matrix [dim, any]."""
        graph, name = self._graph, self._prefix + name
        where = self._newest if newest else self._whole
        if self._table is not None:
            return graph.add("Gather", graph.weight(name, self._table @ matrix), where)
        return graph.add("MatMul", where, graph.weight(name, matrix))


def build_graph(encoder: Encoder) -> bytes:
    """The serialised ONNX model of `encoder`; inputs and outputs as `models.folder` says.

    Raises `ModelError` when a weight is not finite.
    """
    shape = encoder.shape
    weights: Weights = {
        name: value.detach().numpy() for name, value in encoder.state_dict().items()
    }
    if not all(np.isfinite(value).all() for value in weights.values()):
        raise ModelError("the trained network has weights that are no numbers; train it again")
    graph = _Graph()
    recent = graph.add(
        "Slice", "items", graph.ints(-shape.window), graph.ints(2**31), graph.ints(1)
    )
    latest = graph.add("Slice", "items", graph.ints(-1), graph.ints(2**31), graph.ints(1))
    padded = graph.add("Less", recent, graph.weight("first_item", np.array(FIRST_ITEM, np.int64)))
    table = weights["embedding.weight"]
    embedding = graph.weight("embedding", table)
    x = newest = ""
    for number in range(shape.layers):
        prefix = f"layers.{number}."
        last = number == shape.layers - 1
        if number == 0:
            normed = _Normed(graph, weights, prefix + "norm_attention.", recent, latest).by_item(
                table
            )
            newest = graph.add("Gather", embedding, latest)
            x = newest if last else graph.add("Gather", embedding, recent)
        else:
            newest = graph.add("Slice", x, graph.ints(-1), graph.ints(2**31), graph.ints(1))
            normed = _Normed(graph, weights, prefix + "norm_attention.", x, newest).by_value()
        attend = _attend_newest if last else _attend_all
        mixed = attend(graph, normed, padded, weights, prefix, shape)
        x = _feed(graph, newest if last else x, mixed, weights, prefix, shape)
    x = _norm(graph, x, "norm.", weights["norm.weight"], weights["norm.bias"])
    # Placeholders score -inf for ever, so that TopK needs no further mask for them.
    bias = weights["item_bias"].copy()
    bias[:FIRST_ITEM] = -np.inf
    vector = graph.add("Reshape", x, graph.ints(0, shape.dim))
    scores = graph.add("Gemm", vector, embedding, graph.weight("item_bias", bias), transB=1)
    _rank(graph, scores)
    return _serialise(graph, min(K_MAX, shape.items))


def _attend_newest(
    graph: _Graph, normed: _Normed, padded: str, weights: Weights, prefix: str, shape: Shape
) -> str:
    """Gated attention of the newest position only: [batch, 1, dim].

    Keys stay whole: the query is spread over the heads instead, zero outside its own, so that one
    small product a row serves all heads and nothing large is transposed.
    """
    dim, heads = shape.dim, shape.heads
    size = dim // heads
    own = (np.arange(dim)[:, None] // size == np.arange(heads)[None, :]).astype(np.float32)
    query = weights[prefix + "query.weight"].T * np.float32(size**-0.5)
    spread = (query[:, :, None] * own[None]).reshape(dim, dim * heads)
    asked = normed.times("query", spread, newest=True)
    asked = graph.add("Reshape", asked, graph.ints(0, dim, heads))
    keys = normed.times("key", weights[prefix + "key.weight"].T, newest=False)
    logits = graph.add("MatMul", keys, asked)
    # The bias of the item d places back is in column d; the window runs towards the newest.
    distance = weights[prefix + "distance"][:, ::-1].T
    hidden = graph.add("Unsqueeze", padded, graph.ints(2))
    logits = graph.add("Add", logits, _masked(graph, hidden, prefix, distance))
    shares = graph.add("Softmax", graph.add("Transpose", logits, perm=[0, 2, 1]), axis=-1)
    values = normed.times("value", weights[prefix + "value.weight"].T, newest=False)
    mixed = graph.add("MatMul", shares, values)
    # [batch, heads, dim]: of each head only its own columns count.
    out = (own.T[:, :, None] * weights[prefix + "out.weight"].T[None]).reshape(heads * dim, dim)
    flat = graph.add("Reshape", mixed, graph.ints(0, 1, heads * dim))
    mixed = graph.add("MatMul", flat, graph.weight(prefix + "out", out))
    return graph.add("Mul", mixed, _gate(graph, normed, weights, prefix, newest=True))


def _attend_all(
    graph: _Graph, normed: _Normed, padded: str, weights: Weights, prefix: str, shape: Shape
) -> str:
    """Gated causal attention of every position: [batch, window, dim]."""
    size = shape.dim // shape.heads

    def split(name: str, scale: float, *order: int) -> str:
        value = normed.times(
            name, weights[f"{prefix}{name}.weight"].T * np.float32(scale), newest=False
        )
        parted = graph.add("Reshape", value, graph.ints(0, -1, shape.heads, size))
        return graph.add("Transpose", parted, perm=list(order))

    logits = graph.add(
        "MatMul", split("query", size**-0.5, 0, 2, 1, 3), split("key", 1, 0, 2, 3, 1)
    )
    places = np.arange(shape.window)
    back = places[:, None] - places[None, :]
    distance = np.where(
        back < 0, np.float32(MASKED), weights[prefix + "distance"][:, np.maximum(back, 0)]
    )
    hidden = graph.add("Unsqueeze", padded, graph.ints(1, 2))
    logits = graph.add("Add", logits, _masked(graph, hidden, prefix, distance))
    mixed = graph.add(
        "MatMul", graph.add("Softmax", logits, axis=-1), split("value", 1, 0, 2, 1, 3)
    )
    mixed = graph.add("Transpose", mixed, perm=[0, 2, 1, 3])
    mixed = graph.add("Reshape", mixed, graph.ints(0, -1, shape.dim))
    mixed = graph.add(
        "MatMul", mixed, graph.weight(prefix + "out", weights[prefix + "out.weight"].T)
    )
    return graph.add("Mul", mixed, _gate(graph, normed, weights, prefix, newest=False))


def _masked(graph: _Graph, hidden: str, prefix: str, distance: NDArray[np.float32]) -> str:
    """What is added to the attention's logits: `distance`, or `MASKED` where `hidden`."""
    return graph.add(
        "Where",
        hidden,
        graph.weight("masked", np.array(MASKED, np.float32)),
        graph.weight(prefix + "distance", distance.astype(np.float32)),
    )


def _gate(graph: _Graph, normed: _Normed, weights: Weights, prefix: str, *, newest: bool) -> str:
    product = normed.times("gate", weights[prefix + "gate_attention.weight"].T, newest=newest)
    bias = graph.weight(prefix + "gate.bias", weights[prefix + "gate_attention.bias"])
    return graph.add("Sigmoid", graph.add("Add", product, bias))


def _feed(graph: _Graph, x: str, mixed: str, weights: Weights, prefix: str, shape: Shape) -> str:
    """The residual of the attention, then the gated SwiGLU with its own."""
    x = graph.add("Add", x, mixed)
    norm = prefix + "norm_feed."
    normed = _norm(graph, x, norm, weights[norm + "weight"], weights[norm + "bias"])
    # One product for all three: at small batches a call costs more than its arithmetic.
    names = ("swish", "up", "gate_feed")
    matrix = np.concatenate([weights[f"{prefix}{name}.weight"].T for name in names], axis=1)
    product = graph.add("MatMul", normed, graph.weight(prefix + "feed", matrix))
    sizes = graph.ints(shape.hidden, shape.hidden, shape.dim)
    swish, up, gate = graph.split("Split", 3, product, sizes, axis=-1)
    gate = graph.add(
        "Add", gate, graph.weight(prefix + "gate_feed.bias", weights[prefix + "gate_feed.bias"])
    )
    fed = graph.add("Mul", graph.add("Mul", swish, graph.add("Sigmoid", swish)), up)
    fed = graph.add("MatMul", fed, graph.weight(prefix + "down", weights[prefix + "down.weight"].T))
    return graph.add("Add", x, graph.add("Mul", fed, graph.add("Sigmoid", gate)))


def _norm(
    graph: _Graph, x: str, prefix: str, scale: NDArray[np.float32], shift: NDArray[np.float32]
) -> str:
    scale_name, shift_name = (
        graph.weight(prefix + "weight", scale),
        graph.weight(prefix + "bias", shift),
    )
    return graph.add("LayerNormalization", x, scale_name, shift_name, axis=-1, epsilon=EPSILON)


def _rank(graph: _Graph, scores: str) -> None:
    """Withhold the row's own items, then take the best k; names the graph's outputs."""
    minus_inf = helper.make_tensor("minus_inf", TensorProto.FLOAT, [1], [-np.inf])
    low = graph.add("ConstantOfShape", graph.add("Shape", "items"), value=minus_inf)
    offered = graph.add("ScatterElements", scores, "items", low, axis=1)
    graph.nodes.append(helper.make_node("TopK", [offered, "k"], ["top_scores", "top_raw"], axis=1))
    offset = graph.weight("offset", np.array(FIRST_ITEM, np.int64))
    graph.nodes.append(helper.make_node("Sub", ["top_raw", offset], ["top_indices"]))


def _serialise(graph: _Graph, k: int) -> bytes:
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "headrace",
            [
                helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", "history"]),
                # An input with a default: callers that want fewer items say so.
                helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
            ],
            [
                helper.make_tensor_value_info(
                    "top_indices", TensorProto.INT64, ["batch", "k_asked"]
                ),
                helper.make_tensor_value_info(
                    "top_scores", TensorProto.FLOAT, ["batch", "k_asked"]
                ),
            ],
            [*graph.weights.values(), numpy_helper.from_array(np.array([k], np.int64), "k")],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="headrace",
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
