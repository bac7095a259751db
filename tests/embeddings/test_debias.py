"""Debiasing: the three steps in closed form and against the published algorithm written row by row; the measures."""

import itertools

import numpy as np
import pytest

from seqkit.embeddings import WordVectors
from seqkit.embeddings.debias import bias_direction, direct_bias, hard_debias, weat
from seqkit.errors import InputError

WORDS = ["she", "he", "woman", "man", "queen", "king", "nurse", "doctor", "tree"]
DEFINITIONAL = [("she", "he"), ("woman", "man")]
EQUALIZE = [("queen", "king"), ("woman", "man")]
SPECIFIC = {"she", "he", "queen"}


@pytest.fixture
def vectors() -> WordVectors:
    drawn = np.random.default_rng(0).standard_normal((len(WORDS), 6)).astype(np.float32)
    drawn[::2, 0] += 2  # the attribute
    return WordVectors(WORDS, drawn)


def published(vectors: WordVectors) -> np.ndarray:
    """Bolukbasi et al.'s steps, one word at a time, in float64."""
    rows = {word: row / np.linalg.norm(row) for word, row in zip(WORDS, vectors.matrix.astype(float), strict=True)}
    halves = []
    for a, b in DEFINITIONAL:
        centre = (rows[a] + rows[b]) / 2
        halves += [rows[a] - centre, rows[b] - centre]
    _, values = np.linalg.eigh(np.cov(np.array(halves).T))
    g = values[:, -1]
    for word in WORDS:
        if word not in SPECIFIC:
            rows[word] = rows[word] - (rows[word] @ g) * g
            rows[word] /= np.linalg.norm(rows[word])
    for a, b in EQUALIZE:
        mean = (rows[a] + rows[b]) / 2
        y = mean - (mean @ g) * g
        z = np.sqrt(1 - y @ y) * (1 if (rows[a] - rows[b]) @ g >= 0 else -1)
        rows[a], rows[b] = y + z * g, y - z * g
    return np.array([rows[word] for word in WORDS])


def test_hard_debias_is_the_published_algorithm(vectors: WordVectors) -> None:
    found = hard_debias(vectors, definitional=DEFINITIONAL, equalize=EQUALIZE, specific=SPECIFIC)
    neutral = [WORDS.index(word) for word in ("nurse", "doctor", "tree")]
    wanted = published(vectors)
    others = [row for row in range(len(WORDS)) if WORDS[row] not in ("woman", "man")]
    np.testing.assert_allclose(found.matrix[others], wanted[others], atol=2e-6)
    # Both words of this pair were neutralised: which of them lies on which side hangs on the last bit.
    pair = [WORDS.index("woman"), WORDS.index("man")]
    assert min(np.abs(found.matrix[pair] - wanted[order]).max() for order in (pair, pair[::-1])) < 2e-6
    direction = bias_direction(vectors, DEFINITIONAL)
    assert np.abs(found.matrix[neutral] @ direction).max() < 1e-6
    np.testing.assert_allclose(np.linalg.norm(found.matrix, axis=1), 1, atol=1e-6)
    # An equalised pair is as far from every neutral word on either side.
    queen, king = (found.matrix[WORDS.index(word)] for word in ("queen", "king"))
    np.testing.assert_allclose(found.matrix[neutral] @ queen, found.matrix[neutral] @ king, atol=1e-6)
    np.testing.assert_allclose(found.matrix[0], vectors.unit[0], atol=1e-6)


def test_the_direction_points_from_the_second_words_to_the_first() -> None:
    flat = WordVectors(["a", "b", "c", "d"], np.array([[1, 1], [-1, 1], [2, 1], [-2, 1]], np.float32))
    np.testing.assert_allclose(bias_direction(flat, [("a", "b"), ("c", "d"), ("a", "unknown")]), [1, 0], atol=1e-6)
    np.testing.assert_allclose(bias_direction(flat, [("b", "a")]), [-1, 0], atol=1e-6)


def test_direct_bias_is_the_mean_cosine() -> None:
    flat = WordVectors(["a", "b"], np.array([[3, 4], [0, 2]], np.float32))
    direction = np.array([2, 0], np.float32)
    assert direct_bias(flat, direction, ["a", "b", "unknown"]) == pytest.approx(0.3)
    assert direct_bias(flat, direction, ["a", "b"], strictness=2.0) == pytest.approx(0.18)


def test_weat_by_hand(vectors: WordVectors) -> None:
    x, y, a, b = ["nurse", "tree"], ["doctor", "king"], ["she", "woman", "unknown"], ["he", "man"]
    unit = dict(zip(WORDS, vectors.unit.astype(float), strict=True))

    def s(word: str) -> float:
        near = [np.mean([unit[word] @ unit[other] for other in others if other in unit]) for others in (a, b)]
        return float(near[0] - near[1])

    found = weat(vectors, x, y, a, b)
    every = [s(word) for word in x + y]
    assert found.effect == pytest.approx((np.mean(every[:2]) - np.mean(every[2:])) / np.std(every))
    more = [sum(pair) > every[0] + every[1] + 1e-12 for pair in itertools.combinations(every, 2)]
    assert found.p == pytest.approx(np.mean(more))
    assert (found.known, found.given) == (8, 9)
    swapped = weat(vectors, y, x, a, b)
    assert swapped.effect == pytest.approx(-found.effect)


def test_weat_of_many_words_draws_its_partitions() -> None:
    drawn = np.random.default_rng(1).standard_normal((44, 5)).astype(np.float32)
    drawn[:20, 0] += 1.0
    drawn[40:42, 0] += 5.0
    words = [f"w{n}" for n in range(44)]
    found = weat(WordVectors(words, drawn), words[:20], words[20:40], words[40:42], words[42:])
    assert found.effect > 0.5
    assert found.p < 0.05
    assert found == weat(WordVectors(words, drawn), words[:20], words[20:40], words[40:42], words[42:])


def test_what_cannot_be_is_refused(vectors: WordVectors) -> None:
    with pytest.raises(InputError, match="a pair must have vectors"):
        bias_direction(vectors, [("he", "unknown")])
    with pytest.raises(InputError, match="words of a pair must differ"):
        bias_direction(vectors, [("he", "he")])
    with pytest.raises(InputError, match="a pair must be of two words"):
        bias_direction(vectors, [["he", "she", "it"]])
    with pytest.raises(InputError, match="got none that has"):
        direct_bias(vectors, np.ones(6, np.float32), ["unknown"])
    with pytest.raises(InputError, match="b must have a word"):
        weat(vectors, ["he"], ["she"], ["king"], ["unknown"])
