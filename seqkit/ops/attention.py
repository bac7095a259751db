"""Exact scaled dot-product attention that takes lengths, not mask tensors, and never builds a [T, S] matrix.

The kernels (csrc/attention) run forward and backward, on the CPU in float32, float64, bfloat16 and float16, on CUDA in
all but float64 and up to a head width of 256; the rest, and an `alibi_slopes` that wants a gradient, runs
`attention_reference`. Numbers of 16 bits are converted as they are read and written; sums and the softmax are float32.
On the CPU a row of the result depends on its own query and the keys it sees, to the last bit: not on padding, on the
other rows, on the batch or on threads. One case is exempt: many keys of bfloat16 on a CPU whose matrix unit makes torch
faster run torch's own attention, unless the backend is `native`.

The autograd node is a `torch.autograd.Function`, because `register_autograd` costs 39 µs a call against its 16.
"""

from contextlib import nullcontext
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_range, check_tensors, indices

# torch's own attention multiplies bfloat16 with AMX, the matrix unit of some CPUs; ours computes in float32. From this
# many positions times head width on it is the faster one, by (training, causal): measured on one core, B S = 1024, H 4,
# Dh 32 to 128, S 64 to 1024. At the crossing torch over ours is 0.7 to 1.0 forward and 0.7 to 1.0 in training; half as
# far it is 1.0 to 1.7. Float32 and float16 are faster here, but for a lone float32 query over 64 keys or more (0.93 to
# 0.97), which keeps the bits that it has among other rows.
FASTER_IN_TORCH = {(False, False): 4096, (False, True): 4096, (True, False): 32768, (True, True): 131072}
# The same for few queries, forward, by the least number of them: B 320 x 30 / S, H 8, S 10 to 512, Dh 32 to 128. One
# query reads every key for a single product, which torch does without packing the keys (0.6 to 0.9 beyond, 1.2 before);
# two to seven are even or faster here unless the heads are wide (0.7 to 0.9 at Dh 128, 0.95 to 1.4 below).
FEW_QUERIES = 8
FASTER_IN_TORCH_FOR_ONE = 1280
FASTER_IN_TORCH_FOR_FEW = 8192
WIDE_FOR_FEW = 128
# With lengths torch is called once a sentence, which pays later and, for the gradients of slices, not in training.
FASTER_IN_TORCH_BY_SENTENCE = 16384

WIDEST_ON_CUDA = 256  # kWidestCuda in csrc/attention/attention.h


def visible_keys(
    T: int,
    S: int,
    *,
    q_lengths: Int[Tensor, " B"] | None,
    k_lengths: Int[Tensor, " B"] | None,
    causal: bool,
    window: int | None,
    device: torch.device,
) -> Tensor:
    """Which keys each query sees: True where the pair counts, [B or 1, 1, T, S]."""
    rows = torch.arange(T, device=device)[:, None]  # T 1
    keys = torch.arange(S, device=device)[None]  # 1 S
    ahead = keys - (rows + S - T if causal else rows)
    seen = torch.ones(1, 1, T, S, dtype=torch.bool, device=device)
    if causal:
        seen = seen & (ahead <= 0)
    if window is not None:
        seen = seen & ((ahead > -window) if causal else (ahead.abs() <= window))
    if q_lengths is not None:
        seen = seen & (rows < q_lengths[:, None, None, None])
    if k_lengths is not None:
        seen = seen & (keys < k_lengths[:, None, None, None])
    return seen


def attention_reference(
    q: Float[Tensor, "B H T Dh"],
    k: Float[Tensor, "B Hkv S Dh"],
    v: Float[Tensor, "B Hkv S Dv"],
    *,
    q_lengths: Int[Tensor, " B"] | None = None,
    k_lengths: Int[Tensor, " B"] | None = None,
    causal: bool = False,
    window: int | None = None,
    bias: Tensor | None = None,
    alibi_slopes: Float[Tensor, " H"] | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
) -> tuple[Float[Tensor, "B H T Dv"], Float[Tensor, "B H T S"]]:
    """The output and the weights of `attention` in plain torch, with gradients; dropout draws other numbers."""
    (_, H, T, Dh), (_, Hkv, S, _) = q.shape, k.shape
    if Hkv != H:
        k, v = k.repeat_interleave(H // Hkv, dim=1), v.repeat_interleave(H // Hkv, dim=1)
    seen = visible_keys(T, S, q_lengths=q_lengths, k_lengths=k_lengths, causal=causal, window=window, device=q.device)
    reached = seen.any(dim=2)[..., None]  # B 1 S 1; what stands in keys that nobody sees may be NaN
    k, v = k.masked_fill(~reached, 0.0), v.masked_fill(~reached, 0.0)
    logits = q @ k.transpose(-1, -2) * (Dh**-0.5 if scale is None else scale)
    if bias is not None:
        logits = logits + bias
    if alibi_slopes is not None:
        rows = torch.arange(T, device=q.device)[:, None] + (S - T if causal else 0)
        distance = (rows - torch.arange(S, device=q.device)).abs().to(q.dtype)
        logits = logits - alibi_slopes[:, None, None] * distance
    shown = seen & (logits != -torch.inf).detach()
    lowest = torch.finfo(logits.dtype).min
    weights = torch.softmax(logits.masked_fill(~shown, lowest), dim=-1)
    weights = weights.masked_fill(~(seen & shown.any(dim=-1, keepdim=True)), 0.0)
    return torch.dropout(weights, dropout_p, True) @ v, weights


def _torch_is_faster(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, padded: bool, training: bool, plain: bool
) -> bool:
    """Whether `_by_torch` is, for this shape on this machine; False where it has not been measured."""
    on_amx = library.HAS_AMX and q.dtype == torch.bfloat16 and q.device.type == "cpu"
    if not (on_amx and plain and library.may_choose()):
        return False
    (_, H, T, Dh), (_, Hkv, S, Dv) = q.shape, v.shape
    if Hkv != H or (T != S and (causal or training)) or (padded and (training or torch.compiler.is_compiling())):
        return False
    width = max(Dh, Dv)
    least = FASTER_IN_TORCH[training, causal]
    if not training and T == 1:
        least = FASTER_IN_TORCH_FOR_ONE
    elif not training and T < FEW_QUERIES:
        if width < WIDE_FOR_FEW:
            return False
        least = FASTER_IN_TORCH_FOR_FEW
    return S * width >= max(least, FASTER_IN_TORCH_BY_SENTENCE if padded else 0)


def _by_torch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    q_lengths: Tensor | None,
    k_lengths: Tensor | None,
    causal: bool,
    scale: float,
) -> Tensor:
    """The output of torch's own attention, causal for as many queries as keys; sentence by sentence with lengths."""
    B, _, T, _ = q.shape
    S = k.shape[2]
    if q_lengths is None and k_lengths is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    counts = []
    for name, lengths, longest in (("q_lengths", q_lengths, T), ("k_lengths", k_lengths, S)):
        if lengths is not None:
            check_range("ops.attention", name, lengths, 0, longest)
        counts.append([longest] * B if lengths is None else lengths.tolist())
    sentences = []
    for b, (n, m) in enumerate(zip(*counts, strict=True)):
        n = n if m > 0 else 0  # nothing to attend to
        one = slice(b, b + 1)
        out = F.scaled_dot_product_attention(q[one, :, :n], k[one, :, :m], v[one, :, :m], is_causal=causal, scale=scale)
        sentences.append(F.pad(out, (0, 0, 0, T - n)))
    return torch.cat(sentences)


class _Attention(torch.autograd.Function):
    """The native kernels under autograd; `options` are (causal, window, scale, dropout, return_weights)."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        q_lengths: Tensor | None,
        k_lengths: Tensor | None,
        slopes: Tensor | None,
        seed: Tensor | None,
        options: tuple[bool, int, float, float, bool],
    ) -> tuple[Tensor, Tensor]:
        out, stats, weights = torch.ops.seqkit.attention_forward(
            q, k, v, q_lengths, k_lengths, bias, slopes, seed, *options
        )
        ctx.save_for_backward(q, k, v, bias, q_lengths, k_lengths, slopes, seed, out, stats, weights)
        ctx.options = options
        ctx.set_materialize_grads(False)
        return out, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, bias, q_lengths, k_lengths, slopes, seed, out, stats, weights = ctx.saved_tensors
        causal, window, scale, dropout, returned = ctx.options
        grad_out = torch.zeros_like(out) if grad_out is None else grad_out.contiguous()
        grad_weights = grad_weights.contiguous() if returned and grad_weights is not None else None
        wants_bias = ctx.needs_input_grad[3]
        grad_q, grad_k, grad_v, grad_bias = torch.ops.seqkit.attention_backward(
            grad_out,
            grad_weights,
            q,
            k,
            v,
            out,
            stats,
            weights if returned else None,
            q_lengths,
            k_lengths,
            bias,
            slopes,
            seed,
            causal,
            window,
            scale,
            dropout,
            wants_bias,
        )
        heads_first = (grad.transpose(1, 2) for grad in (grad_q, grad_k, grad_v))
        return (*heads_first, grad_bias if wants_bias else None, None, None, None, None, None)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_lengths: Tensor | None,
    k_lengths: Tensor | None,
    window: int | float | None,
    bias: Tensor | None,
    alibi_slopes: Tensor | None,
    dropout_p: float,
) -> None:
    """Raises InputError for arguments that do not fit together."""
    if q.ndim != 4 or k.ndim != 4 or v.ndim != 4:
        raise InputError(f"ops.attention: q, k and v must have four axes, got {q.ndim}, {k.ndim} and {v.ndim}")
    (B, H, T, Dh), (_, Hkv, S, _) = q.shape, k.shape
    if k.shape != (B, Hkv, S, Dh):
        raise InputError(f"ops.attention: k must have the shape [{B}, Hkv, S, {Dh}], got {list(k.shape)}")
    if v.shape[:3] != (B, Hkv, S):
        raise InputError(f"ops.attention: v must have the shape [{B}, {Hkv}, {S}, Dv], got {list(v.shape)}")
    if Hkv == 0 or H % Hkv != 0:
        raise InputError(f"ops.attention: the heads of q must be a multiple of those of k, got {H} and {Hkv}")
    if Dh == 0 or v.shape[3] == 0:
        raise InputError(f"ops.attention: the head widths must be positive, got {Dh} and {v.shape[3]}")
    if q.dtype != k.dtype or q.dtype != v.dtype:
        raise InputError(f"ops.attention: q, k and v must have one dtype, got {q.dtype}, {k.dtype} and {v.dtype}")
    for name, lengths in (("q_lengths", q_lengths), ("k_lengths", k_lengths)):
        if lengths is not None and lengths.shape != (B,):
            raise InputError(f"ops.attention: {name} must have the shape [{B}], got {list(lengths.shape)}")
    if isinstance(window, float):
        raise InputError(f"ops.attention: window must be an integer, got {window}")
    if window is not None and window < 0:
        raise InputError(f"ops.attention: window must not be negative, got {window}")
    if bias is not None:
        wanted = (B, H, T, S)
        if bias.ndim != 4 or any(given not in (1, size) for given, size in zip(bias.shape, wanted, strict=True)):
            raise InputError(f"ops.attention: bias must broadcast to {list(wanted)}, got the shape {list(bias.shape)}")
    if alibi_slopes is not None and alibi_slopes.shape != (H,):
        raise InputError(f"ops.attention: alibi_slopes must have the shape [{H}], got {list(alibi_slopes.shape)}")
    for name, added in (("bias", bias), ("alibi_slopes", alibi_slopes)):
        if added is not None and not added.is_floating_point():
            raise InputError(f"ops.attention: {name} must be floating-point numbers, got {added.dtype}")
    if not 0.0 <= dropout_p < 1.0:
        raise InputError(f"ops.attention: dropout_p must be from 0 to below 1, got {dropout_p}")


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor itself if its last axis is dense, which any view of [B, T, H, D] memory is; else a copy."""
    if x.dtype != dtype:
        x = x.to(dtype)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


class _Options(TypedDict, total=False):
    """The keywords that do not change the type of the result."""

    q_lengths: Tensor | None
    k_lengths: Tensor | None
    causal: bool
    window: int | None
    bias: Tensor | None
    alibi_slopes: Tensor | None
    scale: float | None
    dropout_p: float


@overload
def attention(
    q: Tensor, k: Tensor, v: Tensor, *, return_weights: Literal[False] = ..., **options: Unpack[_Options]
) -> Tensor: ...
@overload
def attention(
    q: Tensor, k: Tensor, v: Tensor, *, return_weights: Literal[True], **options: Unpack[_Options]
) -> tuple[Tensor, Tensor]: ...
@overload
def attention(
    q: Tensor, k: Tensor, v: Tensor, *, return_weights: bool, **options: Unpack[_Options]
) -> Tensor | tuple[Tensor, Tensor]: ...


def attention(
    q: Float[Tensor, "B H T Dh"],
    k: Float[Tensor, "B Hkv S Dh"],
    v: Float[Tensor, "B Hkv S Dv"],
    *,
    q_lengths: Int[Tensor, " B"] | None = None,
    k_lengths: Int[Tensor, " B"] | None = None,
    causal: bool = False,
    window: int | None = None,
    bias: Tensor | None = None,
    alibi_slopes: Float[Tensor, " H"] | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    return_weights: bool = False,
) -> Float[Tensor, "B H T Dv"] | tuple[Float[Tensor, "B H T Dv"], Float[Tensor, "B H T S"]]:
    """The mean of the values that each query attends to, and on request the weights of that mean.

    out(i) = Σ_j w(i, j) v(j),  w(i, ·) = softmax over the keys j that i sees of
    scale q(i)·k(j) + bias(i, j) - m |p - j|,
    where query i stands at p = i + S - T if causal and at p = i if not. A query that sees no key gives zeros.

    Reference: Vaswani et al. 2017, 3.2, arXiv:1706.03762. `alibi_slopes` m: Press et al. 2022, arXiv:2108.12409.
    Grouped heads: Ainslie et al. 2023, arXiv:2305.13245.

    Any view whose last axis is dense is read in place; the result is a view of [B, T, H, Dv] memory, so that merging
    heads is free.

    Args:
        q: H must be a multiple of the Hkv heads of k; head h reads key head h // (H / Hkv).
        q_lengths: int64, the queries of a sentence that count; the others give zeros.
        k_lengths: int64, the keys of a sentence that count; what stands beyond them is never read. On CUDA a length
            that is out of range is cut, since reading it would wait for the device.
        causal: query i sees keys j <= i + S - T: both sides end together (on the padded S, not on `k_lengths`).
        window: query i sees keys with |p - j| <= window; if causal, the last `window` keys up to its own.
        bias: added to the logits, any shape that broadcasts to [B, H, T, S] axis by axis; -inf hides a key.
        scale: Dh ** -0.5 by default.
        dropout_p: the share of weights that is dropped, from 0 to below 1; the seed comes from torch's generator for
            the CPU, and a captured CUDA graph replays it.
        return_weights: also give w [B, H, T, S] as it is before dropout.

    Raises:
        InputError: arguments do not fit together. RuntimeError: on the CPU, a length is negative or beyond its axis.
    """
    maybe = {"q_lengths": q_lengths, "k_lengths": k_lengths, "bias": bias, "alibi_slopes": alibi_slopes}
    check_tensors("ops.attention", {"q": q, "k": k, "v": v}, maybe)
    _check(q, k, v, q_lengths, k_lengths, window, bias, alibi_slopes, dropout_p)
    B, H, T, Dh = q.shape
    S = k.shape[2]
    scale = Dh**-0.5 if scale is None else float(scale)
    window = None if window is None else min(window, S + T)
    q_lengths = None if q_lengths is None else indices("ops.attention", "q_lengths", q_lengths)
    k_lengths = None if k_lengths is None else indices("ops.attention", "k_lengths", k_lengths)
    autocast = torch.is_autocast_enabled(q.device.type) and q.dtype != torch.float64
    dtype = torch.get_autocast_dtype(q.device.type) if autocast else q.dtype
    learned_slopes = alibi_slopes is not None and alibi_slopes.requires_grad and torch.is_grad_enabled()

    covered = q.device.type == "cpu" or (dtype != torch.float64 and max(Dh, v.shape[3]) <= WIDEST_ON_CUDA)
    if library.backend("attention", q.device) != "native" or learned_slopes or not covered:
        for name, lengths, longest in (("q_lengths", q_lengths, T), ("k_lengths", k_lengths, S)):
            if lengths is not None:
                check_range("ops.attention", name, lengths, 0, longest)
        with torch.autocast(q.device.type, enabled=False):
            real = torch.promote_types(q.dtype, torch.float32)
            out, weights = attention_reference(
                q.to(real),
                k.to(real),
                v.to(real),
                q_lengths=q_lengths,
                k_lengths=k_lengths,
                causal=causal,
                window=window,
                bias=None if bias is None else bias.to(real),
                alibi_slopes=None if alibi_slopes is None else alibi_slopes.to(real),
                scale=scale,
                dropout_p=dropout_p,
            )
    else:
        q, k, v = _rows(q, dtype), _rows(k, dtype), _rows(v, dtype)
        plain = window is None and bias is None and alibi_slopes is None and dropout_p == 0.0 and not return_weights
        training = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        padded = q_lengths is not None or k_lengths is not None
        ahead = causal and T > 1  # the last query sees all keys
        if _torch_is_faster(q, k, v, causal=ahead, padded=padded, training=training, plain=plain):
            # Entering the context costs 2 % of a short call.
            with torch.autocast("cpu", enabled=False) if autocast else nullcontext():
                return _by_torch(q, k, v, q_lengths=q_lengths, k_lengths=k_lengths, causal=ahead, scale=scale)
        if bias is not None:
            bias = _rows(bias, dtype).expand(B, H, T, S)
        if alibi_slopes is not None:
            real = torch.float64 if dtype == torch.float64 else torch.float32
            alibi_slopes = alibi_slopes.detach().to(real).contiguous()
        seed = torch.randint(2**63 - 1, (1,), device="cpu") if dropout_p > 0.0 else None
        options = (causal, -1 if window is None else window, scale, dropout_p, return_weights)
        wants = q.requires_grad or k.requires_grad or v.requires_grad or (bias is not None and bias.requires_grad)
        if wants and torch.is_grad_enabled():
            merged, weights = _Attention.apply(  # type: ignore[no-untyped-call]
                q, k, v, bias, q_lengths, k_lengths, alibi_slopes, seed, options
            )
        else:  # an autograd node that is not needed would double the cost of a short call
            merged, _, weights = torch.ops.seqkit.attention_forward.default(
                q, k, v, q_lengths, k_lengths, bias, alibi_slopes, seed, *options
            )
        out = merged.transpose(1, 2)
    if out.dtype != dtype:
        out, weights = out.to(dtype), weights.to(dtype)
    return (out, weights) if return_weights else out


def _fake_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_lengths: Tensor | None,
    k_lengths: Tensor | None,
    bias: Tensor | None,
    alibi_slopes: Tensor | None,
    seed: Tensor | None,
    causal: bool,
    window: int,
    scale: float,
    dropout: float,
    return_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    maybe = {"q_lengths": q_lengths, "k_lengths": k_lengths, "bias": bias, "alibi_slopes": alibi_slopes}
    check_tensors("attention", {"q": q, "k": k, "v": v}, maybe)
    if seed is not None and seed.device.type != "cpu":
        raise InputError(f"attention: seed must be on the CPU, got {seed.device}")
    B, H, T, _ = q.shape
    weights = q.new_empty(B, H, T, k.shape[2]) if return_weights else q.new_empty(0)
    real = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(B, T, H, v.shape[3]), q.new_empty(B, H, T, 2, dtype=real), weights


def _fake_backward(
    grad_out: Tensor,
    grad_weights: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    stats: Tensor,
    weights: Tensor | None,
    q_lengths: Tensor | None,
    k_lengths: Tensor | None,
    bias: Tensor | None,
    alibi_slopes: Tensor | None,
    seed: Tensor | None,
    causal: bool,
    window: int,
    scale: float,
    dropout: float,
    bias_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = {"q": q, "grad_out": grad_out, "k": k, "v": v, "out": out, "stats": stats}
    maybe = {"grad_weights": grad_weights, "weights": weights, "q_lengths": q_lengths, "k_lengths": k_lengths}
    check_tensors("attention_backward", given, {**maybe, "bias": bias, "alibi_slopes": alibi_slopes})
    if seed is not None and seed.device.type != "cpu":
        raise InputError(f"attention_backward: seed must be on the CPU, got {seed.device}")
    (B, H, T, Dh), (_, Hkv, S, Dv) = q.shape, v.shape
    grads = q.new_empty(B, T, H, Dh), q.new_empty(B, S, Hkv, Dh), q.new_empty(B, S, Hkv, Dv)
    return (*grads, q.new_empty(B, H, T, S) if bias_gradient else q.new_empty(0))


if library.is_built("attention"):
    torch.library.register_fake("seqkit::attention_forward", _fake_forward)
    torch.library.register_fake("seqkit::attention_backward", _fake_backward)
