"""`ops.attention`: the definition, its gradients, and rows that see nothing but their own query and keys."""

import importlib
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seqkit import ops
from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.attention import visible_keys

needs_native = pytest.mark.skipif(not library.is_built("attention"), reason="the native library is not built")

# B 3, H 4; T and S come from the test.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"causal": True},
    "lengths": {"q_lengths": "T", "k_lengths": "S"},
    "causal lengths": {"k_lengths": "S", "causal": True},
    "window": {"window": 3},
    "causal window": {"causal": True, "window": 5, "k_lengths": "S"},
    "bias": {"bias": "3 4 T S"},
    "bias of keys": {"bias": "1 4 1 S", "k_lengths": "S"},
    "bias of rows": {"bias": "3 1 T 1"},
    "alibi": {"alibi_slopes": True, "causal": True},
    "alibi both ways": {"alibi_slopes": True, "scale": 0.3},
}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def operands(
    T: int, S: int, Dh: int, Dv: int | None = None, *, B: int = 3, H: int = 4, Hkv: int = 4, dtype: Any = torch.float32
) -> list[Tensor]:
    """q, k and v as views of [B, T, H, D] memory, the way a projection leaves them."""
    sizes = (T, H, Dh), (S, Hkv, Dh), (S, Hkv, Dv or Dh)
    return [
        draw(B, time, heads, width, seed=n, dtype=dtype).transpose(1, 2) for n, (time, heads, width) in enumerate(sizes)
    ]


def options_for(name: str, T: int, S: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    options = dict(OPTIONS[name])
    for key, size in (("q_lengths", T), ("k_lengths", S)):
        if key in options:
            options[key] = torch.tensor([size, (size + 1) // 2, 0])
    if "bias" in options:
        letters = {"T": T, "S": S}
        options["bias"] = draw(*(letters.get(x) or int(x) for x in options["bias"].split()), seed=7, dtype=dtype)
    if "alibi_slopes" in options:
        options["alibi_slopes"] = torch.tensor([0.5, 0.25, 0.125, 0.0625], dtype=dtype)
    return options


def by_loops(q: Tensor, k: Tensor, v: Tensor, b: int, h: int, i: int, **options: Any) -> Tensor:
    """One row of the definition, written with nothing but Python."""
    (_, H, T, Dh), (_, Hkv, S, _) = q.shape, k.shape
    causal, window = options.get("causal", False), options.get("window")
    position = i + S - T if causal else i
    q_length = options["q_lengths"][b].item() if "q_lengths" in options else T
    k_length = options["k_lengths"][b].item() if "k_lengths" in options else S
    logits = {}
    for j in range(k_length if i < q_length else 0):
        if causal and j > position:
            continue
        if window is not None and (abs(position - j) > window or (causal and position - j >= window)):
            continue
        logit = torch.dot(q[b, h, i], k[b, h // (H // Hkv), j]) * options.get("scale", Dh**-0.5)
        if "bias" in options:
            logit = logit + options["bias"].expand(q.shape[0], H, T, S)[b, h, i, j]
        if "alibi_slopes" in options:
            logit = logit - options["alibi_slopes"][h] * abs(position - j)
        logits[j] = logit.item()
    total = sum(math.exp(x) for x in logits.values())
    out = torch.zeros(v.shape[-1], dtype=v.dtype)
    for j, logit in logits.items():
        out += math.exp(logit) / total * v[b, h // (H // Hkv), j]
    return out


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", OPTIONS)
def test_attention_equals_the_definition(name: str, backend: str) -> None:
    T, S = 5, 8
    given = operands(T, S, 3, 2, H=4, Hkv=2, dtype=torch.float64)
    options = options_for(name, T, S, torch.float64)
    with library.use_backend(backend):
        out = ops.attention(*given, **options)
    for b, h, i in itertools.product(range(3), range(4), range(T)):
        torch.testing.assert_close(out[b, h, i], by_loops(*given, b, h, i, **options), rtol=1e-10, atol=1e-12)


@needs_native
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(("T", "S", "Dh", "Dv"), [(1, 1, 1, 1), (7, 9, 5, 3), (40, 60, 32, 32), (70, 130, 64, 48)])
def test_attention_and_gradients_equal_the_reference(name: str, T: int, S: int, Dh: int, Dv: int) -> None:
    leaves = operands(T, S, Dh, Dv, Hkv=2)
    options = options_for(name, T, S)
    if "bias" in options:
        leaves.append(options.pop("bias"))
    leaves = [leaf.requires_grad_() for leaf in leaves]
    extra = {"bias": leaves[3]} if len(leaves) > 3 else {}
    out, weights = ops.attention(*leaves[:3], return_weights=True, **extra, **options)
    grad_out, grad_weights = draw(*out.shape, seed=8), draw(*weights.shape, seed=9)
    got = torch.autograd.grad((out * grad_out).sum() + (weights * grad_weights).sum(), leaves)

    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    extra = {"bias": exact[3]} if len(exact) > 3 else {}
    true_out, true_weights = ops.attention_reference(*exact[:3], **extra, **options)
    wanted = torch.autograd.grad((true_out * grad_out).sum() + (true_weights * grad_weights).sum(), exact)
    for mine, true in zip((out, weights, *got), (true_out, true_weights, *wanted), strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=1e-4, atol=2e-5)


@needs_native
@pytest.mark.parametrize(("dtype", "B"), [(torch.float32, 34), (torch.bfloat16, 67)])
def test_attention_gradients_too_large_for_the_cache(dtype: torch.dtype, B: int) -> None:
    """Gradients of more than 2 MiB are written past the caches."""
    given = operands(33, 32, 64, B=B, H=8, Hkv=8, dtype=dtype)
    lengths = torch.arange(B) % 33
    out_grad = draw(B, 8, 33, 64, seed=8)

    def gradients(kind: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [x.to(kind).requires_grad_() for x in given]
        out = ops.attention(*leaves, k_lengths=lengths)
        return torch.autograd.grad((out.double() * out_grad).sum(), leaves)

    for ours, exact in zip(gradients(dtype), gradients(torch.float64), strict=True):
        assert ours.numel() * ours.element_size() > 2 << 20
        assert (ours - exact).abs().max() < 3 * max(torch.finfo(dtype).eps, 1e-6) * exact.abs().max()


@needs_native
@pytest.mark.parametrize("name", OPTIONS)
def test_attention_gradcheck(name: str) -> None:
    leaves = [leaf.requires_grad_() for leaf in operands(3, 4, 2, 3, Hkv=2, dtype=torch.float64)]
    options = options_for(name, 3, 4, torch.float64)
    if "bias" in options:
        leaves.append(options.pop("bias").requires_grad_())

    def run(q: Tensor, k: Tensor, v: Tensor, *bias: Tensor) -> tuple[Tensor, Tensor]:
        return ops.attention(q, k, v, bias=bias[0] if bias else None, return_weights=True, **options)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@needs_native
def test_attention_gradcheck_with_dropout() -> None:
    leaves = [leaf.requires_grad_() for leaf in operands(3, 4, 2, dtype=torch.float64)]

    def run(*given: Tensor) -> Tensor:
        torch.manual_seed(0)
        return ops.attention(*given, dropout_p=0.4)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@needs_native
def test_attention_float32_gradients_with_dropout_equal_those_of_float64() -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = [leaf.requires_grad_() for leaf in operands(40, 90, 12, dtype=dtype)]
        torch.manual_seed(0)
        out, weights = ops.attention(*leaves, dropout_p=0.4, return_weights=True)
        grads = torch.autograd.grad((out * out).sum() + (weights * weights).sum(), leaves)
        results.append([tensor.double() for tensor in (out, weights, *grads)])
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=2e-5)


@needs_native
@pytest.mark.parametrize("width", [*range(1, 20), 31, 33, 63, 65, 127, 128, 200, 256])
def test_attention_of_any_head_width(width: int) -> None:
    given = operands(4, 9, width, B=1, H=1, Hkv=1)
    torch.testing.assert_close(ops.attention(*given), F.scaled_dot_product_attention(*given), rtol=1e-4, atol=1e-5)


@needs_native
@pytest.mark.parametrize("options", [{}, {"window": 9}, {"causal": True}, {"causal": True, "window": 70}])
def test_attention_rows_do_not_depend_on_padding_rows_batch_or_threads(options: dict[str, Any]) -> None:
    T = S = 150
    q, k, v = operands(T, S, 40)
    lengths = torch.tensor([150, 91, 3])
    whole = ops.attention(q, k, v, k_lengths=lengths, **options)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert torch.equal(ops.attention(q, k, v, k_lengths=lengths, **options), whole)
    torch.set_num_threads(threads)
    for b, length in enumerate(lengths.tolist()):
        one = slice(b, b + 1)
        if not options.get("causal"):  # the sentence alone, without padding
            alone = ops.attention(q[one], k[one, :, :length], v[one, :, :length], **options)
            assert torch.equal(alone[0], whole[b])
        for i in (0, 1, 77, 149):  # one row alone, as a decoder asks for it
            if options.get("causal"):
                seen = slice(0, i + 1)
                alone = ops.attention(
                    q[one, :, i : i + 1],
                    k[one, :, seen],
                    v[one, :, seen],
                    k_lengths=lengths[one].clamp(max=i + 1),
                    **options,
                )
            elif "window" not in options:
                alone = ops.attention(q[one, :, i : i + 1], k[one], v[one], k_lengths=lengths[one])
            else:
                continue
            assert torch.equal(alone[0, :, 0], whole[b, :, i]), (b, i)
        k[b, :, length:] = math.nan
        v[b, :, length:] = math.nan
    assert torch.equal(ops.attention(q, k, v, k_lengths=lengths, **options), whole)


@needs_native
def test_attention_does_not_read_the_future() -> None:
    q, k, v = operands(12, 12, 8)
    whole = ops.attention(q, k, v, causal=True)
    k[:, :, 7:] = math.nan
    v[:, :, 7:] = math.nan
    assert torch.equal(ops.attention(q, k, v, causal=True)[:, :, :7], whole[:, :, :7])


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_attention_to_nothing_is_zero_with_zero_gradients(backend: str) -> None:
    leaves = [leaf.requires_grad_() for leaf in operands(4, 5, 6)]
    hidden = torch.zeros(1, 1, 4, 5)
    hidden[:, :, 2] = -math.inf
    with library.use_backend(backend):
        out, weights = ops.attention(*leaves, k_lengths=torch.tensor([5, 0, 2]), bias=hidden, return_weights=True)
        grads = torch.autograd.grad(out.sum() + (weights * weights).sum(), leaves)
    assert not out[1].any()
    assert not weights[1].any()
    assert not out[:, :, 2].any()
    assert not any(grad[1].any() for grad in grads)
    assert not grads[0][:, :, 2].any()
    assert all(grad.isfinite().all() for grad in grads)
    assert out[0, :, 0].any()


@pytest.mark.parametrize(("T", "S"), [(0, 3), (3, 0), (0, 0)])
def test_attention_with_no_queries_or_no_keys(T: int, S: int) -> None:
    leaves = [leaf.requires_grad_() for leaf in operands(T, S, 4)]
    out, weights = ops.attention(*leaves, return_weights=True)
    assert out.shape == (3, 4, T, 4)
    assert weights.shape == (3, 4, T, S)
    assert not out.any()
    torch.autograd.grad(out.sum(), leaves)


@needs_native
def test_attention_leaves_no_output_unwritten() -> None:
    given = [leaf.requires_grad_() for leaf in operands(20, 70, 24)]
    torch.use_deterministic_algorithms(True)  # torch then fills new tensors with NaN
    try:
        out, weights = ops.attention(
            *given, q_lengths=torch.tensor([20, 3, 0]), k_lengths=torch.tensor([0, 65, 70]), return_weights=True
        )
        grads = torch.autograd.grad(out.sum() + weights.square().sum(), given)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(tensor.isfinite().all() for tensor in (out, weights, *grads))


@needs_native
def test_attention_repeats_to_the_last_bit() -> None:
    given = [leaf.requires_grad_() for leaf in operands(33, 70, 24)]

    def run() -> tuple[Tensor, ...]:
        out = ops.attention(*given, causal=True)
        return (out, *torch.autograd.grad(out.square().sum(), given))

    first = run()
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(run(), first, strict=True))


@needs_native
def test_attention_dropout_drops_its_share_and_follows_torchs_seed() -> None:
    q, k = torch.zeros(4, 8, 64, 16), torch.zeros(4, 8, 100, 16)
    v = torch.eye(100).expand(4, 8, 100, 100)  # the output is the weights
    torch.manual_seed(1)
    first = ops.attention(q, k, v, dropout_p=0.3)
    second = ops.attention(q, k, v, dropout_p=0.3)
    torch.manual_seed(1)
    assert torch.equal(ops.attention(q, k, v, dropout_p=0.3), first)
    assert not torch.equal(first, second)
    assert (first == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    torch.testing.assert_close(first[first != 0], torch.full_like(first[first != 0], 0.01 / 0.7))
    columns = (first == 0).float().mean(dim=(0, 1, 2))
    assert columns.min() > 0.24
    assert columns.max() < 0.36
    doubles = (x.double() for x in (q, k, v))
    torch.manual_seed(1)  # the float64 kernel draws word by word what the float32 kernel draws in vectors
    assert torch.equal(ops.attention(*doubles, dropout_p=0.3) == 0, first == 0)


def test_philox_of_the_kernels_is_the_published_one() -> None:
    """Known answers of Random123 for philox4x32-10 with a zero counter and key (Salmon et al. 2011)."""
    wanted = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    x, low, high = [0, 0, 0, 0], 0, 0
    for _ in range(10):
        a, b = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [b >> 32 ^ x[1] ^ low, b & 0xFFFFFFFF, a >> 32 ^ x[3] ^ high, a & 0xFFFFFFFF]
        low, high = low + 0x9E3779B9 & 0xFFFFFFFF, high + 0xBB67AE85 & 0xFFFFFFFF
    assert tuple(x) == wanted
    if not library.is_built("attention"):
        return
    # Keys 0, 16, 32 and 48 of row 0 and head 0 take these four words: each is dropped just above its share.
    q, k, v = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 64, 1), torch.eye(64)[None, None]
    seed = torch.zeros(1, dtype=torch.int64)
    for word, key in zip(wanted, (0, 16, 32, 48), strict=True):
        for share, dropped in ((word / 2**32 - 1e-6, False), (word / 2**32 + 1e-6, True)):
            out = torch.ops.seqkit.attention_forward(
                q, k, v, None, None, None, None, seed, False, -1, 1.0, share, False
            )[0]
            assert (out[0, 0, 0, key] == 0).item() == dropped


@needs_native
def test_attention_reads_views_in_place_and_returns_merged_heads() -> None:
    q, k, v = operands(5, 6, 8)
    out = ops.attention(q, k, v)
    assert out.transpose(1, 2).is_contiguous()
    dense = (x.contiguous() for x in (q, k, v))
    assert torch.equal(ops.attention(*dense), out)
    joint = draw(3, 6, 3 * 32).view(3, 6, 3, 4, 8).permute(2, 0, 3, 1, 4)
    assert torch.equal(ops.attention(*joint), ops.attention(*joint.contiguous()))
    strided = q.transpose(2, 3).contiguous().transpose(2, 3)  # the last axis is not dense: copied
    assert torch.equal(ops.attention(strided, k, v), out)


@needs_native
def test_attention_under_autocast_and_in_half_precision() -> None:
    given = operands(5, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.attention(*given)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), ops.attention(*given), rtol=1e-2, atol=1e-2)
    # Floats train under autocast, 16-bit numbers with and without it; a gradient has the dtype of its leaf.
    for dtype, autocast in ((torch.float32, True), (torch.bfloat16, True), (torch.bfloat16, False)):
        leaves = [x.detach().to(dtype).requires_grad_() for x in given]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            half = ops.attention(*leaves)
        half.float().sum().backward()
        assert half.dtype == torch.bfloat16
        assert all(leaf.grad is not None and leaf.grad.dtype == dtype for leaf in leaves)


@needs_native
@pytest.mark.parametrize("lengths", [(), ("q_lengths", "k_lengths"), ("k_lengths",)])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_by_torch_where_it_is_faster(
    causal: bool, lengths: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a matrix unit long bfloat16 rows go to torch: the same output and gradients, and no more NaN than ours."""
    module = importlib.import_module("seqkit.ops.attention")
    monkeypatch.setattr(library, "HAS_AMX", True)
    monkeypatch.setattr(module, "FASTER_IN_TORCH", dict.fromkeys(itertools.product((True, False), repeat=2), 0))
    monkeypatch.setattr(module, "FASTER_IN_TORCH_BY_SENTENCE", 0)
    S = 12
    q, k, v = (x.detach() for x in operands(S, S, 8, dtype=torch.bfloat16))
    options = {name: torch.tensor([S, 5, 0]) for name in lengths}
    if options:  # what stands in the padding may be anything
        k[1, :, 5:], v[1, :, 5:], v[2] = math.nan, math.nan, math.nan
    called = []
    spied = module._by_torch
    monkeypatch.setattr(module, "_by_torch", lambda *given, **named: called.append(1) or spied(*given, **named))
    got = [ops.attention(q, k, v, causal=causal, **options)]
    assert called == [1]
    leaves = [x.requires_grad_() for x in (q, k, v)]
    if not options:
        trained = ops.attention(*leaves, causal=causal)
        got += torch.autograd.grad(trained.float().square().sum(), leaves)
        assert called == [1, 1]
    with library.use_backend("native"):
        wanted = ops.attention(*leaves, causal=causal, **options)
        wanted_grads = torch.autograd.grad(wanted.float().square().sum(), leaves)
    assert len(called) == len(got[:2])
    for mine, ours in zip(got, (wanted, *wanted_grads), strict=False):
        assert mine.shape == ours.shape
        torch.testing.assert_close(mine, ours, rtol=5e-2, atol=5e-2)
    with pytest.raises(RuntimeError, match="k_lengths must be from 0 to 12, got 13"):
        ops.attention(q.detach(), k.detach(), v.detach(), causal=causal, k_lengths=torch.tensor([13, 1, 1]))


@needs_native
@pytest.mark.parametrize(("T", "causal"), [(1, True), (1, False), (3, False), (9, False)])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_of_few_queries_by_torch(T: int, causal: bool, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("seqkit.ops.attention")
    monkeypatch.setattr(library, "HAS_AMX", True)
    monkeypatch.setattr(module, "FASTER_IN_TORCH_BY_SENTENCE", 0)
    S = 70
    q, k, v = (x.detach() for x in operands(T, S, 128, dtype=torch.bfloat16))
    lengths = torch.tensor([S, 5, 0]) if padded else None
    called = []
    spied = module._by_torch
    monkeypatch.setattr(module, "_by_torch", lambda *given, **named: called.append(1) or spied(*given, **named))
    got = ops.attention(q, k, v, causal=causal, k_lengths=lengths)
    assert called == [1]
    with library.use_backend("native"):
        torch.testing.assert_close(got, ops.attention(q, k, v, causal=causal, k_lengths=lengths), rtol=2e-2, atol=2e-2)
    assert called == [1]


HALVES = (torch.bfloat16, torch.float16)


def check_halves(name: str, dtype: torch.dtype) -> None:
    """16-bit tensors are converted as they are read and written, and all between is float32."""
    T, S = 70, 67
    given = [x.to(dtype) for x in operands(T, S, 24, 20, Hkv=2)]
    options = options_for(name, T, S)
    if "bias" in options:
        options["bias"] = options["bias"].to(dtype)
    wide = {key: x.float() if key == "bias" else x for key, x in options.items()}
    out, weights = ops.attention(*given, **options, return_weights=True)
    exact, exact_weights = ops.attention(*(x.float() for x in given), **wide, return_weights=True)
    assert out.dtype == weights.dtype == dtype
    assert torch.equal(out, exact.to(dtype))
    assert torch.equal(weights, exact_weights.to(dtype))


@needs_native
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", OPTIONS)
def test_attention_of_halves_is_that_of_floats_rounded(name: str, dtype: torch.dtype) -> None:
    check_halves(name, dtype)


@needs_native
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["causal lengths", "bias", "alibi"])
def test_attention_gradients_of_halves(name: str, dtype: torch.dtype) -> None:
    T, S = 70, 67
    options = options_for(name, T, S)
    given = [x.to(dtype) for x in operands(T, S, 24, 20, Hkv=2)]
    if "bias" in options:
        given.append(options.pop("bias").to(dtype))

    def gradients(kind: torch.dtype) -> list[Tensor]:
        leaves = [x.to(kind).requires_grad_() for x in given]
        named = {**options, "bias": leaves[3]} if len(leaves) == 4 else options
        out, weights = ops.attention(*leaves[:3], **named, return_weights=True)
        loss = (out.double() * draw(*out.shape, seed=8)).sum() + (weights.double() * draw(*weights.shape, seed=9)).sum()
        return list(torch.autograd.grad(loss, leaves))

    # One rounding of the output's and of the weights' gradients, one of `out` in delta, one of the result.
    steps = 3 * torch.finfo(dtype).eps
    for ours, exact in zip(gradients(dtype), gradients(torch.float64), strict=True):
        assert (ours - exact).abs().max() < steps * exact.abs().max()


def every_number(dtype: torch.dtype) -> Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)


def check_conversions(dtype: torch.dtype) -> None:
    """One key gives its value back: every 16-bit number is read and written as it is, and means of two are rounded."""
    v = every_number(dtype).view(-1, 1, 1, 64)
    q = torch.zeros(v.shape[0], 1, 1, 4, dtype=dtype)
    torch.testing.assert_close(ops.attention(q, q, v), v, rtol=0, atol=0, equal_nan=True)
    pairs = torch.cat([v, v.flip(0).roll(7, -1)], dim=2)
    keys = torch.zeros(v.shape[0], 1, 2, 4, dtype=dtype)
    wide = ops.attention(q.float(), keys.float(), pairs.float()).to(dtype)
    torch.testing.assert_close(ops.attention(q, keys, pairs), wide, rtol=0, atol=0, equal_nan=True)


@needs_native
@pytest.mark.parametrize("dtype", HALVES)
def test_attention_converts_every_number(dtype: torch.dtype) -> None:
    check_conversions(dtype)


def test_attention_takes_slopes_with_a_gradient_to_the_reference() -> None:
    slopes = torch.rand(4, requires_grad=True)
    ops.attention(*operands(3, 4, 2), alibi_slopes=slopes).sum().backward()
    assert slopes.grad is not None
    assert slopes.grad.any()


# Importing torch's samples warns of what that module itself uses.
@needs_native
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_attention_passes_torchs_own_samples(dtype: torch.dtype) -> None:
    from torch.testing._internal.common_methods_invocations import op_db

    [info] = [op for op in op_db if op.name == "nn.functional.scaled_dot_product_attention"]
    samples = list(info.sample_inputs("cpu", dtype, requires_grad=True))
    assert len(samples) >= 25
    for sample in samples:
        leaves = (sample.input, *sample.args)
        mask, causal, share = (sample.kwargs.get(name) for name in ("attn_mask", "is_causal", "dropout_p"))

        def ours(share: float, leaves: Any = leaves, mask: Any = mask, causal: Any = causal) -> Tensor:
            q, k, v = (x[:, None] if max(y.ndim for y in leaves) == 3 else x for x in leaves)
            q = q.expand(*k.shape[:2], *q.shape[-2:])
            if causal:  # torch aligns the first query with the first key, we the last with the last
                k, v = k[:, :, : q.shape[2]], v[:, :, : q.shape[2]]
            bias = None if mask is None else mask.expand(1, 1, *mask.shape)
            out = ops.attention(q, k, v, causal=causal, bias=bias, dropout_p=share)
            return out[:, 0] if max(y.ndim for y in leaves) == 3 else out

        def peer(*leaves: Tensor, mask: Any = mask, causal: Any = causal) -> Tensor:
            mask = None if mask is None else mask.to(leaves[0].dtype)
            return F.scaled_dot_product_attention(*leaves, attn_mask=mask, is_causal=causal)

        def results(f: Any, leaves: Any) -> list[Tensor]:
            out = f(*leaves)
            return [x.double() for x in (out, *torch.autograd.grad(out.sum(), leaves))]

        exact = results(peer, [x.detach().double().requires_grad_() for x in leaves])
        rows = zip(results(lambda *_: ours(0.0), leaves), results(peer, leaves), exact, strict=True)
        size = max(float(x.abs().max()) for x in leaves)
        for part, (mine, theirs, truth) in enumerate(rows):
            # Torch's formula for small tensors never takes g . v - g . out, whose two terms are rounded apart.
            inside = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
            rounding = 4 * inside * size**3 + torch.finfo(dtype).eps * (size**2 if part else size)
            most = (3 if part else 2) * float((theirs - truth).abs().max()) + rounding
            assert float((mine - truth).abs().max()) <= most
        if share:  # other numbers are drawn than torch's: the mean of many is that without dropout
            torch.manual_seed(0)
            many = torch.stack([ours(share).detach().double() for _ in range(100)])
            error = (many.mean(0) - exact[0]).abs() / (many.std(0) / 10 + 1e-6)
            assert error.mean() < 1.2


def test_visible_keys_by_hand() -> None:
    def seen(**options: Any) -> list[list[int]]:
        given: dict[str, Any] = {"q_lengths": None, "k_lengths": None, "causal": False, "window": None, **options}
        return visible_keys(2, 4, device=torch.device("cpu"), **given)[0, 0].int().tolist()

    assert seen(causal=True) == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert seen(causal=True, window=2) == [[0, 1, 1, 0], [0, 0, 1, 1]]
    assert seen(window=1) == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert seen(q_lengths=torch.tensor([1]), k_lengths=torch.tensor([3])) == [[1, 1, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(3, 4, 5)}, "must have four axes"),
        ({"k": torch.zeros(3, 4, 6, 7)}, r"k must have the shape \[3, Hkv, S, 8\], got \[3, 4, 6, 7\]"),
        ({"v": torch.zeros(3, 4, 5, 8)}, r"v must have the shape \[3, 4, 6, Dv\]"),
        ({"q": torch.zeros(3, 5, 5, 8)}, "must be a multiple of those of k, got 5 and 4"),
        ({"v": torch.zeros(3, 4, 6, 8, dtype=torch.float64)}, "must have one dtype"),
        ({"k_lengths": torch.tensor([1, 2])}, r"k_lengths must have the shape \[3\]"),
        ({"window": -2}, "window must not be negative"),
        ({"bias": torch.zeros(3, 4, 5, 7)}, r"bias must broadcast to \[3, 4, 5, 6\]"),
        ({"bias": torch.zeros(5, 6)}, "bias must broadcast"),
        ({"alibi_slopes": torch.zeros(3)}, r"alibi_slopes must have the shape \[4\]"),
        ({"dropout_p": 1.0}, "dropout_p must be from 0 to below 1"),
        ({"dropout_p": math.nan}, "dropout_p must be from 0 to below 1"),
        ({"window": 1.5}, "window must be an integer, got 1.5"),
        ({"q": None}, "q must be a tensor, got NoneType"),
        ({"k_lengths": 3}, "k_lengths must be a tensor or None, got int"),
        ({"k_lengths": torch.ones(3)}, "k_lengths must be integers, got torch.float32"),
        ({"q_lengths": torch.ones(3, dtype=torch.bool)}, "q_lengths must be integers, got torch.bool"),
        ({"bias": torch.ones(3, 4, 5, 6, dtype=torch.bool)}, "bias must be floating-point numbers, got torch.bool"),
        ({"alibi_slopes": torch.ones(4).int()}, "alibi_slopes must be floating-point numbers"),
        ({"k": torch.zeros(3, 4, 6, 8, device="meta")}, "k must be on the device of the others, cpu, got meta"),
        ({"bias": torch.zeros(1, 1, 1, 6, device="meta")}, "bias must be on the device of the others"),
    ],
)
def test_attention_refuses_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    attention = getattr(ops.attention, "__wrapped__", ops.attention)  # past the shape types, which users do not run
    q, k, v = operands(5, 6, 8)
    arguments = {"q": q, "k": k, "v": v, **change}
    with pytest.raises(InputError, match=message):
        attention(**arguments)


@pytest.mark.parametrize("choice", ["auto", "reference"])
def test_attention_refuses_lengths_out_of_range_on_every_backend(choice: str) -> None:
    q, k, v = operands(5, 6, 8)
    with library.use_backend(choice):
        with pytest.raises(RuntimeError, match="k_lengths must be from 0 to 6, got 7"):
            ops.attention(q, k, v, k_lengths=torch.tensor([1, 2, 7]))
        with pytest.raises(RuntimeError, match="q_lengths must be from 0 to 5, got -1"):
            ops.attention(q, k, v, q_lengths=torch.tensor([1, -1, 2]))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_window_beyond_all_keys_hides_none(causal: bool) -> None:
    q, k, v = operands(5, 6, 8)
    wanted = ops.attention(q, k, v, causal=causal)
    for window in (11, 2**62, 2**63 - 1, 2**70):
        assert torch.equal(ops.attention(q, k, v, causal=causal, window=window), wanted)
    if library.is_built("attention"):  # past the face, which cuts it
        raw = torch.ops.seqkit.attention_forward(q, k, v, *(None,) * 5, causal, 2**63 - 1, 8**-0.5, 0.0, False)
        assert torch.equal(raw[0].transpose(1, 2), wanted)


@pytest.mark.parametrize("choice", ["auto", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_attention_does_not_lose_a_nan(dtype: torch.dtype, choice: str) -> None:
    with library.use_backend(choice):
        for S in (6, 140):  # a block of keys, and several
            q, k, v = operands(5, S, 8, dtype=dtype)
            q = q.clone()
            q[0, 0, 1, 3] = math.nan  # each of its logits is NaN
            out, weights = ops.attention(q, k, v, return_weights=True)
            for x in (out, weights):
                assert x[0, 0, 1].isnan().all()
                assert x.isnan().any(-1).sum() == 1
            q, k, v = operands(5, S, 8, dtype=dtype)
            k = k.clone()
            k[0, 0, : S // 2] = math.nan  # a whole block, before one of numbers
            assert ops.attention(q, k, v)[0, 0].isnan().all()


@needs_native
def test_attention_backward_takes_many_empty_sentences_at_once() -> None:
    empty = [torch.empty(2**33, 1, 0, 2).requires_grad_() for _ in range(3)]
    ops.attention(*empty).sum().backward()  # a loop over them would take a minute
    assert all(x.grad is not None and x.grad.shape == x.shape for x in empty)


@needs_native
def test_attention_kernels_refuse_mixed_devices() -> None:
    q, k, v = operands(5, 6, 8)
    none, tail = (None,) * 5, (False, -1, 0.5, 0.0, False)
    forward, backward = torch.ops.seqkit.attention_forward, torch.ops.seqkit.attention_backward
    with pytest.raises(InputError, match="attention: v must be on the device of the others, cpu, got meta"):
        forward(q, k, v.to("meta"), *none, *tail)
    with pytest.raises(InputError, match="attention: seed must be on the CPU, got meta"):
        forward(q, k, v, *none[:4], torch.zeros(1, dtype=torch.int64, device="meta"), *tail)
    out, stats, _ = forward(q, k, v, *none, *tail)
    with pytest.raises(InputError, match="attention_backward: stats must be on the device of the others"):
        backward(out, None, q, k, v, out, stats.to("meta"), None, *none, *tail)


@needs_native
def test_attention_kernels_refuse_what_the_face_would_not_send() -> None:
    q, k, v = operands(5, 6, 8)
    tail = (False, -1, 0.5, 0.0, False)
    forward, backward = torch.ops.seqkit.attention_forward, torch.ops.seqkit.attention_backward
    none = (None,) * 5
    with pytest.raises(RuntimeError, match="k must have the shape"):
        forward(q, k[..., :4], v, *none, *tail)
    with pytest.raises(RuntimeError, match="stride 1 in its last axis"):
        forward(q.transpose(2, 3).contiguous().transpose(2, 3), k, v, *none, *tail)
    with pytest.raises(RuntimeError, match="q must have the dtype Float, Double, Half or BFloat16"):
        forward(q.int(), k.half(), v.half(), *none, *tail)
    with pytest.raises(RuntimeError, match="seed must be given with dropout"):
        forward(q, k, v, *none, False, -1, 0.5, 0.5, False)
    out, stats, weights = forward(q, k, v, *none, *tail)
    with pytest.raises(RuntimeError, match="grad_out must have the shape"):
        backward(out[:, :2].contiguous(), None, q, k, v, out, stats, None, *none, False, -1, 0.5, 0.0, False)
    with pytest.raises(RuntimeError, match="weights must be given with grad_weights"):
        backward(out, weights, q, k, v, out, stats, None, *none, False, -1, 0.5, 0.0, False)


@needs_native
def test_attention_opcheck() -> None:
    q, k, v = operands(5, 6, 8)
    shared = (torch.tensor([5, 1, 0]), torch.tensor([6, 0, 3]), draw(3, 4, 5, 6), torch.rand(4), torch.tensor([3]))
    tail = (True, 4, 0.5, 0.25)
    torch.library.opcheck(torch.ops.seqkit.attention_forward.default, (q, k, v, *shared, *tail, True))
    out, stats, weights = torch.ops.seqkit.attention_forward(q, k, v, *shared, *tail, True)
    given = (out, weights, q, k, v, out, stats, weights, *shared, *tail, True)
    torch.library.opcheck(torch.ops.seqkit.attention_backward.default, given)


@needs_native
@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracer does it
@pytest.mark.parametrize("name", ["causal lengths", "bias of keys", "alibi"])
def test_attention_compiles_forward_and_backward(name: str) -> None:
    leaves = [leaf.requires_grad_() for leaf in operands(5, 6, 8)]
    options = options_for(name, 5, 6)
    compiled = torch.compile(ops.attention, fullgraph=True, backend="aot_eager")
    out, wanted = compiled(*leaves, **options), ops.attention(*leaves, **options)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), leaves), torch.autograd.grad(wanted.square().sum(), leaves)
    )


@needs_native
@pytest.mark.parametrize("level", ["0", "1"])
def test_attention_at_lower_machine_levels(level: str) -> None:
    code = """
import sys
import torch
from seqkit import ops
sys.path.insert(0, "tests/ops")
from test_attention import HALVES, check_conversions, check_halves
torch.manual_seed(0)
for dtype in HALVES:
    check_conversions(dtype)
    check_halves("causal lengths", dtype)
q, k, v = (torch.randn(2, 3, n, 21, requires_grad=True) for n in (40, 90, 90))
lengths = torch.tensor([90, 71])
def run(f, *given):
    out = f(*given)
    return (out, *torch.autograd.grad(out.square().sum(), given))
got = run(lambda *x: ops.attention(*x, k_lengths=lengths, causal=True), q, k, v)
exact = (x.detach().double().requires_grad_() for x in (q, k, v))
wanted = run(lambda *x: ops.attention_reference(*x, k_lengths=lengths, causal=True)[0], *exact)
for a, b in zip(got, wanted):
    torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)
alone = ops.attention(q[1:, :, 7:8], k[1:, :, :58], v[1:, :, :58], causal=True)
assert torch.equal(alone[0, :, 0], got[0][1, :, 7])
print("same")
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env={**os.environ, "SEQKIT_ISA": level}
    )
    assert done.stdout.strip() == "same", done.stderr
