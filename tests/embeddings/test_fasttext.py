"""Subword vectors: fastText's n-grams and hash, vectors of unseen words, and that they learn."""

import random

import numpy as np
import pytest

from seqkit.embeddings import FastText, native
from seqkit.embeddings.fasttext import subword_buckets
from seqkit.errors import InputError

pytestmark = pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the trainer is not built")


def plain_buckets(word: str, min_n: int, max_n: int, buckets: int) -> list[int]:
    """fastText's definition, by characters."""
    framed = f"<{word}>"
    found = []
    for begin in range(len(framed)):
        for n in range(1, max_n + 1):
            end = begin + n
            if end > len(framed) or n < min_n or (n == 1 and (begin == 0 or end == len(framed))):
                continue
            value = 2166136261
            for byte in framed[begin:end].encode():
                signed = byte - 256 if byte >= 128 else byte
                value = ((value ^ (signed & 0xFFFFFFFF)) * 16777619) & 0xFFFFFFFF
            found.append(value % buckets)
    return found


@pytest.mark.parametrize("word", ["", "a", "king", "été", "日本語", "😀x", "a" * 40])
@pytest.mark.parametrize(("min_n", "max_n"), [(3, 6), (1, 2), (1, 1), (5, 5)])
def test_subword_buckets_are_those_of_fasttext(word: str, min_n: int, max_n: int) -> None:
    assert subword_buckets(word, min_n, max_n, 2_000_000).tolist() == plain_buckets(word, min_n, max_n, 2_000_000)


def test_the_hash_is_fnv1a() -> None:
    assert subword_buckets("a", 1, 1, (1 << 31) - 1).tolist() == [0xE40C292C % ((1 << 31) - 1)]  # FNV's own test vector


def text() -> list[str]:
    generator = random.Random(3)
    stems = {"a": ["walk", "talk", "jump"], "b": ["stone", "brick", "glass"]}
    return [
        " ".join(generator.choice(stems[topic]) + generator.choice(["", "ing", "ed", "s"]) for _ in range(8))
        for topic in generator.choices("ab", k=4000)
    ]


@pytest.mark.parametrize("options", [{}, {"deterministic": True, "threads": 2}])
def test_fasttext_learns_and_knows_unseen_words(options: dict) -> None:
    vectors = FastText(dim=16, epochs=4, sample=0.0, **options).train(text())

    def cosine(a: str, b: str) -> float:
        x, y = vectors[a], vectors[b]
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    assert "walker" not in vectors
    assert cosine("walker", "talked") > cosine("walker", "bricks") + 0.3
    assert cosine("walked", "jumps") > cosine("walked", "stone") + 0.3
    with pytest.raises(InputError, match="must share an n-gram with the vocabulary, got 'qqqqq'"):
        vectors["qqqqq"]


def test_a_words_vector_is_the_mean_of_its_rows() -> None:
    vectors = FastText(dim=4, epochs=1, min_count=1).train(["aa bb aa bb"])
    wanted = subword_buckets("aa", 3, 6, 2_000_000)
    ngrams = vectors.ngrams[np.searchsorted(vectors.buckets, wanted)]
    own = vectors["aa"] * (1 + len(wanted)) - ngrams.sum(0)
    assert np.abs(own).max() <= 0.5 + 1e-3  # the word's own row: begun within 1 / dim, and hardly moved
    assert len(vectors.buckets) == len({*wanted.tolist(), *subword_buckets("bb", 3, 6, 2_000_000).tolist()})


def test_wrong_options_are_refused() -> None:
    for options, says in [
        ({"min_n": 0}, "min_n must be"),
        ({"min_n": 7}, "min_n must be"),
        ({"buckets": 0}, "buckets must be"),
        ({"architecture": "cbow"}, "skip-gram with negative sampling"),
    ]:
        with pytest.raises(InputError, match=says):
            FastText(**options)
