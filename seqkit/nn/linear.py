"""Affine maps whose inference result depends on nothing but the row.

A library matrix product picks its blocking from the number of rows, so a sentence's logits differ in the last bits with
the batch it sits in, and a beam search amplifies that to different words. Without gradients these layers go through
`ops.linear`, where each output is one fixed chain of additions; while training they are torch's own product, which is
as fast and whose rounding nobody can see in a stochastic gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit import ops


class PackedWeights:
    """Weights in the layout of `ops.linear`, packed once and again whenever a weight has changed.

    A change shows in the weight's version counter, but not every change: torch's fused Adam (2.13) writes past it. So a
    forward pass that wants a gradient, after which an optimiser may write, forgets what is packed.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Tensor, int, int, Tensor]] = {}

    def get(self, weight: Tensor) -> Tensor | None:
        """The packed form of `weight` [N, K]; None where the native product does not serve it."""
        if weight.device.type != "cpu" or weight.dtype != torch.float32 or ops.backend("linear") != "native":
            return None
        version = 0 if weight.is_inference() else weight._version
        entry = self._entries.get(id(weight))
        if entry is not None and entry[0] is weight and entry[1:3] == (version, weight.data_ptr()):
            return entry[3]
        packed = ops.pack_linear_weight(weight.detach())
        self._entries[id(weight)] = (weight, version, weight.data_ptr(), packed)
        return packed

    def forget(self) -> None:
        """Drops the packed weights, which are about to be trained."""
        self._entries.clear()

    def __deepcopy__(self, memo: object) -> PackedWeights:
        return PackedWeights()

    def __getstate__(self) -> dict[str, object]:
        return {"_entries": {}}


def affine(
    x: Float[Tensor, "*rows K"],
    weight: Float[Tensor, "N K"],
    bias: Float[Tensor, " N"] | None,
    packed: PackedWeights,
    activation: str = "none",
) -> Float[Tensor, "*rows N"]:
    """activation(x Wᵀ + b): torch's product where a gradient is wanted, the row-invariant one elsewhere."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
        packed.forget()
        return ACTIVATIONS[activation](F.linear(x, weight, bias))
    return ops.linear(x, weight, bias, activation=activation, packed=packed.get(weight))


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": _identity,
    "relu": F.relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
}


class Linear(nn.Linear):
    """`torch.nn.Linear`, with an activation and a row-invariant inference path."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, activation: str = "none") -> None:
        super().__init__(in_features, out_features, bias)
        self.activation = activation
        self.packed = PackedWeights()

    def reset_parameters(self) -> None:
        """Glorot and Bengio 2010, equation 16 for the weight; zero for the bias."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows N"]:
        return affine(x, self.weight, self.bias, self.packed, self.activation)
