"""`ops.viterbi_align`: the best of all enumerated alignments, ties, padding, targets that do not fit."""

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

needs_native = pytest.mark.skipif(not library.is_built("viterbi_align"), reason="the native library is not built")

Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def problem(B: int, T: int, C: int, S: int, *, levels: int = 0) -> Problem:
    """Log-probabilities, of a few levels only where ties are wanted, and targets with repeats that may not fit."""
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(B, T, C, generator=generator).log_softmax(dim=-1)
    if levels:
        log_probs = -torch.randint(0, levels, (B, T, C), generator=generator).float()
    targets = torch.randint(1, C, (B, S), generator=generator)
    input_lengths = torch.randint(0, T + 1, (B,), generator=generator)
    target_lengths = torch.randint(0, S + 1, (B,), generator=generator)
    input_lengths[0], target_lengths[0] = T, S
    return log_probs, targets, input_lengths, target_lengths


def merged(path: list[int], blank: int = 0) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label != blank]


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("target", [[], [1], [2, 1], [1, 1], [1, 2, 1], [2, 2, 2]])
@pytest.mark.parametrize("T", [1, 2, 4, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_viterbi_align_is_the_best_of_all_alignments(
    T: int, target: list[int], backend: str, dtype: torch.dtype
) -> None:  # fmt: skip
    log_probs = torch.randn(T, 3, generator=torch.Generator().manual_seed(T)).log_softmax(dim=-1).to(dtype)
    paths = [path for path in itertools.product(range(3), repeat=T) if merged(list(path)) == target]
    scored = {path: sum(float(log_probs[t, label]) for t, label in enumerate(path)) for path in paths}
    with library.use_backend(backend):
        labels, scores = ops.viterbi_align(
            log_probs[None], torch.tensor([target], dtype=torch.int64), torch.tensor([T]), torch.tensor([len(target)])
        )
    assert scores.dtype == dtype
    if paths:
        best = max(scored, key=lambda path: scored[path])
        assert labels[0].tolist() == list(best)
        assert float(scores[0]) == pytest.approx(scored[best], rel=1e-5)
    else:
        assert labels[0].tolist() == [-1] * T
        assert scores[0] == -math.inf


def check_against_reference() -> None:
    """The same bits, with and without ties: both add the same numbers in the same order."""
    for shape in ((1, 1, 2, 1), (5, 9, 4, 3), (4, 60, 7, 17), (3, 80, 40, 33), (2, 50, 5, 15)):
        for levels in (0, 2):
            given = problem(*shape, levels=levels)
            for dtype in (torch.float32, torch.float64):
                got = ops.viterbi_align(given[0].to(dtype), *given[1:])
                wanted = ops.viterbi_align_reference(given[0].to(dtype), *given[1:])
                assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True)), (shape, levels, dtype)


@needs_native
def test_viterbi_align_equals_its_reference() -> None:
    check_against_reference()


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_viterbi_align_stays_where_it_can(backend: str) -> None:
    with library.use_backend(backend):
        labels, scores = ops.viterbi_align(
            torch.zeros(1, 6, 4), torch.tensor([[1, 2, 3]]), torch.tensor([6]), torch.tensor([3])
        )
    assert labels.tolist() == [[1, 2, 3, 0, 0, 0]]  # the last blank is an end, and all its frames are spent there
    assert scores.tolist() == [0.0]


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_viterbi_align_does_not_see_padding_or_the_batch(backend: str) -> None:
    log_probs, targets, input_lengths, target_lengths = problem(5, 30, 9, 8)
    with library.use_backend(backend):
        labels, scores = ops.viterbi_align(log_probs, targets, input_lengths, target_lengths)
        for b, (frames, n) in enumerate(zip(input_lengths.tolist(), target_lengths.tolist(), strict=True)):
            one = slice(b, b + 1)
            alone = ops.viterbi_align(
                log_probs[one, :frames], targets[one, :n], input_lengths[one], target_lengths[one]
            )
            assert torch.equal(alone[0][0], labels[b, :frames])
            assert torch.equal(alone[1][0], scores[b])
            assert (labels[b, frames:] == -1).all()
            path = labels[b, :frames].tolist()
            assert merged(path) == targets[b, :n].tolist() or set(path) <= {-1}
            log_probs[b, frames:] = math.nan
            targets[b, n:] = -7
        again = ops.viterbi_align(log_probs, targets, input_lengths, target_lengths)
    assert torch.equal(again[0], labels)
    assert torch.equal(again[1], scores)


@needs_native
def test_viterbi_align_of_other_layouts_dtypes_and_threads() -> None:
    log_probs, *rest = problem(4, 40, 70, 9)
    wanted = ops.viterbi_align(log_probs, *rest)
    turned = log_probs.transpose(0, 1).contiguous().transpose(0, 1)
    apart = log_probs[..., None].expand(-1, -1, -1, 2)[..., 0]
    threads = torch.get_num_threads()
    try:
        for count, frames in ((1, turned), (2, apart), (3, log_probs)):
            torch.set_num_threads(count)
            got = ops.viterbi_align(frames, *rest)
            assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    finally:
        torch.set_num_threads(threads)
    half = ops.viterbi_align(log_probs.half(), *rest)
    assert half[1].dtype == torch.float32
    assert torch.equal(half[1], ops.viterbi_align(log_probs.half().float(), *rest)[1])
    assert not ops.viterbi_align(log_probs.requires_grad_(), *rest)[1].requires_grad


@pytest.mark.parametrize("shape", [(0, 3, 2, 1), (2, 0, 2, 1), (2, 3, 2, 0)])
def test_viterbi_align_of_nothing(shape: tuple[int, ...]) -> None:
    given = (
        problem(*shape)
        if shape[0]
        else (torch.zeros(shape[:3]), torch.zeros(0, 1).long(), *[torch.zeros(0).long()] * 2)
    )
    labels, scores = ops.viterbi_align(*given)
    assert labels.shape == shape[:2]
    assert scores.shape == shape[:1]
    assert torch.equal(scores, ops.viterbi_align_reference(*given)[1])


def test_viterbi_align_refuses_what_does_not_fit() -> None:
    align = getattr(ops.viterbi_align, "__wrapped__", ops.viterbi_align)  # past the shape types
    log_probs, targets, input_lengths, target_lengths = problem(3, 5, 4, 2)
    with pytest.raises(InputError, match="log_probs must have three axes, got 2"):
        align(log_probs[0], targets, input_lengths, target_lengths)
    with pytest.raises(InputError, match="blank must be an integer from 0 to 3, got 4"):
        align(log_probs, targets, input_lengths, target_lengths, blank=4)
    with pytest.raises(InputError, match=r"targets must have the shape \[3, S\], got \[6\]"):
        align(log_probs, targets.flatten(), input_lengths, target_lengths)
    with pytest.raises(InputError, match=r"input_lengths must have the shape \[3\], got \[2\]"):
        align(log_probs, targets, input_lengths[:2], target_lengths)


@needs_native
def test_viterbi_align_kernel_refuses_values_out_of_range() -> None:
    log_probs, targets, input_lengths, target_lengths = problem(3, 5, 4, 2)
    with pytest.raises(RuntimeError, match="viterbi_align: input_lengths must be from 0 to 5, got 6"):
        ops.viterbi_align(log_probs, targets, torch.tensor([5, 6, 1]), target_lengths)
    with pytest.raises(RuntimeError, match="targets must be from 0 to 3 and not the blank 0, got 9"):
        ops.viterbi_align(log_probs, targets * 0 + 9, input_lengths, target_lengths)


@needs_native
def test_viterbi_align_opcheck() -> None:
    for batch_first in (True, False):
        log_probs, *rest = problem(3, 5, 4, 2)
        frames = log_probs if batch_first else log_probs.transpose(0, 1).contiguous()
        torch.library.opcheck(torch.ops.seqkit.viterbi_align.default, (frames, *rest, 0, batch_first))


@needs_native
@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracer does it
def test_viterbi_align_compiles() -> None:
    given = problem(3, 12, 6, 4)
    compiled = torch.compile(ops.viterbi_align, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(*given), ops.viterbi_align(*given), strict=True))


@needs_native
@pytest.mark.parametrize("level", ["0", "1"])
def test_viterbi_align_at_lower_machine_levels(level: str) -> None:
    code = """
import sys
sys.path.insert(0, "tests/ops")
import test_viterbi_align as tests
tests.check_against_reference()
print("same")
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env={**os.environ, "SEQKIT_ISA": level}
    )
    assert done.stdout.strip() == "same", done.stderr
