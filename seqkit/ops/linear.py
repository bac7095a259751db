"""Linear layers for inference whose rows do not depend on one another, to the last bit.

A BLAS picks its blocking from the number of rows, so the same sentence gets other last bits in another batch, and now
and then another translation. The kernel (csrc/linear) adds in one fixed order for every row and still runs at the speed
of sgemm for large inputs and faster for few rows (benchmarks/linear.py). There is no gradient: train with torch's own.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_tensors

ACTIVATIONS = ("none", "relu", "gelu", "tanh")
PANEL = 32  # columns of a packed panel, as in csrc/linear/linear.h


def linear_reference(
    x: Float[Tensor, "*rows K"],
    weight: Float[Tensor, "N K"],
    bias: Float[Tensor, " N"] | None = None,
    *,
    activation: str = "none",
) -> Float[Tensor, "*rows N"]:
    """activation(x Wᵀ + bias) in plain torch, with gradients."""
    y = F.linear(x, weight, bias)
    match activation:
        case "relu":
            return F.relu(y)
        case "gelu":
            return F.gelu(y)
        case "tanh":
            return torch.tanh(y)
    return y


def pack_linear_weight(weight: Float[Tensor, "N K"]) -> Float[Tensor, "panels K 32"]:
    """The weight in the layout that the kernel reads, [ceil(N/32), K, 32]; columns beyond N are zero.

    Pack once and hand it to every `linear`. The values are copied: pack again after the weight has changed.
    """
    check_tensors("ops.pack_linear_weight", {"weight": weight})
    if weight.ndim != 2:
        raise InputError(f"ops.pack_linear_weight: weight must have the shape [N, K], got {list(weight.shape)}")
    detached = weight.detach()
    if weight.dtype == torch.float32 and library.backend("linear", weight.device) == "native":
        packed: Tensor = torch.ops.seqkit.linear_pack(detached.contiguous())
        return packed
    columns, depth = weight.shape
    padded = F.pad(detached, (0, 0, 0, -columns % PANEL))
    return padded.view(-(-columns // PANEL), PANEL, depth).transpose(1, 2).contiguous()


def linear(
    x: Float[Tensor, "*rows K"],
    weight: Float[Tensor, "N K"],
    bias: Float[Tensor, " N"] | None = None,
    *,
    activation: str = "none",
    packed: Float[Tensor, "panels K 32"] | None = None,
) -> Float[Tensor, "*rows N"]:
    """activation(x Wᵀ + bias), each row bit-identical whatever other rows stand beside it.

    Float32 on the CPU runs the kernel; any other dtype or device, mixed ones and autocast run `linear_reference`, which
    makes no such promise.

    Args:
        activation: `none`, `relu`, `gelu` (the exact form, x Phi(x)) or `tanh`.
        packed: `pack_linear_weight(weight)`, else the weight is packed in every call.

    Raises:
        InputError: shapes or devices do not fit, or the activation has no such name.
        RuntimeError: gradients are asked for; this operator is for inference.
    """
    if activation not in ACTIVATIONS:
        raise InputError(f"ops.linear: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    check_tensors("ops.linear", {"x": x, "weight": weight}, {"bias": bias, "packed": packed})
    if weight.ndim != 2:
        raise InputError(f"ops.linear: weight must have the shape [N, K], got {list(weight.shape)}")
    columns, depth = weight.shape
    if x.ndim < 1 or x.shape[-1] != depth:
        raise InputError(f"ops.linear: x must have the last size {depth} of weight, got the shape {list(x.shape)}")
    if bias is not None and bias.shape != (columns,):
        raise InputError(f"ops.linear: bias must have the shape [{columns}], got {list(bias.shape)}")
    if packed is not None and packed.shape != (-(-columns // PANEL), depth, PANEL):
        wanted = [-(-columns // PANEL), depth, PANEL]
        raise InputError(f"ops.linear: packed must have the shape {wanted}, got {list(packed.shape)}")
    wants = x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    if wants and torch.is_grad_enabled():
        raise RuntimeError("ops.linear: it has no gradient; call it under torch.no_grad() or torch.inference_mode()")

    if not library.runs_kernel("linear", x, weight, bias, packed):
        return linear_reference(x, weight, bias, activation=activation)
    if packed is None:
        packed = pack_linear_weight(weight)
    rows = x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), depth)
    bias = None if bias is None else bias.contiguous()
    y: Tensor = torch.ops.seqkit.linear.default(
        rows.contiguous(), packed.contiguous(), bias, columns, ACTIVATIONS.index(activation)
    )
    return y if x.ndim == 2 else y.view(*x.shape[:-1], columns)


def _fake_pack(weight: Tensor) -> Tensor:
    return weight.new_empty((weight.shape[0] + PANEL - 1) // PANEL, weight.shape[1], PANEL)


def _fake_linear(x: Tensor, packed: Tensor, bias: Tensor | None, columns: int, activation: int) -> Tensor:
    check_tensors("linear", {"x": x, "packed": packed}, {"bias": bias})
    return x.new_empty(x.shape[0], columns)


if library.is_built("linear"):
    torch.library.register_fake("seqkit::linear_pack", _fake_pack)
    torch.library.register_fake("seqkit::linear", _fake_linear)
