"""The CUDA kernel of ctc_beam_search on the host: the reference's prefixes in the reference's order."""

import itertools
import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from seqkit import ops

NEVER = -math.inf
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def frames(B: int, T: int, C: int, *, scale: float = 2.0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(B + T + C)
    return (torch.randn(B, T, C, generator=generator) * scale).log_softmax(dim=-1).to(dtype)


def of_models(lm: Any = None, hot_words: ops.BackoffAutomaton | None = None) -> list[Any]:
    """The kernel's last arguments."""
    words = lm if isinstance(lm, ops.WordModel) else None
    automata = [None if words else lm, hot_words, words.words if words else None]
    arrays = [model.tensors() if model else [] for model in automata]
    starts = [model.start if model else 0 for model in automata]
    rest = (words.space, words.unknown, words.unknown_score) if words else (-1, -1, 0.0)
    return [*arrays, words.tensors() if words else [], starts, *rest]


def search(log_probs: Tensor, lengths: Tensor, **options: Any) -> tuple[Tensor, ...]:
    """The kernel, its outputs filled with NaN or the largest integer first."""
    skip = options.get("blank_skip")
    torch.use_deterministic_algorithms(True)
    try:
        found: tuple[Tensor, ...] = torch.ops.seqkit_emulated.ctc_beam_search(
            *(log_probs, lengths, options["beam_size"], options.get("n_best", 1), options.get("blank", 0)),
            *(options.get("token_min_logp", NEVER), options.get("beam_prune_logp", NEVER)),
            math.log(skip) if skip else math.inf,
            *of_models(options.get("lm"), options.get("hot_words")),
        )
    finally:
        torch.use_deterministic_algorithms(False)
    return found


def assert_same(got: tuple[Tensor, ...], wanted: ops.CtcHypotheses) -> None:
    labels, lengths, log_probs, scores = got
    assert torch.equal(labels, wanted.labels)
    assert torch.equal(lengths, wanted.lengths)
    torch.testing.assert_close(log_probs, wanted.log_probs, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(scores, wanted.scores, rtol=2e-5, atol=2e-5)
    assert torch.equal(scores, log_probs) or not torch.equal(wanted.scores, wanted.log_probs)


# The extensions of the last two stand in global memory.
SHAPES = [(1, 1, 1, 1), (3, 7, 4, 5), (2, 12, 9, 17), (2, 6, 40, 3), (1, 4, 70, 512), (1, 3, 3000, 9)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("B", "T", "C", "K"), SHAPES)
def test_ctc_beam_search_cuda_equals_the_reference(
    schedule: str, B: int, T: int, C: int, K: int, dtype: torch.dtype
) -> None:  # fmt: skip
    log_probs = frames(B, T, C, dtype=dtype)
    if dtype != torch.float32:  # those of a softmax would round to equal numbers
        generator = torch.Generator().manual_seed(0)
        log_probs = (-torch.rand(B, T, C, generator=generator) * 8).to(dtype)
    lengths = torch.randint(0, T + 1, (B,), generator=torch.Generator().manual_seed(B))
    lengths[0] = T
    options = {"beam_size": K, "n_best": min(K, 7), "blank": C // 2}
    assert_same(search(log_probs, lengths, **options), ops.ctc_beam_search_reference(log_probs, lengths, **options))


def test_ctc_beam_search_cuda_prunes_as_the_reference(schedule: str) -> None:
    for trial in range(25):
        draw = random.Random(trial)
        B, T, C = draw.choice((1, 2)), draw.choice((0, 1, 5, 9)), draw.choice((2, 3, 5, 11))
        K = draw.choice((1, 2, 5, 16))
        log_probs, lengths = frames(B, T, C, scale=draw.choice((0.3, 2.0, 9.0))), torch.full((B,), T)
        options = {
            "beam_size": K,
            "n_best": K,
            "blank": draw.randrange(C),
            "token_min_logp": draw.choice((NEVER, -2.0, 0.0)),
            "beam_prune_logp": draw.choice((NEVER, -3.0)),
            "blank_skip": draw.choice((None, 0.5)),
        }
        assert_same(search(log_probs, lengths, **options), ops.ctc_beam_search_reference(log_probs, lengths, **options))


def test_ctc_beam_search_cuda_keeps_the_first_of_equals(schedule: str) -> None:
    # Every extension ties, and more of them than a block has threads.
    log_probs = torch.full((1, 1, 700), math.log(1 / 700))
    labels, *_ = search(log_probs, torch.tensor([1]), beam_size=300, n_best=300, blank=699)
    assert labels[0, :, 0].tolist() == [-1, *range(299)]
    # A tie that comes too late stands before one that wins.
    for wins in (40, 500):
        few = torch.full((1, 1, 700), -5.0)
        few[0, 0, wins], few[0, 0, 699] = -1.0, -9.0
        labels, *_ = search(few, torch.tensor([1]), beam_size=4, n_best=4, blank=699)
        assert labels[0, :, 0].tolist() == [wins, 0, 1, 2]


def test_ctc_beam_search_cuda_cuts_lengths_and_reads_no_padding(schedule: str) -> None:
    log_probs = frames(3, 6, 5)
    wanted = search(log_probs, torch.tensor([6, 0, 3]), beam_size=7, n_best=3)
    log_probs[1], log_probs[2, 3:] = math.nan, math.nan
    got = search(log_probs, torch.tensor([2**40, -5, 3]), beam_size=7, n_best=3)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_ctc_beam_search_cuda_of_impossible_frames(schedule: str) -> None:
    log_probs = torch.full((2, 3, 3), NEVER)
    log_probs[0, :, 1] = math.nan
    log_probs[1, :, 2] = math.inf
    labels, lengths, log_probs, _ = search(log_probs, torch.tensor([3, 3]), beam_size=4, n_best=2)
    assert labels.tolist() == [[[-1] * 3, [-1] * 3], [[2, -1, -1], [-1] * 3]]
    assert lengths.tolist() == [[0, 0], [1, 0]]
    assert log_probs[0].tolist() == [NEVER, NEVER]


def test_ctc_beam_search_cuda_repeats_and_does_not_see_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs, lengths = frames(3, 10, 12), torch.tensor([10, 4, 7])
    runs = []
    for schedule in ("forward", "reverse", "random:1", "random:2"):
        monkeypatch.setenv("SEQKIT_SCHEDULE", schedule)
        runs.append(search(log_probs, lengths, beam_size=20, n_best=20))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))
    alone = search(log_probs[2:, :7].contiguous(), lengths[2:], beam_size=20, n_best=20)
    assert torch.equal(alone[0][0], runs[0][0][2, :, :7])
    assert torch.equal(alone[2][0], runs[0][2][2])


def test_ctc_beam_search_cuda_of_nothing_and_what_it_does_not_cover() -> None:
    none = search(torch.zeros(0, 3, 4), torch.zeros(0, dtype=torch.int64), beam_size=2)
    assert none[0].shape == (0, 1, 3)
    one = torch.ones(1, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="beam_size must be at most 512 on CUDA, got 513"):
        search(torch.zeros(1, 1, 2), one, beam_size=513)
    with pytest.raises(RuntimeError, match="log_probs must have the dtype Float, Half or BFloat16"):
        search(torch.zeros(1, 1, 2).double(), one, beam_size=1)
    for arguments, rule in (
        ([[one], [], [], [], [0, 0, 0], -1, -1, 0.0], "label_model must have seven tensors, got 1"),
        (of_models(ops.WordModel.spelled(automaton(2, 1), [[0]], space=2, unknown=0)), "space must be from 0 to 1"),
    ):
        with pytest.raises(RuntimeError, match=rule):
            torch.ops.seqkit_emulated.ctc_beam_search(
                *(torch.zeros(1, 1, 2), one, 1, 1, 0, NEVER, NEVER, math.inf), *arguments
            )


# ---- language models ----


def automaton(symbols: int, seed: int, states: int = 6) -> ops.BackoffAutomaton:
    """Random arcs; the last states back off over all others."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    rows = [list(range(symbols))]
    rows += [sorted(draw.sample(range(symbols), draw.randint(0, symbols))) for _ in range(states - 1)]
    named = [symbol for row in rows for symbol in row]
    return ops.BackoffAutomaton(
        first=torch.tensor([0, *itertools.accumulate(map(len, rows))], dtype=torch.int32),
        symbols=torch.tensor(named, dtype=torch.int32),
        scores=torch.randn(len(named), generator=generator),
        next=torch.tensor([draw.randrange(states) for _ in named], dtype=torch.int32),
        backoff=torch.randn(states, generator=generator),
        suffix=torch.tensor([max(0, state - draw.randint(1, 2)) for state in range(states)], dtype=torch.int32),
        final=torch.randn(states, generator=generator),
        start=draw.randrange(states),
    )


def models(C: int, blank: int, kind: str, seed: int) -> dict[str, Any]:
    """A model of labels, of words or none, and hot words."""
    draw, given = random.Random(seed), dict[str, Any]()
    letters = [c for c in range(C) if c != blank]
    space = letters.pop() if len(letters) > 1 else None
    if kind.startswith("labels"):
        given["lm"] = automaton(C, seed)
    elif kind.startswith("words") and space is not None:
        spellings = [[draw.choice(letters) for _ in range(draw.randint(1, 3))] for _ in range(2 * C)]
        given["lm"] = ops.WordModel.spelled(
            automaton(2 * C + 1, seed), spellings, space=space, unknown=2 * C, unknown_score=-2.0
        )
    if kind.endswith("hot") and letters:
        phrases = [[draw.choice(letters) for _ in range(draw.randint(1, 3))] for _ in range(min(C, 100))]
        given["hot_words"] = ops.hot_word_automaton(
            phrases,
            [draw.choice((0.5, 1.0, 2.0)) for _ in phrases],
            n_labels=C,
            space=space if kind == "words and hot" else None,
        )
    return given


KINDS = ("labels", "words", "hot", "labels and hot", "words and hot")


# More arcs than a warp has lanes, a beam of 512, extensions in global memory, prefixes that leave the beam and return.
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("B", "T", "C", "K"), [(3, 7, 4, 5), (2, 5, 90, 11), (1, 4, 30, 512), (2, 40, 6, 3)])
def test_ctc_beam_search_cuda_ranks_with_models_as_the_reference(
    schedule: str, B: int, T: int, C: int, K: int, kind: str
) -> None:  # fmt: skip
    log_probs, blank = frames(B, T, C), C // 2
    lengths = torch.randint(0, T + 1, (B,), generator=torch.Generator().manual_seed(B))
    lengths[0] = T
    options = {"beam_size": K, "n_best": min(K, 7), "blank": blank, **models(C, blank, kind, seed=K)}
    wanted = ops.ctc_beam_search_reference(log_probs, lengths, **options)
    assert not torch.equal(wanted.scores, wanted.log_probs)
    assert_same(search(log_probs, lengths, **options), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["labels and hot", "words and hot"])
def test_ctc_beam_search_cuda_with_models_of_many_labels(schedule: str, kind: str, dtype: torch.dtype) -> None:
    log_probs = (-torch.rand(1, 3, 2900, generator=torch.Generator().manual_seed(0)) * 8).to(dtype)
    options = {"beam_size": 9, "n_best": 9, "blank": 7, **models(2900, 7, kind, seed=1)}
    got = search(log_probs, torch.tensor([3]), **options)
    assert_same(got, ops.ctc_beam_search(log_probs.float(), **options))


def test_ctc_beam_search_cuda_prunes_with_models_as_the_reference(schedule: str) -> None:
    for trial in range(40):
        draw = random.Random(trial)
        B, T, C = draw.choice((1, 2)), draw.choice((0, 1, 5, 9)), draw.choice((1, 2, 3, 5, 11, 37))
        K, blank = draw.choice((1, 2, 5, 16)), draw.randrange(C)
        log_probs, lengths = frames(B, T, C, scale=draw.choice((0.3, 2.0, 9.0))), torch.full((B,), T)
        options = {
            "beam_size": K,
            "n_best": K,
            "blank": blank,
            "token_min_logp": draw.choice((NEVER, -2.0, 0.0)),
            "beam_prune_logp": draw.choice((NEVER, -3.0)),
            "blank_skip": draw.choice((None, 0.5)),
            **models(C, blank, draw.choice(KINDS), trial),
        }
        assert_same(search(log_probs, lengths, **options), ops.ctc_beam_search_reference(log_probs, lengths, **options))


def test_ctc_beam_search_cuda_of_scores_that_rule_labels_and_ends_out(schedule: str) -> None:
    lm = automaton(5, seed=3)
    lm.scores[1:3], lm.final[::2] = NEVER, NEVER
    log_probs, lengths = frames(1, 5, 5), torch.tensor([5])
    options = {"beam_size": 60, "n_best": 60, "lm": lm}
    wanted = ops.ctc_beam_search_reference(log_probs, lengths, **options)
    assert 0 < int((wanted.scores > NEVER).sum()) < 60
    assert_same(search(log_probs, lengths, **options), wanted)


def test_ctc_beam_search_cuda_with_models_repeats_and_does_not_see_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs, lengths = frames(3, 10, 12), torch.tensor([10, 4, 7])
    given = models(12, 0, "words and hot", seed=5)
    runs = []
    for schedule in ("forward", "reverse", "random:1", "random:2"):
        monkeypatch.setenv("SEQKIT_SCHEDULE", schedule)
        runs.append(search(log_probs, lengths, beam_size=20, n_best=20, **given))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))
    alone = search(log_probs[2:, :7].contiguous(), lengths[2:], beam_size=20, n_best=20, **given)
    assert torch.equal(alone[0][0], runs[0][0][2, :, :7])
    assert all(torch.equal(a[0], b[2]) for a, b in zip(alone[1:], runs[0][1:], strict=True))


def test_ctc_beam_search_cuda_reads_nothing_outside_of_a_wild_model(schedule: str) -> None:
    log_probs, lengths = frames(2, 6, 5), torch.tensor([6, 4])
    given = of_models(**models(5, 0, "words and hot", seed=2))
    for seed in range(60):
        draw = random.Random(seed)
        wild = [[x.clone() for x in arrays] for arrays in given[:4]]
        for _ in range(6):
            x = draw.choice(wild[draw.randrange(1, 4)])
            number = draw.choice((math.nan, 1e38)) if x.is_floating_point() else draw.choice((-1, 2**31 - 1, -(2**31)))
            x[draw.randrange(len(x))] = number
        labels, counts, *_ = torch.ops.seqkit_emulated.ctc_beam_search(
            *(log_probs, lengths, 4, 2, 0, NEVER, NEVER, math.inf), *wild, *given[4:]
        )
        assert int(labels.max()) < 5
        assert int(counts.max()) <= 6
