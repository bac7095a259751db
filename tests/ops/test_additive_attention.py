"""`ops.additive_attention`: the definition, its gradients, zero beyond the lengths, rows that see only themselves."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seqkit import ops
from seqkit.errors import InputError
from seqkit.ops import library

needs_native = pytest.mark.skipif(not library.is_built("additive_attention"), reason="the native library is not built")


def operands(B: int = 3, T: int = 2, S: int = 9, A: int = 21, D: int = 19, *, dtype: Any = None) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = (B, T, A), (B, S, A), (B, S, D), (A,)
    return tuple(torch.randn(*shape, generator=generator).to(dtype) for shape in shapes)


def trained(f: Any, given: tuple[Tensor, ...], **options: Any) -> list[Tensor]:
    """The context, the weights, and the gradients of a loss that sees both, in float64."""
    leaves = [x.detach().requires_grad_() for x in given]
    out = f(*leaves, **options)
    generator = torch.Generator().manual_seed(1)
    slopes = [torch.randn(*x.shape, generator=generator).to(x.dtype) for x in out]
    return [x.detach().double() for x in (*out, *torch.autograd.grad(out, leaves, slopes))]


def size(x: Tensor) -> float:
    """The root of the mean square; one number's error is a matter of luck."""
    return float(x.square().mean().sqrt()) if x.numel() else 0.0


def check_gradients(T: int, S: int, A: int, D: int, scale: float = 1.0) -> None:
    """Errors against float64 at most twice those of the formula in plain torch, three times for the gradients."""
    query, keys, values, v = operands(3, T, S, A, D)
    given = query * scale, keys * scale, values, v * A**-0.5  # as layers begin
    for lengths in (None, torch.tensor([S, (S + 1) // 2, 0])):
        ours = trained(ops.additive_attention, given, lengths=lengths)
        peer = trained(ops.additive_attention_reference, given, lengths=lengths)
        wide = tuple(x.double() for x in given)
        exact = trained(ops.additive_attention_reference, wide, lengths=lengths)
        for part, (mine, theirs, truth) in enumerate(zip(ours, peer, exact, strict=True)):
            most = (3 if part > 1 else 2) * size(theirs - truth) + 1e-7 * size(truth)
            assert size(mine - truth) <= most, part


def test_additive_attention_closed_form() -> None:
    query, keys = torch.zeros(1, 1, 1), torch.tensor([[[0.0], [1e9]]])  # tanh 0 and 1
    values, v = torch.tensor([[[0.0], [1.0]]]), torch.tensor([math.log(3.0)])
    context, weights = ops.additive_attention(query, keys, values, v)
    torch.testing.assert_close(weights, torch.tensor([[[0.25, 0.75]]]))
    torch.testing.assert_close(context, torch.tensor([[[0.75]]]))


@needs_native
@pytest.mark.parametrize("S", [1, 9, 40])
def test_additive_attention_equals_its_reference(S: int) -> None:
    given = operands(S=S)
    lengths = torch.tensor([S, 1, 0])
    for counts in (None, lengths):
        got = ops.additive_attention(*given, lengths=counts)
        doubles = (tensor.double() for tensor in given)
        wanted = ops.additive_attention_reference(*doubles, lengths=counts)
        torch.testing.assert_close(got, tuple(w.float() for w in wanted), rtol=1e-5, atol=1e-6)
    assert not got[0][2].any()
    assert not got[1][2].any()


@needs_native
def test_additive_attention_rows_do_not_see_padding_or_the_batch() -> None:
    query, keys, values, v = operands()
    lengths = torch.tensor([9, 5, 3])
    context, weights = ops.additive_attention(query, keys, values, v, lengths=lengths)
    for b, length in enumerate(lengths.tolist()):
        one = slice(b, b + 1)
        for t in range(2):
            alone = ops.additive_attention(query[one, t : t + 1], keys[one, :length], values[one, :length], v)
            assert torch.equal(alone[0][0, 0], context[b, t])
            assert torch.equal(alone[1][0, 0], weights[b, t, :length])
        keys[b, length:] = math.nan
        values[b, length:] = math.nan
    again = ops.additive_attention(query, keys, values, v, lengths=lengths)
    assert torch.equal(again[0], context)
    assert torch.equal(again[1], weights)
    with library.use_backend("reference"):
        assert ops.additive_attention(query, keys, values, v, lengths=lengths)[0].isfinite().all()


@needs_native
@pytest.mark.parametrize("T", [1, 2, 7, 70])
@pytest.mark.parametrize(("S", "A", "D"), [(1, 1, 1), (5, 16, 32), (9, 33, 70), (66, 131, 530)])
def test_additive_attention_gradients_are_as_exact_as_torchs(T: int, S: int, A: int, D: int) -> None:
    check_gradients(T, S, A, D)


@needs_native
@pytest.mark.parametrize("scale", [1e-20, 1e-3, 30.0, 1e30])
def test_additive_attention_of_small_and_large_arguments(scale: float) -> None:
    check_gradients(7, 9, 40, 20, scale)


def check_tanh() -> None:
    """With v = 0 the weights are even and the gradient of v is (tanh(q + k_0) - tanh(q + k_1)) / 2, q and k_1 chosen.

    q = k_1 = 0 shows the relative error of tanh(k_0). Then both summands count: an error of a few units in the last
    place of the larger one is that of the sum that torch takes.
    """
    sizes = torch.logspace(-30, 1.2, 4999)
    for x in (sizes, -sizes):
        keys, query, v = torch.stack([x, x * 0])[None], torch.zeros(1, 1, 4999), torch.zeros(4999, requires_grad=True)
        _, weights = ops.additive_attention(query, keys, keys, v)
        (slope,) = torch.autograd.grad(weights, v, torch.tensor([[[1.0, -1.0]]]))
        exact = torch.tanh(x.double()) / 2
        assert ((slope - exact).abs() <= 2.5 * 2.0**-23 * exact.abs()).all()
    query, key = torch.randn(2, 1, 1, 4999, generator=torch.Generator().manual_seed(0)) * 3
    keys, v = torch.cat([key, -query], 1), torch.zeros(4999, requires_grad=True)
    _, weights = ops.additive_attention(query, keys, keys, v)
    (slope,) = torch.autograd.grad(weights, v, torch.tensor([[[1.0, -1.0]]]))
    exact = torch.tanh(query.double() + key.double()) / 2
    room = 2.0**-23 * (query.abs() + key.abs()).clamp(min=1.0)
    assert ((slope - exact).abs() <= room).all()


@needs_native
def test_additive_attention_takes_an_exact_tanh() -> None:
    check_tanh()


@needs_native
def test_additive_attention_rows_with_large_arguments_do_not_see_other_rows() -> None:
    query, keys, values, v = operands(T=5, S=13)
    query[1, 2] *= 100  # beyond what the factored exponentials hold: this row and these keys go another way
    keys[2, 6] *= 100
    lengths = torch.tensor([13, 13, 6])
    context, _ = ops.additive_attention(query, keys, values, v, lengths=lengths)
    wide = (x.double() for x in (query, keys, values, v))
    exact = ops.additive_attention_reference(*wide, lengths=lengths)[0]
    torch.testing.assert_close(context.double(), exact, rtol=1e-5, atol=1e-5)
    for b, length in enumerate(lengths.tolist()):
        one = slice(b, b + 1)
        for t in range(5):
            alone = ops.additive_attention(query[one, t : t + 1], keys[one, :length], values[one, :length], v)
            assert torch.equal(alone[0][0, 0], context[b, t])


@needs_native
def test_additive_attention_passes_nan_on() -> None:
    query, keys, values, v = operands(T=4)
    query[0, 1, 3] = math.nan
    context = ops.additive_attention(query, keys, values, v)[0]
    assert context[0, 1].isnan().all()
    assert context.isnan().sum() == context.shape[2]


def test_additive_attention_gradcheck() -> None:
    given = tuple(x.requires_grad_() for x in operands(B=3, T=2, S=3, A=3, D=2, dtype=torch.float64))
    lengths = torch.tensor([3, 0, 2])
    assert torch.autograd.gradcheck(ops.additive_attention, given)
    assert torch.autograd.gradcheck(lambda *x: ops.additive_attention(*x, lengths=lengths), given)
    assert torch.autograd.gradcheck(lambda *x: ops.additive_attention(*x, lengths=lengths)[1], given)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_additive_attention_gradients_do_not_see_padding(backend: str) -> None:
    query, keys, values, v = operands(T=4)
    lengths = torch.tensor([9, 5, 0])
    with library.use_backend(backend):
        wanted = trained(ops.additive_attention, (query, keys, values, v), lengths=lengths)
        for b, length in enumerate(lengths.tolist()):
            keys[b, length:] = math.nan
            values[b, length:] = math.nan
        got = trained(ops.additive_attention, (query, keys, values, v), lengths=lengths)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert not got[2][2].any()
    for part in (3, 4):
        assert got[part][0].any()
        assert not any(got[part][b, length:].any() for b, length in enumerate(lengths.tolist()))


@pytest.mark.parametrize(("T", "S", "A"), [(0, 3, 2), (3, 0, 2), (0, 0, 2), (3, 2, 0)])
def test_additive_attention_of_nothing(T: int, S: int, A: int) -> None:
    context, weights, *grads = trained(ops.additive_attention, operands(T=T, S=S, A=A))
    assert context.shape == (3, T, 19)
    assert weights.shape == (3, T, S)
    assert context.any() == (T > 0 and S > 0)
    assert not any(grad.any() for grad in (grads[0], grads[1], grads[3]))
    assert ops.additive_attention(*operands(B=0))[0].shape == (0, 2, 19)


@needs_native
def test_additive_attention_gradient_of_one_output_alone() -> None:
    given = [x.requires_grad_() for x in operands()]
    exact = [x.detach().double().requires_grad_() for x in given]
    for part in (0, 1):
        grads = torch.autograd.grad(ops.additive_attention(*given)[part].square().sum(), given, allow_unused=True)
        out = ops.additive_attention_reference(*exact)[part].square().sum()
        wanted = torch.autograd.grad(out, exact, allow_unused=True)
        for mine, true in zip(grads, wanted, strict=True):
            true = torch.zeros_like(mine).double() if true is None else true
            torch.testing.assert_close(mine.double(), true, rtol=1e-4, atol=1e-5)


@needs_native
def test_additive_attention_leaves_no_output_unwritten() -> None:
    torch.use_deterministic_algorithms(True)  # torch then fills new tensors with NaN
    try:
        results = trained(ops.additive_attention, operands(T=67, A=90), lengths=torch.tensor([9, 0, 4]))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(tensor.isfinite().all() for tensor in results)


@needs_native
def test_additive_attention_repeats_to_the_last_bit_whatever_the_threads() -> None:
    given, lengths = operands(T=70, S=33, A=200, D=600), torch.tensor([33, 1, 20])
    first = trained(ops.additive_attention, given, lengths=lengths)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            again = trained(ops.additive_attention, given, lengths=lengths)
            assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))
    finally:
        torch.set_num_threads(threads)


@needs_native
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_additive_attention_of_halves_is_that_of_floats_rounded(dtype: torch.dtype) -> None:
    given = operands(dtype=dtype)
    out = ops.additive_attention(*given)
    exact = ops.additive_attention(*(x.float() for x in given))
    assert all(torch.equal(a, b.to(dtype)) for a, b in zip(out, exact, strict=True))
    mine, wide = (trained(ops.additive_attention, tuple(x.to(kind) for x in given)) for kind in (dtype, torch.float64))
    for got, wanted in zip(mine, wide, strict=True):
        assert (got - wanted).abs().max() < 3 * torch.finfo(dtype).eps * wanted.abs().max()


@needs_native
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_additive_attention_trains_under_autocast(backend: str) -> None:
    query, keys, values, v = operands()
    leaves = [query.bfloat16(), keys.bfloat16(), values, v]  # as projections and parameters leave them
    leaves = [leaf.requires_grad_() for leaf in leaves]
    with library.use_backend(backend):
        with torch.autocast("cpu", torch.bfloat16):
            context, weights = ops.additive_attention(*leaves)
        (context.float().sum() + weights.float().square().sum()).backward()
    assert context.dtype == weights.dtype == torch.bfloat16
    assert all(leaf.grad is not None and leaf.grad.dtype == leaf.dtype for leaf in leaves)


def test_additive_attention_refuses_what_does_not_fit() -> None:
    attend = getattr(ops.additive_attention, "__wrapped__", ops.additive_attention)  # past the shape types
    query, keys, values, v = operands()
    with pytest.raises(InputError, match=r"keys must have the shape \[3, S, 21\], got \[3, 9, 20\]"):
        attend(query, keys[..., :20], values, v)
    with pytest.raises(InputError, match=r"values must have the shape \[3, 9, D\]"):
        attend(query, keys, values[:, :8], v)
    with pytest.raises(InputError, match=r"v must have the shape \[21\]"):
        attend(query, keys, values, v[:3])
    with pytest.raises(InputError, match="three axes"):
        attend(query[0], keys, values, v)
    with pytest.raises(InputError, match=r"lengths must have the shape \[3\]"):
        attend(query, keys, values, v, lengths=torch.tensor([1, 2]))
    with pytest.raises(InputError, match="must have one dtype"):
        attend(query, keys, values.double(), v)


@needs_native
def test_additive_attention_kernels_refuse_what_the_face_would_not_send() -> None:
    query, keys, values, v = operands()
    forward, backward = torch.ops.seqkit.additive_attention, torch.ops.seqkit.additive_attention_backward
    with pytest.raises(RuntimeError, match="query must have the dtype Float or Double, got Int"):
        forward(query.int(), keys, values, v, None)
    with pytest.raises(RuntimeError, match="keys must be contiguous"):
        forward(query, keys.transpose(1, 2).contiguous().transpose(1, 2), values, v, None)
    context, weights = forward(query, keys, values, v, None)
    with pytest.raises(RuntimeError, match=r"grad_context must have the shape \[3, 2, 19\], got \[3, 1, 19\]"):
        backward(context[:, :1].contiguous(), None, query, keys, values, v, None, weights)
    with pytest.raises(RuntimeError, match="grad_weights must have the dtype Float"):
        backward(context, weights.double(), query, keys, values, v, None, weights)


@needs_native
@pytest.mark.parametrize("length", [-1, 10])
def test_additive_attention_refuses_a_length_outside_the_source(length: int) -> None:
    with pytest.raises(RuntimeError, match=f"lengths must be from 0 to 9, got {length}"):
        ops.additive_attention(*operands(), lengths=torch.tensor([1, length, 2]))


@needs_native
def test_additive_attention_opcheck() -> None:
    given, lengths = operands(), torch.tensor([9, 0, 4])
    torch.library.opcheck(torch.ops.seqkit.additive_attention.default, (*given, lengths))
    context, weights = torch.ops.seqkit.additive_attention(*given, lengths)
    backward = torch.ops.seqkit.additive_attention_backward.default
    torch.library.opcheck(backward, (context, weights, *given, lengths, weights))


@needs_native
@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracer does it
def test_additive_attention_compiles_forward_and_backward() -> None:
    given, lengths = operands(), torch.tensor([9, 0, 4])
    compiled = torch.compile(ops.additive_attention, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*given), ops.additive_attention(*given))
    got, wanted = (trained(f, given, lengths=lengths) for f in (compiled, ops.additive_attention))
    torch.testing.assert_close(got, wanted)


@needs_native
@pytest.mark.parametrize("level", ["0", "1"])
def test_additive_attention_at_lower_machine_levels(level: str) -> None:
    code = """
import sys
import torch
from seqkit import ops
sys.path.insert(0, "tests/ops")
import test_additive_attention as tests
tests.check_tanh()
for T, S, A, D in ((1, 1, 1, 1), (7, 9, 33, 70), (70, 30, 40, 530)):
    tests.check_gradients(T, S, A, D)
tests.check_gradients(7, 9, 40, 20, 30.0)
tests.test_additive_attention_rows_do_not_see_padding_or_the_batch()
tests.test_additive_attention_rows_with_large_arguments_do_not_see_other_rows()
print("same")
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env={**os.environ, "SEQKIT_ISA": level}
    )
    assert done.stdout.strip() == "same", done.stderr
