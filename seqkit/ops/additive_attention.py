"""Additive attention: a query meets each key in a sum under a tanh, not in a product.

The forward kernel (csrc/additive_attention) never stores the tanh tensor [B, T, S, A] and gives rows whose bits depend
neither on padding nor on the batch. Training runs the reference, which stores that tensor.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqkit.errors import InputError
from seqkit.ops import library


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
        scores = scores.masked_fill(~counts[:, None], torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1)
    if counts is not None:
        weights = weights * counts[:, None]  # a sentence of length zero attends to nothing
    return weights @ values, weights


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

    Float32 on the CPU without gradient runs the kernel; all else runs `additive_attention_reference`.

    Args:
        lengths: int64, how many source positions of a sentence count, from 0 (context and weights are then zero) to S;
            all of them by default.

    Raises:
        InputError: shapes do not fit. RuntimeError: a length is outside 0 .. S.
    """
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
    if not library.runs_kernel("additive_attention", query, keys, values, v):
        return additive_attention_reference(query, keys, values, v, lengths=lengths)
    given = [tensor.contiguous() for tensor in (query, keys, values, v)]
    counts = None if lengths is None else lengths.to(torch.int64).contiguous()
    context, weights = torch.ops.seqkit.additive_attention(*given, counts)
    return context, weights


def _fake(query: Tensor, keys: Tensor, values: Tensor, v: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    B, T, _ = query.shape
    return query.new_empty(B, T, values.shape[2]), query.new_empty(B, T, keys.shape[1])


if library.is_built("additive_attention"):
    torch.library.register_fake("seqkit::additive_attention", _fake)
