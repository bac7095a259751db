"""The CUDA kernels of attention on the host: they equal the float64 kernel of the CPU under every schedule."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seqkit import ops

# B, H, Hkv, T, S, Dh, Dv
SHAPES = {
    "smallest": (1, 1, 1, 1, 1, 1, 1),
    "odd": (2, 4, 2, 5, 9, 7, 3),
    "one tile": (1, 2, 1, 64, 64, 64, 64),
    "several tiles": (1, 2, 2, 70, 150, 40, 24),
    "128 wide": (1, 2, 1, 20, 83, 128, 72),
    "256 wide": (1, 1, 1, 37, 50, 192, 256),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal lengths": {"causal": True, "q_lengths": True, "k_lengths": True},
    "window": {"window": 6, "k_lengths": True},
    "causal window": {"causal": True, "window": 9},
    "bias": {"bias": True, "q_lengths": True},
    "bias of keys": {"bias": "keys", "causal": True},
    "alibi": {"slopes": True, "causal": True},
    "dropout": {"dropout": 0.3, "k_lengths": True},
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Call:
    """Arguments of one call, and what an operator library makes of them: `seqkit` or `seqkit_emulated`."""

    def __init__(self, shape: tuple[int, ...], options: dict[str, Any], dtype: torch.dtype, *, weights: bool = False):
        B, H, Hkv, T, S, Dh, Dv = shape
        sizes = (T, H, Dh), (S, Hkv, Dh), (S, Hkv, Dv)
        # Rounded to the dtype, so that every library is given the same numbers.
        self.qkv = [draw(B, *size, seed=n).to(dtype).transpose(1, 2) for n, size in enumerate(sizes)]
        counts = [torch.tensor([n, (n + 1) // 2][:B]) for n in (T, S)]
        self.lengths = [
            given if options.get(name) else None for given, name in zip(counts, ("q_lengths", "k_lengths"), strict=True)
        ]
        self.bias = None
        if options.get("bias") == "keys":
            self.bias = draw(1, 1, 1, S, seed=5).to(dtype).expand(B, H, T, S)
        elif options.get("bias"):
            self.bias = draw(B, H, T, S, seed=5).to(dtype)
        self.slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625][:H]) if options.get("slopes") else None
        self.dropout = options.get("dropout", 0.0)
        self.seed = torch.tensor([12345]) if self.dropout else None
        self.options = (options.get("causal", False), options.get("window", -1), Dh**-0.5, self.dropout)
        self.weights = weights
        self.grad_out = draw(B, T, H, Dv, seed=8).to(dtype)
        self.grad_weights = draw(B, H, T, S, seed=9).to(dtype) if weights else None

    def run(self, library: Any, dtype: torch.dtype) -> list[Tensor]:
        """Output, weights, and the gradients of q, k, v and the bias."""
        q, k, v, bias, grad_out, grad_weights = (
            None if x is None else x.to(dtype) for x in (*self.qkv, self.bias, self.grad_out, self.grad_weights)
        )
        slopes = None if self.slopes is None else self.slopes.to(torch.promote_types(dtype, torch.float32))
        behind = (*self.lengths, bias, slopes, self.seed, *self.options)
        out, stats, weights = library.attention_forward(q, k, v, *behind, self.weights)
        grads = library.attention_backward(
            grad_out, grad_weights, q, k, v, out, stats, weights if self.weights else None, *behind, bias is not None
        )
        return [out, weights, *grads]

    def by_torch(self, dtype: torch.dtype) -> list[Tensor]:
        """The same in plain torch, without dropout."""
        leaves = [x.to(dtype).requires_grad_() for x in (*self.qkv, *([] if self.bias is None else [self.bias]))]
        causal, window, scale, _ = self.options
        out, weights = ops.attention_reference(
            *leaves[:3],
            q_lengths=self.lengths[0],
            k_lengths=self.lengths[1],
            causal=causal,
            window=None if window < 0 else window,
            bias=leaves[3] if len(leaves) > 3 else None,
            alibi_slopes=None if self.slopes is None else self.slopes.to(dtype),
            scale=scale,
        )
        loss = (out.transpose(1, 2) * self.grad_out.to(dtype)).sum()
        if self.grad_weights is not None:
            loss = loss + (weights * self.grad_weights.to(dtype)).sum()
        grads = torch.autograd.grad(loss, leaves)
        found = [out.transpose(1, 2), weights if self.weights else weights.new_empty(0)]
        found += [grad.transpose(1, 2) for grad in grads[:3]]
        return [*found, grads[3] if len(grads) > 3 else out.new_empty(0)]


def error_beyond(call: Call, dtype: torch.dtype, library: Any) -> str | None:
    """What is wrong with a library's results, if its error against float64 is above twice torch's, or three times for
    gradients."""
    got = call.run(library, dtype)
    wanted = call.run(torch.ops.seqkit, torch.float64)
    plain = call.by_torch(dtype) if not call.dropout else [x.to(dtype) for x in wanted]
    # With dropout only the last rounding of torch is known.
    factor = 4.0 if call.dropout and dtype != torch.float32 else 1.0
    for index, (mine, exact, theirs) in enumerate(zip(got, wanted, plain, strict=True)):
        assert mine.shape == exact.shape
        assert mine.dtype == dtype
        if exact.numel() == 0:
            continue
        error, peer = ((x.double() - exact).abs().max().item() for x in (mine, theirs))
        size = max(exact.abs().max().item(), 1e-3)
        if not error <= factor * (3 if index >= 2 else 2) * peer + 2e-6 * size:  # NaN is not
            return f"result {index}: error {error:.1e}, torch's {peer:.1e}, of numbers up to {size:.1e}"
    return None


def check(call: Call, dtype: torch.dtype) -> None:
    assert error_beyond(call, dtype, torch.ops.seqkit_emulated) is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIONS)
def test_cuda_attention_equals_float64(name: str, dtype: torch.dtype, schedule: str) -> None:
    check(Call(SHAPES["several tiles"], OPTIONS[name], dtype), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_cuda_attention_of_any_shape(shape: str, dtype: torch.dtype) -> None:
    check(Call(SHAPES[shape], OPTIONS["causal lengths"], dtype), dtype)
    check(Call(SHAPES[shape], OPTIONS["plain"], dtype), dtype)


@pytest.mark.parametrize("name", ["causal lengths", "bias"])
def test_cuda_attention_gives_weights_and_takes_their_gradient(name: str, schedule: str) -> None:
    for dtype in DTYPES:
        check(Call(SHAPES["odd"], OPTIONS[name], dtype, weights=True), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_attention_reads_nothing_beyond_the_lengths(dtype: torch.dtype, schedule: str) -> None:
    call = Call((2, *SHAPES["several tiles"][1:]), OPTIONS["causal lengths"], dtype)
    before = call.run(torch.ops.seqkit_emulated, dtype)
    q, k, v = call.qkv
    queries, keys = (int(lengths[1]) for lengths in call.lengths if lengths is not None)
    q[1, :, queries:], call.grad_out[1, queries:] = math.nan, math.nan
    k[1, :, keys:], v[1, :, keys:] = math.nan, math.nan
    for was, now in zip(before, call.run(torch.ops.seqkit_emulated, dtype), strict=True):
        assert torch.equal(was, now)


def test_cuda_attention_cuts_lengths_that_are_out_of_range() -> None:
    call = Call(SHAPES["odd"], OPTIONS["causal lengths"], torch.float32)
    call.lengths = [torch.tensor([99, -1]), torch.tensor([2**40, 3])]
    got = call.run(torch.ops.seqkit_emulated, torch.float32)
    call.lengths = [torch.tensor([5, 0]), torch.tensor([9, 3])]
    for mine, exact in zip(got, call.run(torch.ops.seqkit, torch.float64), strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-5)


def test_cuda_attention_leaves_nothing_unwritten(schedule: str) -> None:
    torch.use_deterministic_algorithms(True)  # fills what is allocated with NaN
    try:
        call = Call(SHAPES["odd"], OPTIONS["causal lengths"], torch.float16, weights=True)
        call.lengths = [torch.tensor([0, 3]), torch.tensor([4, 0])]
        assert all(x.isfinite().all() for x in call.run(torch.ops.seqkit_emulated, torch.float16))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("T", "S"), [(0, 5), (5, 0), (0, 0)])
def test_cuda_attention_of_nothing(T: int, S: int) -> None:
    out, weights, *grads = Call((2, 2, 1, T, S, 8, 8), {}, torch.float32, weights=True).run(
        torch.ops.seqkit_emulated, torch.float32
    )
    assert out.shape == (2, T, 2, 8)
    assert weights.shape == (2, 2, T, S)
    assert not any(x.any() for x in (out, *grads[:3]))


def test_cuda_attention_repeats_to_the_last_bit_whatever_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(SHAPES["several tiles"], OPTIONS["dropout"], torch.bfloat16)
    runs = []
    for schedule in ("forward", "reverse", "random:1", "random:2"):
        monkeypatch.setenv("SEQKIT_SCHEDULE", schedule)
        runs.append(call.run(torch.ops.seqkit_emulated, torch.bfloat16))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_cuda_attention_refuses_what_it_does_not_cover() -> None:
    with pytest.raises(RuntimeError, match="head width must be at most 256 on CUDA, got 257"):
        Call((1, 1, 1, 2, 2, 257, 8), {}, torch.float32).run(torch.ops.seqkit_emulated, torch.float32)
    with pytest.raises(RuntimeError, match="must be built for this dtype"):
        Call(SHAPES["odd"], {}, torch.float64).run(torch.ops.seqkit_emulated, torch.float64)
