"""Words with their vectors."""

from pathlib import Path

import numpy as np
import pytest

from seqkit.embeddings import WordVectors, native
from seqkit.embeddings.fasttext import SubwordVectors, subword_buckets
from seqkit.errors import InputError


def test_word_vectors_find_rows_and_refuse_what_does_not_fit() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    vectors = WordVectors(["a", "b"], matrix)
    assert (vectors["b"] == matrix[1]).all()
    assert "a" in vectors
    assert "c" not in vectors
    with pytest.raises(InputError, match="word must be in the vocabulary of 2 words, got 'c'"):
        vectors["c"]
    with pytest.raises(InputError, match="a row for each of 1 words"):
        WordVectors(["a"], matrix)
    with pytest.raises(InputError, match="got one twice"):
        WordVectors(["a", "a"], matrix)


def test_save_writes_word2vecs_binary(tmp_path: Path) -> None:
    matrix = np.array([[1, 2], [3, 4]], np.float32)
    WordVectors(["a", "é"], matrix).save(tmp_path / "v.bin")
    expected = b"2 2\na " + matrix[0].tobytes() + b"\n" + "é ".encode() + matrix[1].tobytes() + b"\n"
    assert (tmp_path / "v.bin").read_bytes() == expected


def royal() -> WordVectors:
    """king is man and royal, queen is woman and royal; lengths differ so that cosines and products do."""
    matrix = np.array([[1, 0, 0.1], [3, 0, 3], [0, 1, 0.1], [0, 2, 2], [-1, -1, 0], [0, 0, 0]], np.float32)
    return WordVectors(["man", "king", "woman", "queen", "apple", "zero"], matrix)


def plain_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_nearest_ranks_by_cosine_without_the_word_itself() -> None:
    vectors = royal()
    found = vectors.nearest("king", 3)
    expected = {word: plain_cosine(vectors["king"], vectors[word]) for word in ("man", "woman", "queen")}
    assert [word for word, _ in found] == sorted(expected, key=expected.__getitem__, reverse=True)
    assert dict(found) == pytest.approx(expected, abs=1e-6)
    assert [word for word, _ in vectors.nearest(vectors["king"], 1)] == ["king"]
    assert len(vectors.nearest("king", 99)) == 5
    assert vectors.nearest_of_each(["king", vectors["man"]], 3) == [found, vectors.nearest(vectors["man"], 3)]
    assert vectors.nearest_of_each([], 3) == []
    assert WordVectors(["a"], np.ones((1, 2), np.float32)).nearest("a") == []


def test_equals_keep_the_order_of_the_rows() -> None:
    vectors = WordVectors(list("abcde"), np.ones((5, 2), np.float32))
    assert [word for word, _ in vectors.nearest("b", 3)] == ["a", "c", "d"]


def test_many_queries_in_batches_are_as_one_by_one() -> None:
    generator = np.random.default_rng(1)
    vectors = WordVectors([f"w{row}" for row in range(600)], generator.normal(size=(600, 8)).astype(np.float32))
    found = vectors.nearest_of_each(vectors.words, 4)
    for word in vectors.words[::37]:
        one = vectors.nearest(word, 4)
        assert [each for each, _ in found[vectors.index[word]]] == [each for each, _ in one]


@pytest.mark.parametrize("method", ["3cosadd", "3cosmul"])
def test_analogy_by_brute_force(method: str) -> None:
    generator = np.random.default_rng(2)
    words = [f"w{row}" for row in range(30)]
    vectors = WordVectors(words, generator.normal(size=(30, 6)).astype(np.float32))
    a, b, c = words[:3]
    unit = {word: vectors[word] / np.linalg.norm(vectors[word]) for word in words}

    def score(d: str) -> float:
        if method == "3cosadd":
            return plain_cosine(unit[d], unit[b] - unit[a] + unit[c])
        to_a, to_b, to_c = ((plain_cosine(unit[d], unit[word]) + 1) / 2 for word in (a, b, c))
        return to_b * to_c / (to_a + 0.001)

    expected = sorted(words[3:], key=score, reverse=True)[:5]
    found = vectors.analogy(a, b, c, 5, method=method)
    assert [word for word, _ in found] == expected
    assert [value for _, value in found] == pytest.approx([score(word) for word in expected], abs=1e-5)
    assert royal().analogy("man", "king", "woman", 1, method=method)[0][0] == "queen"


def test_the_smaller_questions() -> None:
    vectors = royal()
    assert vectors.odd_one_out(["man", "king", "apple"]) == "apple"
    assert vectors.similarity("king", "queen") == pytest.approx(0.5)
    assert vectors.similarity("king", "zero") == 0
    assert vectors.sentence(["man", "unknown", "woman"]) == pytest.approx([0.5, 0.5, 0.1])


def test_a_memory_map_and_eight_bits_answer_every_question(tmp_path: Path) -> None:
    vectors = royal()
    for dtype, near in (("float32", 1e-6), ("int8", 0.02)):
        vectors.save(tmp_path / "v.safetensors", dtype=dtype)
        found = WordVectors.load(tmp_path / "v.safetensors")
        assert found.dim == 3
        assert found["king"] == pytest.approx(vectors["king"], abs=near)
        for asked in (
            lambda each: each.nearest("king", 3),
            lambda each: each.nearest(np.array([0, 1, 1], np.float32), 2),
            lambda each: each.nearest_of_each(["queen", "man"], 2)[1],
            lambda each: each.analogy("man", "king", "woman", 2),
            lambda each: each.analogy("man", "king", "woman", 2, method="3cosmul"),
        ):
            wanted = asked(vectors)
            assert [word for word, _ in asked(found)] == [word for word, _ in wanted]
            assert [score for _, score in asked(found)] == pytest.approx([score for _, score in wanted], abs=near)
        assert found.odd_one_out(["man", "king", "apple"]) == "apple"
        assert found.similarity("king", "queen") == pytest.approx(0.5, abs=near)
        assert found.sentence(["man", "unknown", "woman"]) == pytest.approx([0.5, 0.5, 0.1], abs=near)


@pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the n-gram hash is not built")
def test_unknown_words_are_asked_by_their_subwords() -> None:
    generator = np.random.default_rng(3)
    words, hashing = ["king", "queen", "kingdom"], (3, 4, 1000)
    buckets = np.unique(np.concatenate([subword_buckets(word, *hashing) for word in words]))
    ngrams = generator.normal(size=(len(buckets), 6)).astype(np.float32)
    vectors = SubwordVectors(words, generator.normal(size=(3, 6)).astype(np.float32), ngrams, buckets, hashing)
    own = vectors["kings"]
    assert "kings" not in vectors
    assert vectors.nearest("kings", 3) == vectors.nearest(own, 3)
    batch = vectors.nearest_of_each(["kings", "king"], 2)
    assert [word for word, _ in batch[0]] == [word for word, _ in vectors.nearest("kings", 2)]
    assert "king" not in dict(batch[1])
    assert vectors.similarity("kings", "queens") == pytest.approx(plain_cosine(own, vectors["queens"]), abs=1e-6)
    assert vectors.sentence(["kings", "king", "zz"]) == pytest.approx((own + vectors["king"]) / 2)
    assert vectors.odd_one_out(["kings", "kings", "queen"]) == "queen"
    unit = {word: vectors[word] / np.linalg.norm(vectors[word]) for word in ("king", "kings", "queen", "kingdom")}
    ((word, score),) = vectors.analogy("king", "kings", "queen", 5)
    assert word == "kingdom"
    assert score == pytest.approx(plain_cosine(unit["kingdom"], unit["kings"] - unit["king"] + unit["queen"]), abs=1e-6)
    with pytest.raises(InputError, match="must share an n-gram"):
        vectors.nearest("zz")


def test_wrong_questions_are_refused() -> None:
    vectors = royal()
    for call, says in [
        (lambda: vectors.nearest("pear"), "word must be in the vocabulary of 6 words, got 'pear'"),
        (lambda: vectors.nearest("king", 0), "n must be at least 1, got 0"),
        (lambda: vectors.nearest(np.ones(2, np.float32)), r"must have the shape \(3,\), got \(2,\)"),
        (lambda: vectors.nearest(np.full(3, np.nan, np.float32)), "must be finite"),
        (lambda: vectors.analogy("man", "king", "woman", method="cos"), "method must be one of 3cosadd, 3cosmul"),
        (lambda: vectors.odd_one_out([]), "words must be one or more"),
        (lambda: vectors.sentence(["pear"]), "a word must have a vector"),
        (lambda: WordVectors(["a"], np.full((1, 2), np.inf, np.float32)).nearest("a"), "finite, got another in .* 'a'"),
    ]:
        with pytest.raises(InputError, match=says):
            call()


def test_numbers_of_any_size_have_a_direction() -> None:
    vectors = WordVectors(["a", "b"], np.array([[3e38, 3e38], [1e-38, 0]], np.float32))
    assert vectors.similarity("a", "b") == pytest.approx(np.sqrt(0.5))
