"""The CUDA kernels of the conditional random field on the host: they equal float64, whatever the schedule."""

import math

import pytest
import torch
from torch import Tensor

from seqkit import ops
from seqkit.ops import library

OPS = torch.ops.seqkit_emulated


def draw(B: int, T: int, C: int) -> tuple[Tensor, ...]:
    """Emissions, tags, transitions, start, end, lengths."""
    generator = torch.Generator().manual_seed(B + T + C)
    numbers = [2.0 * torch.randn(*shape, generator=generator) for shape in ((B, T, C), (C, C), (C,), (C,))]
    tags = torch.randint(C, (B, T), generator=generator)
    lengths = torch.randint(1, T + 1, (B,), generator=generator)
    lengths[0] = T
    return numbers[0], tags, *numbers[1:], lengths


def exact(given: tuple[Tensor, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """The likelihoods and their gradients by the reference."""
    emissions, tags, transitions, start, end, lengths = given
    leaves = [x.to(dtype).requires_grad_() for x in (emissions, transitions, start, end)]
    with library.use_backend("reference"):
        out = ops.crf_log_likelihood(leaves[0], tags, leaves[1], start=leaves[2], end=leaves[3], lengths=lengths)
    return [out.detach(), *torch.autograd.grad(out.sum(), leaves)]


@pytest.fixture
def poisoned() -> object:
    torch.use_deterministic_algorithms(True)  # fills what is allocated with NaN
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("B", "T", "C"), [(1, 1, 1), (3, 7, 5), (2, 20, 33), (2, 9, 70)])
def test_crf_equals_float64(B: int, T: int, C: int, schedule: str, poisoned: None) -> None:
    given = draw(B, T, C)
    out, *grads = OPS.crf_log_likelihood(*given, True)
    got = [out, grads[0], *(grad.sum(0) for grad in grads[1:])]
    for mine, truth, theirs in zip(got, exact(given), exact(given, torch.float32), strict=True):
        error, peer = ((x.double() - truth).abs().max().item() for x in (mine, theirs))
        assert error <= 3 * peer + 2e-6 * max(truth.abs().max().item(), 1.0)
    assert torch.equal(OPS.crf_log_likelihood(*given, False)[0], out)


@pytest.mark.parametrize(("B", "T", "C", "n_best"), [(1, 1, 1, 3), (3, 7, 5, 1), (2, 6, 4, 9), (1, 5, 300, 2)])
def test_crf_decode_equals_the_reference(B: int, T: int, C: int, n_best: int, schedule: str, poisoned: None) -> None:
    emissions, _, transitions, start, end, lengths = (
        x.round() if x.is_floating_point() else x  # sums of integers are exact, and many are equal
        for x in draw(B, T, C)
    )
    tags, scores = OPS.crf_decode(emissions, transitions, start, end, lengths, n_best)
    wanted = ops.crf_decode_reference(emissions, transitions, start=start, end=end, lengths=lengths, n_best=n_best)
    assert torch.equal(scores, wanted[1])
    assert torch.equal(tags, wanted[0])


def test_crf_forbidden_transitions(schedule: str) -> None:
    emissions, tags, transitions, start, end, lengths = draw(2, 6, 4)
    transitions[1, 2] = start[3] = -math.inf
    tags = torch.tensor([[0, 1, 1, 3, 2, 2], [1, 2, 0, 0, 0, 0]])
    lengths = torch.tensor([6, 6])
    given = (emissions, tags, transitions, start, end, lengths)
    out, grads, *_ = OPS.crf_log_likelihood(*given, True)
    truth = exact(given)
    assert out[1] == -math.inf
    torch.testing.assert_close(out[0].double(), truth[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grads[0].double(), truth[1][0], rtol=1e-5, atol=1e-5)


def test_crf_cuts_what_is_out_of_range_and_reads_no_padding(schedule: str) -> None:
    emissions, tags, *numbers, _ = draw(2, 6, 4)
    given = (emissions, tags, *numbers, torch.tensor([6, 3]))
    wanted = OPS.crf_log_likelihood(*given, True)
    emissions[1, 3:], tags[1, 3:] = math.nan, 2**40
    for mine, before in zip(OPS.crf_log_likelihood(*given, True), wanted, strict=True):
        assert torch.equal(mine, before)
    for bad in (torch.tensor([2**40, 0]), torch.tensor([-5, 7])):
        OPS.crf_decode(emissions.nan_to_num(), *numbers, bad, 2)
        results = OPS.crf_log_likelihood(emissions.nan_to_num(), tags - 2**41, *numbers, bad, True)
        assert all(x.isfinite().all() for x in results)


def test_crf_of_no_sentences_and_what_it_does_not_cover() -> None:
    emissions, tags, *numbers, lengths = draw(2, 3, 4)
    out, *_ = OPS.crf_log_likelihood(emissions[:0], tags[:0], *numbers, lengths[:0], True)
    assert out.shape == (0,)
    with pytest.raises(RuntimeError, match="emissions must have the dtype Float"):
        OPS.crf_decode(emissions.double(), *(x.double() for x in numbers), lengths, 1)
    with pytest.raises(RuntimeError, match="at most 50000 positions and tags on CUDA"):
        OPS.crf_decode(torch.zeros(1, 50_000, 1), *(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1)), lengths[:1], 1)


def test_crf_repeats_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    given = draw(2, 20, 33)
    runs = []
    for schedule in ("forward", "reverse", "random:1", "random:2"):
        monkeypatch.setenv("SEQKIT_SCHEDULE", schedule)
        runs.append(OPS.crf_log_likelihood(*given, True))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))
