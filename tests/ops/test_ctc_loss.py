"""`ops.ctc_loss`: torch's loss and its gradient, alignments enumerated, sentences that see only themselves."""

import itertools
import math
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seqkit import ops
from seqkit.errors import InputError
from seqkit.ops import library

needs_native = pytest.mark.skipif(not library.is_built("ctc_loss"), reason="the native library is not built")

Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def problem(T: int, B: int, C: int, S: int, *, scale: float = 1.0, fits: bool = True) -> Problem:
    """Log-probabilities of all lengths, targets with repeats."""
    generator = torch.Generator().manual_seed(0)
    log_probs = (torch.randn(T, B, C, generator=generator) * scale).log_softmax(dim=-1)
    targets = torch.randint(1, C, (B, S), generator=generator)
    input_lengths = torch.randint(0, T + 1, (B,), generator=generator)
    target_lengths = torch.randint(0, S + 1, (B,), generator=generator)
    input_lengths[0], target_lengths[0] = T, S
    if fits:
        target_lengths = target_lengths.minimum(input_lengths // 2)
    return log_probs, targets, input_lengths, target_lengths


def trained(f: Any, given: Problem, dtype: torch.dtype = torch.float32, **options: Any) -> list[Tensor]:
    """The losses and the gradient under random slopes, in float64."""
    log_probs, *rest = given
    leaf = log_probs.to(dtype).detach().requires_grad_()
    losses = f(leaf, *rest, **{"reduction": "none", **options})
    slopes = torch.rand(losses.shape, generator=torch.Generator().manual_seed(1)).to(losses.dtype)
    (grad,) = torch.autograd.grad(losses, leaf, slopes)
    return [losses.detach().double(), grad.double()]


def reference(log_probs: Tensor, *given: Tensor, reduction: str, **options: Any) -> Tensor:
    assert reduction == "none"
    return ops.ctc_loss_reference(log_probs, *given, **options)


def enumerated(probs: Tensor, target: list[int], blank: int = 0) -> float:
    """The probability of a target, from all C^T alignments."""
    total = 0.0
    for path in itertools.product(range(probs.shape[1]), repeat=probs.shape[0]):
        labels = [label for label, _ in itertools.groupby(path) if label != blank]
        if labels == target:
            total += math.prod(float(probs[t, label]) for t, label in enumerate(path))
    return total


def root(x: Tensor) -> float:
    """The root of the mean square; one number's error is a matter of luck."""
    return float(x.square().mean().sqrt()) if x.numel() else 0.0


def check_errors(given: Problem, **options: Any) -> None:
    """Errors against float64 at most twice torch's."""
    ours, peer = trained(ops.ctc_loss, given, **options), trained(F.ctc_loss, given, **options)
    exact = trained(F.ctc_loss, given, torch.float64, **options)
    for part, (mine, theirs, truth) in enumerate(zip(ours, peer, exact, strict=True)):
        assert torch.equal(mine.isinf(), truth.isinf()), part
        assert torch.equal(mine.isnan(), truth.isnan()), part
        counts = truth.isfinite()
        most = 2 * root((theirs - truth)[counts]) + 2e-7 * root(truth[counts])
        assert root((mine - truth)[counts]) <= most, part


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("target", [[], [1], [2, 1], [1, 1], [1, 2, 1], [2, 2, 2]])
@pytest.mark.parametrize("T", [1, 2, 4, 5])
def test_ctc_loss_sums_all_alignments(T: int, target: list[int], backend: str) -> None:
    log_probs = torch.randn(T, 3, generator=torch.Generator().manual_seed(T)).log_softmax(dim=-1)
    wanted = enumerated(log_probs.exp().double(), target)
    labels = torch.tensor(target, dtype=torch.int64)
    with library.use_backend(backend):
        for dtype in (torch.float32, torch.float64):
            loss = ops.ctc_loss(log_probs.to(dtype), labels, (T,), (len(target),), reduction="none")
            assert loss.shape == ()
            assert math.exp(-float(loss)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize(("T", "B", "C", "S"), [(1, 1, 2, 1), (7, 5, 4, 3), (40, 6, 9, 17), (70, 3, 50, 33)])
def test_ctc_loss_equals_torchs_in_float64(
    T: int, B: int, C: int, S: int, zero_infinity: bool, backend: str
) -> None:  # fmt: skip
    given = problem(T, B, C, S, fits=False)
    with library.use_backend(backend):
        got = trained(ops.ctc_loss, given, torch.float64, zero_infinity=zero_infinity)
    wanted = trained(F.ctc_loss, given, torch.float64, zero_infinity=zero_infinity)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_ctc_loss_equals_torchs_on_random_cases_of_every_kind(backend: str) -> None:
    kinds: dict[str, int] = defaultdict(int)
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        log_probs = torch.randn(6, 4, 4, generator=generator).double().log_softmax(dim=-1)
        targets = torch.randint(1, 4, (4, 4), generator=generator)
        given = log_probs, targets, *(torch.randint(0, n, (4,), generator=generator) for n in (7, 5))
        with library.use_backend(backend):
            got = trained(ops.ctc_loss, given, torch.float64, zero_infinity=bool(seed % 2))
        wanted = trained(F.ctc_loss, given, torch.float64, zero_infinity=bool(seed % 2))
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12, equal_nan=True)
        for row, frames, size in zip(targets.tolist(), *(x.tolist() for x in given[2:]), strict=True):
            repeats = sum(a == b for a, b in itertools.pairwise(row[:size]))
            kinds["empty"] += size == 0
            kinds["repeated"] += repeats > 0
            kinds["infeasible"] += size + repeats > frames
            kinds["without frames"] += frames == 0
    assert min(kinds.values()) >= 10, kinds


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("target", [[1, 1], [1, 2], [1, 1, 2], []])
@pytest.mark.parametrize(("frames", "zero_infinity"), [(0, False), (2, False), (2, True), (0, True)])
def test_ctc_loss_of_targets_that_do_not_fit(
    target: list[int], frames: int, zero_infinity: bool, backend: str
) -> None:  # fmt: skip
    log_probs = torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(0)).log_softmax(dim=-1)
    labels = torch.tensor([target + [1] * (3 - len(target))])
    given = log_probs, labels, torch.tensor([frames]), torch.tensor([len(target)])
    with library.use_backend(backend):
        got = trained(ops.ctc_loss, given, zero_infinity=zero_infinity)
    wanted = trained(F.ctc_loss, given, zero_infinity=zero_infinity)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.filterwarnings("ignore:Fail to import hypothesis:ImportWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ctc_loss_takes_torchs_own_samples(dtype: torch.dtype) -> None:
    from torch.testing._internal.common_methods_invocations import op_db

    (info,) = [op for op in op_db if op.name == "nn.functional.ctc_loss"]
    for sample in info.sample_inputs("cpu", dtype, requires_grad=True):
        results = []
        for f in (ops.ctc_loss, F.ctc_loss):
            loss = f(sample.input.log_softmax(-1), *sample.args, **sample.kwargs)
            results.append([loss, *torch.autograd.grad(loss.sum(), sample.input)])
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@needs_native
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 60.0])
@pytest.mark.parametrize(
    ("T", "B", "C", "S"), [(1, 2, 3, 1), (30, 4, 5, 15), (33, 4, 40, 16), (200, 3, 17, 97), (150, 2, 600, 30)]
)
def test_ctc_loss_is_as_exact_as_torchs(T: int, B: int, C: int, S: int, scale: float) -> None:
    check_errors(problem(T, B, C, S, scale=scale))


def check_unlikely() -> None:
    """Frames sure of other labels, and targets that leave a path no choice: probabilities far below any float."""
    T, C, S = 64, 12, 40
    log_probs, targets, input_lengths, target_lengths = problem(T, 3, C, S)
    sure = torch.full((T, 3, C), -100.0)
    sure[:, :, C - 1] = 0.0
    check_errors((sure + log_probs, targets.clamp(max=C - 2), input_lengths, target_lengths))
    targets = torch.arange(S).expand(3, S) % (C - 2) + 1  # no repeats: S frames are enough
    tight = torch.tensor([S, S + 1, S + 2]), torch.full((3,), S)
    check_errors((log_probs * 40, targets, *tight))
    drifting = log_probs - torch.linspace(0, 90, T)[:, None, None] * (targets[0, :T, None] % 2 == 0).any()
    check_errors((drifting, targets, *tight))


@needs_native
def test_ctc_loss_of_unlikely_targets_is_as_exact_as_torchs() -> None:
    check_unlikely()


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [-math.inf, -3e38, -1e30, -1e5])
def test_ctc_loss_with_a_masked_class(masked: float, dtype: torch.dtype) -> None:
    log_probs, targets, input_lengths, target_lengths = problem(12, 3, 6, 4)
    log_probs[:, :, 5] = masked
    targets = targets.clamp(max=4)
    losses, grad = trained(ops.ctc_loss, (log_probs, targets, input_lengths, target_lengths), dtype)
    wanted = trained(F.ctc_loss, (log_probs, targets, input_lengths, target_lengths), torch.float64)
    torch.testing.assert_close(losses, wanted[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grad[..., :5], wanted[1][..., :5], rtol=1e-5, atol=1e-6)
    assert not grad[..., 5].any()  # torch's is NaN for -infinity

    targets[0, 1] = 5  # one sentence needs it
    given = log_probs, targets, input_lengths, target_lengths
    losses, wanted = (trained(f, given, dtype)[0] for f in (ops.ctc_loss, F.ctc_loss))
    torch.testing.assert_close(losses[1:], wanted[1:])
    if masked == -3e38 and dtype == torch.float32:  # below what an exponent holds, yet not 0
        assert 9e36 < losses[0] < math.inf
    else:
        torch.testing.assert_close(losses[0], wanted[0])


@pytest.mark.parametrize("f", [ops.ctc_loss, ops.ctc_loss_from_logits])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_ctc_loss_gradcheck(f: Any, backend: str) -> None:
    x, targets, input_lengths, target_lengths = problem(6, 3, 4, 2)
    leaf = x.double().requires_grad_()

    def loss(x: Tensor) -> Tensor:
        frames = x.log_softmax(-1) if f is ops.ctc_loss else x
        return f(frames, targets, input_lengths, target_lengths, reduction="none")

    with library.use_backend(backend):
        assert torch.autograd.gradcheck(loss, leaf)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("target", [[], [1, 1], [2, 2, 2], [1, 2, 1]])
def test_ctc_loss_gradcheck_of_empty_repeated_and_infeasible_targets(target: list[int], backend: str) -> None:
    leaf = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    labels = torch.tensor([target, target], dtype=torch.int64)
    frames = torch.tensor([5, max(len(target) - 1, 0)])  # the second does not fit, unless it is empty

    def loss(x: Tensor) -> Tensor:
        lengths = frames, torch.tensor([len(target)] * 2)
        return ops.ctc_loss(x.log_softmax(-1), labels, *lengths, reduction="none", zero_infinity=True)

    with library.use_backend(backend):
        assert torch.autograd.gradcheck(loss, leaf)
        losses = loss(leaf)
        (grad,) = torch.autograd.grad(losses.sum(), leaf)
    assert losses[1] == 0.0
    assert not grad[:, 1].any()


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("C", [1, 2, 16, 37, 130])
def test_ctc_loss_from_logits_is_that_of_their_log_softmax(C: int, scale: float, dtype: torch.dtype) -> None:
    logits, targets, input_lengths, target_lengths = problem(9, 4, max(C, 2), 3)
    logits = logits[:, :, :C] * scale + 5.0
    if C == 1:
        target_lengths = target_lengths * 0
    given = logits, targets, input_lengths, target_lengths

    def apart(x: Tensor, *rest: Tensor, **options: Any) -> Tensor:
        return F.ctc_loss(x.log_softmax(dim=-1), *rest, **options)

    exact = trained(apart, given, torch.float64)
    got, peer = trained(ops.ctc_loss_from_logits, given, dtype), trained(apart, given, dtype)
    for mine, theirs, truth in zip(got, peer, exact, strict=True):
        room = {torch.float32: 3e-7, torch.float64: 1e-12}[dtype]  # torch's own results are the truth in float64
        assert root(mine - truth) <= 2 * root(theirs - truth) + room * root(truth)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("f", [ops.ctc_loss, ops.ctc_loss_from_logits])
def test_ctc_loss_does_not_see_padding(f: Any, backend: str) -> None:
    log_probs, targets, input_lengths, target_lengths = problem(20, 4, 30, 5)
    with library.use_backend(backend):
        wanted = trained(f, (log_probs, targets, input_lengths, target_lengths))
        for b, (frames, labels) in enumerate(zip(input_lengths.tolist(), target_lengths.tolist(), strict=True)):
            log_probs[frames:, b] = math.nan
            targets[b, labels:] = -1
        got = trained(f, (log_probs, targets, input_lengths, target_lengths))
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert not any(got[1][frames:, b].any() for b, frames in enumerate(input_lengths.tolist()))


@needs_native
@pytest.mark.parametrize("f", [ops.ctc_loss, ops.ctc_loss_from_logits])
def test_ctc_loss_of_a_sentence_does_not_see_the_batch(f: Any) -> None:
    given = problem(40, 5, 70, 19)
    losses, grad = trained(f, given)
    slopes = torch.rand(5, generator=torch.Generator().manual_seed(1))
    log_probs, targets, input_lengths, target_lengths = given
    for b, (frames, labels) in enumerate(zip(input_lengths.tolist(), target_lengths.tolist(), strict=True)):
        leaf = log_probs[:frames, b].clone().requires_grad_()
        loss = f(leaf, targets[b, :labels], (frames,), (labels,), reduction="none")
        assert loss.detach().double() == losses[b]
        assert torch.equal(torch.autograd.grad(loss, leaf, slopes[b])[0].double(), grad[:frames, b])


@needs_native
@pytest.mark.parametrize("f", [ops.ctc_loss, ops.ctc_loss_from_logits])
def test_ctc_loss_of_batch_first_memory_and_concatenated_targets(f: Any) -> None:
    log_probs, targets, input_lengths, target_lengths = problem(20, 4, 70, 9)
    wanted = trained(f, (log_probs, targets, input_lengths, target_lengths))
    flat = torch.cat([row[:n] for row, n in zip(targets, target_lengths.tolist(), strict=True)])
    turned = log_probs.transpose(0, 1).contiguous().transpose(0, 1)
    apart = log_probs[..., None].expand(-1, -1, -1, 2)[..., 0]  # no order of the axes is contiguous
    for frames in (turned, apart):
        for lengths in ((input_lengths, target_lengths), (input_lengths.tolist(), target_lengths.int())):
            got = trained(f, (frames, flat, *lengths))
            assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    leaf = turned.detach().requires_grad_()
    f(leaf, targets, input_lengths, target_lengths).backward()
    assert leaf.grad is not None
    assert leaf.grad.transpose(0, 1).is_contiguous()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ctc_loss_reductions_are_torchs(reduction: str) -> None:
    given = problem(12, 5, 6, 4)
    torch.testing.assert_close(ops.ctc_loss(*given, reduction=reduction), F.ctc_loss(*given, reduction=reduction))


def test_ctc_loss_of_nothing() -> None:
    none = torch.zeros(0, 2, 3), torch.ones(2, 1, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    losses = ops.ctc_loss(*none, torch.tensor([0, 1]), reduction="none")
    assert losses.tolist() == [0.0, math.inf]
    assert ops.ctc_loss(torch.zeros(3, 0, 2), torch.zeros(0, 1).long(), (), (), reduction="none").shape == (0,)
    wide = torch.zeros(4, 1, 1, requires_grad=True)
    loss = ops.ctc_loss(wide, torch.zeros(1, 0, dtype=torch.int64), (4,), (0,))
    loss.backward()
    assert loss == 0.0
    assert wide.grad is not None
    assert not wide.grad.any()


@needs_native
def test_ctc_loss_passes_nan_on() -> None:
    log_probs, targets, input_lengths, target_lengths = problem(12, 3, 6, 4)
    log_probs[1, 0, int(targets[0, 1])] = math.nan
    losses, grad = trained(ops.ctc_loss, (log_probs, targets, input_lengths, target_lengths))
    assert losses.isnan().tolist() == [True, False, False]
    assert grad[:, 0].isnan().any()
    assert not grad[:, 1:].isnan().any()


@needs_native
@pytest.mark.parametrize("f", [ops.ctc_loss, ops.ctc_loss_from_logits])
def test_ctc_loss_leaves_no_output_unwritten(f: Any) -> None:
    torch.use_deterministic_algorithms(True)  # torch then fills new tensors with NaN
    try:
        for dtype in (torch.float32, torch.float64):
            results = trained(f, problem(30, 4, 37, 9), dtype)
            assert all(tensor.isfinite().all() for tensor in results)
    finally:
        torch.use_deterministic_algorithms(False)


@needs_native
@pytest.mark.parametrize("f", [ops.ctc_loss, ops.ctc_loss_from_logits])
def test_ctc_loss_repeats_to_the_last_bit_whatever_the_threads(f: Any) -> None:
    given = problem(90, 5, 500, 30)
    first, threads = trained(f, given), torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert all(torch.equal(a, b) for a, b in zip(trained(f, given), first, strict=True))
    finally:
        torch.set_num_threads(threads)


@needs_native
def test_ctc_loss_can_be_differentiated_twice_over_a_kept_graph() -> None:
    log_probs, *rest = problem(12, 3, 6, 4)
    leaf = log_probs.requires_grad_()
    losses = ops.ctc_loss(leaf, *rest, reduction="none")
    one, two = (torch.autograd.grad(losses.sum() * n, leaf, retain_graph=True)[0] for n in (1, 2))
    torch.testing.assert_close(two, 2 * one)


@needs_native
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ctc_loss_of_halves_is_in_floats(dtype: torch.dtype) -> None:
    log_probs, *rest = problem(12, 3, 6, 4)
    leaf = log_probs.to(dtype).requires_grad_()
    losses = ops.ctc_loss(leaf, *rest, reduction="none")
    assert losses.dtype == torch.float32
    assert torch.equal(losses, ops.ctc_loss(leaf.detach().float(), *rest, reduction="none"))
    losses.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == dtype


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_ctc_loss_is_in_floats_under_autocast(backend: str) -> None:
    given = problem(12, 3, 6, 4)
    with library.use_backend(backend), torch.autocast("cpu", torch.bfloat16):
        loss = ops.ctc_loss(*given)
        torch.testing.assert_close(ops.ctc_loss_from_logits(*given), loss)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.ctc_loss(*given))


def test_ctc_loss_refuses_what_does_not_fit() -> None:
    loss = getattr(ops.ctc_loss, "__wrapped__", ops.ctc_loss)  # past the shape types
    log_probs, targets, input_lengths, target_lengths = problem(12, 3, 6, 4)
    with pytest.raises(InputError, match="reduction must be one of none, mean, sum, got 'max'"):
        loss(log_probs, targets, input_lengths, target_lengths, reduction="max")
    with pytest.raises(InputError, match="blank must be an integer from 0 to 5, got 6"):
        loss(log_probs, targets, input_lengths, target_lengths, 6)
    with pytest.raises(InputError, match="log_probs must have two or three axes, got 1"):
        loss(log_probs[0, 0], targets, input_lengths, target_lengths)
    with pytest.raises(InputError, match=r"input_lengths must have the shape \[3\], got \[2\]"):
        loss(log_probs, targets, input_lengths[:2], target_lengths)
    with pytest.raises(InputError, match=r"targets must have the shape \[3, S\] or one axis, got \[2, 4\]"):
        loss(log_probs, targets[:2], input_lengths, target_lengths)
    with pytest.raises(InputError, match="as many labels as target_lengths add up to, 6, got 12"):
        loss(log_probs, targets.flatten(), input_lengths, (1, 2, 3))


@needs_native
def test_ctc_loss_kernels_refuse_values_out_of_range() -> None:
    log_probs, targets, input_lengths, target_lengths = problem(12, 3, 6, 4)
    for wrong, rule in ((13, "input_lengths must be from 0 to 12, got 13"), (-1, "from 0 to 12, got -1")):
        with pytest.raises(RuntimeError, match=rule):
            ops.ctc_loss(log_probs, targets, torch.tensor([1, wrong, 3]), target_lengths)
    with pytest.raises(RuntimeError, match="target_lengths must be from 0 to 4, got 5"):
        ops.ctc_loss(log_probs, targets, input_lengths, torch.tensor([5, 1, 1]))
    for label in (-1, 6, 0):
        with pytest.raises(RuntimeError, match=f"targets must be from 0 to 5 and not the blank 0, got {label}"):
            ops.ctc_loss(log_probs, targets.index_fill(1, torch.tensor([0]), label), input_lengths, target_lengths)
    forward = torch.ops.seqkit.ctc_loss
    with pytest.raises(RuntimeError, match="frames must have the dtype Float or Double, got Half"):
        forward(log_probs.half(), targets, input_lengths, target_lengths, 0, False, False, True)
    with pytest.raises(RuntimeError, match="targets must have the dtype Long"):
        forward(log_probs, targets.int(), input_lengths, target_lengths, 0, False, False, True)
    losses, _, occupancy = forward(log_probs, targets, input_lengths, target_lengths, 0, False, False, True)
    with pytest.raises(RuntimeError, match=r"occupancy must have the shape \[3, 12, 5\], got \[3, 12, 4\]"):
        torch.ops.seqkit.ctc_loss_backward(
            losses, log_probs, targets, input_lengths, target_lengths, 0, False, False, losses, None,
            occupancy[..., 1:].contiguous(),
        )  # fmt: skip


@needs_native
@pytest.mark.parametrize("logits", [False, True])
def test_ctc_loss_opcheck(logits: bool) -> None:
    given = problem(5, 2, 4, 2)
    torch.library.opcheck(torch.ops.seqkit.ctc_loss.default, (*given, 0, False, logits, True))
    losses, normalizers, occupancy = torch.ops.seqkit.ctc_loss(*given, 0, False, logits, True)
    assert bool(normalizers.numel()) == logits
    torch.library.opcheck(
        torch.ops.seqkit.ctc_loss_backward.default,
        (losses, *given, 0, False, True, losses, normalizers if logits else None, occupancy),
    )


@needs_native
@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracer does it
@pytest.mark.parametrize("f", [ops.ctc_loss, ops.ctc_loss_from_logits])
def test_ctc_loss_compiles_forward_and_backward(f: Any) -> None:
    given = problem(12, 3, 6, 4)
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*given), f(*given))
    torch.testing.assert_close(trained(compiled, given), trained(f, given))
    log_probs, targets, *_ = given
    torch.testing.assert_close(
        compiled(log_probs, targets.flatten(), (12, 12, 9), (4, 4, 4)),
        f(log_probs, targets, (12, 12, 9), (4, 4, 4)),
    )


@needs_native
@pytest.mark.parametrize("level", ["0", "1"])
def test_ctc_loss_at_lower_machine_levels(level: str) -> None:
    code = """
import sys
import torch
from seqkit import ops
sys.path.insert(0, "tests/ops")
import test_ctc_loss as tests
tests.check_unlikely()
for shape in ((1, 2, 3, 1), (33, 4, 40, 16), (90, 3, 17, 31)):
    for scale in (1.0, 60.0):
        tests.check_errors(tests.problem(*shape, scale=scale))
tests.test_ctc_loss_passes_nan_on()
for f in (ops.ctc_loss, ops.ctc_loss_from_logits):
    tests.test_ctc_loss_does_not_see_padding(f, "auto")
    tests.test_ctc_loss_of_a_sentence_does_not_see_the_batch(f)
print("same")
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env={**os.environ, "SEQKIT_ISA": level}
    )
    assert done.stdout.strip() == "same", done.stderr
