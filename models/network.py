"""The sequence encoder, in torch: what is trained, and what the ONNX graph must agree with.

A causal transformer over a shopper's newest items whose last position, multiplied with the item
embeddings, scores every item: SASRec (arXiv 1808.09781) with the changes that eSASRec found to
pay together (arXiv 2508.06450): softmax loss over many negatives, pre-normalised layers whose
residuals are gated (LiGR, arXiv 2502.03417), and a SwiGLU feed-forward.

Places are told by a learned bias on the distance between two items and not by position
embeddings: a row then means the same wherever padding puts it, in training and in serving.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from models.folder import FIRST_ITEM, PADDING

# Finite, so that a row of nothing but padding gives numbers and not NaN.
MASKED = -1e9


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the encoder; `items` counts the vocabulary without padding and unknown."""

    items: int
    window: int = 20
    dim: int = 32
    heads: int = 1
    layers: int = 1
    hidden: int = 64
    dropout: float = 0.3


class Layer(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Gated causal self-attention, then a gated SwiGLU; both pre-normalised."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        dim, hidden = shape.dim, shape.hidden
        self.heads = shape.heads
        self.norm_attention = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.gate_attention = nn.Linear(dim, dim)
        # Column d is the bias of an item d places back.
        self.distance = nn.Parameter(torch.zeros(shape.heads, shape.window))
        self.norm_feed = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.swish = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)
        self.gate_feed = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: torch.Tensor, hidden_keys: torch.Tensor) -> torch.Tensor:
        """x: float32 [batch, length, dim]; hidden_keys: bool [batch, length], true where padded."""
        batch, length, dim = x.shape
        normed = self.norm_attention(x)

        def split(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)

        places = torch.arange(length)
        back = places[:, None] - places[None, :]
        bias = self.distance[:, back.clamp(min=0)].masked_fill(back < 0, MASKED)
        logits = split(self.query(normed)) @ split(self.key(normed)).transpose(2, 3)
        logits = logits * (dim // self.heads) ** -0.5 + bias
        weights = logits.masked_fill(hidden_keys[:, None, None, :], MASKED).softmax(-1)
        mixed = (weights @ split(self.value(normed))).transpose(1, 2).reshape(batch, length, dim)
        x = x + self.dropout(self.out(mixed)) * self.gate_attention(normed).sigmoid()
        normed = self.norm_feed(x)
        fed = self.down(self.dropout(functional.silu(self.swish(normed)) * self.up(normed)))
        return x + self.dropout(fed) * self.gate_feed(normed).sigmoid()


class Encoder(nn.Module):  # type: ignore[misc]
    """From item indices to one vector per position; `score` compares vectors with items."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if shape.dim % shape.heads:
            raise ValueError(f"dim {shape.dim} is not a multiple of {shape.heads} heads")
        self.shape = shape
        self.embedding = nn.Embedding(shape.items + FIRST_ITEM, shape.dim, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=shape.dim**-0.5)
        with torch.no_grad():
            self.embedding.weight[:FIRST_ITEM] = 0.0
        self.dropout = nn.Dropout(shape.dropout)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.dim)
        # Placeholders are no items: they never score.
        bias = torch.zeros(shape.items + FIRST_ITEM)
        bias[:FIRST_ITEM] = MASKED
        self.item_bias = nn.Parameter(bias)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """int64 [batch, length <= window] -> float32 [batch, length, dim]; causal."""
        hidden_keys = items < FIRST_ITEM
        x = self.dropout(self.embedding(items))
        for layer in self.layers:
            x = layer(x, hidden_keys)
        return self.norm(x)

    def score(self, vectors: torch.Tensor) -> torch.Tensor:
        """float32 [rows, dim] -> float32 [rows, items + 2], by index; placeholders far below all."""
        return vectors @ self.embedding.weight.T + self.item_bias

    def score_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """int64 [batch, history] -> float32 [batch, items + 2], as served: the row's items at -inf."""
        scores = self.score(self(rows[:, -self.shape.window :])[:, -1])
        scores[:, :FIRST_ITEM] = float("-inf")
        return scores.scatter(1, rows, float("-inf"))
