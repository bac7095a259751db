"""The bias of word vectors along one attribute, such as gender, measured in five ways.

The attribute is given by definitional sets: words that differ by it and by nothing else, such as she and he. Each
measure sees something else, and a correction that satisfies one need not satisfy another; so they stand side by side.

Reference: Bolukbasi et al. 2016, arXiv:1607.06520 (direction, direct bias, analogies); Manzini et al. 2019,
arXiv:1904.04047 (more than two groups); Caliskan et al. 2017, arXiv:1608.07187 (WEAT); Ethayarajh et al. 2019,
arXiv:1908.06361 (RIPA); Gonen and Goldberg 2019, arXiv:1903.03862 (clusters of the most biased words).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqkit.embeddings.vectors import WordVectors
from seqkit.errors import InputError

EXACT_UP_TO = 20_000  # partitions of a permutation test that are all looked at
BLOCK = 512  # words at a time, whose cosines with all others are held
MAX_ROUNDS = 300  # of k-means
LEAST_SCORE = 1e-3  # an analogy below it says nothing
HELD_PAIRS = 1 << 21  # candidates for analogies that are held before they are thinned

WordSets = Sequence[Sequence[str]]


def bias_direction(vectors: WordVectors, pairs: WordSets) -> NDArray[np.float32]:
    """The unit vector g along which the two words of a pair differ: the first principal component of all pairs' halves.

    Each pair gives a - (a + b) / 2 and b - (a + b) / 2. g points from the second words to the first. Pairs with an
    unknown word are left out.

    Raises:
        InputError: no pair is known, the words of every pair are the same, or a pair is not of two words.
    """
    for pair in pairs:
        if len(pair) != 2:
            raise InputError(f"bias_direction: a pair must be of two words, got {list(pair)}")
    direction: NDArray[np.float32] = bias_subspace(vectors, pairs)[0]
    return direction


def bias_subspace(vectors: WordVectors, sets: WordSets, *, components: int = 1) -> NDArray[np.float32]:
    """The [k d] orthonormal directions along which the words of a set differ most: k principal components.

    Each set gives what is left of its unit vectors without their mean. The first words of the sets lie on a component's
    positive side. Sets with an unknown word are left out.

    Raises:
        InputError: no set is known, a set has one word, or the words do not differ in so many directions.
    """
    if components < 1:
        raise InputError(f"bias_subspace: components must be at least 1, got {components}")
    differences: list[NDArray[np.float32]] = []
    firsts = []
    for rows in rows_of_sets(vectors, sets):
        members = vectors.unit[rows]
        if len(rows) == 2:
            half = (members[0] - members[1]) / 2
            apart = np.stack([half, -half])
        else:
            apart = members - members.mean(0)
        firsts.append(len(differences))
        differences += list(apart)
    if not differences:
        raise InputError("bias_subspace: a set must have vectors for all its words, got none that has")
    stacked = np.array(differences, np.float64)
    _, sizes, directions = np.linalg.svd(stacked, full_matrices=False)
    found = int((sizes > max(1e-12, 1e-5 * sizes[0])).sum())  # float32 leaves more than nothing of equal words
    if found == 0:
        raise InputError("bias_subspace: the words of a set must differ, got sets of equal vectors")
    if components > found:
        raise InputError(f"bias_subspace: components must be at most {found} for these sets, got {components}")
    chosen = directions[:components]
    chosen[(stacked[firsts] @ chosen.T).sum(0) < 0] *= -1
    subspace: NDArray[np.float32] = chosen.astype(np.float32)
    return subspace


def direct_bias(
    vectors: WordVectors, direction: NDArray[np.float32], words: Sequence[str], *, strictness: float = 1.0
) -> float:
    """The mean over the known words of |cos(w, g)|^strictness (Bolukbasi et al. 2016, section 5.2).

    Args:
        direction: g [d], or orthonormal directions [k d]: then it is the length of w's part in their span.

    Raises:
        InputError: no word is known.
    """
    rows = [vectors.index[word] for word in words if word in vectors]
    if not rows:
        raise InputError("direct_bias: a word must have a vector, got none that has")
    if direction.ndim == 2:
        return float((np.linalg.norm(vectors.unit[rows] @ direction.T, axis=1) ** strictness).mean())
    g = direction / max(float(np.linalg.norm(direction)), 1e-12)
    return float((np.abs(vectors.unit[rows] @ g) ** strictness).mean())


def ripa(vectors: WordVectors, words: Sequence[str], pairs: WordSets) -> NDArray[np.float64]:
    """The relational inner product association of each known word: <w, r>, with the vectors as long as they are.

    The relation r is (a - b) / |a - b| of one pair (a, b), and the first principal component of the differences of
    more, pointing to the first words. Lengths count: vectors brought to length one have another RIPA by that alone.
    Reference: Ethayarajh et al. 2019, section 4, arXiv:1908.06361.

    Raises:
        InputError: no word or no pair is known, or the words of every pair are the same.
    """
    rows = [vectors.index[word] for word in words if word in vectors]
    if not rows:
        raise InputError("ripa: a word must have a vector, got none that has")
    matrix = vectors.matrix
    differences = [matrix[a].astype(np.float64) - matrix[b] for a, b in rows_of_sets(vectors, pairs)]
    if not differences:
        raise InputError("ripa: a pair must have vectors for both words, got none that has")
    stacked = np.array(differences)
    _, sizes, directions = np.linalg.svd(stacked, full_matrices=False)
    if sizes[0] < 1e-12:
        raise InputError("ripa: the words of a pair must differ, got pairs of equal vectors")
    relation = directions[0] * (-1 if (stacked @ directions[0]).sum() < 0 else 1)
    found: NDArray[np.float64] = matrix[rows].astype(np.float64) @ relation
    return found


@dataclass(frozen=True, kw_only=True)
class Weat:
    """An association test: how much nearer `x` is to `a` than to `b`, compared with `y`."""

    effect: float  # in standard deviations, from -2 to 2
    p: float  # one-sided: the share of equal partitions of x and y that are more strongly associated
    known: int  # words with a vector, of all four sets
    given: int


def weat(
    vectors: WordVectors, x: Sequence[str], y: Sequence[str], a: Sequence[str], b: Sequence[str], *,
    permutations: int = 10_000, seed: int = 0,
) -> Weat:  # fmt: skip
    """The word embedding association test of targets x, y and attributes a, b.

    s(w) = mean cos(w, a) - mean cos(w, b); effect = (mean s(x) - mean s(y)) / standard deviation of s over x and
    y (dividing by their number, as WEFE does). Of many partitions `permutations` are drawn, else all are taken. Unknown
    words are left out.

    Raises:
        InputError: a set has no known word.
    """
    sets = [[vectors.index[word] for word in words if word in vectors] for words in (x, y, a, b)]
    for name, rows in zip("xyab", sets, strict=True):
        if not rows:
            raise InputError(f"weat: {name} must have a word with a vector, got none")
    targets = vectors.unit[sets[0] + sets[1]].astype(np.float64)
    toward_a, toward_b = (targets @ vectors.unit[rows].T.astype(np.float64) for rows in sets[2:])
    s = toward_a.mean(1) - toward_b.mean(1)
    n, total = len(sets[0]), len(s)
    deviation = float(s.std())
    difference = float(s[:n].mean() - s[n:].mean())
    effect = difference / deviation if deviation > 0 else 0.0
    if math.comb(total, n) <= EXACT_UP_TO:
        chosen = np.array(list(itertools.combinations(range(total), n)))
    else:
        generator = np.random.default_rng(seed)
        chosen = np.argsort(generator.random((permutations, total)), axis=1)[:, :n]
    # The difference of the means rises with the sum over x.
    p = float((s[chosen].sum(1) > s[:n].sum() + 1e-12).mean())
    return Weat(effect=effect, p=p, known=sum(map(len, sets)), given=len(x) + len(y) + len(a) + len(b))


@dataclass(frozen=True, kw_only=True)
class BiasedAnalogy:
    """`x` is to `y` as the first word of the pair that was asked is to the second."""

    x: str
    y: str
    score: float  # cos(a - b, x - y)


def biased_analogies(
    vectors: WordVectors, a: str, b: str, *, n: int = 20, delta: float = 1.0, most_frequent: int = 10_000,
    without: Collection[str] = (),
) -> list[BiasedAnalogy]:  # fmt: skip
    """The pairs of words that are most like a and b: the largest cos(a - b, x - y) of unit vectors, best first.

    Only pairs with |x - y| <= delta count, which keeps them about one thing, and only the first `most_frequent` words.
    A word stands on the left of one analogy at most, and on the right of one.
    Reference: Bolukbasi et al. 2016, equation 1, arXiv:1607.06520.

    Args:
        without: words that no analogy has, such as those that mean the attribute.

    Raises:
        InputError: a or b has no vector, both have the same, or a number is out of range.
    """
    if n < 1 or most_frequent < 2 or not 0 < delta <= 2:
        raise InputError(
            "biased_analogies: n, most_frequent and delta must be at least 1, at least 2, and above 0 up to 2, "
            f"got {n}, {most_frequent} and {delta}"
        )
    for word in (a, b):
        if word not in vectors:
            raise InputError(f"biased_analogies: word must be in the vocabulary of {len(vectors)} words, got {word!r}")
    direction = vectors.unit[vectors.index[a]] - vectors.unit[vectors.index[b]]
    length = float(np.linalg.norm(direction))
    if length < 1e-6:
        raise InputError(f"biased_analogies: the two words must differ, got {a!r} and {b!r} of equal vectors")
    left_out = {vectors.index[word] for word in without if word in vectors}
    rows = np.array([row for row in range(min(most_frequent, len(vectors))) if row not in left_out], np.int64)
    unit = vectors.unit[rows]
    along = unit @ (direction / length)
    least = 1 - delta**2 / 2  # the cosine of two unit vectors that are delta apart
    held = np.empty((0, 2), np.int64)
    scores = np.empty(0, np.float32)
    for begin in range(0, len(rows), BLOCK):
        cosines = unit[begin : begin + BLOCK] @ unit[begin:].T
        i, j = np.nonzero(cosines >= least)
        keep = j > i  # each pair once, and no word with itself
        i, j = i[keep], j[keep]
        apart = np.sqrt(np.maximum(2 - 2 * cosines[i, j], 1e-12))
        i, j = i + begin, j + begin
        score = (along[i] - along[j]) / apart
        pairs = np.where((score > 0)[:, None], np.stack([i, j], 1), np.stack([j, i], 1))
        held, scores = np.concatenate([held, pairs]), np.concatenate([scores, np.abs(score)])
        if len(held) > HELD_PAIRS:
            held, scores = _best_of_each_left(held, scores, n)
    return [
        BiasedAnalogy(x=vectors.words[rows[x]], y=vectors.words[rows[y]], score=score)
        for x, y, score in _each_once(held, scores, n)
    ]


def _best_of_each_left(
    pairs: NDArray[np.int64], scores: NDArray[np.float32], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The n best pairs of each left word. The others cannot be chosen: n - 1 right words at most are taken before."""
    order = np.lexsort((-scores, pairs[:, 0]))
    pairs, scores = pairs[order], scores[order]
    _, begins, counts = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    rank = np.arange(len(pairs)) - np.repeat(begins, counts)
    return pairs[rank < n], scores[rank < n]


def _each_once(pairs: NDArray[np.int64], scores: NDArray[np.float32], n: int) -> list[tuple[int, int, float]]:
    """The n best pairs, from the best on, of which none repeats a left or a right word."""
    chosen: list[tuple[int, int, float]] = []
    left: set[int] = set()
    right: set[int] = set()
    for place in np.argsort(-scores, kind="stable"):
        x, y = map(int, pairs[place])
        if scores[place] < LEAST_SCORE or len(chosen) == n:
            break
        if x not in left and y not in right:
            left.add(x)
            right.add(y)
            chosen.append((x, y, float(scores[place])))
    return chosen


def most_biased(
    vectors: WordVectors, sets: WordSets, *, n: int, without: Collection[str] = ()
) -> list[NDArray[np.int64]]:
    """For each group the rows of the n words that lie furthest on its side, the furthest first.

    Group j are the j-th words of the sets; its direction is the mean of what they are without their set's mean. A word
    is counted for one group only, the one that it leans to most.

    Raises:
        InputError: no set is known, sets differ in length, or a group has no word.
    """
    if len({len(words) for words in sets}) > 1:
        raise InputError("most_biased: sets must have one word for each group, got sets of different lengths")
    members = [vectors.unit[rows] for rows in rows_of_sets(vectors, sets)]
    if not members:
        raise InputError("most_biased: a set must have vectors for all its words, got none that has")
    directions = np.mean([rows - rows.mean(0) for rows in members], axis=0)
    toward = vectors.unit @ directions.T
    toward[[vectors.index[word] for word in without if word in vectors]] = -np.inf
    group = toward.argmax(1)
    found = []
    for number in range(toward.shape[1]):
        rows = np.flatnonzero((group == number) & (toward[:, number] > 0))
        if not len(rows):
            raise InputError(f"most_biased: a word must lean to each group, got none for group {number + 1}")
        found.append(rows[np.argsort(-toward[rows, number], kind="stable")][:n])
    return found


def cluster_purity(rows: NDArray[np.float32], groups: NDArray[np.int64], *, seed: int = 0, starts: int = 5) -> float:
    """How well k-means, which is not told the k groups, tells the rows apart: the share in its cluster's main group.

    With groups of one size the worst is 1 / k, where nothing of the groups is left to see. The best of `starts` runs
    counts, by the sum of squares.
    Reference: Gonen and Goldberg 2019, section 4, arXiv:1903.03862.
    """
    k = int(groups.max()) + 1
    generator = np.random.default_rng(seed)
    points = rows.astype(np.float64)
    squares = (points**2).sum(1)
    best, chosen = math.inf, np.zeros(len(rows), np.int64)
    for _ in range(starts):
        centres = points[generator.choice(len(points), k, replace=False)]
        cluster = np.full(len(points), -1)
        for _ in range(MAX_ROUNDS):
            distances = squares[:, None] - 2 * points @ centres.T + (centres**2).sum(1)
            now = distances.argmin(1)
            if (now == cluster).all():
                break
            cluster = now
            for number in range(k):
                if (cluster == number).any():
                    centres[number] = points[cluster == number].mean(0)
        total = float(distances.min(1).sum())
        if total < best:
            best, chosen = total, cluster
    table = np.zeros((k, k), np.int64)
    np.add.at(table, (chosen, groups), 1)
    return float(table.max(1).sum() / len(rows))


def rows_of_sets(vectors: WordVectors, sets: WordSets) -> list[list[int]]:
    """The rows of each set whose words all have a vector.

    Raises:
        InputError: a set has fewer than two words.
    """
    for words in sets:
        if len(words) < 2 or isinstance(words, str):
            raise InputError(f"rows_of_sets: a set must have two words or more, got {words!r}")
    return [[vectors.index[word] for word in words] for words in sets if all(word in vectors for word in words)]
