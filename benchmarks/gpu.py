"""Every op on a card, in one command: is it right, does it stay inside its memory, and how fast is it beside torch.

    python benchmarks/gpu.py [-o FILE.json] [--only attention] [--seconds 480]

Three parts, for a machine with an NVIDIA card and the built library; it compiles nothing and needs no network.

1. Right: each op in float32, float16 and bfloat16 against its reference in float64 on the CPU. What torch allocates is
   filled with NaN first, and the call is repeated, since the same bits must come out. An error may be twice, of a
   gradient three times, that of the reference in the same precision on the same card.
2. Inside: compute-sanitizer's memcheck, racecheck and initcheck over the smallest shapes, where it is installed.
3. Fast: the median of device time (CUDA events) of each op and of what torch offers for it, in turns. `floor` is the
   least time that the bytes or the operations take at 3.0 TB/s and 800 TFLOP/s. "Fresh shapes" is the time by the wall
   of thirty calls, each of a shape that the process has not seen: sentences arrive like that.

A table goes to stdout, everything to the JSON file. Exit code 1 if a result is wrong. On a machine without a card,
`--device cpu` runs parts 1 and 3 on the CPU's kernels, to see that this script works; its times mean nothing.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from seqkit import ops
from seqkit.ops import library
from seqkit.ops.beam_step import BeamState

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BYTES_PER_SECOND, OPERATIONS_PER_SECOND = 3.0e12, 800e12  # of an H100, as measured


# ---- 1. right ----


@dataclass
class Case:
    """One call: what goes in, in float64 on the CPU, and what comes out."""

    name: str
    inputs: list[Tensor]
    call: Callable[..., list[Tensor]]  # of the inputs
    n_gradients: int = 0  # the last results, which may be three times as wrong
    dtypes: tuple[torch.dtype, ...] = DTYPES


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def with_gradients(
    function: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor], weights: list[Tensor]
) -> list[Tensor]:
    """The results of a function, then the gradients of its inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    results = function(*leaves)
    loss = sum(((x * w.to(x)).sum() for x, w in zip(results, weights, strict=True)), start=torch.zeros(()))
    return [*(x.detach() for x in results), *torch.autograd.grad(loss, leaves)]


def attention_cases(tiny: bool) -> Iterator[Case]:
    shapes = [(2, 4, 2, 5, 9, 8, 8), (1, 2, 1, 33, 70, 24, 40)]
    if not tiny:
        shapes += [(2, 8, 8, 300, 300, 64, 64), (2, 4, 2, 130, 257, 128, 128), (1, 2, 2, 65, 100, 256, 192)]
    variants: dict[str, dict[str, Any]] = {
        "plain": {},
        "causal": {"causal": True},
        "window": {"causal": True, "window": 7},
        "bias": {"bias": True},
        "alibi": {"alibi": True},
    }
    for (B, H, Hkv, T, S, Dh, Dv), (variant, options) in itertools.product(shapes, variants.items()):
        given = [draw(B, T, H, Dh), draw(B, S, Hkv, Dh), draw(B, S, Hkv, Dv)]
        if options.get("bias"):
            given.append(draw(1, H, T, S))
        lengths = [torch.randint(0, n + 1, (B,)) for n in (T, S)]
        gradient, slopes = draw(B, H, T, Dv), torch.tensor([0.5**n for n in range(1, H + 1)])

        def call(
            *x: Tensor,
            lengths: list[Tensor] = lengths,
            options: dict[str, Any] = options,
            gradient: Tensor = gradient,
            slopes: Tensor = slopes,
        ) -> list[Tensor]:
            def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> tuple[Tensor]:
                q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
                return (
                    ops.attention(
                        q,
                        k,
                        v,
                        q_lengths=lengths[0].to(q.device),
                        k_lengths=lengths[1].to(q.device),
                        causal=options.get("causal", False),
                        window=options.get("window"),
                        bias=bias,
                        alibi_slopes=slopes.to(q) if options.get("alibi") else None,
                    ),
                )

            return with_gradients(attend, list(x), [gradient])

        yield Case(f"attention {variant} {B}x{H}/{Hkv}x{T}x{S}x{Dh}/{Dv}", given, call, n_gradients=len(given))


def additive_cases(tiny: bool) -> Iterator[Case]:
    for B, T, S, A, D in [(2, 3, 5, 7, 9), *([] if tiny else [(8, 50, 50, 512, 512), (3, 33, 70, 100, 30)])]:
        given = [draw(B, T, A), draw(B, S, A), draw(B, S, D), draw(A) / A**0.5]
        lengths, gradients = torch.randint(0, S + 1, (B,)), [draw(B, T, D), draw(B, T, S)]

        def call(*x: Tensor, lengths: Tensor = lengths, gradients: list[Tensor] = gradients) -> list[Tensor]:
            def attend(*leaves: Tensor) -> tuple[Tensor, ...]:
                return ops.additive_attention(*leaves, lengths=lengths.to(leaves[0].device))

            return with_gradients(attend, list(x), gradients)

        yield Case(f"additive_attention {B}x{T}x{S}x{A}", given, call, n_gradients=4)


def decode_cases(tiny: bool) -> Iterator[Case]:
    shapes = [(2, 3, 2, 8, 6, 5), *([] if tiny else [(4, 4, 8, 64, 100, 30), (1, 5, 4, 96, 600, 700)])]
    for (B, K, H, Dh, T, S), step_on_device in itertools.product(shapes, (False, True)):
        step, lengths = T - 2, torch.randint(0, S + 1, (B,))
        ancestry = torch.randint(0, K, (B, K, T))

        def self_attention(
            q: Tensor,
            cache: Tensor,
            ancestry: Tensor = ancestry,
            step: int = step,
            on_device: bool = step_on_device,
        ) -> list[Tensor]:
            at = torch.tensor(step, device=q.device) if on_device else step
            keys, values = cache.unbind(3)
            return [ops.decode_attention(q, keys, values, ancestry.to(q.device), at)]

        def cross_attention(q: Tensor, memory: Tensor, lengths: Tensor = lengths) -> list[Tensor]:
            keys, values = memory.unbind(0)
            return list(ops.cross_attention_decode(q, keys, values, lengths.to(q.device), return_weights=True))

        name = f"{B}x{K}x{H}x{Dh}"
        yield Case(f"decode_attention {name} T{T}", [draw(B, K, H, Dh), draw(B, K, T, 2, H, Dh)], self_attention)
        yield Case(f"cross_attention_decode {name} S{S}", [draw(B, K, H, Dh), draw(2, B, H, S, Dh)], cross_attention)


def beam_cases(tiny: bool) -> Iterator[Case]:
    for B, K, V in [(2, 3, 11), *([] if tiny else [(16, 4, 32000), (3, 7, 1001), (2, 64, 5000)])]:

        def call(logits: Tensor, K: int = K) -> list[Tensor]:
            state = BeamState.start(logits.shape[1], pool_size=K, device=logits.device)
            results: list[Tensor] = []
            for step, given in enumerate(logits):
                state = ops.beam_step(given[:, : state.logp.shape[1]].float(), state, eos=1, beam_size=K)
                results += [x.double() for x in state] if step == len(logits) - 1 else []
            return results

        yield Case(f"beam_step {B}x{K}x{V}", [3.0 * draw(3, B, K, V).float().double()], call, dtypes=(torch.float32,))


def crf_cases(tiny: bool) -> Iterator[Case]:
    for B, T, C in [(2, 5, 3), *([] if tiny else [(16, 60, 20), (4, 100, 130)])]:
        tags, lengths = torch.randint(C, (B, T)), torch.randint(1, T + 1, (B,))

        def likelihood(*x: Tensor, tags: Tensor = tags, lengths: Tensor = lengths) -> list[Tensor]:
            def loss(emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor]:
                labels, counts = tags.to(emissions.device), lengths.to(emissions.device)
                return (ops.crf_log_likelihood(emissions, labels, transitions, start=start, end=end, lengths=counts),)

            return with_gradients(loss, list(x), [torch.ones(len(tags))])

        def decode(emissions: Tensor, transitions: Tensor, lengths: Tensor = lengths) -> list[Tensor]:
            return [
                x.double()
                for x in ops.crf_decode(emissions, transitions, lengths=lengths.to(emissions.device), n_best=3)
            ]

        given = [draw(B, T, C), draw(C, C), draw(C), draw(C)]
        floats = (torch.float32,)
        yield Case(f"crf_log_likelihood {B}x{T}x{C}", given, likelihood, n_gradients=4, dtypes=floats)
        # Sums of integers are exact: the paths must be equal.
        yield Case(f"crf_decode {B}x{T}x{C}", [x.mul(3).round() for x in given[:2]], decode, dtypes=floats)


def draw_boxes(N: int) -> Tensor:
    """Boxes around a few places."""
    center = 100 * torch.rand(max(1, N // 8), 2)[torch.randint(max(1, N // 8), (N,))] + 3 * torch.randn(N, 2)
    size = 5 + 15 * torch.rand(N, 2)
    return torch.cat([center - size / 2, center + size / 2], dim=1)


def box_cases(tiny: bool) -> Iterator[Case]:
    for N in [40, *([] if tiny else [1000, 3000])]:
        boxes, scores, classes = draw_boxes(N), torch.rand(N), torch.randint(80, (N,))

        def suppress(boxes: Tensor, scores: Tensor, classes: Tensor = classes) -> list[Tensor]:
            # The same precision everywhere: a decision at the last bit is not what is asked here.
            given = boxes.float(), scores.float()
            kept = ops.nms(*given, 0.5), ops.batched_nms(*given, classes.to(boxes.device), 0.5)
            return [x.double() for x in (*kept, ops.box_iou(given[0], given[0][:50]))]

        floats = (torch.float32,)
        yield Case(f"nms, batched_nms and box_iou {N}", [boxes.double(), scores.double()], suppress, dtypes=floats)


def soft_nms_cases(tiny: bool) -> Iterator[Case]:
    # What is left of more than 4,074 boxes does not fit into shared memory.
    for N, options in itertools.product(
        [40, *([] if tiny else [1000, 5000])], ({"method": "gaussian"}, {"method": "linear", "iou_threshold": 0.4})
    ):

        def lower(boxes: Tensor, scores: Tensor, options: dict[str, Any] = options) -> list[Tensor]:
            kept, lowered = ops.soft_nms(boxes.float(), scores.float(), score_threshold=0.4, **options)
            return [kept.double(), lowered.double()]

        name, given = f"soft_nms {options['method']} {N}", [draw_boxes(N).double(), torch.rand(N).double()]
        yield Case(name, given, lower, dtypes=(torch.float32,))


def ctc_cases(tiny: bool) -> Iterator[Case]:
    for T, B, C, S in [(9, 2, 7, 3), *([] if tiny else [(200, 5, 1000, 40), (60, 8, 77, 12)])]:
        targets, target_lengths = torch.randint(1, C, (B, S)), torch.randint(0, S + 1, (B,))
        target_lengths[0] = min(S, T // 2)
        input_lengths, slopes = torch.randint(T // 2, T + 1, (B,)), draw(B)
        rest = targets, input_lengths, target_lengths.minimum(input_lengths // 2)

        def call(
            frames: Tensor,
            f: Callable[..., Tensor],
            rest: tuple[Tensor, ...] = rest,
            slopes: Tensor = slopes,
        ) -> list[Tensor]:
            def losses(leaf: Tensor) -> tuple[Tensor]:
                return (f(leaf, *(x.to(leaf.device) for x in rest), reduction="none"),)

            return with_gradients(losses, [frames], [slopes])

        for f in (ops.ctc_loss, ops.ctc_loss_from_logits):
            frames = draw(T, B, C) if f is ops.ctc_loss_from_logits else draw(T, B, C).log_softmax(dim=-1)
            yield Case(f"{f.__name__} {T}x{B}x{C}x{S}", [frames], functools.partial(call, f=f), n_gradients=1)


def draw_models(C: int) -> dict[str, dict[str, Any]]:
    """Random bigrams of labels, and of words that two or three labels spell, with hot words; the blank is 0."""

    def bigrams(symbols: int) -> ops.BackoffAutomaton:
        rows = [torch.arange(symbols), *(torch.randperm(symbols)[: 1 + symbols // 4].sort()[0] for _ in range(symbols))]
        named = torch.cat(rows).int()
        return ops.BackoffAutomaton(
            first=torch.tensor([0, *itertools.accumulate(map(len, rows))], dtype=torch.int32),
            symbols=named,
            scores=-3.0 * torch.rand(len(named)),
            next=named + 1,
            backoff=-torch.rand(symbols + 1),
            suffix=torch.zeros(symbols + 1, dtype=torch.int32),
            final=-torch.rand(symbols + 1),
        )

    space, n_words = C - 1, min(4 * C, 400)
    spellings = [torch.randint(1, C - 1, (2 + word % 2,)).tolist() for word in range(n_words - 1)]
    words = ops.WordModel.spelled(bigrams(n_words), spellings, space=space, unknown=n_words - 1, unknown_score=-5.0)
    hot = ops.hot_word_automaton(spellings[:20], 2.0, n_labels=C, space=space)
    of_words = {"words": {"lm": words, "hot_words": hot}}
    return of_words if C > 400 else {"labels": {"lm": bigrams(C)}, **of_words}


def ctc_beam_cases(tiny: bool) -> Iterator[Case]:
    for B, T, C, K in [(2, 9, 7, 4), *([] if tiny else [(5, 60, 32, 100), (2, 20, 3000, 16), (1, 30, 40, 512)])]:
        lengths = torch.randint(T // 2, T + 1, (B,))

        def call(
            log_probs: Tensor, lengths: Tensor = lengths, K: int = K, models: dict[str, Any] | None = None
        ) -> list[Tensor]:
            # Which of two prefixes comes first may differ where rounding makes a tie: the scores may not.
            lengths = lengths.to(log_probs.device)
            found = ops.ctc_beam_search(log_probs, lengths, beam_size=K, n_best=min(K, 5), **(models or {}))
            return [found.log_probs, found.scores]

        log_probs = (2.0 * draw(B, T, C)).log_softmax(dim=-1)
        yield Case(f"ctc_beam_search {B}x{T}x{C} beam {K}", [log_probs], call)
        for kind, models in draw_models(C).items():
            ranked = functools.partial(call, models=models)
            yield Case(f"ctc_beam_search {B}x{T}x{C} beam {K} {kind}", [log_probs], ranked)


def align_cases(tiny: bool) -> Iterator[Case]:
    for B, T, C, S in [(2, 9, 7, 3), *([] if tiny else [(5, 200, 1000, 40), (2, 1300, 30, 1100)])]:
        given = torch.randint(1, C, (B, S)), torch.randint(T // 2, T + 1, (B,)), torch.randint(0, S // 2 + 1, (B,))

        def call(log_probs: Tensor, given: tuple[Tensor, ...] = given) -> list[Tensor]:
            # The path itself may differ where rounding makes a tie: its score may not.
            labels, scores = ops.viterbi_align(log_probs, *(x.to(log_probs.device) for x in given))
            own = log_probs.gather(2, labels.clamp(min=0)[..., None])[..., 0].double() * (labels >= 0)
            return [own.sum(dim=1), scores]

        yield Case(f"viterbi_align {B}x{T}x{C}x{S}", [draw(B, T, C).log_softmax(dim=-1)], call)


def draw_rois(B: int, H: int, W: int, K: int, *, device: str = "cpu") -> Tensor:
    """As a detector proposes them: 2 to 28 pixels wide and high, some beyond the map."""
    centres, sides = torch.rand(K, 2) * torch.tensor([W, H]), 2 + 26 * torch.rand(K, 2)
    images = torch.randint(B, (K, 1)).float()
    return torch.cat([images, centres - sides / 2, centres + sides / 2], 1).to(device)


def roi_align_cases(tiny: bool) -> Iterator[Case]:
    shapes = [(2, 3, 6, 7, 5, 2), *([] if tiny else [(2, 64, 50, 68, 100, 7), (1, 9, 130, 200, 30, 14)])]
    for (B, C, H, W, K, bins), ratio in itertools.product(shapes, (-1, 2)):
        boxes, gradient = draw_rois(B, H, W, K), draw(K, C, bins, bins)

        def pool(
            input: Tensor, boxes: Tensor = boxes, gradient: Tensor = gradient, bins: int = bins, ratio: int = ratio
        ) -> list[Tensor]:
            def align(input: Tensor) -> tuple[Tensor]:
                given = boxes.to(input.device, torch.promote_types(input.dtype, torch.float32))
                return (ops.roi_align(input, given, bins, 1.0, ratio, True),)

            return with_gradients(align, [input], [gradient])

        yield Case(f"roi_align {B}x{C}x{H}x{W} {K} boxes, {ratio}", [draw(B, C, H, W)], pool, n_gradients=1)


def rnn_cases(tiny: bool) -> Iterator[Case]:
    gates = {"rnn": 1, "gru": 3, "lstm": 4}
    for B, T, D, H in [(3, 4, 5, 9), *([] if tiny else [(20, 30, 64, 128), (5, 12, 50, 301)])]:
        for (name, n_gates), layer_norm in itertools.product(gates.items(), (False, True)):
            lengths, width = torch.randint(T + 1, (B,)), n_gates * H
            shapes = [(width, D), (width, H), (width,), (width,)]
            shapes += [(width,)] * 2 * layer_norm

            def layer(
                *x: Tensor,
                name: str = name,
                lengths: Tensor = lengths,
                layer_norm: bool = layer_norm,
            ) -> list[Tensor]:
                def run(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
                    given = ops.RecurrentWeights(*weights[:4], None, *weights[4:])
                    counts = lengths.to(x.device)
                    call = {"rnn": ops.rnn, "gru": ops.gru, "lstm": ops.lstm}[name]
                    outputs, _ = call(
                        x, None, given, lengths=counts, layer_norm=layer_norm, zoneout=0.2, reverse=layer_norm
                    )
                    return (outputs,)

                return with_gradients(run, list(x), [torch.ones(())])

            given = [draw(B, T, D), *(0.2 * draw(*shape) for shape in shapes)]
            title = f"{name} {B}x{T}x{D}x{H}{' with layer norm' if layer_norm else ''}"
            yield Case(title, given, layer, n_gradients=len(given))


def word2vec_cases(tiny: bool) -> Iterator[Case]:
    """Windows of words that no other window has: then no addition depends on another, and the bits are the same."""
    for windows, D, n, window in [(3, 9, 5, 2), *([] if tiny else [(3000, 100, 7, 5), (500, 300, 9, 5)])]:
        of_window = 2 * window + 1 + n
        words = torch.arange(windows * of_window, dtype=torch.int32).view(windows, of_window)
        ids = torch.cat([words[:, :-n], torch.full((windows, 1), -1, dtype=torch.int32)], 1)
        radii = torch.zeros_like(ids)
        radii[:, window] = torch.randint(1, window + 1, (windows,))
        negatives = words[:, None, -n:].expand(-1, ids.shape[1], -1).reshape(-1, n)

        def call(
            *rows: Tensor,
            given: tuple[Tensor, ...] = (ids.flatten(), radii.flatten(), negatives),
            window: int = window,
            cbow: bool = False,
        ) -> list[Tensor]:
            moved = [x.clone() for x in rows]
            rest = [x.to(moved[0].device) for x in given]
            losses, pairs = ops.word2vec_step(*moved, *rest, window=window, rate=0.1, negative_weight=0.7, cbow=cbow)
            return [*moved, losses, pairs.double()]

        for cbow in (False, True):
            kind, rows = "cbow" if cbow else "skipgram", [draw(words.numel(), D) for _ in range(2)]
            f = functools.partial(call, cbow=cbow)
            yield Case(f"word2vec_step {kind} {windows}x{D}x{n}", rows, f, dtypes=(torch.float32,))


CASES = {
    "attention": attention_cases,
    "additive_attention": additive_cases,
    "ctc_beam_search": ctc_beam_cases,
    "ctc_loss": ctc_cases,
    "decode_attention": decode_cases,
    "beam_step": beam_cases,
    "crf_log_likelihood": crf_cases,
    "nms": box_cases,
    "viterbi_align": align_cases,
    "rnn": rnn_cases,
    "roi_align": roi_align_cases,
    "soft_nms": soft_nms_cases,
    "word2vec_step": word2vec_cases,
}


def worst(results: list[Tensor], exact: list[Tensor]) -> list[float]:
    """The largest difference of each result; where both are infinite there is none."""
    errors = []
    for mine, truth in zip(results, exact, strict=True):
        mine = mine.detach().cpu().double()
        difference = torch.where(mine == truth, 0.0, (mine - truth).abs())
        errors.append(float(difference.nan_to_num(nan=torch.inf).max()) if difference.numel() else 0.0)
    return errors


def check(case: Case, dtype: torch.dtype, device: str, repeats: int) -> str | None:
    """What is wrong with a case, or None."""
    rounded = [x.to(dtype) for x in case.inputs]
    given = [x.to(device) for x in rounded]
    with library.use_backend("reference"):
        exact = case.call(*(x.double() for x in rounded))
        theirs = worst(case.call(*given), exact)
    with library.use_backend("native"):
        results = case.call(*given)
        for _ in range(repeats):
            again = case.call(*given)
            if any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(results, again, strict=True)):
                return "another result when it is repeated"
    for index, (mine, peer, truth) in enumerate(zip(worst(results, exact), theirs, exact, strict=True)):
        factor = 3 if index >= len(results) - case.n_gradients else 2
        size = float(truth[truth.isfinite()].abs().max()) if truth.isfinite().any() else 0.0
        if not mine <= factor * peer + 2e-6 * max(size, 1.0):
            return f"result {index} has the error {mine:.1e}, that of torch is {peer:.1e}"
    return None


def check_all(only: str | None, device: str, tiny: bool) -> list[dict[str, Any]]:
    """One record a case and dtype; prints those that are wrong."""
    library.HAS_AMX = library.HAS_AMX and device == "cuda"  # a CPU stands in for a card, and has no matrix unit
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True, warn_only=True)  # what is allocated is filled with NaN
    records = []
    try:
        for op, cases in CASES.items():
            for case in cases(tiny) if only in (None, op) else ():
                for dtype in case.dtypes:
                    wrong = check(case, dtype, device, repeats=0 if tiny else 50 if device == "cuda" else 2)
                    records.append({"case": case.name, "dtype": str(dtype)[6:], "wrong": wrong})
                    if wrong:
                        print(f"WRONG {case.name} {dtype}: {wrong}", flush=True)
    finally:
        torch.use_deterministic_algorithms(False)
    return records


def check_graph(device: str) -> str | None:
    """A decode of ops alone, captured once and replayed for each step, gives what the steps give one by one."""
    torch.manual_seed(0)
    B, K, H, Dh, T, V = 4, 4, 8, 64, 24, 8000
    cache, queries = torch.randn(B, K, T, 2, H, Dh, device=device), torch.randn(T, B, K, H, Dh, device=device)
    projection = torch.randn(H * Dh, V, device=device) / 10
    state0 = ops.beam_step(projection[: B * 1].view(B, 1, V), BeamState.start(B, pool_size=K, device=device), eos=0,
                           beam_size=K)  # fmt: skip
    keys, values = cache.unbind(3)

    def step(at: Tensor, ancestry: Tensor, state: BeamState) -> BeamState:
        query = queries.index_select(0, at)[0]
        context = ops.decode_attention(query, keys, values, ancestry, at)
        state = ops.beam_step(context.flatten(2) @ projection, state, eos=0, beam_size=K)
        ops.extend_ancestry(ancestry, state.parents, at, out=ancestry)
        return state

    def fresh() -> tuple[Tensor, Tensor, BeamState]:
        ancestry = torch.zeros(B, K, T, dtype=torch.int64, device=device)
        return torch.zeros(1, dtype=torch.int64, device=device), ancestry, BeamState(*(x.clone() for x in state0))

    at, ancestry, state = fresh()
    for _ in range(T - 1):
        state = step(at, ancestry, state)
        at += 1
    wanted, wanted_ancestry = state, ancestry.clone()

    at, ancestry, state = fresh()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(at, ancestry.clone(), state)
    torch.cuda.current_stream().wait_stream(stream)
    at, ancestry, state = fresh()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        after = step(at, ancestry, state)
        for kept, new in zip(state, after, strict=True):
            kept.copy_(new)
        at += 1
    start_at, start_ancestry, start = fresh()
    at.copy_(start_at)
    ancestry.copy_(start_ancestry)
    for kept, new in zip(state, start, strict=True):
        kept.copy_(new)
    for _ in range(T - 1):
        graph.replay()
    torch.cuda.synchronize()
    same = all(torch.equal(a, b) for a, b in zip(state, wanted, strict=True))
    return None if same and torch.equal(ancestry, wanted_ancestry) else "a captured decode differs from its steps"


# ---- 2. inside ----


def sanitize() -> dict[str, str]:
    """What each tool of compute-sanitizer said of the smallest shapes."""
    program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if program is None:
        return {"compute-sanitizer": "not installed"}
    said = {}
    for tool in ("memcheck", "racecheck", "initcheck"):
        command = [program, "--tool", tool, "--error-exitcode", "99", sys.executable, __file__, "--tiny"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            said[tool] = "took longer than 120 s"
            continue
        lines = [line for line in done.stdout.splitlines() if "SUMMARY" in line or "Invalid" in line]
        said[tool] = f"exit code {done.returncode}: {' '.join(lines)[-400:]}"
    return said


# ---- 3. fast ----


@dataclass
class Race:
    """Ours and the peers on the same work; what it must do at least."""

    name: str
    runs: dict[str, Callable[[], object]]  # ours first
    bytes: float
    operations: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


def sdpa(backend: SDPBackend, *arguments: Any, **options: Any) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(*arguments, **options)

    return run


BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def differentiated(forward: Callable[[], Tensor], leaves: list[Tensor], gradient: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(forward(), leaves, gradient)


def attention_races(device: str, scale: int) -> Iterator[Race]:
    """Long causal and full ones, and padded batches of sentences; forward, and forward with backward."""
    sizes = [
        (16, 16, 2048, 128, "full"),
        (16, 16, 2048, 128, "causal"),
        (8, 8, 512, 64, "causal"),
        (64, 8, 64, 64, "padded"),
        (64, 8, 32, 64, "padded"),
        (256, 8, 25, 64, "padded"),
    ]
    for (B, H, S, D, kind), dtype in itertools.product(sizes, (torch.bfloat16, torch.float32)):
        B, S = max(1, B // scale), max(8, S // scale)
        q, k, v = (
            torch.randn(B, S, H, D, device=device, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)
        )
        gradient = torch.randn(B, S, H, D, device=device, dtype=dtype).transpose(1, 2)
        causal, lengths, mask = kind == "causal", None, None
        if kind == "padded":
            lengths = torch.randint(S // 2, S + 1, (B,), device=device)
            mask = (torch.arange(S, device=device) < lengths[:, None])[:, None, None]
        share = 0.5 if causal else 1.0
        numbers, work = 4.0 * B * H * S * D * q.element_size(), 4.0 * B * H * S * S * D * share

        def ours(
            q: Tensor = q, k: Tensor = k, v: Tensor = v, lengths: Tensor | None = lengths, causal: bool = causal
        ) -> Tensor:
            return ops.attention(q, k, v, k_lengths=lengths, causal=causal)

        runs: dict[str, Callable[[], Tensor]] = {"ours": ours}
        for name, backend in BACKENDS.items():
            if name != "math" or S <= 512:
                runs[f"sdpa {name}"] = sdpa(backend, q, k, v, attn_mask=mask, is_causal=causal)
        runs["sdpa"] = lambda q=q, k=k, v=v, mask=mask, causal=causal: F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal
        )
        label = f"attention {kind} {B}x{H}x{S}x{D} {str(dtype)[6:]}"
        forward = {name: no_gradient(run) for name, run in runs.items()}
        yield Race(f"{label} forward", forward, numbers, work)
        both = {name: differentiated(run, [q, k, v], gradient) for name, run in runs.items()}
        yield Race(f"{label} forward+backward", both, 3 * numbers, 3.5 * work)


def no_gradient(run: Callable[[], Tensor]) -> Callable[[], object]:
    def without() -> object:
        with torch.no_grad():
            return run()

    return without


def other_races(device: str, scale: int) -> Iterator[Race]:
    half = torch.bfloat16
    for B, K, V in [(64, 4, 32000), (16, 4, 32000), (1, 5, 32000)]:
        V //= scale
        for dtype in (half, torch.float32):
            logits = torch.randn(B, K, V, device=device, dtype=dtype)
            state = ops.beam_step(logits[:, :1], BeamState.start(B, pool_size=K, device=device), eos=0, beam_size=K)

            def step(logits: Tensor = logits, state: BeamState = state, K: int = K) -> object:
                return ops.beam_step(logits, state, eos=0, beam_size=K)

            def by_torch(logits: Tensor = logits, state: BeamState = state, K: int = K) -> object:
                total = logits.float().log_softmax(dim=-1) + state.logp[:, :, None]
                return total.flatten(1).topk(2 * K, dim=1)

            runs = {"ours": step, "log_softmax+add+topk": by_torch}
            yield Race(f"beam_step {B}x{K}x{V} {str(dtype)[6:]}", runs, float(logits.nbytes))

    B, K, H, Dh, S = 64, 4, 8, 64, 64
    for T in (50, 200):
        q = torch.randn(B, K, H, Dh, device=device, dtype=half)
        cache = torch.randn(B, K, T, 2, H, Dh, device=device, dtype=half)
        parents = torch.randint(0, K, (B, K), device=device)
        ancestry = torch.randint(0, K, (B, K, T), device=device)
        rows = (parents + torch.arange(B, device=device)[:, None] * K).flatten()
        own = [x.flatten(0, 1).transpose(1, 2).contiguous() for x in cache.unbind(3)]

        def decode(
            q: Tensor = q, cache: Tensor = cache, ancestry: Tensor = ancestry, parents: Tensor = parents, T: int = T
        ) -> object:
            keys, values = cache.unbind(3)
            return ops.decode_attention(q, keys, values, ops.extend_ancestry(ancestry, parents, T - 1), T - 1)

        def copying(q: Tensor = q, own: list[Tensor] = own, rows: Tensor = rows) -> object:
            keys, values = (x.index_select(0, rows) for x in own)
            return F.scaled_dot_product_attention(q.view(B * K, H, 1, Dh), keys, values)

        runs = {"ours": no_gradient(decode), "index_select+sdpa": no_gradient(copying)}  # type: ignore[arg-type]
        yield Race(f"decode_attention {B}x{K}x{H}x{Dh} T{T}", runs, float(cache.nbytes))

    memory = torch.randn(2, B, H, S, Dh, device=device, dtype=half)
    copies, lengths = memory.repeat_interleave(K, 1), torch.full((B,), S, device=device)
    queries = torch.randn(B, K, H, Dh, device=device, dtype=half)
    yield Race(
        f"cross_attention_decode {B}x{K}x{H}x{Dh} S{S}",
        {
            "ours": lambda: ops.cross_attention_decode(queries, memory[0], memory[1], lengths),
            "sdpa on copies": lambda: F.scaled_dot_product_attention(queries.view(B * K, H, 1, Dh), *copies),
        },
        float(memory.nbytes),
    )

    B, T, S, A = max(1, 64 // scale), 50, 50, 512
    shapes = (B, T, A), (B, S, A), (B, S, A), (A,)
    given = [torch.randn(*shape, device=device).requires_grad_() for shape in shapes]
    gradient = torch.randn(B, T, A, device=device)

    def fused() -> Tensor:
        return ops.additive_attention(*given)[0]

    def formula() -> Tensor:
        query, keys, values, v = given
        return torch.softmax(torch.tanh(query[:, :, None] + keys[:, None]) @ v, dim=-1) @ values

    numbers = float(sum(x.nbytes for x in given) + gradient.nbytes)
    name = f"additive_attention {B}x{T}x{S}x{A}"
    yield Race(f"{name} forward", {"ours": no_gradient(fused), "formula": no_gradient(formula)}, numbers)
    both = {kind: differentiated(run, given, gradient) for kind, run in (("ours", fused), ("formula", formula))}
    yield Race(f"{name} forward+backward", both, 3 * numbers)
    yield from ctc_races(device, scale)
    yield from ctc_beam_races(device, scale)


def ctc_races(device: str, scale: int) -> Iterator[Race]:
    for T, B, C, L in [(500, 32, 5000, 60), (1500, 8, 32, 150)]:
        T, C = T // scale, max(C // scale, 8)
        L = min(L, T // 2)
        logits = torch.randn(T, B, C, device=device).requires_grad_()
        log_probs = logits.detach().log_softmax(dim=-1).requires_grad_()
        targets = torch.randint(1, C, (B, L), device=device)
        lengths = torch.full((B,), T, device=device), torch.full((B,), L, device=device)
        slope, numbers = torch.ones((), device=device), float(logits.nbytes)

        def ours(f: Callable[..., Tensor], frames: Tensor, given: tuple[Tensor, ...]) -> Tensor:
            return f(frames, *given, reduction="sum")

        def from_logits(frames: Tensor, *given: Tensor, **options: Any) -> Tensor:
            return F.ctc_loss(frames.log_softmax(dim=-1), *given, **options)

        given = targets, *lengths
        for name, frames, pair, passes in [
            ("ctc_loss", log_probs, (ops.ctc_loss, F.ctc_loss), 2),
            ("ctc_loss_from_logits", logits, (ops.ctc_loss_from_logits, from_logits), 3),
        ]:
            runs = {
                kind: functools.partial(ours, f, frames, given) for kind, f in zip(("ours", "torch"), pair, strict=True)
            }
            both = {kind: differentiated(run, [frames], slope) for kind, run in runs.items()}
            yield Race(f"{name} {T}x{B}x{C}x{L} forward+backward", both, passes * numbers)
        rows = log_probs.detach().transpose(0, 1).contiguous()
        yield Race(
            f"viterbi_align {B}x{T}x{C}x{L}",
            {
                "ours": functools.partial(ops.viterbi_align, rows, *given),
                "reference": functools.partial(ops.viterbi_align_reference, rows, *given),
            },
            float(B * T * (L + 1) * 4),
        )


def ctc_beam_races(device: str, scale: int) -> Iterator[Race]:
    """The CPU's kernel beside the card's: nobody else has one without building it."""
    for B, T, C, K in [(64, 500, 32, 100), (16, 500, 1000, 16)]:
        B, T = max(1, B // scale), T // scale
        log_probs = (3.0 * torch.randn(B, T, C, device=device)).log_softmax(dim=-1)

        def ours(log_probs: Tensor = log_probs, K: int = K, **models: Any) -> object:
            return ops.ctc_beam_search(log_probs, beam_size=K, **models)

        def on_the_cpu(log_probs: Tensor = log_probs, K: int = K, **models: Any) -> object:
            return ops.ctc_beam_search(log_probs.cpu(), beam_size=K, **models)

        for kind, models in {"": {}, **draw_models(C)}.items():
            runs = {
                "ours": functools.partial(ours, **models),
                "copied to the CPU": functools.partial(on_the_cpu, **models),
            }
            yield Race(f"ctc_beam_search {B}x{T}x{C} beam {K} {kind}".rstrip(), runs, float(log_probs.nbytes))


def crf_races(device: str, scale: int) -> Iterator[Race]:
    B, T, C = max(1, 64 // scale), 60, 20
    emissions = torch.randn(B, T, C, device=device).requires_grad_()
    transitions, tags = torch.randn(C, C, device=device), torch.randint(C, (B, T), device=device)
    gradient = torch.ones(B, device=device)
    runs = {
        name: differentiated(lambda f=f: f(emissions, tags, transitions), [emissions], gradient)
        for name, f in (("ours", ops.crf_log_likelihood), ("torch loop", ops.crf_log_likelihood_reference))
    }
    yield Race(f"crf_log_likelihood {B}x{T}x{C} forward+backward", runs, 2.0 * emissions.nbytes)


def rnn_races(device: str, scale: int) -> Iterator[Race]:
    B, T, H = max(1, 64 // scale), max(1, 50 // scale), 512 // scale
    x = torch.randn(B, T, H, device=device).requires_grad_()
    weights = ops.RecurrentWeights(*(0.04 * torch.randn(4 * H, H, device=device).requires_grad_() for _ in range(2)))
    lengths, gradient = torch.full((B,), T, device=device), torch.ones(B, T, H, device=device)

    def layer() -> Tensor:
        return ops.lstm(x, None, weights, lengths=lengths, layer_norm=True)[0]

    def loop() -> Tensor:
        with library.use_backend("reference"):
            return layer()

    runs = {name: differentiated(f, [x], gradient) for name, f in (("ours", layer), ("torch loop", loop))}
    yield Race(f"lstm with layer norm {B}x{T}x{H} forward+backward", runs, 2.0 * T * weights.weight_hidden.nbytes)


def box_races(device: str, scale: int) -> Iterator[Race]:
    boxes, scores = (10 * draw_boxes(10_000 // scale)).to(device), torch.rand(10_000 // scale, device=device)
    classes = torch.randint(80, scores.shape, device=device)
    runs: dict[str, dict[str, Callable[[], object]]] = {
        "nms": {"ours": lambda: ops.nms(boxes, scores, 0.5)},
        "batched_nms": {"ours": lambda: ops.batched_nms(boxes, scores, classes, 0.5)},
        "box_iou": {"ours": lambda: ops.box_iou(boxes, boxes[:1000])},
    }
    try:
        import torchvision.ops as peer
    except (ImportError, RuntimeError):
        runs["box_iou"]["reference"] = lambda: ops.box_iou_reference(boxes, boxes[:1000])
    else:
        runs["nms"]["torchvision"] = lambda: peer.nms(boxes, scores, 0.5)
        runs["batched_nms"]["torchvision"] = lambda: peer.batched_nms(boxes, scores, classes, 0.5)
        runs["box_iou"]["torchvision"] = lambda: peer.box_iou(boxes, boxes[:1000])
    for name, given in runs.items():
        yield Race(f"{name} {len(boxes)}", given, float(boxes.nbytes))
    few = boxes[: len(boxes) // 10], scores[: len(boxes) // 10]
    soft = {"ours": lambda: ops.soft_nms(*few), "torch loop": lambda: ops.soft_nms_reference(*few)}
    yield Race(f"soft_nms {len(few[0])}", soft, float(few[0].nbytes))


def roi_align_races(device: str, scale: int) -> Iterator[Race]:
    B, C, H, W, K, bins = 2, 256 // scale, 50, 68, 1000 // scale, 7
    input, boxes = torch.randn(B, C, H, W, device=device).requires_grad_(), draw_rois(B, H, W, K, device=device)
    gradient = torch.randn(K, C, bins, bins, device=device)
    runs: dict[str, Callable[[], Tensor]] = {"ours": lambda: ops.roi_align(input, boxes, bins, 1.0, 2, True)}
    try:
        from torchvision.ops import roi_align  # type: ignore[import-not-found, unused-ignore]

        runs["torchvision"] = lambda: roi_align(input, boxes, bins, 1.0, 2, True)
    except (ImportError, RuntimeError):  # a RuntimeError where it does not fit the torch beside it
        runs["torch loop"] = lambda: ops.roi_align_reference(input, boxes, (bins, bins), 1.0, 2, True)
    name, numbers = f"roi_align {B}x{C}x{H}x{W} {K} boxes", float(input.nbytes + gradient.nbytes)
    yield Race(f"{name} forward", {kind: no_gradient(run) for kind, run in runs.items()}, numbers)
    both = {kind: differentiated(run, [input], gradient) for kind, run in runs.items()}
    yield Race(f"{name} forward+backward", both, 2 * numbers)


def draw_text(words: int, V: int) -> list[list[str]]:
    """Sentences of twenty words whose ranks follow Zipf's law."""
    weights = 1.0 / (torch.arange(V) + 2.7)
    return [[f"w{id}" for id in row] for row in weights.multinomial(words, replacement=True).view(-1, 20).tolist()]


def word2vec_races(device: str, scale: int) -> Iterator[Race]:
    """One step over a stretch of text of 200,000 words, beside the same step of the CPU's plain loop."""
    V, D, n, window, N = 80_000 // scale, 100, 7, 5, 200_000 // scale
    rows = [torch.randn(V, D, device=device) * 0.1 for _ in range(2)]
    weights = 1.0 / (torch.arange(V, device=device) + 2.7) ** 0.5  # as sub-sampling leaves them
    given = [
        weights.multinomial(N, replacement=True).int(),
        torch.randint(1, window + 1, (N,), device=device, dtype=torch.int32),
        weights.multinomial(N * n, replacement=True).int().view(N, n),
    ]
    on_cpu = [x.cpu() for x in (*rows, *given)]
    numbers = N * (n + 1 + window + 1) * 2 * 4.0 * D  # each row of a window is read and added to
    for kind, cbow in (("skipgram", False), ("cbow", True)):
        for concurrency in (512, 1024, 2048, 4096, 8192):

            def ours(cbow: bool = cbow, concurrency: int = concurrency) -> object:
                return ops.word2vec_step(*rows, *given, window=window, rate=1e-4, cbow=cbow, concurrency=concurrency)

            def plain(cbow: bool = cbow) -> object:
                return ops.word2vec_step(*on_cpu, window=window, rate=1e-4, cbow=cbow)

            runs = {"ours": ours, **({"the CPU's loop": plain} if concurrency == 512 else {})}
            yield Race(f"word2vec_step {kind} {N} words, {concurrency} windows at a time", runs, numbers)


def word_vector_speed(device: str, words: int) -> dict[str, Any]:
    """Words per second, by the wall, and the loss of whole runs of two epochs: on the card and on all cores."""
    from seqkit.embeddings.corpus import Corpus
    from seqkit.embeddings.device_run import DeviceRun
    from seqkit.embeddings.word2vec import Run, TrainingRun, Word2Vec

    threads = torch.get_num_threads()
    corpus, found = Corpus(draw_text(words, words // 200), threads=threads), {}
    for architecture in ("skipgram", "cbow"):
        options = Word2Vec(epochs=2, threads=threads, architecture=architecture)._options()
        runs: dict[str, TrainingRun] = {
            "ours": DeviceRun(corpus, options, torch.device(device)),
            f"native trainer, {threads} threads": Run(corpus, options),
        }
        for name, run in runs.items():
            begin = time.perf_counter()
            run.run()
            seconds, now = time.perf_counter() - begin, run.progress()
            found[f"{architecture} {name}"] = {
                "words_per_second": round(now.words / seconds), "loss": round(now.loss / now.pairs, 4)
            }  # fmt: skip
    return found


def microseconds(run: Callable[[], object], device: str, repeats: int) -> list[float]:
    """Device time of each of `repeats` calls."""
    if device != "cuda":
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            run()
            times.append((time.perf_counter() - begin) * 1e6)
        return times
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(2 * repeats)]
    for n in range(repeats):
        marks[2 * n].record()
        run()
        marks[2 * n + 1].record()
    torch.cuda.synchronize()
    return [marks[2 * n].elapsed_time(marks[2 * n + 1]) * 1e3 for n in range(repeats)]


def race(given: Race, device: str, rounds: int) -> dict[str, Any]:
    """The medians, in turns; a peer that refuses the shape is named with its reason."""
    record: dict[str, Any] = {"race": given.name, "us": {}, "refused": {}}
    times: dict[str, list[float]] = {}
    for name, run in given.runs.items():
        try:
            microseconds(run, device, 3)
            times[name] = []
        except RuntimeError as error:
            record["refused"][name] = str(error).splitlines()[0][:160]
    for _ in range(rounds):
        for name in times:
            times[name] += microseconds(given.runs[name], device, 10)
    record["us"] = {name: round(statistics.median(values), 2) for name, values in times.items()}
    floor = max(given.bytes / BYTES_PER_SECOND, given.operations / OPERATIONS_PER_SECOND) * 1e6
    record["floor_us"] = round(floor, 2)
    return record


def fresh_shapes(device: str) -> dict[str, float]:
    """Milliseconds by the wall for thirty batches of sentences, each of a new shape; each runner in its own order."""
    runners: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "ours": lambda x, lengths: ops.attention(x, x, x, k_lengths=lengths),
        "sdpa": lambda x, lengths: F.scaled_dot_product_attention(x, x, x, attn_mask=padding(x, lengths)),
    }
    if device == "cuda":
        runners["sdpa cudnn"] = lambda x, lengths: sdpa(
            SDPBackend.CUDNN_ATTENTION, x, x, x, attn_mask=padding(x, lengths)
        )()
    took = {}
    for name, run in runners.items():
        batches = []
        for n in range(31):
            x = torch.randn(40 + n, 17 + n, 8, 64, device=device, dtype=torch.bfloat16).transpose(1, 2)
            batches.append((x, torch.randint(1, x.shape[2] + 1, (x.shape[0],), device=device)))
        try:
            run(*batches[-1])  # what is loaded at the first call is not counted
            synchronize(device)
            begin = time.perf_counter()
            for x, lengths in batches[:-1]:
                run(x, lengths)
            synchronize(device)
            took[name] = round((time.perf_counter() - begin) * 1e3, 2)
        except RuntimeError as error:
            print(f"fresh shapes: {name} refused: {str(error).splitlines()[0]}")
    return took


def padding(x: Tensor, lengths: Tensor) -> Tensor:
    return (torch.arange(x.shape[2], device=x.device) < lengths[:, None])[:, None, None]


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="the JSON file; benchmarks/results/gpu-NAME.json by default")
    parser.add_argument("--only", choices=CASES, help="one op")
    parser.add_argument("--seconds", type=float, default=480.0, help="after this many, no further race begins")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the smallest shapes once, and nothing else")
    arguments = parser.parse_args()
    device, begin = arguments.device, time.monotonic()
    if device == "cuda" and not torch.cuda.is_available():
        print("gpu.py: torch must see a CUDA device, got none; --device cpu tries the script out", file=sys.stderr)
        return 2
    missing = [op for op in CASES if library.backend(op, device) != "native"]
    if missing:
        print(f"gpu.py: the kernels must be built for {device}, got none for {', '.join(missing)}", file=sys.stderr)
        return 2
    checked = check_all(arguments.only, device, arguments.tiny)
    wrong = [record for record in checked if record["wrong"]]
    if arguments.tiny:
        return 1 if wrong else 0

    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "build": library.build_facts(),
        "checked": checked,
    }
    print(f"{report['device']}, torch {report['torch']}: {len(checked) - len(wrong)} of {len(checked)} results right")
    if device == "cuda":
        report["graph"] = check_graph(device)
        report["sanitizer"] = sanitize()
        print(f"captured decode: {report['graph'] or 'right'}\ncompute-sanitizer: {report['sanitizer']}")
    rounds, scale = (10, 1) if device == "cuda" else (1, 16)
    report["races"] = []
    print(f"{'':58} {'floor':>8} {'ours':>9}  fastest peer          times ours", flush=True)
    for given in itertools.chain(
        *(
            races(device, scale)
            for races in (
                attention_races,
                other_races,
                crf_races,
                rnn_races,
                box_races,
                roi_align_races,
                word2vec_races,
            )
        )
    ):
        if arguments.only and not given.name.startswith(arguments.only):
            continue
        if time.monotonic() - begin > arguments.seconds:
            print(f"no time left for {given.name} and what follows")
            break
        record = race(given, device, rounds)
        report["races"].append(record)
        ours, peers = record["us"]["ours"], {name: us for name, us in record["us"].items() if name != "ours"}
        best = min(peers, key=lambda name: peers[name], default="none")
        times = f"{peers[best] / ours:6.2f}" if peers else ""
        print(f"{given.name:58} {record['floor_us']:8.1f} {ours:9.1f}  {best:20} {times}", flush=True)
    report["fresh_shapes_ms"] = fresh_shapes(device)
    print(f"thirty fresh shapes, ms by the wall: {report['fresh_shapes_ms']}")
    if arguments.only in (None, "word2vec_step"):
        report["word_vectors"] = word_vector_speed(device, 10_000_000 if device == "cuda" else 1_000_000)
        print(f"word vectors: {report['word_vectors']}")
    report["seconds"] = round(time.monotonic() - begin, 1)

    name = report["device"].lower().replace(" ", "-")
    output = arguments.output or Path(__file__).parent / "results" / f"gpu-{name}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {output}")
    return 1 if wrong or report.get("graph") else 0


if __name__ == "__main__":
    sys.exit(main())
