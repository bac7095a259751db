"""The CUDA kernels of `ops.additive_attention` on the host executor, against the reference in float64."""

import math

import pytest
import torch
from torch import Tensor

from seqkit import ops

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# B, T, S, A, D: one of each; vectors of four; two tiles of queries and two rounds of keys; two chunks of A; of D.
SHAPES = [(1, 1, 1, 1, 1), (2, 3, 6, 8, 12), (2, 9, 70, 37, 33), (1, 2, 9, 1100, 20), (2, 2, 3, 4, 1030)]


def operands(B: int, T: int, S: int, A: int, D: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Query, keys, values, v, and the gradients of the context and of the weights."""
    generator = torch.Generator().manual_seed(0)
    shapes = (B, T, A), (B, S, A), (B, S, D), (A,), (B, T, D), (B, T, S)
    drawn = [torch.randn(*shape, generator=generator) for shape in shapes]
    drawn[3] *= A**-0.5
    return tuple(x.to(dtype) for x in drawn)


def emulated(given: tuple[Tensor, ...], lengths: Tensor | None) -> list[Tensor]:
    """The context, the weights and the gradients, from tensors that torch has filled with NaN."""
    query, keys, values, v, grad_context, grad_weights = given
    torch.use_deterministic_algorithms(True)
    try:
        context, weights = torch.ops.seqkit_emulated.additive_attention(query, keys, values, v, lengths)
        grads = torch.ops.seqkit_emulated.additive_attention_backward(
            grad_context, grad_weights, query, keys, values, v, lengths, weights
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(x.dtype == query.dtype for x in (context, weights, *grads))
    return [x.double() for x in (context, weights, *grads)]


def reference(given: tuple[Tensor, ...], lengths: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
    *leaves, grad_context, grad_weights = (x.to(dtype) for x in given)
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    out = ops.additive_attention_reference(*leaves, lengths=lengths)
    return [x.detach().double() for x in (*out, *torch.autograd.grad(out, leaves, (grad_context, grad_weights)))]


def size(x: Tensor) -> float:
    """The root of the mean square; one number's error is a matter of luck."""
    return float(x.square().mean().sqrt()) if x.numel() else 0.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_additive_attention_is_as_exact_as_torch(shape: tuple[int, ...], dtype: torch.dtype, schedule: str) -> None:
    given, S = operands(*shape, dtype), shape[2]
    for lengths in (None, torch.tensor([(2 * S + 2) // 3, 0][: shape[0]])):
        ours, peer = emulated(given, lengths), reference(given, lengths, dtype)
        exact = reference(given, lengths, torch.float64)
        for part, (mine, theirs, truth) in enumerate(zip(ours, peer, exact, strict=True)):
            most = (3 if part > 1 else 2) * size(theirs - truth) + torch.finfo(dtype).eps * size(truth)
            assert size(mine - truth) <= most, part


def test_additive_attention_does_not_read_padding(schedule: str) -> None:
    given = operands(3, 10, 70, 12, 9, torch.float32)
    lengths = torch.tensor([70, 66, 0])
    wanted = emulated(given, lengths)
    for b, length in enumerate(lengths.tolist()):
        for padded in (given[1], given[2]):
            padded[b, length:] = math.nan
        given[5][b, :, length:] = math.nan
    got = emulated(given, lengths)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    context, weights, grad_query, grad_keys, grad_values, _ = got
    assert not any(x[2].any() for x in (context, weights, grad_query, grad_keys, grad_values))
    assert not any(x[1, 66:].any() for x in (grad_keys, grad_values))
    assert not weights[1, :, 66:].any()


def test_additive_attention_gives_padding_no_gradient_even_of_nan(schedule: str) -> None:
    given = operands(3, 10, 70, 12, 9, torch.float32)
    lengths = torch.tensor([70, 66, 0])
    for leaf in (given[0], given[4]):
        leaf[1:] = math.nan
    _, weights, _, grad_keys, grad_values, _ = emulated(given, lengths)
    assert grad_keys[1, :66].isnan().all()
    for x in (weights.transpose(1, 2), grad_keys, grad_values):
        assert not x[1, 66:].any()
        assert not x[2].any()


def test_additive_attention_rows_do_not_see_the_batch(schedule: str) -> None:
    query, keys, values, v, *_ = operands(2, 11, 9, 21, 19, torch.float32)
    lengths = torch.tensor([9, 5])
    context, weights = torch.ops.seqkit_emulated.additive_attention(query, keys, values, v, lengths)
    for b, length in enumerate(lengths.tolist()):
        for t in (0, 7, 8, 10):
            alone = torch.ops.seqkit_emulated.additive_attention(
                query[b : b + 1, t : t + 1], keys[b : b + 1, :length], values[b : b + 1, :length], v, None
            )
            assert torch.equal(alone[0][0, 0], context[b, t])
            assert torch.equal(alone[1][0, 0], weights[b, t, :length])


def test_additive_attention_cuts_lengths_that_it_cannot_refuse(schedule: str) -> None:
    given = operands(2, 3, 5, 6, 7, torch.float32)
    outside, cut = emulated(given, torch.tensor([-3, 99])), emulated(given, torch.tensor([0, 5]))
    assert all(torch.equal(a, b) for a, b in zip(outside, cut, strict=True))


def test_additive_attention_without_a_gradient_of_the_weights(schedule: str) -> None:
    query, keys, values, v, grad_context, grad_weights = operands(2, 3, 5, 6, 7, torch.float32)
    _, weights = torch.ops.seqkit_emulated.additive_attention(query, keys, values, v, None)
    backward = torch.ops.seqkit_emulated.additive_attention_backward
    none = backward(grad_context, None, query, keys, values, v, None, weights)
    zero = backward(grad_context, grad_weights * 0, query, keys, values, v, None, weights)
    assert all(torch.equal(a, b) for a, b in zip(none, zero, strict=True))


def test_additive_attention_of_misaligned_rows(schedule: str) -> None:
    given = operands(2, 3, 5, 8, 8, torch.float32)
    moved = tuple(torch.cat([torch.zeros(1), x.flatten()])[1:].view(x.shape) for x in given)
    assert all(torch.equal(a, b) for a, b in zip(emulated(moved, None), emulated(given, None), strict=True))


@pytest.mark.parametrize("shape", [(0, 2, 3, 4, 5), (2, 0, 3, 4, 5), (2, 3, 0, 4, 5), (2, 2, 3, 0, 5), (2, 2, 3, 4, 0)])
def test_additive_attention_of_nothing(shape: tuple[int, ...]) -> None:
    given = operands(*shape, torch.float32) if shape[3] else operands(*shape[:3], 1, shape[4], torch.float32)
    if not shape[3]:
        given = (given[0][..., :0].contiguous(), given[1][..., :0].contiguous(), given[2], given[3][:0], *given[4:])
    for mine, exact in zip(emulated(given, None), reference(given, None, torch.float64), strict=True):
        torch.testing.assert_close(mine, exact, rtol=1e-5, atol=1e-5)
