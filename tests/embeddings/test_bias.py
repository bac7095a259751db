"""The measures of bias: by hand, by brute force over all pairs, on points whose groups are known."""

import itertools

import numpy as np
import pytest

from seqkit.embeddings import WordVectors, bias
from seqkit.embeddings.bias import (
    bias_direction,
    bias_subspace,
    biased_analogies,
    cluster_purity,
    direct_bias,
    most_biased,
    ripa,
    weat,
)
from seqkit.errors import InputError

WORDS = ["she", "he", "woman", "man", "queen", "king", "nurse", "doctor", "tree"]


@pytest.fixture
def vectors() -> WordVectors:
    drawn = np.random.default_rng(0).standard_normal((len(WORDS), 6)).astype(np.float32)
    drawn[::2, 0] += 2  # the attribute
    return WordVectors(WORDS, drawn)


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
    drawn = np.random.default_rng(1).standard_normal((44, 6)).astype(np.float32)
    drawn[:20, 0] += 1.0
    drawn[40:42, 0] += 5.0
    words = [f"w{n}" for n in range(44)]
    found = weat(WordVectors(words, drawn), words[:20], words[20:40], words[40:42], words[42:])
    assert found.effect > 0.5
    assert found.p < 0.05
    assert found == weat(WordVectors(words, drawn), words[:20], words[20:40], words[40:42], words[42:])


def test_the_subspace_of_larger_sets_is_their_principal_components() -> None:
    drawn = np.random.default_rng(3).standard_normal((9, 6)).astype(np.float32)
    words = [f"w{n}" for n in range(9)]
    vectors = WordVectors(words, drawn)
    sets = [words[:3], words[3:6], [*words[6:8], "unknown"], words[7:9]]
    unit = vectors.unit.astype(float)
    rows = np.concatenate([unit[part] - unit[part].mean(0) for part in ([0, 1, 2], [3, 4, 5], [7, 8])])
    values, columns = np.linalg.eigh(rows.T @ rows)
    found = bias_subspace(vectors, sets, components=2)
    np.testing.assert_allclose(np.abs(found @ columns[:, ::-1][:, :2]), np.eye(2), atol=1e-5)
    assert values[-1] > values[-2] > values[-3]
    firsts = rows[[0, 3, 6]] @ found.T
    assert (firsts.sum(0) > 0).all()


def test_direct_bias_in_a_subspace_is_the_length_of_the_part_in_it() -> None:
    flat = WordVectors(["a", "b"], np.array([[3, 0, 4], [0, 2, 0]], np.float32))
    plane = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    assert direct_bias(flat, plane, ["a", "b", "unknown"]) == pytest.approx(0.8)
    assert direct_bias(flat, plane[:1], ["a"]) == pytest.approx(direct_bias(flat, plane[0], ["a"]))


def test_ripa_is_the_inner_product_with_the_relation() -> None:
    vectors = WordVectors(["a", "b", "c", "d", "w"], np.array([[3, 1], [1, 1], [0, 5], [0, 1], [7, -2]], np.float32))
    np.testing.assert_allclose(ripa(vectors, ["w", "unknown"], [("a", "b")]), [7], atol=1e-6)
    np.testing.assert_allclose(ripa(vectors, ["w"], [("b", "a"), ("a", "unknown")]), [-7], atol=1e-6)
    np.testing.assert_allclose(ripa(vectors, ["w", "a"], [("c", "d")]), [-2, 1], atol=1e-6)
    both = ripa(vectors, ["w"], [("a", "b"), ("c", "d")])  # differences (2, 0) and (0, 4): the second is larger
    np.testing.assert_allclose(both, [-2], atol=1e-6)


def brute_force_analogies(vectors: WordVectors, a: str, b: str, n: int, delta: float, words: list[str]) -> list:
    unit = dict(zip(vectors.words, vectors.unit.astype(float), strict=True))
    way = unit[a] - unit[b]
    scored = []
    for x, y in itertools.permutations(words, 2):
        apart = unit[x] - unit[y]
        if np.linalg.norm(apart) <= delta:
            scored.append((float(way @ apart / np.linalg.norm(way) / np.linalg.norm(apart)), x, y))
    chosen: list = []
    for score, x, y in sorted(scored, reverse=True):
        taken = {one for _, one, _ in chosen}, {other for _, _, other in chosen}
        if score >= 1e-3 and len(chosen) < n and x not in taken[0] and y not in taken[1]:
            chosen.append((score, x, y))
    return chosen


@pytest.mark.parametrize("thinned", [False, True])
def test_biased_analogies_are_those_of_brute_force(thinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if thinned:  # few words in a block and few pairs held
        monkeypatch.setattr(bias, "BLOCK", 7)
        monkeypatch.setattr(bias, "HELD_PAIRS", 40)
    drawn = np.random.default_rng(5).standard_normal((40, 4)).astype(np.float32)
    words = [f"w{n}" for n in range(40)]
    vectors = WordVectors(words, drawn)
    for n, delta in ((5, 1.0), (12, 1.3), (20, 2.0), (100, 0.6)):
        found = biased_analogies(vectors, "w0", "w1", n=n, delta=delta, most_frequent=33, without=["w3", "unknown"])
        among = [word for word in words[:33] if word != "w3"]
        wanted = brute_force_analogies(vectors, "w0", "w1", n, delta, among)
        assert [(one.x, one.y) for one in found] == [(x, y) for _, x, y in wanted]
        np.testing.assert_allclose([one.score for one in found], [score for score, _, _ in wanted], atol=1e-4)
    assert len(found) > 2


def test_without_a_bias_there_are_no_analogies() -> None:
    vectors = WordVectors(["a", "b", "c", "d"], np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0.1], [0, 1, 0]], np.float32))
    assert biased_analogies(vectors, "a", "b") == []


def test_most_biased_are_the_furthest_of_each_group() -> None:
    angles = np.radians([0, 180, 10, 40, 80, 100, 150, 175])
    words = ["she", "he", "a", "b", "c", "d", "e", "f"]
    vectors = WordVectors(words, np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32))
    found = most_biased(vectors, [("she", "he")], n=2, without=["she", "he", "a"])
    assert [[words[row] for row in rows] for rows in found] == [["b", "c"], ["f", "e"]]


def test_cluster_purity_of_groups_apart_and_of_one() -> None:
    generator = np.random.default_rng(2)
    points = generator.standard_normal((300, 4)).astype(np.float32)
    groups = np.repeat([0, 1, 2], 100)
    assert cluster_purity(points, groups) < 0.5
    apart = points + 20 * np.eye(4, dtype=np.float32)[groups]
    assert cluster_purity(apart, groups) == 1.0
    # Two clear clusters: in one, 3 of 4 are of group 0, in the other 2 of 3 are of group 1.
    line = np.array([0, 0.1, 0.2, 0.3, 9, 9.1, 9.2], np.float32)[:, None]
    assert cluster_purity(line, np.array([0, 0, 1, 0, 1, 0, 1])) == pytest.approx(5 / 7)


def test_cluster_purity_takes_the_best_of_its_starts() -> None:
    groups = np.repeat([0, 1, 2], 30)
    points = np.array([[0.0], [1.0], [9.0]], np.float32)[groups]
    points += 0.01 * np.random.default_rng(0).standard_normal((90, 1)).astype(np.float32)
    alone = [cluster_purity(points, groups, seed=seed, starts=1) for seed in range(20)]
    assert min(alone) < 1.0  # two centres in one group stay there
    assert [cluster_purity(points, groups, seed=seed, starts=20) for seed in range(20)] == [1.0] * 20


def test_what_cannot_be_is_refused(vectors: WordVectors) -> None:
    with pytest.raises(InputError, match="a set must have vectors"):
        bias_direction(vectors, [("he", "unknown")])
    with pytest.raises(InputError, match="words of a set must differ"):
        bias_direction(vectors, [("he", "he")])
    with pytest.raises(InputError, match="a pair must be of two words"):
        bias_direction(vectors, [["he", "she", "it"]])
    with pytest.raises(InputError, match="two words or more"):
        bias_subspace(vectors, ["he"])
    with pytest.raises(InputError, match="components must be at most 2"):
        bias_subspace(vectors, [WORDS[:3]], components=3)
    with pytest.raises(InputError, match="components must be at least 1"):
        bias_subspace(vectors, [WORDS[:3]], components=0)
    with pytest.raises(InputError, match="got none that has"):
        direct_bias(vectors, np.ones(6, np.float32), ["unknown"])
    with pytest.raises(InputError, match="b must have a word"):
        weat(vectors, ["he"], ["she"], ["king"], ["unknown"])
    with pytest.raises(InputError, match="a word must have a vector"):
        ripa(vectors, ["unknown"], [("he", "she")])
    with pytest.raises(InputError, match="vectors for both words"):
        ripa(vectors, ["he"], [("he", "unknown")])
    with pytest.raises(InputError, match="words of a pair must differ"):
        ripa(vectors, ["he"], [("he", "he")])
    with pytest.raises(InputError, match="word must be in the vocabulary of 9 words, got 'unknown'"):
        biased_analogies(vectors, "he", "unknown")
    with pytest.raises(InputError, match="the two words must differ"):
        biased_analogies(vectors, "he", "he")
    with pytest.raises(InputError, match=r"above 0 up to 2, got 20, 10000 and 0.0"):
        biased_analogies(vectors, "he", "she", delta=0.0)
    with pytest.raises(InputError, match="one word for each group"):
        most_biased(vectors, [("he", "she"), ("man", "woman", "king")], n=1)
    with pytest.raises(InputError, match="got none for group 1"):
        most_biased(vectors, [("he", "she")], n=1, without=WORDS)
