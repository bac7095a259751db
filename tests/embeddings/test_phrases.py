"""Phrases: scores by their definition, and words joined once."""

import itertools
import random
import tempfile
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from seqkit.embeddings import native
from seqkit.embeddings.corpus import Corpus
from seqkit.embeddings.phrases import _merged, _runs, find_phrases, join_phrases
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


def test_pairs_in_many_runs_are_counted_as_in_one() -> None:
    generator = np.random.default_rng(2)
    drawn = (300 * generator.random((30, 4000)) ** 2).astype(int)
    corpus = Corpus([[f"w{word}" for word in row] for row in drawn.tolist()], min_count=1)
    ids = corpus.ids()
    with tempfile.TemporaryFile() as file:
        whole = _runs(ids, len(corpus), len(ids), file)
        assert len(whole) == 1
        assert file.tell() == 0
    for room in (len(ids) // 2, 9973, 1500):
        with tempfile.TemporaryFile() as file:
            runs = _runs(ids, len(corpus), room, file)
            assert len(runs) == -(-(len(ids) - 1) // room)
            pieces = list(_merged(runs, room))
            assert max(len(keys) for keys, _ in pieces) <= room
            for at in range(2):
                assert (np.concatenate([piece[at] for piece in pieces]) == whole[0][at]).all()


def test_phrases_are_the_same_in_any_memory_and_stay_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    drawn = (60_000 * generator.random((400, 1000)) ** 2).astype(int)
    corpus = Corpus([[f"w{word}" for word in row] for row in drawn.tolist()], min_count=1)
    wanted = find_phrases(corpus, delta=1.0, threshold=500.0, memory=1 << 30)
    assert len(wanted) > 10
    words, counts = corpus.words, corpus.counts
    monkeypatch.setattr(Corpus, "words", property(lambda _: words))  # neither belongs to the counting
    monkeypatch.setattr(Corpus, "counts", property(lambda _: counts))
    peaks = {}
    for memory in (2 << 20, 1 << 30):
        tracemalloc.start()
        assert find_phrases(corpus, delta=1.0, threshold=500.0, memory=memory) == wanted
        peaks[memory] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    beside = 2 * 8 * len(corpus) + (1 << 20)
    assert peaks[2 << 20] < (2 << 20) + beside
    assert peaks[1 << 30] > 5 * peaks[2 << 20]
    with pytest.raises(InputError, match="memory must be a megabyte or more"):
        find_phrases(corpus, memory=1000)


def test_a_text_without_pairs_has_no_phrases() -> None:
    assert find_phrases(Corpus([["a"], ["b"]], min_count=1)) == {}
    assert find_phrases(Corpus([["a"]], min_count=1)) == {}


def test_join_phrases_takes_a_word_once() -> None:
    phrases = {("new", "york"): 1.0, ("york", "times"): 1.0}
    assert list(join_phrases([["new", "york", "times"], ["york", "times", "new"], []], phrases)) == [
        ["new_york", "times"],
        ["york_times", "new"],
        [],
    ]
