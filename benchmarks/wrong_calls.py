"""Claim: a wrong argument to any operator raises a sentence; it never ends the process and reads nothing out of bounds.

    python benchmarks/wrong_calls.py [--calls 5000] [--seed 0] [--op NAME] [--call INDEX] [--library PATH]

For each operator a child process draws small valid calls, sees that they pass, damages one to three of their arguments
(rank, size, dtype, device, layout and strides, indices, NaN, scalars, None and other objects) and calls again: the
Python face, the face on its reference, or the raw operator with what the face hands it. The damaged call must

    raise   one of RAISED, with a sentence; or
    answer  where the damage is legal: with the shapes, and the numbers, that the reference (for a raw operator: itself,
            on dense copies) gives for the same arguments. A lone damage that is never legal must raise.

Half of the tensors end where a page ends that nobody may read beyond. `--library` loads another build of the kernels,
such as one with AddressSanitizer (tests/csrc/emulated.py says how to start a process with it). A call that fails is
named by its index; `--op NAME --call INDEX` repeats it alone. Exit code 1 if any failed.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import mmap
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

RAISED = (RuntimeError, TypeError, ValueError, NotImplementedError, IndexError)  # InputError is a ValueError
HANG_SECONDS = 10
MEMORY = 2 << 30  # what a child may have beyond what it starts with, so that an impossible size raises at once
NAN, INF = math.nan, math.inf
FAR = (2**40, 2**62, -(2**63))
STRANGERS = (None, "text", [1.0], object(), 3)

Arguments = dict[str, Any]
Path_ = tuple[str, ...]


# Memory that ends where a page ends.


class GuardedPages:
    """Pages in turn, each followed by one that nobody may read or write."""

    def __init__(self, pages: int) -> None:
        self.size = mmap.PAGESIZE
        self.memory = mmap.mmap(-1, 2 * pages * self.size)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        protect = ctypes.CDLL(None).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for page in range(pages):
            assert protect(start + (2 * page + 1) * self.size, self.size, 0) == 0
        self.pages, self.next = pages, 0

    def copy(self, given: Tensor) -> Tensor:
        """The same dense tensor at the end of the next page; one that is too large stays where it is."""
        size = given.numel() * given.element_size()
        if not 0 < size <= self.size or given.requires_grad or not given.is_contiguous():
            return given
        end = (2 * self.next + 1) * self.size
        self.next = (self.next + 1) % self.pages
        flat = torch.frombuffer(self.memory, dtype=given.dtype, count=given.numel(), offset=end - size)
        return flat.copy_(given.reshape(-1)).view(given.shape)


# Arguments are a dictionary; a list of tensors or the state of a search within it is reached by a path.


def tensors(arguments: Arguments) -> list[Path_]:
    """The path of every tensor."""
    found: list[Path_] = []
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            found.append((name,))
        elif isinstance(value, list):
            found += [(name, str(index)) for index in range(len(value))]
        elif hasattr(value, "_fields"):
            found += [(name, field) for field in value._fields]
    return found


def get(arguments: Arguments, path: Path_) -> Any:
    value = arguments[path[0]]
    if len(path) == 1:
        return value
    return value[int(path[1])] if isinstance(value, list) else getattr(value, path[1])


def put(arguments: Arguments, path: Path_, new: Any) -> Arguments:
    value = new
    if len(path) == 2:
        inner = arguments[path[0]]
        if isinstance(inner, list):
            value = [new if str(index) == path[1] else old for index, old in enumerate(inner)]
        else:
            value = inner._replace(**{path[1]: new})
    return {**arguments, path[0]: value}


def mapped(arguments: Arguments, change: Callable[[Tensor], Tensor]) -> Arguments:
    for path in tensors(arguments):
        value = get(arguments, path)
        if isinstance(value, Tensor):
            arguments = put(arguments, path, change(value))
    return arguments


# The operators: how to draw a valid call, how to make it, and which values are never legal.


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator; `ranges` gives what the integers of an argument may be, and which part of it is read."""

    draw: Callable[[random.Random], Arguments]
    call: Callable[[Arguments], Any]
    ranges: Callable[[Arguments], dict[str, tuple[int, int]]] = lambda arguments: {}
    refused: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()  # of a state: a step need not look at them
    written: tuple[str, ...] = ()
    # Whether the reference's numbers, or its NaN, say nothing of an answer to these arguments.
    other_numbers: Callable[[Arguments], bool] = lambda arguments: False
    other_nan: Callable[[Arguments], bool] = lambda arguments: False


def some(draw: random.Random, value: Any) -> Any:
    return value if draw.random() < 0.5 else None


def integers(draw: random.Random, shape: tuple[int, ...], low: int, high: int) -> Tensor:
    """Each from low to high."""
    count = math.prod(shape)
    return torch.tensor([draw.randint(low, high) for _ in range(count)], dtype=torch.int64).view(shape)


def draw_attention(draw: random.Random) -> Arguments:
    B, T, S, Dh, Dv = (draw.choice((1, 2, 3, 7)) for _ in range(5))
    Hkv = draw.choice((1, 2))
    H = Hkv * draw.choice((1, 2))
    dtype = draw.choice((torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16))
    bias = [draw.choice((1, size)) for size in (B, H, T, S)]
    return {
        "q": torch.randn(B, H, T, Dh, dtype=dtype),
        "k": torch.randn(B, Hkv, S, Dh, dtype=dtype),
        "v": torch.randn(B, Hkv, S, Dv, dtype=dtype),
        "q_lengths": some(draw, integers(draw, (B,), 0, T)),
        "k_lengths": some(draw, integers(draw, (B,), 0, S)),
        "causal": draw.random() < 0.5,
        "window": some(draw, draw.randrange(4)),
        "bias": some(draw, torch.randn(bias, dtype=dtype)),
        "alibi_slopes": some(draw, torch.rand(H)),
        "scale": some(draw, 0.5),
        "dropout_p": 0.0 if draw.random() < 0.8 else 0.5,
        "return_weights": draw.random() < 0.5,
    }


def call_attention(arguments: Arguments) -> Any:
    return ops.attention(**arguments)


def call_attention_backward(arguments: Arguments) -> Any:
    """The gradients of the tensors that have any, for a loss whose gradient is one everywhere."""
    leaves = {}
    for name in ("q", "k", "v", "bias", "alibi_slopes"):
        if isinstance(arguments[name], Tensor) and arguments[name].is_floating_point():
            leaves[name] = arguments[name].detach().requires_grad_()
    out = ops.attention(**{**arguments, **leaves})
    outs = out if isinstance(out, tuple) else (out,)
    return torch.autograd.grad(
        outs, list(leaves.values()), [torch.ones_like(x) for x in outs], allow_unused=True, materialize_grads=True
    )


def draw_attention_backward(draw: random.Random) -> Arguments:
    return {**draw_attention(draw), "alibi_slopes": None, "dropout_p": 0.0}


def attention_ranges(arguments: Arguments) -> dict[str, tuple[int, int]]:
    return {"q_lengths": (0, arguments["q"].shape[2]), "k_lengths": (0, arguments["k"].shape[2])}


def hides_keys(arguments: Arguments) -> bool:
    """Then a value that is NaN reaches other rows in the reference, as zero times NaN, but not in a kernel."""
    return any(arguments.get(name) is not None for name in ("window", "q_lengths", "k_lengths", "bias")) or bool(
        arguments.get("causal")
    )


def overflows(scale: float | None) -> bool:
    """Then the order of the products matters: the kernel multiplies q by it, the reference the logits."""
    return not abs(scale or 0.0) < 1e30


def not_finite(arguments: Arguments) -> bool:
    numbers = (x.float() for x in arguments.values() if isinstance(x, Tensor) and x.device.type == "cpu")
    return overflows(arguments.get("scale")) or not all(bool(x.isfinite().all()) for x in numbers)


ATTENTION_REFUSED = {
    "window": (-2, *FAR[2:]),
    "dropout_p": (1.0, NAN, -0.1, INF),
    "dropout": (1.0, NAN, -0.1, INF),
}
ATTENTION_OPTIONAL = ("q_lengths", "k_lengths", "window", "bias", "alibi_slopes", "scale", "seed", "grad_weights")


def draw_additive(draw: random.Random) -> Arguments:
    B, T, S, A, D = (draw.choice((1, 2, 3, 17)) for _ in range(5))
    return {
        "query": torch.randn(B, T, A),
        "keys": torch.randn(B, S, A),
        "values": torch.randn(B, S, D),
        "v": torch.randn(A),
        "lengths": some(draw, integers(draw, (B,), 0, S)),
    }


def draw_beam_step(draw: random.Random) -> Arguments:
    B, K, F, V, beam_size = (draw.choice((1, 2, 3)), draw.choice((1, 2, 4)), draw.choice((1, 3)),
                             draw.choice((2, 5, 40)), draw.choice((1, 2, 4)))  # fmt: skip
    floats = {name: torch.randn(B, F).sort(descending=True).values
              for name in ("finished_scores", "finished_logp", "finished_eos_logp")}  # fmt: skip
    state = ops.BeamState.start(B, pool_size=F)._replace(
        logp=-torch.rand(B, K),
        lengths=integers(draw, (B,), 0, 5),
        finished_lengths=integers(draw, (B, F), 0, 5),
        finished_beams=integers(draw, (B, F), 0, 5),
        n_finished=integers(draw, (B,), 0, 5),
        **floats,
    )
    return {
        "logits": torch.randn(B, K, V),
        "state": state,
        "eos": draw.randrange(V),
        "beam_size": beam_size,
        "length_penalty": draw.choice(("none", "power", "gnmt")),
        "alpha": draw.choice((0.0, 0.7)),
        "count_eos": draw.random() < 0.5,
        "min_length": draw.randrange(3),
        "offset": some(draw, torch.randn(B, K)),
        "forced": some(draw, integers(draw, (B,), -1, V - 1)),
        "banned": some(draw, integers(draw, (B, K, draw.randrange(3)), -1, V - 1)),
        "penalised": some(draw, integers(draw, (B, draw.randrange(3)), -1, V - 1)),
        "penalty": draw.choice((0.0, 0.5)),
        "first_beam": draw.randrange(3),
    }


BEAM_STEP_REFUSED = {
    "eos": (-1, *FAR),
    "beam_size": (0, -1, 2**40, 2**61, 2**62, -(2**63)),
    "length_penalty": ("other", None, -1, 3, *FAR),
    "alpha": (NAN, INF, -1.0),
    "penalty": (NAN, INF, -1.0),
}


BEAM_STEP_UNREAD = (
    *("scores", "parents", "tokens", "token_logp"),
    *("candidate_logp", "candidate_scores", "candidate_parents", "candidate_tokens"),
)


def draw_mean(draw: random.Random) -> Arguments:
    shape = (draw.choice((1, 2)), draw.choice((1, 3)), draw.choice((1, 5, 40)))
    return {"logits": [torch.randn(shape) for _ in range(draw.choice((1, 2, 3)))]}


def number_dtype(draw: random.Random) -> torch.dtype:
    return draw.choice((torch.float32, torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64))


def draw_decode(draw: random.Random) -> Arguments:
    B, K, C, H = (draw.choice((1, 2, 3)) for _ in range(4))
    capacity, Dh = draw.choice((1, 2, 5)), draw.choice((1, 3, 8, 20))
    step, dtype = draw.randrange(capacity), number_dtype(draw)
    return {
        "q": torch.randn(B, K, H, Dh, dtype=dtype),
        "k_cache": torch.randn(B, C, capacity, H, Dh, dtype=dtype),
        "v_cache": torch.randn(B, C, capacity, H, Dh, dtype=dtype),
        "ancestry": integers(draw, (B, K, capacity), 0, C - 1),
        "step": step if draw.random() < 0.5 else torch.tensor(step),
        "scale": some(draw, 0.5),
    }


def decode_ranges(arguments: Arguments) -> dict[str, tuple[int, int]]:
    _, C, capacity, _, _ = arguments["k_cache"].shape
    return {"ancestry": (0, C - 1), "step": (0, capacity - 1), "step_at": (0, capacity - 1)}


def draw_cross(draw: random.Random) -> Arguments:
    B, K, H, S = (draw.choice((1, 2, 3)) for _ in range(4))
    Dh, dtype = draw.choice((1, 3, 8, 20)), number_dtype(draw)
    return {
        "q": torch.randn(B, K, H, Dh, dtype=dtype),
        "k": torch.randn(B, H, S, Dh, dtype=dtype),
        "v": torch.randn(B, H, S, Dh, dtype=dtype),
        "lengths": integers(draw, (B,), 0, S),
        "scale": some(draw, 0.5),
        "return_weights": draw.random() < 0.5,
    }


def draw_extend(draw: random.Random) -> Arguments:
    B, K, K2 = (draw.choice((1, 2, 3)) for _ in range(3))
    capacity = draw.choice((1, 2, 5))
    step = draw.randint(-1, capacity - 1)
    ancestry = integers(draw, (B, K, capacity), 0, 9)
    out = draw.choice((None, torch.full((B, K2, capacity), -7), ancestry if K == K2 else None))
    return {
        "ancestry": ancestry,
        "parents": integers(draw, (B, K2), 0, K - 1),
        "step": step if draw.random() < 0.5 else torch.tensor(step),
        "out": out,
    }


def extend_ranges(arguments: Arguments) -> dict[str, tuple[int, int]]:
    _, K, capacity = arguments["ancestry"].shape
    return {"parents": (0, K - 1), "step": (-1, capacity - 1), "step_at": (-1, capacity - 1)}


def draw_linear(draw: random.Random) -> Arguments:
    rows, N, K = draw.choice(((), (1,), (3,), (2, 3), (7,))), draw.choice((1, 5, 32, 33)), draw.choice((1, 4, 19))
    weight = torch.randn(N, K)
    return {
        "x": torch.randn(*rows, K),
        "weight": weight,
        "bias": some(draw, torch.randn(N)),
        "activation": draw.choice(("none", "relu", "gelu", "tanh")),
        "packed": some(draw, ops.pack_linear_weight(weight)),
    }


def draw_lstm(draw: random.Random) -> Arguments:
    R, H = draw.choice((1, 2, 5)), draw.choice((1, 3, 16, 17))
    return {"gates": torch.randn(R, 4 * H), "state": torch.randn(R, H)}


def draw_gru(draw: random.Random) -> Arguments:
    R, H = draw.choice((1, 2, 5)), draw.choice((1, 3, 16, 17))
    return {
        "from_input": torch.randn(R, 3 * H),
        "from_hidden": torch.randn(R, 3 * H),
        "hidden": torch.randn(R, H),
    }


def draw_crf(draw: random.Random) -> Arguments:
    B, T, C = draw.choice((1, 2, 3)), draw.choice((1, 2, 7)), draw.choice((1, 3, 17))
    return {
        "emissions": torch.randn(B, T, C),
        "tags": integers(draw, (B, T), 0, C - 1),
        "transitions": torch.randn(C, C),
        "start": some(draw, torch.randn(C)),
        "end": some(draw, torch.randn(C)),
        "lengths": integers(draw, (B,), 1, T),
    }


def draw_crf_decode(draw: random.Random) -> Arguments:
    arguments = draw_crf(draw)
    del arguments["tags"]
    return {**arguments, "n_best": draw.choice((1, 2, 5))}


def crf_ranges(arguments: Arguments) -> dict[str, tuple[int, int]]:
    return {"lengths": (1, arguments["emissions"].shape[1])}


def draw_ctc(draw: random.Random) -> Arguments:
    T, B, C = draw.choice((1, 3, 9)), draw.choice((1, 2, 3)), draw.choice((2, 5, 20))
    S, blank = draw.choice((1, 2, 5)), draw.randrange(C)
    labels = [c for c in range(C) if c != blank]
    targets = torch.tensor([[draw.choice(labels) for _ in range(S)] for _ in range(B)])
    return {
        "log_probs": torch.randn(T, B, C).log_softmax(dim=-1),
        "targets": targets,
        "input_lengths": integers(draw, (B,), 0, T),
        "target_lengths": integers(draw, (B,), 0, S),
        "blank": blank,
    }


def draw_ctc_loss(draw: random.Random) -> Arguments:
    return {
        **draw_ctc(draw),
        "reduction": draw.choice(("none", "mean", "sum")),
        "zero_infinity": draw.random() < 0.5,
    }


def draw_ctc_loss_from_logits(draw: random.Random) -> Arguments:
    arguments = draw_ctc_loss(draw)
    return {"logits": arguments.pop("log_probs"), **arguments}


def draw_align(draw: random.Random) -> Arguments:
    arguments = draw_ctc(draw)
    return {**arguments, "log_probs": arguments["log_probs"].transpose(0, 1).contiguous()}


def ctc_ranges(arguments: Arguments) -> dict[str, tuple[int, int]]:
    frames = arguments[next(name for name in ("frames", "log_probs", "logits") if name in arguments)]
    T = frames.shape[1 if arguments.get("batch_first", "reduction" not in arguments) else 0]
    return {"input_lengths": (0, T), "target_lengths": (0, arguments["targets"].shape[1])}


def repeats(frames: Tensor) -> bool:
    """Whether numbers come twice: then prefixes are equally probable but for the last bit, and either may be first."""
    return frames.device.type == "cpu" and frames.float().unique().numel() < frames.numel()


def ctc_beam_ranges(arguments: Arguments) -> dict[str, tuple[int, int]]:
    if "frames" in arguments:  # the alignment that gives the times
        return ctc_ranges(arguments)
    return {"lengths": (0, arguments["log_probs"].shape[1])}


CTC_REFUSED = {"blank": (-1, *FAR, None), "reduction": ("other", None)}


def draw_ctc_beam(draw: random.Random) -> Arguments:
    B, T, C, beam_size = draw.choice((1, 2)), draw.choice((1, 3, 7)), draw.choice((2, 5, 20)), draw.choice((1, 3, 9))
    blank = draw.randrange(C)
    hot = ops.hot_word_automaton([[(blank + 1) % C]], 1.0, n_labels=C)
    return {
        "log_probs": torch.randn(B, T, C).log_softmax(dim=-1),
        "lengths": some(draw, integers(draw, (B,), 0, T)),
        "beam_size": beam_size,
        "blank": blank,
        "n_best": draw.randint(1, beam_size),
        "token_min_logp": draw.choice((-INF, -2.0)),
        "beam_prune_logp": draw.choice((-INF, -4.0)),
        "blank_skip": draw.choice((None, 0.5)),
        "hot_words": some(draw, hot),
        "return_times": draw.random() < 0.3,
    }


def draw_boxes(draw: random.Random, N: int) -> Tensor:
    corner = 20 * torch.rand(N, 2)
    return torch.cat([corner, corner + 10 * torch.rand(N, 2)], dim=1)


def draw_nms(draw: random.Random) -> Arguments:
    N = draw.choice((1, 2, 17, 40))
    return {"boxes": draw_boxes(draw, N), "scores": torch.rand(N), "iou_threshold": draw.choice((0.0, 0.3, 0.7))}


def draw_batched_nms(draw: random.Random) -> Arguments:
    arguments = draw_nms(draw)
    return {**arguments, "idxs": integers(draw, tuple(arguments["scores"].shape), 0, 2)}


def draw_soft_nms(draw: random.Random) -> Arguments:
    return {**draw_nms(draw), "sigma": 0.5, "score_threshold": 0.01, "method": draw.choice(("linear", "gaussian"))}


def draw_roi_align(draw: random.Random) -> Arguments:
    B, C, H, W = (draw.choice((1, 2, 3, 9)) for _ in range(4))
    K, dtype = draw.choice((0, 1, 5)), draw.choice((torch.float32, torch.float32, torch.float64, torch.bfloat16))
    low, size = 12.0 * torch.rand(K, 2) - 2.0, 8.0 * torch.rand(K, 2)
    boxes = torch.cat([integers(draw, (K, 1), 0, B - 1).float(), low, low + size], 1).to(dtype)
    return {
        "input": torch.randn(B, C, H, W, dtype=dtype),
        "boxes": boxes if draw.random() < 0.7 else [boxes[boxes[:, 0] == b, 1:] for b in range(B)],
        "output_size": draw.choice((1, 2, 7, (2, 3), [3, 18])),
        "spatial_scale": draw.choice((1.0, 0.5)),
        "sampling_ratio": draw.choice((-1, 0, 1, 2)),
        "aligned": draw.random() < 0.5,
    }


def call_roi_align_backward(arguments: Arguments) -> Any:
    """The gradient of the input, for a loss whose gradient is one everywhere."""
    input = arguments["input"]
    leaf = input.detach().requires_grad_() if isinstance(input, Tensor) and input.is_floating_point() else input
    out = ops.roi_align(**{**arguments, "input": leaf})
    return torch.autograd.grad(out, leaf, torch.ones_like(out))


ROI_ALIGN = Operator(
    draw=draw_roi_align,
    call=lambda arguments: ops.roi_align(**arguments),
    refused={
        "output_size": (0, -1, *FAR, "two", None, 1.5, (2,), (2, 0)),
        "pooled_height": (0, -1, *FAR),
        "pooled_width": (0, -1, *FAR),
        "spatial_scale": (NAN, INF, 0.0, -1.0, 1e300),
        "sampling_ratio": FAR[:2],
        "batch": (-1, FAR[2]),
        "height": (-1, *FAR),
        "width": (-1, *FAR),
    },
    # An infinite pixel may give NaN: the reference multiplies all by zero, the kernel those that fill up a bin.
    other_numbers=lambda arguments: bool(arguments["input"].isinf().any()),
    other_nan=lambda arguments: True,  # the reference multiplies every pixel, most by zero
)


def draw_sequence(draw: random.Random, gates: int) -> Arguments:
    B, T, D, H = (draw.choice((1, 2, 3, 7)) for _ in range(4))
    dtype = draw.choice((torch.float32, torch.float32, torch.float64, torch.bfloat16))
    width = gates * H
    return {
        "x": torch.randn(B, T, D, dtype=dtype),
        "h0": torch.randn(B, H, dtype=dtype),
        "weight_input": torch.randn(width, D, dtype=dtype),
        "weight_hidden": torch.randn(width, H, dtype=dtype),
        "bias_input": some(draw, torch.randn(width, dtype=dtype)),
        "bias_hidden": some(draw, torch.randn(width, dtype=dtype)),
        "gain_input": some(draw, torch.randn(width, dtype=dtype)),
        "gain_hidden": some(draw, torch.randn(width, dtype=dtype)),
        "lengths": some(draw, integers(draw, (B,), 0, T)),
        "layer_norm": draw.random() < 0.5,
        "zoneout": draw.choice((0.0, 0.5)),
        "reverse": draw.random() < 0.5,
    }


def draw_lstm_layer(draw: random.Random) -> Arguments:
    arguments = draw_sequence(draw, 4)
    h0 = arguments["h0"]
    row, dtype = (h0.shape[1],), h0.dtype
    return {
        **arguments,
        "c0": torch.randn(h0.shape, dtype=dtype),
        "gain_state": some(draw, torch.randn(row, dtype=dtype)),
        "bias_state": some(draw, torch.randn(row, dtype=dtype)),
        "peepholes": some(draw, torch.randn(3, *row, dtype=dtype)),
    }


def call_sequence(op: str, arguments: Arguments) -> Any:
    """A recurrent layer, whose weights are a tuple."""
    given = dict(arguments)
    weights = ops.RecurrentWeights(**{name: given.pop(name) for name in ops.RecurrentWeights._fields if name in given})
    x, h0 = given.pop("x"), given.pop("h0")
    first = (h0, given.pop("c0")) if "c0" in given else h0
    return getattr(ops, op)(x, first, weights, **given)


def draw_word2vec_step(draw: random.Random) -> Arguments:
    V, D, n, L = draw.choice((1, 5, 40)), draw.choice((1, 4, 19)), draw.choice((0, 1, 5)), draw.choice((1, 9, 30))
    begin, window = draw.randrange(L), draw.choice((1, 2, 5))
    N = draw.randint(0, L - begin)
    return {
        "inputs": torch.randn(V, D),
        "outputs": torch.randn(V, D),
        "ids": integers(draw, (L,), -1, V - 1).int(),
        "radii": integers(draw, (N,), 0, window).int(),
        "negatives": integers(draw, (N, n), 0, V - 1).int(),
        "window": window,
        "rate": 0.05,
        "begin": begin,
        "negative_weight": draw.choice((1.0, 0.5)),
        "cbow": draw.random() < 0.5,
    }


def call_word2vec_step(arguments: Arguments) -> Any:
    rows = {name: x.clone() if isinstance(x := arguments[name], Tensor) else x for name in ("inputs", "outputs")}
    return ops.word2vec_step(**{**arguments, **rows}), *rows.values()  # it writes to them


def word2vec_ranges(arguments: Arguments) -> dict[str, tuple[int, int]]:
    last = arguments["inputs"].shape[0] - 1
    return {
        "ids": (-(2**31), last),
        "radii": (0, arguments["window"]),
        "negatives": (0, last),
        "begin": (0, len(arguments["ids"]) - len(arguments["radii"])),
    }


def sequence_operator(op: str, draw: Callable[[random.Random], Arguments]) -> Operator:
    return Operator(
        draw=draw,
        call=lambda arguments: call_sequence(op, arguments),
        ranges=lambda arguments: {"lengths": (0, arguments.get("x", arguments.get("from_input")).shape[1])},
        refused={"zoneout": (-0.5, 1.5, NAN, INF)},
        optional=(
            "h0",
            "c0",
            "bias_input",
            "bias_hidden",
            "gain_input",
            "gain_hidden",
            "gain_state",
            "bias_state",
            "peepholes",
            "lengths",
        ),
        # A product of infinities may be infinite or NaN, by the order of its sums.
        other_numbers=not_finite,
        other_nan=lambda arguments: True,
    )


OPERATORS = {
    "gru": sequence_operator("gru", lambda draw: draw_sequence(draw, 3)),
    "lstm": sequence_operator("lstm", draw_lstm_layer),
    "rnn": sequence_operator("rnn", lambda draw: draw_sequence(draw, 1)),
    "attention": Operator(
        draw=draw_attention,
        call=call_attention,
        ranges=attention_ranges,
        refused=ATTENTION_REFUSED,
        optional=ATTENTION_OPTIONAL,
        other_numbers=lambda arguments: bool(arguments["dropout_p"]) or overflows(arguments["scale"]),
        other_nan=hides_keys,
    ),
    "attention_backward": Operator(
        draw=draw_attention_backward,
        call=call_attention_backward,
        ranges=attention_ranges,
        refused=ATTENTION_REFUSED,
        optional=(*ATTENTION_OPTIONAL, "weights"),
        other_numbers=not_finite,  # the reference gives no gradient to a logit of -inf
    ),
    "additive_attention": Operator(
        draw=draw_additive,
        call=lambda arguments: ops.additive_attention(**arguments),
        ranges=lambda arguments: {"lengths": (0, arguments["keys"].shape[1])},
        optional=("lengths",),
    ),
    "beam_step": Operator(
        draw=draw_beam_step,
        call=lambda arguments: ops.beam_step(**arguments),
        refused=BEAM_STEP_REFUSED,
        optional=("offset", "forced", "banned", "penalised"),
        unread=BEAM_STEP_UNREAD,
    ),
    "mean_log_softmax": Operator(draw=draw_mean, call=lambda arguments: ops.mean_log_softmax(**arguments)),
    "decode_attention": Operator(
        draw=draw_decode,
        call=lambda arguments: ops.decode_attention(**arguments),
        ranges=decode_ranges,
        optional=("scale", "step_at"),
    ),
    "cross_attention_decode": Operator(
        draw=draw_cross,
        call=lambda arguments: ops.cross_attention_decode(**arguments),
        ranges=lambda arguments: {"lengths": (0, arguments["k"].shape[2])},
        optional=("scale",),
    ),
    "extend_ancestry": Operator(
        draw=draw_extend,
        call=lambda arguments: ops.extend_ancestry(**arguments),
        ranges=extend_ranges,
        optional=("out", "step_at"),
    ),
    "linear": Operator(
        draw=draw_linear,
        call=lambda arguments: ops.linear(**arguments),
        refused={"activation": ("other", None, -1, 4, *FAR), "columns": (-1, *FAR)},
        optional=("bias", "packed"),
        other_numbers=lambda arguments: arguments["packed"] is not None,  # of another weight
        other_nan=lambda arguments: arguments["activation"] == "gelu",  # torch's of inf
    ),
    "pack_linear_weight": Operator(
        draw=lambda draw: {"weight": torch.randn(draw.choice((1, 5, 32, 33)), draw.choice((1, 4, 19)))},
        call=lambda arguments: ops.pack_linear_weight(**arguments),
    ),
    "roi_align": ROI_ALIGN,
    "roi_align_backward": replace(ROI_ALIGN, call=call_roi_align_backward),
    "lstm_cell": Operator(draw=draw_lstm, call=lambda arguments: ops.lstm_cell(**arguments)),
    "gru_cell": Operator(draw=draw_gru, call=lambda arguments: ops.gru_cell(**arguments)),
    "crf_log_likelihood": Operator(
        draw=draw_crf,
        call=lambda arguments: ops.crf_log_likelihood(**arguments),
        ranges=crf_ranges,
        optional=("start", "end", "lengths"),
        other_numbers=not_finite,  # NaN and infinities in sums of logarithms
    ),
    "crf_decode": Operator(
        draw=draw_crf_decode,
        call=lambda arguments: ops.crf_decode(**arguments),
        ranges=crf_ranges,
        refused={"n_best": (0, -1, 1025, *FAR)},
        optional=("start", "end", "lengths"),
        other_numbers=not_finite,  # which of several NaN is the best is nobody's promise
    ),
    "ctc_loss": Operator(
        draw=draw_ctc_loss,
        call=lambda arguments: ops.ctc_loss(**arguments),
        ranges=ctc_ranges,
        refused=CTC_REFUSED,
        other_numbers=not_finite,  # NaN and infinities in sums of logarithms
    ),
    "ctc_loss_from_logits": Operator(
        draw=draw_ctc_loss_from_logits,
        call=lambda arguments: ops.ctc_loss_from_logits(**arguments),
        ranges=ctc_ranges,
        refused=CTC_REFUSED,
        other_numbers=not_finite,
    ),
    "viterbi_align": Operator(
        draw=draw_align,
        call=lambda arguments: ops.viterbi_align(**arguments),
        ranges=ctc_ranges,
        refused=CTC_REFUSED,
        other_numbers=not_finite,
    ),
    "ctc_beam_search": Operator(
        draw=draw_ctc_beam,
        call=lambda arguments: ops.ctc_beam_search(**arguments),
        ranges=ctc_beam_ranges,
        refused={
            "beam_size": (0, -1, 1 << 17, *FAR),
            "blank": (-1, *FAR),
            "n_best": (0, -1, *FAR),
            "token_min_logp": (NAN,),
            "beam_prune_logp": (NAN, 1.0, INF),
        },
        optional=("lengths", "blank_skip", "hot_words"),
        other_numbers=lambda arguments: not_finite(arguments) or repeats(arguments["log_probs"]),
    ),
    "nms": Operator(draw=draw_nms, call=lambda arguments: ops.nms(**arguments), refused={"iou_threshold": (NAN,)}),
    "batched_nms": Operator(
        draw=draw_batched_nms,
        call=lambda arguments: ops.batched_nms(**arguments),
        refused={"iou_threshold": (NAN,)},
        optional=("classes",),
    ),
    "soft_nms": Operator(
        draw=draw_soft_nms,
        call=lambda arguments: ops.soft_nms(**arguments),
        refused={
            "method": ("other", None),
            "sigma": (0.0, -1.0, NAN),
            "iou_threshold": (NAN,),
            "score_threshold": (NAN,),
        },
        other_numbers=not_finite,
    ),
    "word2vec_step": Operator(
        draw=draw_word2vec_step,
        call=call_word2vec_step,
        written=("inputs", "outputs"),
        ranges=word2vec_ranges,
        refused={"window": (0, -1, 1025, *FAR), "rate": (NAN, INF, -INF), "negative_weight": (NAN, INF, -1.0)},
        other_numbers=not_finite,
    ),
    "box_iou": Operator(
        draw=lambda draw: {"a": draw_boxes(draw, draw.choice((1, 3))), "b": draw_boxes(draw, draw.choice((1, 40)))},
        call=lambda arguments: ops.box_iou(**arguments),
    ),
}


# Damage. Each function gives the new value and whether it is never legal, or None where it cannot be done.

Damaged = tuple[Any, bool] | None
Damage = Callable[[random.Random, Operator, Arguments, Path_, Any], Damaged]


def rank(draw: random.Random, op: Operator, arguments: Arguments, path: Path_, x: Tensor) -> Damaged:
    shapes = [x.unsqueeze(0), x.unsqueeze(-1), x.reshape(-1)]
    if x.numel():
        shapes += [x.reshape(-1)[0], x[0] if x.ndim else x.reshape(1, 1)]
    return draw.choice(shapes), False


def size(draw: random.Random, op: Operator, arguments: Arguments, path: Path_, x: Tensor) -> Damaged:
    if x.ndim == 0:
        return None
    axis = draw.randrange(x.ndim)
    n = x.shape[axis]
    if n == 0:
        shape = list(x.shape)
        shape[axis] = draw.choice((1, 2**40))
        return x.new_zeros(shape) if 0 in shape or math.prod(shape) < 1000 else x, False
    one = x.narrow(axis, 0, 1)
    kind = draw.randrange(5)
    if kind == 0:
        return x.narrow(axis, 0, n - 1), False
    if kind == 1:
        return torch.cat([x, one], axis), False
    if kind == 2:
        return x.narrow(axis, 0, 0), False
    if kind == 3:
        return torch.cat([x] * draw.choice((2, 3, 70)), axis), False
    huge = list(x.shape)
    huge[axis] = 2 ** draw.choice((31, 32, 40, 50)) + draw.randrange(1000)
    if draw.random() < 0.5:  # no memory at all behind it
        huge[draw.randrange(x.ndim)] = 0
        return x.new_empty(huge), False
    return one.expand(huge), False


def dtype(draw: random.Random, op: Operator, arguments: Arguments, path: Path_, x: Tensor) -> Damaged:
    kinds = (torch.int64, torch.int32, torch.uint8, torch.bool, torch.float64, torch.float32, torch.float16,
             torch.bfloat16, torch.complex64)  # fmt: skip
    kind = draw.choice([kind for kind in kinds if kind != x.dtype])
    is_index = path[-1] in op.ranges(arguments)
    return x.to(kind), is_index and (kind.is_floating_point or kind.is_complex or kind == torch.bool)


def device(draw: random.Random, op: Operator, arguments: Arguments, path: Path_, x: Tensor) -> Damaged:
    return x.to("meta"), len(tensors(arguments)) > 1


def strides(draw: random.Random, op: Operator, arguments: Arguments, path: Path_, x: Tensor) -> Damaged:
    if x.ndim == 0 or x.numel() == 0:
        return None
    axis, other = draw.randrange(x.ndim), draw.randrange(x.ndim)
    kind = draw.randrange(7)
    if kind == 0:
        return x.transpose(axis, other).contiguous().transpose(axis, other), False
    if kind == 1:
        return torch.stack([x, torch.zeros_like(x)], dim=axis + 1).flatten(axis, axis + 1)[
            (slice(None),) * axis + (slice(None, None, 2),)
        ], False
    if kind == 2:
        return x.narrow(axis, 0, 1).expand_as(x), False
    if kind == 3:  # what axes of size one step by does not matter
        steps = [2**40 if n == 1 else step for n, step in zip(x.shape, x.stride(), strict=True)]
        return x.as_strided(x.shape, steps), False
    if kind == 4:
        return x.as_strided(x.shape, [1 if n <= x.shape[-1] else 0 for n in x.shape]), False
    if kind == 5:
        return x.flip(axis).transpose(axis, other), False
    memory = bytearray(x.numel() * x.element_size() + 1)
    flat = torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=1)  # at an odd address
    return flat.copy_(x.reshape(-1)).view(x.shape), False


def layout(draw: random.Random, op: Operator, arguments: Arguments, path: Path_, x: Tensor) -> Damaged:
    kind = draw.randrange(6)
    floating = x.is_floating_point()
    if kind == 0 and x.dtype != torch.bool and path[0] not in op.written:  # torch hands on no lazy view to be written
        return torch._neg_view(x.neg()), False
    if kind == 1 and floating and x.dtype in (torch.float32, torch.float64):
        return torch.complex(x, x).conj(), False
    if kind == 2:
        return x.to_sparse(), False
    if kind == 3 and x.dtype == torch.float32:
        return x.to_mkldnn(), False
    if kind == 4 and floating:
        return torch._efficientzerotensor(x.shape, dtype=x.dtype), False
    return (x.clone().requires_grad_(), False) if floating else None


def index(draw: random.Random, op: Operator, arguments: Arguments, path: Path_, x: Tensor) -> Damaged:
    if x.dtype != torch.int64 or x.numel() == 0:
        return None
    x = x.clone()
    place = tuple(draw.randrange(n) for n in x.shape)
    ranges = op.ranges(arguments)
    if path[-1] not in ranges:
        x[place] = draw.choice((-1, -2, 7, 2**31, 2**40, *FAR))
        return x, False
    low, high = ranges[path[-1]]
    x[place] = draw.choice((low - 1, high + 1, *FAR))
    if path == ("ancestry",):  # only what stands up to the step is read
        step = arguments["step_at"] if arguments.get("step_at") is not None else arguments["step"]
        return x, place[2] <= int(step)
    return x, True


def number(draw: random.Random, op: Operator, arguments: Arguments, path: Path_, x: Tensor) -> Damaged:
    if not x.is_floating_point() or x.numel() == 0:
        return None
    x = x.clone()
    for _ in range(draw.choice((1, 1, x.numel()))):
        x[tuple(draw.randrange(n) for n in x.shape)] = draw.choice((NAN, INF, -INF, -0.0, 1e-45))
    return x, False


def stranger(draw: random.Random, op: Operator, arguments: Arguments, path: Path_, x: Any) -> Damaged:
    value = draw.choice(STRANGERS)
    return value, not (value is None and path[0] in op.optional) and not (value == 3 and path[0] == "step")


def alias(draw: random.Random, op: Operator, arguments: Arguments, path: Path_, x: Tensor) -> Damaged:
    """The output in the memory of an input."""
    memory = arguments[draw.choice(("ancestry", "parents"))].view(-1)
    shift = memory.numel() - x.numel()
    return (memory[draw.randint(0, shift) :][: x.numel()].view(x.shape), False) if shift >= 0 else None


def scalar(draw: random.Random, op: Operator, arguments: Arguments, path: Path_, x: Any) -> Damaged:
    name = path[0]
    ranges = op.ranges(arguments)
    if arguments.get("step_at") is not None:
        ranges = {}  # then the number is not read
    if name in ranges and draw.random() < 0.5:
        low, high = ranges[name]
        return draw.choice((low - 1, high + 1, *FAR)), True
    if name in op.refused and draw.random() < 0.5:
        return draw.choice(op.refused[name]), True
    if isinstance(x, bool):
        return draw.choice((None, "text", 2, NAN)), False
    if isinstance(x, int) and draw.random() < 0.5:
        return draw.choice((0, 1, 2, 2**31, *FAR, 2**63, 2**70, -(2**70))), False
    return draw.choice((NAN, INF, -INF, 0.0, -1.0, 1e300, 1.5, None, "text", object())), False


TENSOR_DAMAGES: tuple[Damage, ...] = (rank, size, size, dtype, device, strides, layout, index, index, number, stranger)


def damage(draw: random.Random, op: Operator, arguments: Arguments) -> tuple[Arguments, list[str], bool]:
    """The arguments with one to three damages, what they are, and whether they can never be legal."""
    count, done, never = draw.choice((1, 1, 1, 1, 1, 1, 1, 2, 2, 3)), [], False
    given = arguments
    paths = tensors(arguments)
    paths += [(name,) for name in arguments if name not in {path[0] for path in paths}]
    draw.shuffle(paths)
    for path in paths:
        old = get(given, path)
        if isinstance(old, Tensor):
            kind = (
                alias
                if "parents" in arguments and path == ("out",) and draw.random() < 0.3
                else draw.choice(TENSOR_DAMAGES)
            )
        else:
            kind = scalar
        try:
            result = kind(draw, op, given, path, old)
        except (RuntimeError, TypeError):  # torch has no such tensor
            result = None
        if result is None:
            continue
        arguments = put(arguments, path, result[0])
        never = result[1] and path[-1] not in op.unread
        done.append(f"{'.'.join(path)}: {kind.__name__}: {described(old)} -> {described(result[0])}")
        if len(done) == count:
            break
    return arguments, done, never and len(done) == 1


def described(value: Any) -> str:
    if isinstance(value, Tensor):
        text = f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        if value.layout != torch.strided:
            return f"{text} {value.layout}"
        if value.dtype == torch.int64 and value.device.type == "cpu" and 0 < value.numel() < 20:
            text += f" {value.tolist()}"
        return f"{text} strides {list(value.stride())} {value.device}"
    return repr(value)


# The three ways to call, and what an answer must be.


class Recorder(TorchDispatchMode):
    """Keeps the calls of seqkit's operators that are made within it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Arguments]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "seqkit":
            names = [argument.name for argument in func._schema.arguments]
            self.calls.append((func, dict(zip(names, args, strict=True))))
        return func(*args, **(kwargs or {}))


def flat(result: Any) -> Iterator[Any]:
    if isinstance(result, list | tuple):
        for item in result:
            yield from flat(item)
    else:
        yield result


def difference(got: Any, wanted: Any, *, numbers: bool, nan: bool) -> str:
    """What is wrong with an answer, or ""."""
    pairs = list(zip(flat(got), flat(wanted), strict=False))
    if len(pairs) != len(list(flat(got))) or len(pairs) != len(list(flat(wanted))):
        return "another number of outputs"
    for index, (x, y) in enumerate(pairs):
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            return "" if x is y else "an output is no tensor"
        if x.shape != y.shape or x.dtype != y.dtype:
            return f"output {index} is {x.dtype} of {list(x.shape)}, must be {y.dtype} of {list(y.shape)}"
        if x.device != y.device:
            return f"output {index} is on {x.device}, must be on {y.device}"
        if not numbers or x.device.type == "meta":
            continue
        if not nan and x.is_floating_point():
            x = x.masked_fill(y.isnan(), NAN)
        loose = {torch.float16: 4e-2, torch.bfloat16: 0.3}.get(x.dtype, 1e-4)  # a gradient subtracts sums
        exact = not x.is_floating_point() and not x.is_complex()
        same = torch.equal(x, y) if exact else torch.allclose(x, y, rtol=loose, atol=loose, equal_nan=True)
        if not same:
            return f"output {index} is {x.flatten()[:8].tolist()}, must be {y.flatten()[:8].tolist()}"
    return ""


def dense(x: Tensor) -> Tensor:
    """A copy without strides, views and history; the tensor itself where torch can make none."""
    try:
        return x.detach().resolve_neg().resolve_conj().clone(memory_format=torch.contiguous_format)
    except (RuntimeError, NotImplementedError):
        return x


def poor(error: BaseException) -> str:
    """What is wrong with an exception, or ""."""
    text = str(error)
    if not isinstance(error, RAISED) or isinstance(error, KeyError | AssertionError | RecursionError):
        return f"raised {type(error).__name__}: {text[:200]}"
    if not text.strip() or "INTERNAL ASSERT" in text or "please report a bug" in text.lower():
        return f"raised {type(error).__name__} without a sentence: {text[:200]!r}"
    return ""


class Raw:
    """A raw operator: as torch hands it on, with the outputs that it writes to."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.written = [x.name for x in function._schema.arguments if x.alias_info and x.alias_info.is_write]

    def __call__(self, arguments: Arguments) -> Any:
        result = self.function(*arguments.values())
        return [result, *(arguments[name] for name in self.written)] if self.written else result


def answer(call: Callable[[Arguments], Any], arguments: Arguments) -> tuple[Any, BaseException | None]:
    try:
        return call(arguments), None
    except Exception as error:
        return None, error


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one damaged call came to: `raised` or `answered`, and its fault or ""."""

    kind: str
    fault: str = ""
    call: str = ""


def one_call(name: str, seed: int, index: int, pages: GuardedPages, *, verbose: bool = False) -> Outcome:
    """Makes the call of this index; the same in every process."""
    op = OPERATORS[name]
    draw = random.Random(f"{seed} {name} {index}")
    torch.manual_seed(draw.randrange(2**31))
    way = draw.choice(("face", "face", "face", "reference", "raw", "raw"))
    arguments = op.draw(draw)
    call: Callable[[Arguments], Any] = op.call
    context = library.use_backend("reference" if way == "reference" else "auto")
    with context:
        if way == "raw":
            with Recorder() as recorder:
                op.call(arguments)
            if recorder.calls:
                function, arguments = recorder.calls[-1]
                call = Raw(function)
            else:
                way = "face"
        arguments = mapped(arguments, lambda x: pages.copy(x) if draw.random() < 0.5 else x)
        call(arguments)
        damaged, done, never = damage(draw, op, arguments)
        text = f"{name} through {way}: {'; '.join(done)}"
        if verbose:
            print(text, *(f"  {key} = {value}" for key, value in damaged.items()), sep="\n", flush=True)
        kept = mapped(damaged, dense) if way == "raw" or "out" in damaged else damaged
        seeds = torch.get_rng_state()
        got, error = answer(call, damaged)
    if error is not None:
        if verbose:
            print(f"{type(error).__name__}: {error}")
        return Outcome(kind="raised", fault=poor(error), call=text)
    if never:
        return Outcome(kind="answered", fault="must raise", call=text)
    if way == "reference":
        return Outcome(kind="answered")
    torch.set_rng_state(seeds)
    with library.use_backend("auto" if way == "raw" else "reference"):
        wanted, error = answer(call, kept)
    numbers = way == "raw" or not op.other_numbers(damaged)
    if error is not None:
        return Outcome(kind="answered", fault=f"the reference raises {error}" if numbers else "", call=text)
    nan = way == "raw" or not op.other_nan(damaged)
    return Outcome(kind="answered", fault=difference(got, wanted, numbers=numbers, nan=nan), call=text)


# The children.


def child(name: str, seed: int, first: int, last: int, progress: Any, stderr: str) -> None:
    """Runs calls first .. last; progress is [index, raised, answered, faults]."""
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch._C._debug_only_display_vmap_fallback_warnings(False)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    pages = GuardedPages(64)
    for index in range(first, last):
        progress[0] = index
        outcome = one_call(name, seed, index, pages)
        progress[1 if outcome.kind == "raised" else 2] += 1
        if outcome.fault:
            progress[3] += 1
            report(seed, index, outcome.call, outcome.fault)
    os._exit(0)  # what the interpreter would free at its end is not under test


def report(seed: int, index: int, call: str, fault: str) -> None:
    fault = fault.replace("\n", "\n      ")
    print(f"  seed {seed} call {index}: {call}\n      {fault}", flush=True)


def run(name: str, seed: int, calls: int) -> tuple[int, int, int, int]:
    """Calls raised, answered, faults, and children that ended with a signal or hung."""
    progress = multiprocessing.get_context("fork").Array("q", 4, lock=False)
    crashes, first = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        while first < calls and crashes < 20:
            stderr = str(Path(folder) / f"stderr-{first}")
            process = multiprocessing.get_context("fork").Process(
                target=child, args=(name, seed, first, calls, progress, stderr)
            )
            progress[0] = first
            process.start()
            hung, before, since = False, first, time.monotonic()
            while process.is_alive():
                process.join(1)
                if progress[0] != before:
                    before, since = progress[0], time.monotonic()
                elif process.is_alive() and time.monotonic() - since > HANG_SECONDS:
                    hung = True
                    process.kill()
                    process.join()
            if process.exitcode == 0:
                break
            crashes += 1
            code = process.exitcode or 0
            how = "hung" if hung else signal.Signals(-code).name if code < 0 else f"exit code {code}"
            words = Path(stderr).read_text(errors="replace").splitlines()[-40:]
            report(seed, progress[0], name, "\n".join([f"the process ended: {how}", *words]))
            first = progress[0] + 1
    return progress[1], progress[2], progress[3], crashes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000, help="for each operator")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--op", choices=OPERATORS, action="append", help="one operator; may be given again")
    parser.add_argument("--call", type=int, help="this call alone, in this process, with its arguments in full")
    parser.add_argument("--library", help="another build of seqkit/_C.abi3.so")
    arguments = parser.parse_args()
    load(arguments.library)
    names = arguments.op or list(OPERATORS)
    if arguments.call is not None:
        warnings.simplefilter("ignore")
        for name in names:
            print(one_call(name, arguments.seed, arguments.call, GuardedPages(64), verbose=True))
        return 0
    print(f"{'operator':<24}{'calls':>8}{'raised':>8}{'answered':>10}{'signals':>9}{'faults':>8}", flush=True)
    failed = False
    for name in names:
        raised, answered, faults, crashes = run(name, arguments.seed, arguments.calls)
        failed |= bool(faults or crashes)
        print(f"{name:<24}{raised + answered + crashes:>8}{raised:>8}{answered:>10}{crashes:>9}{faults:>8}", flush=True)
    return 1 if failed else 0


def load(other: str | None) -> None:
    """Imports seqkit, with another build of its kernels if there is one."""
    global library, ops
    loader = torch.ops.load_library
    if other:
        torch.ops.load_library = lambda path: loader(other)  # type: ignore[method-assign]
    from seqkit import ops
    from seqkit.ops import library

    torch.ops.load_library = loader  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
