"""Spans as conlleval counts them; `seqeval`, a port of its rules, is the oracle where it is installed."""

import random

import pytest

from seqkit.analysis.spans import Span, is_spans, span_score, spans

# By hand, from startOfChunk and endOfChunk of conlleval.pl.
CASES = {
    "": [],
    "O O": [],
    "B-a I-a O B-b": [(0, 2, "a"), (3, 4, "b")],
    "B-a B-a": [(0, 1, "a"), (1, 2, "a")],
    "O I-a I-a": [(1, 3, "a")],  # an inside after O begins one
    "B-a I-b I-b": [(0, 1, "a"), (1, 3, "b")],  # so does another type
    "I-a B-a I-a": [(0, 1, "a"), (1, 3, "a")],  # IOB1: B- only between neighbours
    "S-a S-a B-b I-b E-b": [(0, 1, "a"), (1, 2, "a"), (2, 5, "b")],
    "B-a E-a I-a": [(0, 2, "a"), (2, 3, "a")],  # what follows an end begins one
    "E-a E-a": [(0, 1, "a"), (1, 2, "a")],
    "S-a I-a": [(0, 1, "a"), (1, 2, "a")],
    "B-a L-a U-b": [(0, 2, "a"), (2, 3, "b")],
    "B-creative-work I-creative-work": [(0, 2, "creative-work")],
}


@pytest.mark.parametrize("labels", CASES)
def test_spans_are_those_of_conlleval(labels: str) -> None:
    assert spans(labels.split()) == [Span(*span) for span in CASES[labels]]


def test_random_labels_give_what_seqeval_gives() -> None:
    oracle = pytest.importorskip("seqeval.metrics.sequence_labeling")
    draw = random.Random(1)
    kinds = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in "ab")]
    for _ in range(3000):
        labels = draw.choices(kinds, k=draw.randint(1, 8))
        theirs = [(begin, end + 1, kind) for kind, begin, end in oracle.get_entities(labels)]
        assert spans(labels) == theirs, labels


def test_a_span_is_found_when_both_ends_and_its_type_are_right() -> None:
    there = [["B-a", "I-a", "O", "B-b"], ["B-a"], ["O"]]
    found = [["B-a", "O", "O", "B-b"], ["B-b"], ["B-a"]]
    score = span_score(found, there)
    assert (score.correct, score.found, score.there) == (1, 4, 3)
    assert score.precision == 1 / 4
    assert score.recall == 1 / 3
    assert score.f1 == pytest.approx(2 / 7)
    assert score.by_type["a"].f1 == 0.0
    assert score.by_type["b"].recall == 1.0
    assert str(score) == "span F1 = 28.57 (precision 25.00, recall 33.33; 1 right of 4 found and 3 there)"


def test_nothing_found_and_nothing_there_is_zero() -> None:
    score = span_score([["O"], []], [["O"], []])
    assert (score.precision, score.recall, score.f1) == (0.0, 0.0, 0.0)


def test_labels_that_mark_spans_are_told_from_others() -> None:
    assert is_spans(["O", "B-x", "I-x"])
    assert not is_spans(["O"])
    assert not is_spans(["NOUN", "O"])
    assert not is_spans(["B-", "O"])
