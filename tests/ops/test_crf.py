"""`ops.crf_log_likelihood` and `ops.crf_decode`: enumeration of all tag sequences, gradients, forbidden transitions."""

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seqkit import ops
from seqkit.errors import InputError
from seqkit.ops import library

needs_native = pytest.mark.skipif(not library.is_built("crf_log_likelihood"), reason="the native library is not built")
BACKENDS = ["reference", pytest.param("native", marks=needs_native)]


def draw(B: int, T: int, C: int, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, ...]:
    """Emissions, tags, transitions, start, end."""
    generator = torch.Generator().manual_seed(seed)
    numbers = [
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((B, T, C), (C, C), (C,), (C,))
    ]
    tags = torch.randint(C, (B, T), generator=generator)
    return numbers[0], tags, *numbers[1:]


def all_sequences(given: tuple[Tensor, ...], b: int, n: int) -> list[tuple[float, tuple[int, ...]]]:
    """Every tag sequence of one sentence and its score, best first, equal ones by the last tags."""
    emissions, _, transitions, start, end = given
    found = []
    for tags in itertools.product(range(emissions.shape[2]), repeat=n):
        score = start[tags[0]] + end[tags[-1]] + sum(emissions[b, t, tag] for t, tag in enumerate(tags))
        score = score + sum(transitions[i, j] for i, j in itertools.pairwise(tags))
        found.append((float(score), tags))
    return sorted(found, key=lambda pair: (-pair[0], pair[1][::-1]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_crf_equals_the_sum_over_all_sequences(dtype: torch.dtype, backend: str) -> None:
    given, lengths = draw(3, 4, 3), torch.tensor([4, 2, 1])
    emissions, tags, transitions, start, end = (x.to(dtype) if x.is_floating_point() else x for x in given)
    with library.use_backend(backend):
        got = ops.crf_log_likelihood(emissions, tags, transitions, start=start, end=end, lengths=lengths)
    for b, n in enumerate(lengths.tolist()):
        scores = {sequence: score for score, sequence in all_sequences(given, b, n)}
        wanted = scores[tuple(tags[b, :n].tolist())] - math.log(sum(math.exp(score) for score in scores.values()))
        assert float(got[b]) == pytest.approx(wanted, rel=1e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_crf_decode_gives_the_best_of_all_sequences(backend: str) -> None:
    given, lengths = draw(3, 4, 3), torch.tensor([4, 2, 1])
    emissions, _, transitions, start, end = given
    with library.use_backend(backend):
        tags, scores = ops.crf_decode(emissions, transitions, start=start, end=end, lengths=lengths, n_best=7)
    assert tags.shape == (3, 7, 4)
    for b, n in enumerate(lengths.tolist()):
        wanted = all_sequences(given, b, n)[:7]
        for rank in range(7):
            if rank < len(wanted):
                assert tuple(tags[b, rank, :n].tolist()) == wanted[rank][1]
                assert float(scores[b, rank]) == pytest.approx(wanted[rank][0])
            else:
                assert float(scores[b, rank]) == -math.inf
                assert (tags[b, rank] == -1).all()
        assert (tags[b, :, n:] == -1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_crf_decode_of_equal_scores_takes_the_lower_tags_from_the_end(backend: str) -> None:
    with library.use_backend(backend):
        tags, scores = ops.crf_decode(torch.zeros(1, 3, 2), torch.zeros(2, 2), n_best=9)
    assert tags[0, :8].tolist() == [list(t)[::-1] for t in itertools.product(range(2), repeat=3)]
    assert scores[0].tolist() == [0.0] * 8 + [-math.inf]


@needs_native
def test_crf_gradcheck() -> None:
    emissions, tags, *others = draw(3, 4, 3)
    lengths = torch.tensor([4, 1, 3])
    leaves = [x.requires_grad_() for x in (emissions, *others)]

    def log_likelihood(emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor) -> Tensor:
        return ops.crf_log_likelihood(emissions, tags, transitions, start=start, end=end, lengths=lengths)

    assert torch.autograd.gradcheck(log_likelihood, leaves)


@needs_native
@pytest.mark.parametrize("spread", [1.0, 30.0, 3000.0])  # the last leaves the range of scaled probabilities
@pytest.mark.parametrize(("T", "C"), [(1, 1), (7, 17), (60, 20), (33, 64)])
def test_crf_float32_equals_float64(T: int, C: int, spread: float) -> None:
    emissions, tags, *others = draw(4, T, C, dtype=torch.float32)
    leaves = [(spread * x).requires_grad_() for x in (emissions, *others)]
    lengths = torch.tensor([T, 1, (T + 1) // 2, T])

    def run(numbers: list[Tensor]) -> tuple[Tensor, ...]:
        emissions, transitions, start, end = numbers
        out = ops.crf_log_likelihood(emissions, tags, transitions, start=start, end=end, lengths=lengths)
        return out, *torch.autograd.grad((out * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum(), numbers)

    got, wanted = run(leaves), run([x.detach().double().requires_grad_() for x in leaves])
    with library.use_backend("reference"):
        plain = run(leaves)
    for mine, exact, theirs in zip(got, wanted, plain, strict=True):
        assert torch.isfinite(exact).all()
        error, peer = ((x.double() - exact).abs().max().item() for x in (mine, theirs))
        assert error <= 2 * peer + 1e-6 * max(exact.abs().max().item(), 1.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_crf_forbidden_transitions(dtype: torch.dtype, backend: str) -> None:
    """B I O tags: I comes after B or I only. The one sequence that is allowed has the probability one."""
    transitions = torch.zeros(3, 3, dtype=dtype)
    transitions[2, 1] = -math.inf
    start = torch.tensor([0.0, -math.inf, 0.0], dtype=dtype)
    emissions = torch.tensor([[[0.0, 9.0, 1.0], [0.0, 2.0, 0.0]]], dtype=dtype, requires_grad=True)
    with library.use_backend(backend):
        tags, scores = ops.crf_decode(emissions.detach(), transitions, start=start, n_best=9)
        log_likelihood = ops.crf_log_likelihood(emissions, torch.tensor([[0, 1]]), transitions, start=start)
        (gradient,) = torch.autograd.grad(log_likelihood.sum(), emissions)
        impossible = ops.crf_log_likelihood(emissions, torch.tensor([[2, 1]]), transitions, start=start)
    assert tags[0, 0].tolist() == [0, 1]
    assert scores.isfinite().sum() == 5
    allowed = [math.exp(x) for x in (0 + 0, 0 + 2, 0 + 0, 1 + 0, 1 + 0)]
    assert log_likelihood.item() == pytest.approx(2 - math.log(sum(allowed)), rel=1e-6)
    assert gradient[0, 0, 1] == 0.0
    assert gradient.isfinite().all()
    assert impossible.item() == -math.inf


@needs_native
def test_crf_sentences_do_not_see_padding_the_batch_or_threads() -> None:
    emissions, tags, *others = draw(5, 9, 20, dtype=torch.float32)
    lengths = torch.tensor([9, 4, 1, 7, 9])

    def run(emissions: Tensor, tags: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        leaf = emissions.clone().requires_grad_()
        out = ops.crf_log_likelihood(leaf, tags, others[0], start=others[1], end=others[2], lengths=lengths)
        paths = ops.crf_decode(emissions, others[0], start=others[1], end=others[2], lengths=lengths, n_best=3)
        return out.detach(), torch.autograd.grad(out.sum(), leaf)[0], *paths

    whole = run(emissions, tags, lengths)
    for b, n in enumerate(lengths.tolist()):
        alone = run(emissions[b : b + 1, :n], tags[b : b + 1, :n], lengths[b : b + 1])
        assert torch.equal(alone[0][0], whole[0][b])
        assert torch.equal(alone[1][0], whole[1][b, :n])
        assert torch.equal(alone[2][0], whole[2][b, :, :n])
        assert torch.equal(alone[3][0], whole[3][b])
        emissions[b, n:], tags[b, n:] = math.nan, -7
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        assert all(torch.equal(a, b) for a, b in zip(run(emissions, tags, lengths), whole, strict=True))
    torch.set_num_threads(threads)
    assert not whole[1][2, 1:].any()


@needs_native
def test_crf_leaves_nothing_unwritten_and_takes_no_sentences() -> None:
    torch.use_deterministic_algorithms(True)  # fills what is allocated with NaN
    try:
        emissions, tags, *others = draw(2, 5, 3, dtype=torch.float32)
        lengths = torch.tensor([1, 3])
        results = torch.ops.seqkit.crf_log_likelihood(emissions, tags, *others, lengths, True)
        assert all(x.isfinite().all() for x in results)
    finally:
        torch.use_deterministic_algorithms(False)
    assert ops.crf_log_likelihood(emissions[:0], tags[:0], others[0]).shape == (0,)
    assert ops.crf_decode(emissions[:0], others[0])[0].shape == (0, 1, 5)


def test_crf_under_autocast_and_in_half_precision() -> None:
    emissions, tags, transitions, *_ = draw(2, 5, 3, dtype=torch.float32)
    wanted = ops.crf_log_likelihood(emissions.bfloat16().float(), tags, transitions.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        got = ops.crf_log_likelihood(emissions.bfloat16(), tags, transitions.bfloat16())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted)
    leaf = emissions.bfloat16().requires_grad_()
    ops.crf_log_likelihood(leaf, tags, transitions.bfloat16()).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == torch.bfloat16


def test_crf_refuses_what_does_not_fit() -> None:
    likelihood, decode = (getattr(f, "__wrapped__", f) for f in (ops.crf_log_likelihood, ops.crf_decode))
    emissions, tags, transitions, start, _ = draw(2, 5, 3)
    with pytest.raises(InputError, match=r"emissions must have the shape \[B, T, C\], got \[5, 3\]"):
        decode(emissions[0], transitions)
    with pytest.raises(InputError, match=r"transitions must have the shape \[3, 3\], got \[3, 2\]"):
        decode(emissions, transitions[:, :2])
    with pytest.raises(InputError, match=r"start must have the shape \[3\], got \[2\]"):
        decode(emissions, transitions, start=start[:2])
    with pytest.raises(InputError, match=r"tags must have the shape \[2, 5\], got \[2, 4\]"):
        likelihood(emissions, tags[:, :4], transitions)
    with pytest.raises(InputError, match="n_best must be from 1 to 1024, got 0"):
        decode(emissions, transitions, n_best=0)
    with pytest.raises(InputError, match="emissions must have a position and a tag"):
        decode(emissions[:, :0], transitions)


@needs_native
def test_crf_kernels_refuse_values_out_of_range() -> None:
    emissions, tags, transitions, *_ = draw(2, 5, 3)
    with pytest.raises(RuntimeError, match="tags must be from 0 to 2, got 3"):
        ops.crf_log_likelihood(emissions, tags.fill_(3), transitions)
    for length in (0, -1, 6, 2**62):
        with pytest.raises(RuntimeError, match="lengths must be from"):
            ops.crf_decode(emissions, transitions, lengths=torch.tensor([5, length]))


@needs_native
def test_crf_opcheck() -> None:
    emissions, tags, *others = draw(2, 5, 3, dtype=torch.float32)
    lengths = torch.tensor([5, 2])
    for gradient in (True, False):
        torch.library.opcheck(
            torch.ops.seqkit.crf_log_likelihood.default, (emissions, tags, *others, lengths, gradient)
        )
    torch.library.opcheck(torch.ops.seqkit.crf_decode.default, (emissions, *others, lengths, 2))


@needs_native
@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracer does it
def test_crf_compiles_forward_and_backward() -> None:
    emissions, tags, *others = draw(2, 5, 3, dtype=torch.float32)

    def loss(emissions: Tensor, transitions: Tensor) -> Tensor:
        return (
            -ops.crf_log_likelihood(emissions, tags, transitions).mean()
            + ops.crf_decode(emissions, transitions)[1].sum()
        )

    leaves = [x.requires_grad_() for x in (emissions, others[0])]
    wanted = torch.autograd.grad(loss(*leaves), leaves)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(*leaves), leaves), wanted)


@needs_native
@pytest.mark.parametrize("level", ["0", "1"])
def test_crf_at_lower_machine_levels(level: str) -> None:
    code = """
import sys
import torch
sys.path.insert(0, "tests/ops")
from test_crf import test_crf_float32_equals_float64 as check
for T, C in ((7, 17), (60, 20)):
    for spread in (1.0, 3000.0):
        check(T, C, spread)
print("same")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "SEQKIT_ISA": level},
    )
    assert done.stdout.strip() == "same", done.stderr
