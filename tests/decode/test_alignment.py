"""`decode.align`: the best of all enumerated alignments, spans and confidences, targets that do not fit."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from seqkit.decode import Span, align
from seqkit.decode.alignment import join_words
from seqkit.errors import InputError

LABELS = ["", "a", "b", " "]


def frames(*probable: int, p: float = 0.91) -> Tensor:
    """[1, T, 4]: in each frame one class has the probability p, the others the rest alike."""
    probs = torch.full((1, len(probable), 4), (1 - p) / 3)
    probs[0, range(len(probable)), list(probable)] = p
    return probs.log()


def runs(path: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Label, begin and end of each run that is not blank."""
    found, begin = [], 0
    for label, run in itertools.groupby(path):
        end = begin + len(list(run))
        if label:
            found.append((label, begin, end))
        begin = end
    return found


@pytest.mark.parametrize("target", [[], [1], [2, 1], [1, 1], [1, 3, 1], [2, 2, 2]])
@pytest.mark.parametrize("T", [1, 2, 4, 6])
def test_align_is_the_best_of_all_alignments(T: int, target: list[int]) -> None:
    log_probs = torch.randn(1, T, 4, generator=torch.Generator().manual_seed(T)).double().log_softmax(dim=-1)
    paths = [path for path in itertools.product(range(4), repeat=T) if [x for x, *_ in runs(path)] == target]
    (found,) = align(log_probs, torch.tensor([target], dtype=torch.int64), labels=LABELS)
    if not paths:
        assert found is None
        return
    logp = {path: sum(float(log_probs[0, t, label]) for t, label in enumerate(path)) for path in paths}
    best = max(paths, key=lambda path: logp[path])
    assert found is not None
    assert found.logp == pytest.approx(logp[best])
    assert [(LABELS.index(x.text), x.begin, x.end) for x in found.tokens] == runs(best)
    for token, (label, begin, end) in zip(found.tokens, runs(best), strict=True):
        assert token.confidence == pytest.approx(float(log_probs[0, begin:end, label].exp().mean()))


def test_align_tells_seconds_words_and_confidence() -> None:
    log_probs = frames(0, 1, 1, 0, 2, 3, 3, 1, 0)
    log_probs[0, 2] = torch.tensor([0.4, 0.5, 0.05, 0.05]).log()
    (found,) = align(log_probs, torch.tensor([[1, 2, 3, 1]]), labels=LABELS, frame_seconds=0.02)
    assert found is not None
    assert [token.text for token in found.tokens] == ["a", "b", " ", "a"]
    assert [token.begin for token in found.tokens] == pytest.approx([0.02, 0.08, 0.10, 0.14])
    assert [token.end for token in found.tokens] == pytest.approx([0.06, 0.10, 0.14, 0.16])
    assert [token.confidence for token in found.tokens] == pytest.approx([(0.91 + 0.5) / 2, 0.91, 0.91, 0.91])
    ab, a = found.words()
    assert (ab.text, a.text) == ("ab", "a")
    assert (ab.begin, ab.end, ab.confidence) == pytest.approx((0.02, 0.10, 0.705))
    assert (a.begin, a.end, a.confidence) == pytest.approx((0.14, 0.16, 0.91))


def test_join_words_drops_spaces_at_the_ends_and_in_a_row() -> None:
    tokens = [Span(text=c, begin=float(n), end=n + 1.0, confidence=1.0) for n, c in enumerate("  ab  a ")]
    assert [(word.text, word.begin, word.end) for word in join_words(tokens)] == [("ab", 2, 4), ("a", 6, 7)]
    assert join_words([]) == ()


def test_align_of_a_batch_does_not_see_padding() -> None:
    log_probs = torch.cat([frames(1, 0, 2, 2), frames(2, 0, 1, 1), frames(1, 1, 1, 1), frames(1, 1, 1, 1)])
    lengths, target_lengths = torch.tensor([4, 2, 1, 0]), torch.tensor([2, 1, 2, 0])
    targets = torch.tensor([[1, 2], [2, -1], [1, 1], [-1, -1]])
    for b, n in enumerate(lengths.tolist()):
        log_probs[b, n:] = math.nan
    first, second, tight, empty = align(log_probs, targets, lengths, target_lengths, labels=LABELS)
    assert first is not None
    assert [(token.text, token.begin, token.end) for token in first.tokens] == [("a", 0, 1), ("b", 2, 4)]
    assert second is not None
    assert [(token.text, token.begin, token.end) for token in second.tokens] == [("b", 0, 1)]
    assert tight is None  # two labels in one frame
    assert empty is not None
    assert (empty.tokens, empty.logp) == ((), 0.0)
    assert align(log_probs[:0], targets[:0], labels=LABELS) == []


def test_align_refuses_what_does_not_fit() -> None:
    aligned = getattr(align, "__wrapped__", align)  # past the shape types
    log_probs, targets = frames(1, 2), torch.tensor([[1, 2]])
    with pytest.raises(InputError, match=r"shape \[B, T, C\] and targets \[B, S\], got \[2, 4\] and \[1, 2\]"):
        aligned(log_probs[0], targets, labels=LABELS)
    with pytest.raises(InputError, match="labels must be one for each of 4 classes, got 3"):
        align(log_probs, targets, labels=LABELS[:3])
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="frame_seconds must be above 0 and finite"):
            align(log_probs, targets, labels=LABELS, frame_seconds=wrong)
    with pytest.raises(RuntimeError, match="targets must be from 0 to 3"):
        align(log_probs, torch.tensor([[1, 4]]), labels=LABELS)
