"""Phrases: scores by their definition, and words joined once."""

import itertools
import random
from collections import Counter

import pytest

from seqkit.embeddings import native
from seqkit.embeddings.corpus import Corpus
from seqkit.embeddings.phrases import find_phrases, join_phrases
from seqkit.errors import InputError

pytestmark = pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the trainer is not built")


def test_find_phrases_scores_pairs_by_the_definition() -> None:
    generator = random.Random(1)
    sentences = [[*generator.choices("abcdef", (1, 2, 3, 4, 5, 6), k=8), "x", "y"] for _ in range(200)]
    phrases = find_phrases(Corpus(sentences, min_count=1), delta=5.0, threshold=0.5)
    single = Counter(word for sentence in sentences for word in sentence)
    pairs = Counter(pair for sentence in sentences for pair in itertools.pairwise(sentence))
    scores = {(a, b): (n - 5) / (single[a] * single[b]) * 2000 for (a, b), n in pairs.items()}
    assert phrases == pytest.approx({pair: score for pair, score in scores.items() if score > 0.5})
    assert next(iter(phrases)) == ("x", "y")
    assert list(phrases.values()) == sorted(phrases.values(), reverse=True)
    assert ("y", "a") not in pairs  # a pair does not cross the end of a sentence
    with pytest.raises(InputError, match="delta must be 0 or more"):
        find_phrases(Corpus(sentences, min_count=1), delta=-1.0)


def test_join_phrases_takes_a_word_once() -> None:
    phrases = {("new", "york"): 1.0, ("york", "times"): 1.0}
    assert list(join_phrases([["new", "york", "times"], ["york", "times", "new"], []], phrases)) == [
        ["new_york", "times"],
        ["york_times", "new"],
        [],
    ]
