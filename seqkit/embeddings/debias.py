"""The bias of word vectors along one attribute, such as gender: measured, and taken out of words that do not mean it.

Three steps: the direction of the attribute from pairs of words that differ by it; every word that does not mean it is
projected off that direction (neutralise); pairs that should differ by nothing else come to lie symmetric about it
(equalise). All works on vectors of length one, and gives such.

Reference: Bolukbasi et al. 2016, sections 5 and 6, arXiv:1607.06520; WEAT: Caliskan et al. 2017, arXiv:1608.07187.
What such a projection leaves behind: Gonen and Goldberg 2019, arXiv:1903.03862.
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

Pairs = Sequence[tuple[str, str] | list[str]]


def bias_direction(vectors: WordVectors, pairs: Pairs) -> NDArray[np.float32]:
    """The unit vector g along which the two words of a pair differ: the first principal component of all pairs' halves.

    Each pair gives a - (a + b) / 2 and b - (a + b) / 2. g points from the second words to the first. Pairs with an
    unknown word are left out.

    Raises:
        InputError: no pair is known, or the words of every pair are the same.
    """
    halves = [(vectors.unit[i] - vectors.unit[j]) / 2 for i, j in _rows_of_pairs(vectors, pairs)]
    if not halves:
        raise InputError("bias_direction: a pair must have vectors for both words, got none that has")
    differences = np.array(halves, np.float64)  # the other halves are their negatives, so that the mean is zero
    _, sizes, directions = np.linalg.svd(differences, full_matrices=False)
    if sizes[0] < 1e-12:
        raise InputError("bias_direction: the words of a pair must differ, got pairs of equal vectors")
    direction = directions[0]
    if float((differences @ direction).sum()) < 0:
        direction = -direction
    found: NDArray[np.float32] = direction.astype(np.float32)
    return found


def hard_debias(
    vectors: WordVectors, *, definitional: Pairs, equalize: Pairs, specific: Collection[str]
) -> WordVectors:
    """New vectors of length one: neutralised but for the `specific` words, and the pairs of `equalize` equalised.

    Neutralise: w - (w . g) g, at length one. Equalise, for a pair with mean m: y = m - (m . g) g and
    z = sqrt(1 - |y|^2); the word that is further along g becomes y + z g, the other y - z g.

    Args:
        definitional: the pairs that give the direction g.
        equalize: pairs such as grandmother and grandfather; one with an unknown word is left out. A word of two pairs
            takes the place that the later pair gives it.
        specific: words that mean the attribute and keep it.

    Raises:
        InputError: what `bias_direction` raises.
    """
    direction = bias_direction(vectors, definitional)
    along = vectors.unit @ direction
    along[[vectors.index[word] for word in specific if word in vectors]] = 0
    unit = vectors.unit - along[:, None] * direction
    unit /= _lengths(unit)
    for i, j in _rows_of_pairs(vectors, equalize):
        mean = (unit[i] + unit[j]) / 2
        rest = mean - (mean @ direction) * direction
        reach = math.sqrt(max(1.0 - float(rest @ rest), 0.0))
        if float((unit[i] - unit[j]) @ direction) < 0:
            reach = -reach
        unit[i], unit[j] = rest + reach * direction, rest - reach * direction
        unit[[i, j]] /= _lengths(unit[[i, j]])
    return WordVectors(vectors.words, unit)


def direct_bias(
    vectors: WordVectors, direction: NDArray[np.float32], words: Sequence[str], *, strictness: float = 1.0
) -> float:
    """The mean over the known words of |cos(w, g)|^strictness (Bolukbasi et al. 2016, section 5.2).

    Raises:
        InputError: no word is known.
    """
    rows = [vectors.index[word] for word in words if word in vectors]
    if not rows:
        raise InputError("direct_bias: a word must have a vector, got none that has")
    g = direction / max(float(np.linalg.norm(direction)), 1e-12)
    return float((np.abs(vectors.unit[rows] @ g) ** strictness).mean())


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


def _rows_of_pairs(vectors: WordVectors, pairs: Pairs) -> list[tuple[int, int]]:
    for pair in pairs:
        if len(pair) != 2:
            raise InputError(f"pairs: a pair must be of two words, got {list(pair)}")
    return [(vectors.index[a], vectors.index[b]) for a, b in pairs if a in vectors and b in vectors]


def _lengths(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.sqrt(np.einsum("vd,vd->v", rows, rows))[:, None]
    return np.where(lengths > 0, lengths, np.float32(1))
