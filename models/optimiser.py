"""AdamW (Loshchilov & Hutter, arXiv 1711.05101), as torch.optim has it.

Written out because the first use of torch.optim loads torch's compiler, 5 s for a training that
takes a minute; the test holds it against the original.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch

MEAN_DECAY: Final = 0.9
SQUARE_DECAY: Final = 0.999
EPSILON: Final = 1e-8


class AdamW:
    """Keeps running means of gradients and of their squares, and steps by their ratio."""

    def __init__(self, weights: Iterable[torch.Tensor], weight_decay: float) -> None:
        self._weights = list(weights)
        self._weight_decay = weight_decay
        self._means = [torch.zeros_like(weight) for weight in self._weights]
        self._squares = [torch.zeros_like(weight) for weight in self._weights]
        self._steps = 0

    @torch.no_grad()  # type: ignore[untyped-decorator]  # torch is untyped here
    def step(self, rate: float) -> None:
        """Move the weights against their gradients at the learning rate, and clear these."""
        self._steps += 1
        mean_share = 1 - MEAN_DECAY**self._steps
        square_share = 1 - SQUARE_DECAY**self._steps
        for weight, mean, square in zip(self._weights, self._means, self._squares, strict=True):
            gradient = weight.grad
            if gradient is None:
                continue
            mean.lerp_(gradient, 1 - MEAN_DECAY)
            square.mul_(SQUARE_DECAY).addcmul_(gradient, gradient, value=1 - SQUARE_DECAY)
            scale = (square / square_share).sqrt_().add_(EPSILON)
            weight.mul_(1 - rate * self._weight_decay)
            weight.addcdiv_(mean, scale, value=-rate / mean_share)
            weight.grad = None
