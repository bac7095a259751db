"""Additive attention: a query meets each key in a sum under a tanh, not in a product.

The kernels (csrc/additive_attention) never store the tanh tensor [B, T, S, A], forward or backward: training takes the
memory of its inputs and outputs. On the CPU a row of the result depends on its own query and on the keys and values
that count, to the last bit: not on padding, on the other rows, on the batch or on threads.

The kernels of the CPU take float32 and float64; 16-bit tensors are converted to float32 before and back after. Those of
CUDA take float32, float16 and bfloat16 and compute in float32; float64 runs the reference there.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_range, check_tensors, indices


def additive_attention_reference(
    query: Float[Tensor, "B T A"],
    keys: Float[Tensor, "B S A"],
    values: Float[Tensor, "B S D"],
    v: Float[Tensor, " A"],
    *,
    lengths: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T S"]]:
    """`additive_attention` in plain torch, with gradients."""
    counts = None
    if lengths is not None:
        counts = torch.arange(keys.shape[1], device=keys.device) < lengths[:, None]  # B S, True where it counts
        keys = keys.masked_fill(~counts[:, :, None], 0.0)  # what stands in the padding may be NaN
        values = values.masked_fill(~counts[:, :, None], 0.0)
    scores = torch.tanh(query[:, :, None] + keys[:, None]) @ v  # B T S A -> B T S
    if counts is not None:
        scores = scores.masked_fill(~counts[:, None], -torch.inf)
    weights = torch.softmax(scores, dim=-1)
    if counts is not None:
        weights = weights.masked_fill(~counts[:, None], 0.0)  # a sentence of length zero attends to nothing
    return weights @ values, weights


class _AdditiveAttention(torch.autograd.Function):
    """The native kernels under autograd."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, values: Tensor, v: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        context, weights = torch.ops.seqkit.additive_attention(query, keys, values, v, lengths)
        ctx.save_for_backward(query, keys, values, v, lengths, weights)
        ctx.set_materialize_grads(False)
        return context, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_context: Tensor | None, grad_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        query, keys, values, v, lengths, weights = ctx.saved_tensors
        if grad_context is None:
            grad_context = values.new_zeros(*weights.shape[:2], values.shape[2])
        grads = torch.ops.seqkit.additive_attention_backward(
            grad_context.contiguous(),
            None if grad_weights is None else grad_weights.contiguous(),
            query,
            keys,
            values,
            v,
            lengths,
            weights,
        )
        return (*grads, None)


def additive_attention(
    query: Float[Tensor, "B T A"],
    keys: Float[Tensor, "B S A"],
    values: Float[Tensor, "B S D"],
    v: Float[Tensor, " A"],
    *,
    lengths: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T S"]]:
    """The context of every target position and the weights it gave to the source positions.

    weights(t, s) = softmax over s < length of v · tanh(query(t) + keys(s)),  context(t) = Σ_s weights(t, s) values(s).

    Reference: Bahdanau et al. 2015, A.1.2, arXiv:1409.0473; query = W s + b and keys = U h are the caller's products.

    Under autocast the result has autocast's dtype, else that of the arguments.

    Args:
        lengths: int64, how many source positions of a sentence count, from 0 (context and weights are then zero) to S;
            all of them by default.

    Raises:
        InputError: shapes do not fit, or without autocast dtypes differ. RuntimeError: a length is outside 0 .. S.
    """
    where = "ops.additive_attention"
    check_tensors(where, {"query": query, "keys": keys, "values": values, "v": v}, {"lengths": lengths})
    if query.ndim != 3 or keys.ndim != 3 or values.ndim != 3:
        got = f"{query.ndim}, {keys.ndim} and {values.ndim} axes"
        raise InputError(f"ops.additive_attention: query, keys and values must have three axes, got {got}")
    B, _, A = query.shape
    S = keys.shape[1]
    if keys.shape != (B, S, A):
        raise InputError(f"ops.additive_attention: keys must have the shape [{B}, S, {A}], got {list(keys.shape)}")
    if values.shape[:2] != (B, S):
        raise InputError(f"ops.additive_attention: values must have the shape [{B}, {S}, D], got {list(values.shape)}")
    if v.shape != (A,):
        raise InputError(f"ops.additive_attention: v must have the shape [{A}], got {list(v.shape)}")
    if lengths is not None and lengths.shape != (B,):
        raise InputError(f"ops.additive_attention: lengths must have the shape [{B}], got {list(lengths.shape)}")
    counts = None if lengths is None else indices(where, "lengths", lengths)
    autocast = torch.is_autocast_enabled(query.device.type) and query.dtype != torch.float64
    if not autocast and not query.dtype == keys.dtype == values.dtype == v.dtype:
        got = f"{query.dtype}, {keys.dtype}, {values.dtype} and {v.dtype}"
        raise InputError(f"ops.additive_attention: query, keys, values and v must have one dtype, got {got}")
    dtype = torch.get_autocast_dtype(query.device.type) if autocast else query.dtype
    on_cpu = query.device.type == "cpu"
    if library.backend("additive_attention", query.device) != "native" or (dtype == torch.float64 and not on_cpu):
        real = torch.promote_types(dtype, torch.float32)
        if counts is not None:
            check_range(where, "lengths", counts, 0, S)
        with torch.autocast(query.device.type, enabled=False):
            given = [x.to(real) for x in (query, keys, values, v)]
            context, weights = additive_attention_reference(*given, lengths=counts)
    else:
        number = torch.promote_types(dtype, torch.float32) if on_cpu else dtype
        given = [x.to(number).contiguous() for x in (query, keys, values, v)]
        if torch.is_grad_enabled() and any(x.requires_grad for x in given):
            context, weights = _AdditiveAttention.apply(*given, counts)  # type: ignore[no-untyped-call]
        else:  # an autograd node that is not needed would cost a short call more than its work
            context, weights = torch.ops.seqkit.additive_attention.default(*given, counts)
    if context.dtype != dtype:
        context, weights = context.to(dtype), weights.to(dtype)
    return context, weights


def _fake_forward(
    query: Tensor, keys: Tensor, values: Tensor, v: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    check_tensors("additive_attention", {"query": query, "keys": keys, "values": values, "v": v}, {"lengths": lengths})
    B, T, _ = query.shape
    return query.new_empty(B, T, values.shape[2]), query.new_empty(B, T, keys.shape[1])


def _fake_backward(
    grad_context: Tensor,
    grad_weights: Tensor | None,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_tensors(
        "additive_attention_backward",
        {"grad_context": grad_context, "query": query, "keys": keys, "values": values, "v": v, "weights": weights},
        {"grad_weights": grad_weights, "lengths": lengths},
    )
    grads = [query.new_empty(x.shape) for x in (query, keys, values, v)]
    return grads[0], grads[1], grads[2], grads[3]


if library.is_built("additive_attention"):
    torch.library.register_fake("seqkit::additive_attention", _fake_forward)
    torch.library.register_fake("seqkit::additive_attention_backward", _fake_backward)
