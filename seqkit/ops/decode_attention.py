"""One step of attention in a beam search: over a cache that is never copied, and over a source that beams share.

A search that changes its hypotheses usually copies every layer's cache, `cache.index_select(0, parents)`, in every
step. Here beam c's keys and values stay where they were written and a table of integers, the ancestry, says which beam
wrote position t of hypothesis k; `extend_ancestry` moves that table once a step for all layers. The cross attention
reads a sentence's keys and values once for all its beams instead of a copy for each.

The kernels (csrc/decode_attention) are for inference. A row of a result depends on its own query and the keys it sees,
to the last bit: not on the other beams, the batch, padding, the capacity or threads. Numbers of 16 bits on the CPU are
computed in float32; float64, inputs that require a gradient, and heads wider than 256 on a GPU run the references.
"""

from typing import Literal, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_range, check_tensors, indices

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WIDEST_ON_GPU = 256  # the head width of which the CUDA kernels hold a row


def _result_dtype(q: Tensor) -> torch.dtype:
    autocast = torch.is_autocast_enabled(q.device.type) and q.dtype != torch.float64
    return torch.get_autocast_dtype(q.device.type) if autocast else q.dtype


def _runs_kernel(op: str, q: Tensor, k: Tensor, v: Tensor) -> bool:
    if q.dtype not in KERNEL_DTYPES or (q.device.type == "cuda" and q.shape[-1] > WIDEST_ON_GPU):
        return False
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return False
    return library.backend(op, q.device) == "native"


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor itself if it has this dtype and its last axis is dense; else a copy."""
    if x.dtype != dtype:
        x = x.to(dtype)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _check_numbers(where: str, q: Tensor, k: Tensor, v: Tensor, k_name: str) -> None:
    one_dtype = q.dtype == k.dtype == v.dtype
    if not one_dtype and not torch.is_autocast_enabled(q.device.type):
        got = f"{q.dtype}, {k.dtype} and {v.dtype}"
        raise InputError(f"ops.{where}: q, {k_name} and its values must have one dtype, got {got}")


def _check_step(where: str, step: int | float | Tensor, lowest: int, capacity: int, device: torch.device) -> None:
    if isinstance(step, Tensor):
        if step.numel() != 1 or step.is_floating_point() or step.is_complex() or step.dtype == torch.bool:
            raise InputError(f"ops.{where}: step must be one integer, got {step.dtype} of shape {list(step.shape)}")
        if step.device != device:
            raise InputError(f"ops.{where}: step must be on {device}, got {step.device}")
    elif isinstance(step, float) or not lowest <= step < capacity:
        raise InputError(f"ops.{where}: step must be from {lowest} to {capacity - 1}, got {step}")


def decode_attention_reference(
    q: Float[Tensor, "B K H Dh"],
    k_cache: Float[Tensor, "B C capacity H Dh"],
    v_cache: Float[Tensor, "B C capacity H Dh"],
    ancestry: Int[Tensor, "B K capacity"],
    step: int | Tensor,
    *,
    scale: float | None = None,
) -> Float[Tensor, "B K H Dh"]:
    """`decode_attention` in plain torch, with gradients; it copies what each hypothesis sees."""
    scale = q.shape[3] ** -0.5 if scale is None else scale
    end = k_cache.shape[2] if isinstance(step, Tensor) else step + 1  # a tensor's value stays on its device
    positions = torch.arange(end, device=q.device)
    counts = positions <= step  # capacity
    sentences = torch.arange(q.shape[0], device=q.device)[:, None, None]
    written = torch.where(counts, ancestry[:, :, :end], 0)
    keys, values = (cache[sentences, written, positions] for cache in (k_cache, v_cache))  # B K capacity H Dh
    keys, values = (x.masked_fill(~counts[:, None, None], 0.0) for x in (keys, values))  # unwritten ones may be NaN
    scores = torch.einsum("bkhd,bkthd->bkht", q * scale, keys).masked_fill(~counts, -torch.inf)
    return torch.einsum("bkht,bkthd->bkhd", scores.softmax(dim=-1), values)


def decode_attention(
    q: Float[Tensor, "B K H Dh"],
    k_cache: Float[Tensor, "B C capacity H Dh"],
    v_cache: Float[Tensor, "B C capacity H Dh"],
    ancestry: Int[Tensor, "B K capacity"],
    step: int | Tensor,
    *,
    scale: float | None = None,
) -> Float[Tensor, "B K H Dh"]:
    """The attention of the newest token of each hypothesis over its own past.

    out(b, k) = Σ_t w(t) v_cache(b, c_t, t),  w = softmax over t = 0 .. step of scale q(b, k)·k_cache(b, c_t, t),
    c_t = ancestry(b, k, t).

    The caches may be views of one allocation with any strides, the last axis dense. C and K may differ.

    Args:
        ancestry: int64, which beam of the cache wrote position t of hypothesis k, for t up to `step`; what stands
            beyond is not read.
        step: the newest position, whose key and value are in the cache; an int, or an int64 tensor of one element on
            the same device, so that a captured CUDA graph can be replayed for the next step.
        scale: Dh^-0.5 by default.

    Raises:
        InputError: arguments do not fit together. RuntimeError: on the CPU, `ancestry` or a tensor `step` is out of
            range; on a GPU the kernel clamps them, because reading them would wait for the device.
    """
    check_tensors("ops.decode_attention", {"q": q, "k_cache": k_cache, "v_cache": v_cache, "ancestry": ancestry})
    if q.ndim != 4 or k_cache.ndim != 5:
        got = f"{q.ndim} and {k_cache.ndim}"
        raise InputError(f"ops.decode_attention: q must have four axes and k_cache five, got {got}")
    B, K, H, Dh = q.shape
    capacity = k_cache.shape[2]
    if k_cache.shape != (B, k_cache.shape[1], capacity, H, Dh):
        wanted = f"[{B}, C, capacity, {H}, {Dh}]"
        raise InputError(f"ops.decode_attention: k_cache must have the shape {wanted}, got {list(k_cache.shape)}")
    if v_cache.shape != k_cache.shape:
        wanted = f"{list(k_cache.shape)}"
        raise InputError(f"ops.decode_attention: v_cache must have the shape {wanted}, got {list(v_cache.shape)}")
    if ancestry.shape != (B, K, capacity):
        wanted = f"[{B}, {K}, {capacity}]"
        raise InputError(f"ops.decode_attention: ancestry must have the shape {wanted}, got {list(ancestry.shape)}")
    _check_numbers("decode_attention", q, k_cache, v_cache, "k_cache")
    _check_step("decode_attention", step, 0, capacity, q.device)
    ancestry = indices("ops.decode_attention", "ancestry", ancestry)
    if isinstance(step, Tensor):
        step = indices("ops.decode_attention", "step", step.reshape(1))
    scale = Dh**-0.5 if scale is None else float(scale)
    dtype = _result_dtype(q)
    if _runs_kernel("decode_attention", q, k_cache, v_cache):
        real = torch.float32 if q.device.type == "cpu" else dtype
        q, k_cache, v_cache = _rows(q, real), _rows(k_cache, real), _rows(v_cache, real)
        given = (q, k_cache, v_cache, ancestry)
        if isinstance(step, Tensor):
            out = torch.ops.seqkit.decode_attention.default(*given, step, 0, scale)
        else:
            out = torch.ops.seqkit.decode_attention.default(*given, None, step, scale)
    else:
        if isinstance(step, Tensor):
            check_range("ops.decode_attention", "step", step, 0, capacity - 1)
        unread = torch.arange(capacity, device=q.device) > step
        written = ancestry.masked_fill(unread, 0)
        check_range("ops.decode_attention", "ancestry", written, 0, k_cache.shape[1] - 1)
        with torch.autocast(q.device.type, enabled=False):
            q, k_cache, v_cache = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k_cache, v_cache))
            out = decode_attention_reference(q, k_cache, v_cache, ancestry, step, scale=scale)
    return out if out.dtype == dtype else out.to(dtype)


def cross_attention_decode_reference(
    q: Float[Tensor, "B K H Dh"],
    k: Float[Tensor, "B H S Dh"],
    v: Float[Tensor, "B H S Dh"],
    lengths: Int[Tensor, " B"],
    *,
    scale: float | None = None,
) -> tuple[Float[Tensor, "B K H Dh"], Float[Tensor, "B K H S"]]:
    """`cross_attention_decode` in plain torch, with gradients and always with weights."""
    scale = q.shape[3] ** -0.5 if scale is None else scale
    counts = torch.arange(k.shape[2], device=q.device) < lengths[:, None]  # B S, True where it counts
    k, v = (x.masked_fill(~counts[:, None, :, None], 0.0) for x in (k, v))  # what stands in the padding may be NaN
    scores = torch.einsum("bkhd,bhsd->bkhs", q * scale, k)
    scores = scores.masked_fill(~counts[:, None, None], -torch.inf)
    weights = scores.softmax(dim=-1).masked_fill(~counts[:, None, None], 0.0)  # none for a sentence of length zero
    return torch.einsum("bkhs,bhsd->bkhd", weights, v), weights


@overload
def cross_attention_decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    *,
    scale: float | None = ...,
    return_weights: Literal[False] = ...,
) -> Tensor: ...
@overload
def cross_attention_decode(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, *, scale: float | None = ..., return_weights: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def cross_attention_decode(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, *, scale: float | None = ..., return_weights: bool
) -> Tensor | tuple[Tensor, Tensor]: ...


def cross_attention_decode(
    q: Float[Tensor, "B K H Dh"],
    k: Float[Tensor, "B H S Dh"],
    v: Float[Tensor, "B H S Dh"],
    lengths: Int[Tensor, " B"],
    *,
    scale: float | None = None,
    return_weights: bool = False,
) -> Float[Tensor, "B K H Dh"] | tuple[Float[Tensor, "B K H Dh"], Float[Tensor, "B K H S"]]:
    """The attention of each hypothesis over its sentence's source, and on request the weights.

    out(b, k) = Σ_s w(s) v(b, s),  w = softmax over s < lengths(b) of scale q(b, k)·k(b, s).

    All beams of a sentence read one copy of its keys and values, which may have any strides with a dense last axis.

    Args:
        lengths: int64, how many source positions of a sentence count, from 0 (the result is then zero) to S; what
            stands beyond is never read.
        scale: Dh^-0.5 by default.

    Raises:
        InputError: arguments do not fit together. RuntimeError: on the CPU, a length is outside 0 .. S; on a GPU the
            kernel clamps it.
    """
    check_tensors("ops.cross_attention_decode", {"q": q, "k": k, "v": v, "lengths": lengths})
    if q.ndim != 4 or k.ndim != 4:
        raise InputError(f"ops.cross_attention_decode: q and k must have four axes, got {q.ndim} and {k.ndim}")
    B, _, H, Dh = q.shape
    S = k.shape[2]
    for name, given in (("k", k), ("v", v)):
        if given.shape != (B, H, S, Dh):
            wanted = f"[{B}, {H}, {'S' if name == 'k' else S}, {Dh}]"
            got = list(given.shape)
            raise InputError(f"ops.cross_attention_decode: {name} must have the shape {wanted}, got {got}")
    if lengths.shape != (B,):
        got = list(lengths.shape)
        raise InputError(f"ops.cross_attention_decode: lengths must have the shape [{B}], got {got}")
    _check_numbers("cross_attention_decode", q, k, v, "k")
    lengths = indices("ops.cross_attention_decode", "lengths", lengths)
    scale = Dh**-0.5 if scale is None else float(scale)
    dtype = _result_dtype(q)
    if _runs_kernel("cross_attention_decode", q, k, v):
        real = torch.float32 if q.device.type == "cpu" else dtype
        q, k, v = _rows(q, real), _rows(k, real), _rows(v, real)
        out, weights = torch.ops.seqkit.cross_attention_decode.default(q, k, v, lengths, scale, return_weights)
    else:
        check_range("ops.cross_attention_decode", "lengths", lengths, 0, S)
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k, v))
            out, weights = cross_attention_decode_reference(q, k, v, lengths, scale=scale)
    if out.dtype != dtype:
        out, weights = out.to(dtype), weights.to(dtype)
    return (out, weights) if return_weights else out


def extend_ancestry_reference(
    ancestry: Int[Tensor, "B K capacity"], parents: Int[Tensor, "B K2"], step: int | Tensor
) -> Int[Tensor, "B K2 capacity"]:
    """`extend_ancestry` in plain torch."""
    K2, capacity = parents.shape[1], ancestry.shape[2]
    positions = torch.arange(capacity, device=ancestry.device)
    own = torch.arange(K2, device=ancestry.device)[:, None]
    inherited = ancestry.gather(1, parents[:, :, None].expand(-1, -1, capacity))
    return torch.where(positions <= step, inherited, torch.where(positions == step + 1, own, 0))


def extend_ancestry(
    ancestry: Int[Tensor, "B K capacity"],
    parents: Int[Tensor, "B K2"],
    step: int | Tensor,
    *,
    out: Tensor | None = None,
) -> Int[Tensor, "B K2 capacity"]:
    """The ancestry of the hypotheses that a search has chosen after `step`.

    Hypothesis j goes on from hypothesis parents(b, j): its positions up to `step` are those of its parent, it writes
    position step + 1 itself, as beam j, and what stands beyond is 0. One call a step serves all layers.

    Args:
        step: the newest position that is written, from -1 (nothing is), as an int or a tensor (see `decode_attention`).
        out: int64 memory for the result, contiguous; `ancestry` itself is allowed if K2 = K.

    Raises:
        InputError: arguments do not fit together. RuntimeError: on the CPU, a parent or a tensor `step` is out of
            range; on a GPU the kernel clamps them.
    """
    check_tensors("ops.extend_ancestry", {"ancestry": ancestry, "parents": parents}, {"out": out})
    if ancestry.ndim != 3 or parents.ndim != 2 or parents.shape[0] != ancestry.shape[0]:
        got = f"{list(ancestry.shape)} and {list(parents.shape)}"
        raise InputError(f"ops.extend_ancestry: the shapes must be [B, K, capacity] and [B, K2], got {got}")
    wanted = (*parents.shape, ancestry.shape[2])
    _check_step("extend_ancestry", step, -1, ancestry.shape[2], ancestry.device)
    if out is not None and (out.shape != wanted or out.dtype != torch.int64 or not out.is_contiguous()):
        got = f"{out.dtype} of shape {list(out.shape)}"
        raise InputError(f"ops.extend_ancestry: out must be contiguous int64 of shape {list(wanted)}, got {got}")
    where = "ops.extend_ancestry"
    given = indices(where, "ancestry", ancestry), indices(where, "parents", parents)
    if isinstance(step, Tensor):
        step = indices(where, "step", step.reshape(1))
    if library.backend("extend_ancestry", ancestry.device) == "native":
        result = ancestry.new_empty(wanted, dtype=torch.int64) if out is None else out
        if isinstance(step, Tensor):
            torch.ops.seqkit.extend_ancestry.default(*given, step, 0, result)
        else:
            torch.ops.seqkit.extend_ancestry.default(*given, None, step, result)
        return result
    if isinstance(step, Tensor):
        check_range(where, "step", step, -1, ancestry.shape[2] - 1)
    check_range(where, "parents", given[1], 0, ancestry.shape[1] - 1)
    result = extend_ancestry_reference(*given, step)
    return result if out is None else out.copy_(result)


def _fake_decode(
    q: Tensor, k: Tensor, v: Tensor, ancestry: Tensor, step_at: Tensor | None, step: int, scale: float
) -> Tensor:
    check_tensors("decode_attention", {"q": q, "k_cache": k, "v_cache": v, "ancestry": ancestry}, {"step": step_at})
    return q.new_empty(q.shape)


def _fake_cross(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scale: float, return_weights: bool
) -> tuple[Tensor, Tensor]:
    check_tensors("cross_attention_decode", {"q": q, "k": k, "v": v, "lengths": lengths})
    return q.new_empty(q.shape), q.new_empty(*q.shape[:3], k.shape[2]) if return_weights else q.new_empty(0)


def _fake_extend(ancestry: Tensor, parents: Tensor, step_at: Tensor | None, step: int, out: Tensor) -> None:
    check_tensors("extend_ancestry", {"ancestry": ancestry, "parents": parents, "out": out}, {"step": step_at})


if library.is_built("decode_attention"):
    torch.library.register_fake("seqkit::decode_attention", _fake_decode)
    torch.library.register_fake("seqkit::cross_attention_decode", _fake_cross)
    torch.library.register_fake("seqkit::extend_ancestry", _fake_extend)
