"""Approximate search against the exact one."""

import sys

import numpy as np
import pytest

from seqkit.embeddings import WordVectors
from seqkit.errors import InputError


def clustered(size: int, dim: int = 16) -> WordVectors:
    """Words in clouds, as words are."""
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(50, dim))
    matrix = centres[generator.integers(0, 50, size)] + 0.4 * generator.normal(size=(size, dim))
    return WordVectors([f"w{row}" for row in range(size)], matrix.astype(np.float32))


def test_most_of_the_ten_nearest_are_found() -> None:
    pytest.importorskip("faiss")
    vectors = clustered(6000)
    queries = vectors.words[::60]
    exact = vectors.nearest_of_each(queries, 10)
    nearly = vectors.nearest_of_each(queries, 10, approximate=True)
    found = [len({word for word, _ in a} & {word for word, _ in b}) for a, b in zip(exact, nearly, strict=True)]
    assert np.mean(found) > 9
    for query, ranked in zip(queries, nearly, strict=True):
        assert len(ranked) == 10
        assert query not in dict(ranked)
        assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
        assert ranked[0][1] == pytest.approx(vectors.similarity(query, ranked[0][0]), abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 40, 300])
def test_the_search_of_few_words_is_exact(size: int) -> None:
    pytest.importorskip("faiss")
    vectors = clustered(size)
    for query in ("w0", vectors["w0"] + 1):
        exact, nearly = vectors.nearest(query, 5), vectors.nearest(query, 5, approximate=True)
        assert [word for word, _ in nearly] == [word for word, _ in exact]
        assert [score for _, score in nearly] == pytest.approx([score for _, score in exact], abs=1e-6)


def test_as_many_words_as_are_asked_for_come_back() -> None:
    pytest.importorskip("faiss")
    vectors = clustered(2500)
    assert vectors.nearest("w7", 2499, approximate=True) == vectors.nearest("w7", 2499)
    assert len(vectors.nearest("w7", 9999, approximate=True)) == 2499


def test_without_the_library_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"faiss must be installed .* \(pip install 'seqkit\[faiss\]'\)"):
        clustered(3).nearest("w0", approximate=True)
