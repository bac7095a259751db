"""The CUDA kernels of `ops.ctc_loss` and `ops.viterbi_align` on the host executor, against their references."""

import math

import pytest
import torch
from torch import Tensor

from seqkit import ops

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# T, B, C, S: one of each; vectors of the frames; odd sizes; several chunks of frames and warps of slots.
SHAPES = [(1, 1, 2, 1), (9, 2, 16, 3), (13, 3, 7, 6), (70, 2, 40, 33), (6, 2, 300, 2)]

Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def problem(T: int, B: int, C: int, S: int, dtype: torch.dtype, *, scale: float = 2.0) -> Problem:
    """Logits; lengths of all kinds, the first sentence whole."""
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(T, B, C, generator=generator) * scale).to(dtype)
    targets = torch.randint(1, C, (B, S), generator=generator)
    input_lengths = torch.tensor([T, T - T // 4, T // 2][:B])
    target_lengths = torch.tensor([S, S // 2, 0][:B]).minimum(input_lengths // 2)
    return logits, targets, input_lengths, target_lengths


def emulated(
    given: Problem, *, logits: bool, batch_first: bool = False, zero_infinity: bool = False
) -> tuple[Tensor, Tensor]:
    """The losses and the gradient under slopes of 1, 2, 3 .., from tensors that torch has filled with NaN."""
    frames, *rest = given
    frames = frames.transpose(0, 1).contiguous() if batch_first else frames
    torch.use_deterministic_algorithms(True)
    try:
        operators = torch.ops.seqkit_emulated
        losses, normalizers, occupancy = operators.ctc_loss(frames, *rest, 0, batch_first, logits, True)
        slopes = torch.arange(1.0, losses.shape[0] + 1)
        grad = operators.ctc_loss_backward(
            slopes, frames, *rest, 0, batch_first, zero_infinity, losses, normalizers if logits else None, occupancy
        )
        alone, _, _ = operators.ctc_loss(frames, *rest, 0, batch_first, logits, False)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(alone.nan_to_num(), losses.nan_to_num())
    assert losses.dtype == torch.float32
    assert grad.dtype == frames.dtype
    return losses.double(), (grad.transpose(0, 1) if batch_first else grad).double()


def reference(
    given: Problem, dtype: torch.dtype, *, logits: bool, zero_infinity: bool = False
) -> tuple[Tensor, Tensor]:
    frames, *rest = given
    leaf = frames.detach().to(dtype).requires_grad_()
    logp = leaf.log_softmax(dim=-1) if logits else leaf
    losses = ops.ctc_loss_reference(logp, *rest, zero_infinity=zero_infinity)
    (grad,) = torch.autograd.grad(losses, leaf, torch.arange(1.0, losses.shape[0] + 1).to(dtype))
    return losses.detach().double(), grad.double()


def root(x: Tensor) -> float:
    """The root of the mean square; one number's error is a matter of luck."""
    return float(x.square().mean().sqrt()) if x.numel() else 0.0


def check(given: Problem, **options: bool) -> None:
    """As exact as the reference in float32, and a rounding of the gradient to the dtype of the frames.

    A normalizer is a float: a loss near 0 and its gradient have the rounding of what they are the difference of.
    """
    logits, batch_first = options["logits"], options.pop("batch_first", False)
    got = emulated(given, **options, batch_first=batch_first)
    exact = reference(given, torch.float64, **options)
    peer = reference(given, torch.float32, **options)
    rounding = (0.0, torch.finfo(given[0].dtype).eps)
    for part, (mine, theirs, truth) in enumerate(zip(got, peer, exact, strict=True)):
        most = 2 * root(theirs - truth) + (3e-7 + rounding[part]) * root(truth) + 3e-7
        assert root(mine - truth) <= most, (part, logits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_ctc_loss_is_as_exact_as_its_reference(shape: tuple[int, ...], dtype: torch.dtype, schedule: str) -> None:
    given = problem(*shape, dtype)
    check(given, logits=True)
    check(given, logits=True, batch_first=True)
    log_probs = given[0].float().log_softmax(dim=-1).to(dtype)
    check((log_probs, *given[1:]), logits=False)


def test_ctc_loss_of_unlikely_targets(schedule: str) -> None:
    logits, targets, *_ = problem(40, 2, 9, 30, torch.float32, scale=60.0)
    targets = torch.arange(30).repeat(2, 1) % 7 + 1
    given = logits, targets, torch.tensor([40, 31]), torch.tensor([30, 30])
    check(given, logits=True)
    losses, grad = emulated(given, logits=True)
    exact = reference(given, torch.float64, logits=True)
    torch.testing.assert_close((losses, grad), exact, rtol=1e-6, atol=1e-5)


def test_ctc_loss_of_repeated_labels(schedule: str) -> None:
    logits, *_ = problem(90, 2, 3, 1, torch.float32)
    targets = torch.tensor([1, 1, 2] * 13).repeat(2, 1)
    check((logits, targets, torch.tensor([90, 60]), torch.tensor([39, 20])), logits=True)


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_ctc_loss_of_targets_that_do_not_fit(zero_infinity: bool, schedule: str) -> None:
    logits, *_ = problem(4, 5, 3, 3, torch.float32)
    targets = torch.tensor([[1, 1, 2], [1, 2, 1], [1, 1, 1], [1, 2, 1], [1, 2, 1]])
    given = logits, targets, torch.tensor([3, 2, 4, 0, 0]), torch.tensor([3, 3, 3, 1, 0])
    losses, grad = emulated(given, logits=True, zero_infinity=zero_infinity)
    assert losses.tolist() == [math.inf, math.inf, math.inf, math.inf, 0.0]
    wanted = reference(given, torch.float64, logits=True, zero_infinity=zero_infinity)[1]
    torch.testing.assert_close(grad, wanted, equal_nan=True)


def test_ctc_loss_does_not_see_padding_or_the_batch(schedule: str) -> None:
    given = logits, targets, input_lengths, target_lengths = problem(37, 3, 12, 8, torch.float32)
    for from_logits in (True, False):
        losses, grad = emulated(given, logits=from_logits)
        poisoned, labels = logits.clone(), targets.clone()
        for b, (frames, n) in enumerate(zip(input_lengths.tolist(), target_lengths.tolist(), strict=True)):
            poisoned[frames:, b] = math.nan
            labels[b, n:] = 1 << 40
            one = slice(b, b + 1)
            alone = emulated(
                (logits[:frames, one].contiguous(), targets[one, :n], input_lengths[one], target_lengths[one]),
                logits=from_logits,
            )
            assert torch.equal(alone[0][0], losses[b])
            torch.testing.assert_close((b + 1) * alone[1][:, 0], grad[:frames, b], rtol=1e-6, atol=1e-7)
            assert not grad[frames:, b].any()
        again = emulated((poisoned, labels, input_lengths, target_lengths), logits=from_logits)
        assert torch.equal(again[0], losses)
        assert torch.equal(again[1], grad)


def test_ctc_loss_passes_nan_on(schedule: str) -> None:
    logits, targets, input_lengths, target_lengths = problem(9, 2, 16, 3, torch.float32)
    logits[2, 1, 4] = math.nan
    losses, grad = emulated((logits, targets, input_lengths, target_lengths), logits=True)
    assert losses.isnan().tolist() == [False, True]
    assert not grad[:, 0].isnan().any()
    assert grad[2, 1].isnan().all()


def test_ctc_loss_of_more_labels_than_threads(schedule: str) -> None:
    T, S = 1100, 1060
    logits = torch.randn(T, 1, 5, generator=torch.Generator().manual_seed(0))
    targets = (torch.arange(S) % 4 + 1)[None]
    given = logits, targets, torch.tensor([T]), torch.tensor([S])
    wanted = ops.ctc_loss_from_logits(logits, targets, (T,), (S,), reduction="sum")
    losses, _, occupancy = torch.ops.seqkit_emulated.ctc_loss(*given, 0, False, True, True)
    torch.testing.assert_close(losses[0], wanted)
    exact = torch.ops.seqkit.ctc_loss(*given, 0, False, True, True)[2]
    torch.testing.assert_close(occupancy, exact, rtol=1e-4, atol=1e-5)
    best = torch.ops.seqkit_emulated.viterbi_align(*given, 0, False)
    wanted = ops.viterbi_align(logits.transpose(0, 1), *given[1:])
    assert all(torch.equal(a, b) for a, b in zip(best, wanted, strict=True))


def test_ctc_refuses_more_labels_than_it_holds() -> None:
    given = torch.zeros(5000, 1, 2), torch.ones(1, 5000, dtype=torch.int64), torch.tensor([1]), torch.tensor([1])
    with pytest.raises(RuntimeError, match="more than 4095 labels"):
        torch.ops.seqkit_emulated.ctc_loss(*given, 0, False, True, False)


def test_ctc_cuts_what_it_cannot_refuse(schedule: str) -> None:
    logits, targets, *_ = problem(6, 2, 5, 3, torch.float32)
    targets = torch.tensor([[1, 4, 2], [3, 1, 2]])
    wild, tame = targets.clone(), targets.clone()
    wild[0, 1], tame[0, 1] = 99, 4
    cut = logits, tame, torch.tensor([6, 0]), torch.tensor([3, 0])
    outside = logits, wild, torch.tensor([77, -5]), torch.tensor([99, -1])
    results = [emulated(x, logits=True) for x in (cut, outside)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    paths = [torch.ops.seqkit_emulated.viterbi_align(*x, 0, False) for x in (cut, outside)]
    assert all(torch.equal(a, b) for a, b in zip(*paths, strict=True))


@pytest.mark.parametrize("shape", [(0, 2, 3, 2), (3, 0, 3, 2), (3, 2, 3, 0), (3, 2, 1, 0)])
def test_ctc_of_nothing(shape: tuple[int, ...], schedule: str) -> None:
    T, B, C, S = shape
    zeros = torch.zeros(B, dtype=torch.int64)
    given = torch.zeros(T, B, C), torch.ones(B, S, dtype=torch.int64), zeros + T, zeros
    losses, grad = emulated(given, logits=True)
    torch.testing.assert_close(losses, torch.full((B,), T * math.log(C), dtype=torch.float64))
    assert grad.isfinite().all()
    labels, scores = torch.ops.seqkit_emulated.viterbi_align(*given, 0, False)
    assert labels.shape == (B, T)
    assert not labels.any()
    assert not scores.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_viterbi_align_equals_its_reference(
    shape: tuple[int, ...], levels: int, dtype: torch.dtype, schedule: str
) -> None:  # fmt: skip
    frames, targets, input_lengths, target_lengths = problem(*shape, dtype)
    if levels:
        frames = frames.float().clamp(-1, 0).round().to(dtype)  # ties
    for counts in (target_lengths, torch.full_like(target_lengths, shape[3])):  # the second does not always fit
        torch.use_deterministic_algorithms(True)
        try:
            got = torch.ops.seqkit_emulated.viterbi_align(frames, targets, input_lengths, counts, 0, False)
        finally:
            torch.use_deterministic_algorithms(False)
        wanted = ops.viterbi_align_reference(frames.transpose(0, 1).float(), targets, input_lengths, counts)
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
