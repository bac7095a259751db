"""`ops.ctc_beam_search`: all alignments enumerated, the reference, language models, pruning, sentences that see only
themselves, and what pyctcdecode makes of real frames."""

import itertools
import json
import lzma
import math
import os
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seqkit import ops
from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.text import NgramModel

needs_native = pytest.mark.skipif(not library.is_built("ctc_beam_search"), reason="the native library is not built")

NEVER = -math.inf
KERNEL = {"token_min_logp": NEVER, "beam_prune_logp": NEVER, "blank_skip_logp": math.inf}


def frames(B: int, T: int, C: int, *, scale: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(B, T, C, generator=generator) * scale).log_softmax(dim=-1)


def enumerated(log_probs: Tensor, blank: int = 0) -> dict[tuple[int, ...], float]:
    """The log-probability of each label sequence, from all C^T alignments."""
    probs, total = log_probs.double().exp().tolist(), defaultdict(float)
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        labels = tuple(label for label, _ in itertools.groupby(path) if label != blank)
        total[labels] += math.prod(probs[t][label] for t, label in enumerate(path))
    return {labels: math.log(p) for labels, p in total.items()}


def automaton(draw: random.Random, symbols: int) -> ops.BackoffAutomaton:
    """Four states with random arcs."""
    first, named, after = [0, symbols], list(range(symbols)), [draw.randrange(4) for _ in range(symbols)]
    for _ in range(3):
        row = sorted(draw.sample(range(symbols), draw.randint(0, symbols)))
        named, after = named + row, after + [draw.randrange(4) for _ in row]
        first.append(len(named))
    generator = torch.Generator().manual_seed(draw.randrange(1000))
    return ops.BackoffAutomaton(
        first=torch.tensor(first, dtype=torch.int32),
        symbols=torch.tensor(named, dtype=torch.int32),
        scores=torch.randn(len(named), generator=generator),
        next=torch.tensor(after, dtype=torch.int32),
        backoff=torch.randn(4, generator=generator),
        suffix=torch.tensor([0, 0, 1, 1], dtype=torch.int32),
        final=torch.randn(4, generator=generator),
        start=1,
    )


def models(draw: random.Random, C: int, blank: int) -> dict[str, Any]:
    """A language model of labels or of words, hot words, several or none of them."""
    letters = [c for c in range(C) if c != blank]
    space = letters.pop() if len(letters) > 1 else None
    given: dict[str, Any] = {}
    if draw.random() < 0.4:
        given["lm"] = automaton(draw, C)
    elif draw.random() < 0.7 and space is not None:
        words = [[draw.choice(letters) for _ in range(draw.randint(1, 3))] for _ in range(C - 1)]
        given["lm"] = ops.WordModel.spelled(automaton(draw, C), words, space=space, unknown=C - 1, unknown_score=-2.0)
    if draw.random() < 0.4 and letters:
        phrases = [[draw.choice(letters) for _ in range(draw.randint(1, 3))] for _ in range(3)]
        given["hot_words"] = ops.hot_word_automaton(
            phrases, [1.0, 2.0, 0.5], n_labels=C, space=draw.choice((None, space)), prefixes=draw.random() < 0.5
        )
    return given


def draw_call(draw: random.Random) -> tuple[Tensor, Tensor, dict[str, Any]]:
    B, T, C = draw.choice((1, 2)), draw.choice((0, 1, 3, 7, 12)), draw.choice((1, 2, 3, 5, 9, 20, 37))
    K, blank = draw.choice((1, 2, 3, 5, 17, 40)), draw.randrange(C)
    options = {
        "beam_size": K,
        "n_best": draw.randint(1, K),
        "blank": blank,
        "token_min_logp": draw.choice((NEVER, -3.0)),
        "beam_prune_logp": draw.choice((NEVER, -4.0)),
        "blank_skip": draw.choice((None, 0.6)),
    }
    log_probs = frames(B, T, C, scale=draw.choice((0.3, 1.0, 4.0, 12.0)), seed=draw.randrange(10000))
    generator = torch.Generator().manual_seed(T)
    return log_probs, torch.randint(0, T + 1, (B,), generator=generator), {**options, **models(draw, C, blank)}


def check_against_reference(calls: int) -> None:
    for trial in range(calls):
        log_probs, lengths, options = draw_call(random.Random(trial))
        for dtype, room in ((torch.float32, 2e-5), (torch.float64, 1e-9)):
            got = ops.ctc_beam_search(log_probs.to(dtype), lengths, return_times=True, **options)
            with library.use_backend("reference"):
                wanted = ops.ctc_beam_search(log_probs.to(dtype), lengths, return_times=True, **options)
            for name in ("labels", "lengths", "times"):
                assert torch.equal(getattr(got, name), getattr(wanted, name)), (trial, dtype, name)
            for name in ("log_probs", "scores"):
                mine, truth = getattr(got, name), getattr(wanted, name)
                assert mine.dtype == dtype
                torch.testing.assert_close(mine, truth, rtol=room, atol=room, msg=f"{trial} {dtype} {name}")


@needs_native
def test_ctc_beam_search_equals_its_reference() -> None:
    check_against_reference(100)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("T", "C", "blank"), [(0, 2, 0), (1, 3, 0), (4, 3, 0), (5, 3, 2), (6, 2, 1), (3, 5, 1)])
def test_ctc_beam_search_with_a_wide_beam_is_exact(
    T: int, C: int, blank: int, dtype: torch.dtype, backend: str
) -> None:  # fmt: skip
    log_probs = frames(1, T, C, scale=2.0).to(dtype)
    truth = enumerated(log_probs[0], blank)
    best = sorted(truth, key=lambda labels: -truth[labels])
    with library.use_backend(backend):
        found = ops.ctc_beam_search(log_probs, beam_size=400, n_best=min(400, len(best)), blank=blank)
    assert found.sequences(0) == [list(labels) for labels in best]
    assert found.log_probs[0].tolist() == pytest.approx([truth[labels] for labels in best], rel=2e-5, abs=1e-6)
    assert torch.equal(found.scores, found.log_probs)


def test_ctc_beam_search_probability_is_the_ctc_loss() -> None:
    log_probs = frames(3, 30, 6, scale=3.0).double()
    lengths = torch.tensor([30, 17, 4])
    found = ops.ctc_beam_search(log_probs, lengths, beam_size=3000, n_best=2)
    for n in range(2):
        losses = ops.ctc_loss(
            log_probs.transpose(0, 1), found.labels[:, n].clamp(min=1), lengths, found.lengths[:, n], reduction="none"
        )
        lost = -losses - found.log_probs[:, n]  # by alignments whose prefixes had left the beam
        assert bool(((lost > -1e-9) & (lost < 0.05)).all())


def test_ctc_beam_search_merges_what_the_best_path_does_not() -> None:
    # Hannun et al. 2014: the best alignment is all blanks, but `a` has more of them together.
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    found = ops.ctc_beam_search(log_probs, beam_size=2, n_best=2)
    assert found.sequences(0) == [[1], []]
    assert found.log_probs.exp().tolist()[0] == pytest.approx([0.64, 0.36])


def test_ctc_beam_search_ties_keep_the_earlier_then_the_lower_label() -> None:
    flat = torch.full((1, 1, 4), math.log(0.25))
    for backend in ("auto", "reference"):
        with library.use_backend(backend):
            found = ops.ctc_beam_search(flat, beam_size=3, n_best=3)
            assert found.sequences(0) == [[], [1], [2]]
            found = ops.ctc_beam_search(flat, beam_size=3, n_best=3, blank=3)
            assert found.sequences(0) == [[], [0], [1]]
            # [3] is no longer there to give its share to itself.
            certain = torch.tensor([[[NEVER, NEVER, NEVER, 0.0]]])
            found = ops.ctc_beam_search(torch.cat([flat, certain], dim=1), beam_size=3, n_best=3)
            assert found.sequences(0) == [[3], [1, 3], [2, 3]]
            assert found.log_probs.exp().tolist()[0] == pytest.approx([0.25] * 3)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_ctc_beam_search_pruning_leaves_out_what_it_says(backend: str) -> None:
    probs = torch.tensor([[[0.70, 0.20, 0.10], [0.05, 0.80, 0.15]]])
    with library.use_backend(backend):
        everything = ops.ctc_beam_search(probs.log(), beam_size=50, n_best=50)
        tokens = ops.ctc_beam_search(probs.log(), beam_size=50, n_best=50, token_min_logp=math.log(0.12))
        best_only = ops.ctc_beam_search(probs.log(), beam_size=50, n_best=50, token_min_logp=0.0)
        skipped = ops.ctc_beam_search(probs.log(), beam_size=50, n_best=50, blank_skip=0.6)
        pruned = ops.ctc_beam_search(probs.log(), beam_size=50, n_best=50, beam_prune_logp=math.log(0.3))
    assert [1, 2] in everything.sequences(0)
    assert everything.log_probs.exp().sum().item() == pytest.approx(1.0)
    assert sorted(tokens.sequences(0)) == [[1], [1, 2], [2]]  # no blank in the second frame
    assert tokens.log_probs[0, 0].exp().item() == pytest.approx(0.70 * 0.80 + 0.20 * 0.80)
    assert best_only.sequences(0) == [[1]]
    assert skipped.sequences(0) == [[1], [2], []]
    assert skipped.log_probs[0, :3].exp().tolist() == pytest.approx([0.56, 0.105, 0.035])
    assert pruned.sequences(0) == [[1]]


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_ctc_beam_search_of_impossible_frames_finds_nothing(backend: str) -> None:
    log_probs = torch.full((2, 2, 3), NEVER)
    log_probs[1, :, 2] = 0.0
    with library.use_backend(backend):
        found = ops.ctc_beam_search(log_probs, beam_size=4, n_best=2, return_times=True)
        empty = ops.ctc_beam_search(log_probs, torch.tensor([0, 1]), beam_size=4, n_best=2)
    assert [found.sequences(b) for b in range(2)] == [[], [[2]]]
    assert found.scores.tolist() == [[NEVER, NEVER], [0.0, NEVER]]
    assert found.times is not None
    assert found.times.tolist() == [[[-1, -1], [-1, -1]], [[0, -1], [-1, -1]]]
    assert [empty.sequences(b) for b in range(2)] == [[[]], [[2]]]
    assert ops.ctc_beam_search(log_probs[:0], beam_size=1).labels.shape == (0, 1, 2)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_ctc_beam_search_counts_nan_as_never_and_bounds_infinity(backend: str) -> None:
    log_probs = frames(1, 4, 5)
    wanted = log_probs.clone()
    log_probs[0, 1, 2], wanted[0, 1, 2] = math.nan, NEVER
    log_probs[0, 3, 1], wanted[0, 3, 1] = math.inf, 1e30
    with library.use_backend(backend):
        got, truth = (ops.ctc_beam_search(x.double(), beam_size=9, n_best=9) for x in (log_probs, wanted))
    assert all(torch.equal(a, b) for a, b in zip(got[:4], truth[:4], strict=True))
    assert not got.scores.isnan().any()


def test_ctc_beam_search_times_are_of_the_best_alignment() -> None:
    log_probs = torch.full((1, 7, 3), math.log(0.01))
    for t, label in enumerate([0, 1, 1, 0, 1, 2, 0]):
        log_probs[0, t, label] = math.log(0.98)
    found = ops.ctc_beam_search(log_probs, beam_size=20, n_best=2, return_times=True)
    assert found.times is not None
    assert found.sequences(0)[0] == [1, 1, 2]
    assert found.times[0, 0].tolist() == [1, 4, 5, -1, -1, -1, -1]


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ctc_beam_search_of_a_sentence_does_not_see_batch_padding_or_threads(dtype: torch.dtype) -> None:
    draw = random.Random(3)
    given = models(draw, 20, 0)
    log_probs, lengths = frames(4, 40, 20).to(dtype), torch.tensor([40, 0, 23, 9])
    for b, n in enumerate(lengths.tolist()):
        log_probs[b, n:] = math.nan
    options: dict[str, Any] = {"beam_size": 25, "n_best": 25, **given}
    whole, threads = ops.ctc_beam_search(log_probs, lengths, **options), torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            again = ops.ctc_beam_search(log_probs, lengths, **options)
            assert all(torch.equal(x, y) for x, y in zip(whole[:4], again[:4], strict=True))
    finally:
        torch.set_num_threads(threads)
    for b, n in enumerate(lengths.tolist()):
        alone = ops.ctc_beam_search(log_probs[b : b + 1, :n], **options)
        assert torch.equal(alone.labels[0], whole.labels[b, :, :n])
        for name in ("lengths", "log_probs", "scores"):
            assert torch.equal(getattr(alone, name)[0], getattr(whole, name)[b])


@needs_native
def test_ctc_beam_search_keeps_its_last_places_over_many_frames() -> None:
    log_probs = frames(1, 3000, 12, scale=2.0)
    got = ops.ctc_beam_search(log_probs, beam_size=16)
    exact = ops.ctc_beam_search(log_probs.double(), beam_size=16)
    assert torch.equal(got.labels, exact.labels)
    assert abs(float(got.log_probs.double() - exact.log_probs)) < 2e-7 * 3000 * 3


@needs_native
@pytest.mark.parametrize(("K", "C"), [(1, 300), (300, 5), (64, 1000), (16, 16)])
def test_ctc_beam_search_of_many_labels_and_beams(K: int, C: int) -> None:
    log_probs = frames(1, 8, C)
    options = {"beam_size": K, "n_best": min(K, 3)}
    wanted = ops.ctc_beam_search_reference(log_probs, torch.tensor([8]), **options)
    got = ops.ctc_beam_search(log_probs, **options)
    assert torch.equal(got.labels, wanted.labels)
    torch.testing.assert_close(got.log_probs, wanted.log_probs, rtol=1e-5, atol=1e-5)


@needs_native
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ctc_beam_search_of_halves_is_in_floats(dtype: torch.dtype) -> None:
    log_probs = frames(2, 9, 7).to(dtype)
    got, wanted = (ops.ctc_beam_search(x, beam_size=8, n_best=8) for x in (log_probs, log_probs.float()))
    assert got.scores.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(got[:4], wanted[:4], strict=True))


@needs_native
def test_ctc_beam_search_leaves_no_output_unwritten() -> None:
    torch.use_deterministic_algorithms(True)  # torch then fills new tensors with NaN, or the largest integer
    try:
        for dtype in (torch.float32, torch.float64):
            found = ops.ctc_beam_search(
                frames(3, 5, 4).to(dtype), torch.tensor([5, 0, 2]), beam_size=30, n_best=30, return_times=True
            )
            assert found.times is not None
            assert not found.scores.isnan().any()
            assert not found.log_probs.isnan().any()
            assert all(int(x.max()) <= 5 for x in (found.labels, found.lengths, found.times))
    finally:
        torch.use_deterministic_algorithms(False)


# ---- language models ----


def test_ctc_beam_search_ranks_with_a_model_of_labels() -> None:
    log_probs = frames(1, 4, 4).double()
    lm = automaton(random.Random(1), 4)
    truth = {}
    for labels, logp in enumerated(log_probs[0]).items():
        state, score = lm.start, logp
        for label in labels:
            gain, state = lm.follow(state, label)
            score += gain
        truth[labels] = score + lm.end(state)
    best = sorted(truth, key=lambda labels: -truth[labels])
    found = ops.ctc_beam_search(log_probs, beam_size=400, n_best=len(best), lm=lm)
    assert found.sequences(0) == [list(labels) for labels in best]
    assert found.scores[0].tolist() == pytest.approx([truth[labels] for labels in best])


def test_ctc_beam_search_ranks_with_a_model_of_words() -> None:
    log_probs, space = frames(1, 5, 4).double(), 3  # labels 1 and 2 are the letters
    words = automaton(random.Random(2), 4)
    spellings = [[1], [1, 2], [2, 1]]
    lm = ops.WordModel.spelled(words, spellings, space=space, unknown=3, unknown_score=-1.5)
    truth = {}
    for labels, logp in enumerated(log_probs[0]).items():
        state, score = words.start, logp
        for is_space, word in itertools.groupby(labels, lambda label: label == space):
            spelled = list(word)
            if not is_space:
                number = spellings.index(spelled) if spelled in spellings else 3
                gain, state = words.follow(state, number)
                score += gain - (1.5 if number == 3 else 0.0)
        truth[labels] = score + words.end(state)
    best = sorted(truth, key=lambda labels: -truth[labels])
    found = ops.ctc_beam_search(log_probs, beam_size=1000, n_best=len(best), lm=lm)
    assert found.sequences(0) == [list(labels) for labels in best]
    assert found.scores[0].tolist() == pytest.approx([truth[labels] for labels in best])


def test_ctc_beam_search_prefers_hot_words() -> None:
    log_probs = torch.tensor([[[0.1, 0.5, 0.4], [0.8, 0.1, 0.1]]]).log()
    assert ops.ctc_beam_search(log_probs, beam_size=9).sequences(0) == [[1]]
    hot = ops.hot_word_automaton([[2]], 1.0, n_labels=3)
    found = ops.ctc_beam_search(log_probs, beam_size=9, hot_words=hot)
    assert found.sequences(0) == [[2]]
    assert float(found.scores - found.log_probs) == pytest.approx(1.0)


LETTERS = [" ", *(chr(97 + i) for i in range(26)), "'", ""]  # of libri_logits; the last is the blank


@pytest.fixture(scope="module")
def speech(shared_data: Path) -> tuple[Path, Tensor]:
    folder = shared_data / "speech" / "ctc-fixtures"
    if not folder.is_dir():
        pytest.skip("the CTC fixtures are not here")
    logits = torch.tensor(json.loads(lzma.decompress((folder / "libri_logits.json.xz").read_bytes()))).float()
    return folder, logits.log_softmax(dim=-1)[None]


# What pyctcdecode 0.5.0 prints for these frames with its default options, without a model and with this one (KenLM,
# unigrams bugs and bunny).
SPOKEN = "i have a good deal of will you remember and what i have set my mind upon no doubt i shall some day achieve"
AS_PYCTCDECODE = {"beam_size": 100, "blank": 28, "token_min_logp": -5.0, "beam_prune_logp": -10.0}


def text(found: ops.CtcHypotheses) -> str:
    return "".join(LETTERS[label] for label in found.sequences(0)[0])


def word_model(model: NgramModel) -> ops.WordModel:
    words = ops.BackoffAutomaton(**model.automaton()).weighted(0.5, 1.5)
    spellings = [[LETTERS.index(c) for c in word] if all(c in LETTERS for c in word) else [] for word in model.words]
    return ops.WordModel.spelled(words, spellings, space=0, unknown=model.unknown)


@needs_native
def test_ctc_beam_search_reads_what_pyctcdecode_reads(speech: tuple[Path, Tensor]) -> None:
    folder, log_probs = speech
    found = ops.ctc_beam_search(log_probs, **AS_PYCTCDECODE)
    assert text(found) == SPOKEN
    assert float(found.log_probs) == pytest.approx(-0.18204, abs=1e-4)  # pyctcdecode's logit_score
    model = NgramModel.from_arpa(folder / "bugs_bunny_kenlm.arpa")
    found = ops.ctc_beam_search(log_probs, lm=word_model(model), **AS_PYCTCDECODE)
    assert text(found) == SPOKEN
    assert float(found.log_probs) == pytest.approx(-2.92294, abs=1e-4)


# ---- what is refused, traced and compiled ----


def test_ctc_beam_search_refuses_what_does_not_fit() -> None:
    search = getattr(ops.ctc_beam_search, "__wrapped__", ops.ctc_beam_search)  # past the shape types
    log_probs = frames(2, 3, 4)
    refused: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        (r"log_probs must have the shape \[B, T, C\], got \[3, 4\]", (log_probs[0],), {}),
        ("log_probs must be of floats", (log_probs.long(),), {}),
        ("log_probs must have a class", (log_probs[..., :0],), {}),
        (r"lengths must have the shape \[2\], got \[1\]", (log_probs, torch.tensor([1])), {}),
        ("lengths must be integers", (log_probs, torch.tensor([1.0, 2.0])), {}),
        ("blank must be an integer from 0 to 3, got 4", (log_probs,), {"blank": 4}),
        ("beam_size must be an integer from 1 to 65536, got 0", (log_probs,), {"beam_size": 0}),
        ("n_best must be an integer from 1 to 5, got 6", (log_probs,), {"n_best": 6}),
        ("token_min_logp must be a number, got nan", (log_probs,), {"token_min_logp": math.nan}),
        ("beam_prune_logp must be at most 0, got 1.0", (log_probs,), {"beam_prune_logp": 1.0}),
        ("blank_skip must be a probability above 0 or None, got 1.5", (log_probs,), {"blank_skip": 1.5}),
        ("lm must be a BackoffAutomaton, a WordModel or None, got str", (log_probs,), {"lm": "kenlm"}),
        ("lm must have a symbol for each of 4 classes, got 5", (log_probs,), {"lm": automaton(random.Random(0), 5)}),
        ("hot_words must be a BackoffAutomaton or None", (log_probs,), {"hot_words": ["a"]}),
    ]
    for rule, given, options in refused:
        with pytest.raises(InputError, match=rule):
            search(*given, **{"beam_size": 5, **options})
    lm = ops.WordModel.spelled(automaton(random.Random(0), 4), [[1]], space=3, unknown=0)
    with pytest.raises(InputError, match="the space of lm must be below 4 and not the blank 3, got 3"):
        search(log_probs, beam_size=2, blank=3, lm=lm)
    for backend in ("auto", "reference"):
        with library.use_backend(backend), pytest.raises(RuntimeError, match="lengths must be from 0 to 3, got 4"):
            search(log_probs, torch.tensor([1, 4]), beam_size=2)


def kernel_call(log_probs: Tensor, lengths: Tensor, *, lm: ops.BackoffAutomaton | None = None) -> tuple[Any, ...]:
    model = lm.tensors() if lm else []
    return (
        *(log_probs, lengths, 4, 2, 0, *KERNEL.values()),
        *(model, [], [], [], [lm.start if lm else 0, 0, 0], -1, -1, 0.0),
    )


@needs_native
def test_ctc_beam_search_kernel_reads_nothing_outside_of_a_wild_model() -> None:
    log_probs, lengths = frames(2, 6, 5), torch.tensor([6, 4])
    search = torch.ops.seqkit.ctc_beam_search
    good = automaton(random.Random(0), 5)
    for seed in range(50):
        draw = random.Random(seed)
        wild = [x.clone() for x in good.tensors()]
        for _ in range(4):
            x = draw.choice(wild)
            at = draw.randrange(len(x))
            x[at] = (
                draw.choice((-1, 2**31 - 1, -(2**31), 7))
                if not x.is_floating_point()
                else draw.choice((math.nan, 1e38))
            )
        given = list(kernel_call(log_probs, lengths, lm=good))
        given[8] = wild
        labels, counts, *_ = search(*given)
        assert int(labels.max()) < 5
        assert int(counts.max()) <= 6
    given[8] = wild[:3]
    with pytest.raises(RuntimeError, match="label_model must have seven tensors, got 3"):
        search(*given)


@needs_native
def test_ctc_beam_search_opcheck() -> None:
    log_probs, lengths = frames(2, 6, 5), torch.tensor([6, 4])
    for lm in (None, automaton(random.Random(0), 5)):
        torch.library.opcheck(torch.ops.seqkit.ctc_beam_search.default, kernel_call(log_probs, lengths, lm=lm))


@needs_native
@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracer does it
def test_ctc_beam_search_compiles() -> None:
    log_probs, lengths = frames(2, 6, 5), torch.tensor([6, 4])
    lm, hot = automaton(random.Random(0), 5), ops.hot_word_automaton([[1, 2]], 1.0, n_labels=5)

    def search(log_probs: Tensor, lengths: Tensor) -> ops.CtcHypotheses:
        return ops.ctc_beam_search(
            log_probs, lengths, beam_size=6, n_best=3, lm=lm, hot_words=hot, blank_skip=0.9, return_times=True
        )

    compiled = torch.compile(search, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(compiled(log_probs, lengths), search(log_probs, lengths), strict=True):
        assert torch.equal(got, wanted)


@needs_native
@pytest.mark.parametrize("level", ["0", "1"])
def test_ctc_beam_search_at_lower_machine_levels(level: str) -> None:
    code = """
import sys
sys.path.insert(0, "tests/ops")
import test_ctc_beam_search as tests
tests.check_against_reference(30)
print("same")
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env={**os.environ, "SEQKIT_ISA": level}
    )
    assert done.stdout.strip() == "same", done.stderr
