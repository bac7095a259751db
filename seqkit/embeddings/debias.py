"""Bias along one attribute, such as gender, taken out of word vectors: four ways, each with its price.

| function             | what it does                                                          | reference             |
|----------------------|-----------------------------------------------------------------------|-----------------------|
| `hard_debias`        | neutralises the words that do not mean the attribute, equalises pairs | Bolukbasi et al. 2016 |
| `soft_debias`        | one linear map that trades the bias against all inner products        | the same, appendix    |
| `double_hard_debias` | takes out the mean and one component of frequency first               | Wang et al. 2020      |
| `inlp`               | takes out each direction by which a classifier tells the groups       | Ravfogel et al. 2020  |

All give vectors of length one. `specific_words` finds the words that mean the attribute and are to keep it.

Reference: arXiv:1607.06520, arXiv:2005.00965, arXiv:2004.07667; more than two groups: Manzini et al. 2019,
arXiv:1904.04047. What such projections leave behind: Gonen and Goldberg 2019, arXiv:1903.03862.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqkit.embeddings.bias import WordSets, bias_subspace, cluster_purity, most_biased, rows_of_sets
from seqkit.embeddings.logistic import fit_logistic
from seqkit.embeddings.vectors import WordVectors
from seqkit.errors import InputError

BLOCK = 1 << 15  # rows at a time, whose float64 copies are held
HELD_OUT = 0.3  # of the most biased words, that no classifier of `inlp` learns from
PROJECTIONS = 2_000  # steps of `soft_debias`'s projected gradient, at most


def hard_debias(
    vectors: WordVectors, *, definitional: WordSets, equalize: WordSets, specific: Collection[str], components: int = 1
) -> WordVectors:
    """New vectors of length one: neutralised but for the `specific` words, and the sets of `equalize` equalised.

    Neutralise: w - w_B, at length one, where w_B is w's part in the subspace B; for one direction g it is (w . g) g.
    Equalise a set with the mean m: y = m - m_B; each of its words becomes y + sqrt(1 - |y|^2) times the unit vector of
    w_B - m_B. In a pair the word that is further along g becomes y + z g, the other y - z g.

    Args:
        definitional: pairs, or sets of any size, that give the subspace.
        equalize: sets such as grandmother and grandfather; one with an unknown word is left out. A word of two sets
            takes the place that the later set gives it.
        specific: words that mean the attribute and keep it.
        components: of the subspace; one for two groups.

    Raises:
        InputError: what `bias_subspace` raises.
    """
    basis = bias_subspace(vectors, definitional, components=components)
    unit = _neutralized(vectors, basis, specific)
    for rows in rows_of_sets(vectors, equalize):
        members = unit[rows]
        if len(rows) == 2:
            mean = (members[0] + members[1]) / 2
        else:
            mean = members.mean(0)
        rest = mean - (mean @ basis.T) @ basis
        reach = math.sqrt(max(1.0 - float(rest @ rest), 0.0))
        unit[rows] = rest + reach * (_sides(members, mean, basis) @ basis)
        unit[rows] /= _lengths(unit[rows])
    return WordVectors(vectors.words, unit)


def _neutralized(vectors: WordVectors, basis: NDArray[np.float32], specific: Collection[str]) -> NDArray[np.float32]:
    """Unit vectors without their part in the span of `basis`, but for the specific words'."""
    inside = vectors.unit @ basis.T
    inside[[vectors.index[word] for word in specific if word in vectors]] = 0
    unit = _float32(vectors.unit - inside @ basis)
    unit /= _lengths(unit)
    return unit


def _sides(members: NDArray[np.float32], mean: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where each word of a set lies from the mean, in the coordinates of `basis`, at length one."""
    if len(members) == 2 and len(basis) == 1:  # two words lie on opposite sides, even where neither is further along
        side = -1 if float((members[0] - members[1]) @ basis[0]) < 0 else 1
        return np.array([[side], [-side]], np.float32)
    inside = _float32((members - mean) @ basis.T)
    return inside / _lengths(inside)


def soft_debias(
    vectors: WordVectors, *, definitional: WordSets, specific: Collection[str], components: int = 1, weight: float = 0.2
) -> WordVectors:
    """New vectors T w at length one, where T keeps inner products and takes the neutral words off the subspace B.

    W are all words' unit vectors, N those of all but the `specific` ones, [d V] and [d M]. T minimises
    |W' T' T W - W' W|^2 / V^2 + weight |N' T' T B|^2 / M, with Frobenius norms: the mean squared change of an inner
    product against the mean squared bias. A large weight is a projection of all words.
    Reference: Bolukbasi et al. 2016, section 6 and appendix, arXiv:1607.06520.
    Differs: the two terms are means, not sums, so that a weight means the same for any number of words. With sums the
    paper's 0.2 leaves 83,308 words as they are: the direct bias of professions goes from 0.0952 to 0.0951.

    Raises:
        InputError: what `bias_subspace` raises; the weight is negative; no word is left to be neutral.
    """
    if not weight >= 0:
        raise InputError(f"soft_debias: weight must be 0 or more, got {weight}")
    basis = bias_subspace(vectors, definitional, components=components).T.astype(np.float64)
    kept = [vectors.index[word] for word in specific if word in vectors]
    neutral = len(vectors) - len(set(kept))
    if neutral == 0:
        raise InputError("soft_debias: a word must be neutral, got all as specific")
    moments = _moments(vectors.unit)
    own = vectors.unit[sorted(set(kept))].astype(np.float64)
    found = soft_metric(moments, moments - own.T @ own, basis, weight * len(vectors) ** 2 / neutral)
    values, columns = np.linalg.eigh(found)
    transform = (columns * np.sqrt(np.maximum(values, 0))) @ columns.T
    unit = vectors.unit @ transform.astype(np.float32)
    unit /= _lengths(unit)
    return WordVectors(vectors.words, unit)


def soft_metric(
    moments: NDArray[np.float64], neutral: NDArray[np.float64], basis: NDArray[np.float64], weight: float
) -> NDArray[np.float64]:
    """The positive semi-definite X = T' T of the least |W' X W - W' W|^2 + weight |N' X B|^2.

    With C = W W' and X = I + R Y R, R = C^(-1/2), the first term is |Y|^2, and the minimum without the condition on X
    is Y = u b' + b u' with b = R B, whose u solves d k linear equations. With nearly all words neutral it meets the
    condition. Where it does not, projected gradients go on from there: X is semi-definite when C + Y is, which clipped
    eigenvalues bring about.

    Args:
        moments: W W' [d d].
        neutral: N N' [d d].
        basis: B [d k], orthonormal columns.
    """
    d, k = basis.shape
    values, columns = np.linalg.eigh(moments)
    # Directions that no word has: the metric there is free, and stays as it is.
    used = values > 1e-10 * values[-1]
    root = (columns * np.sqrt(np.where(used, values, 0))) @ columns.T
    inverse = (columns * np.where(used, 1 / np.sqrt(np.where(used, values, 1)), 0)) @ columns.T
    a, b = inverse @ neutral @ inverse, inverse @ basis
    pull = inverse @ neutral @ basis  # of N' B alone

    # u + weight / 2 (A u b'b + A b u'b) = - weight / 2 pull, with the columns of u under each other.
    system = np.eye(d * k) + weight / 2 * np.kron(b.T @ b, a)
    for row in range(k):
        for column in range(k):
            block = np.outer(a @ b[:, column], b[:, row])
            system[row * d : (row + 1) * d, column * d : (column + 1) * d] += weight / 2 * block
    u = np.linalg.solve(system, -weight / 2 * pull.T.ravel()).reshape(k, d).T
    y = u @ b.T + b @ u.T
    clear = root @ root
    if np.linalg.eigvalsh(clear + y)[0] < -1e-9 * values[-1]:
        y = _projected(y, clear, a, b, pull, weight)
    return np.eye(d) + inverse @ y @ inverse


def _projected(
    y: NDArray[np.float64], clear: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64],
    pull: NDArray[np.float64], weight: float,
) -> NDArray[np.float64]:  # fmt: skip
    """The Y of the least |Y|^2 + weight |N' (I + R Y R) B|^2 for which `clear` + Y is semi-definite.

    Reference: Beck and Teboulle 2009, SIAM J. Imaging Sciences 2(1) (FISTA); restarts: O'Donoghue and Candes 2015.
    """

    def semidefinite(y: NDArray[np.float64]) -> NDArray[np.float64]:
        values, columns = np.linalg.eigh(clear + y)
        projected: NDArray[np.float64] = (columns * np.maximum(values, 0)) @ columns.T - clear
        return projected

    steepest = 2 + 2 * weight * float(np.linalg.norm(a, 2) * np.linalg.norm(b.T @ b, 2))
    y = before = semidefinite(y)
    ahead, momentum = y, 1.0
    for _ in range(PROJECTIONS):
        outer = (a @ ahead @ b + pull) @ b.T
        y = semidefinite(ahead - (2 * ahead + weight * (outer + outer.T)) / steepest)
        moved = y - before
        if np.linalg.norm(moved) <= 1e-12 * max(float(np.linalg.norm(y)), 1e-300):
            break
        if float(((ahead - y) * moved).sum()) > 0:  # the momentum points uphill
            momentum = 1.0
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead, before, momentum = y + (momentum - 1) / following * moved, y, following
    return y


@dataclass(frozen=True, kw_only=True)
class DoubleHard:
    """What `double_hard_debias` gives: the vectors, and what it chose by."""

    vectors: WordVectors
    component: int  # the principal component that went, counted from 1
    purities: tuple[float, ...]  # of the clusters, for each component that was tried


def double_hard_debias(
    vectors: WordVectors, *, definitional: WordSets, equalize: WordSets, specific: Collection[str], components: int = 1,
    candidates: int = 20, n_biased: int = 500, seed: int = 0,
) -> DoubleHard:  # fmt: skip
    """`hard_debias` after the mean of all vectors and one principal component, which tells of frequency, are taken out.

    Each of the first `candidates` components is tried: the one goes after which k-means tells the most biased words of
    the groups apart worst, once they are hard-debiased.
    Reference: Wang et al. 2020, algorithm 1, arXiv:2005.00965.

    Args:
        candidates: principal components that are tried.
        n_biased: words of each group, the most biased that are not specific.
        seed: of k-means.

    Raises:
        InputError: what `bias_subspace` and `most_biased` raise; there is no candidate.
    """
    if candidates < 1:
        raise InputError(f"double_hard_debias: candidates must be at least 1, got {candidates}")
    matrix = vectors.matrix
    mean = matrix.mean(0, dtype=np.float64).astype(np.float32)
    variance = _moments(matrix) - len(matrix) * np.outer(mean.astype(np.float64), mean.astype(np.float64))
    principal = np.linalg.eigh(variance)[1][:, ::-1].T[:candidates].astype(np.float32)
    definers = {word for words in definitional for word in words}
    groups = most_biased(vectors, definitional, n=n_biased, without=[*specific, *definers])
    numbers = np.repeat(np.arange(len(groups)), [len(rows) for rows in groups])
    # The components are tried on these words alone; those of the definitional sets give the subspace.
    tried = [vectors.words[row] for rows in groups for row in rows]
    words = tried + sorted(word for word in definers if word in vectors)
    some = matrix[[vectors.index[word] for word in words]]
    purities = []
    for component in principal:
        purified = WordVectors(words, _without(some, mean, component))
        basis = bias_subspace(purified, definitional, components=components)
        unit = _neutralized(purified, basis, specific=())[: len(tried)]
        purities.append(cluster_purity(unit, numbers, seed=seed))
    chosen = int(np.argmin(purities))
    found = hard_debias(
        WordVectors(vectors.words, _without(matrix, mean, principal[chosen])),
        definitional=definitional, equalize=equalize, specific=specific, components=components,
    )  # fmt: skip
    return DoubleHard(vectors=found, component=chosen + 1, purities=tuple(purities))


def _without(
    matrix: NDArray[np.float32], mean: NDArray[np.float32], component: NDArray[np.float32]
) -> NDArray[np.float32]:
    centred = matrix - mean
    return _float32(centred - (centred @ component)[:, None] * component)


@dataclass(frozen=True, kw_only=True)
class NullSpace:
    """What `inlp` gives: the vectors, and how well the groups could still be told before each round and at the end."""

    vectors: WordVectors
    accuracies: tuple[float, ...]  # of each round's classifier on words that it did not learn from
    removed: int  # directions


def inlp(
    vectors: WordVectors, *, definitional: WordSets, specific: Collection[str], rounds: int = 35, n_biased: int = 7_500,
    margin: float = 0.02, seed: int = 0,
) -> NullSpace:  # fmt: skip
    """New vectors of length one, from which no linear classifier tells the groups: iterated null-space projection.

    Each round fits a logistic regression to the most biased words of each group (one against the rest where there are
    more than two), and projects off what it has learned. It ends when the accuracy on words held out is within
    `margin` of chance, or after `rounds`. The specific words keep their vectors.
    Reference: Ravfogel et al. 2020, algorithm 1, arXiv:2004.07667.
    Differs: logistic regression in place of a linear support vector machine; ends by itself; two groups have no third
    class of neutral words; the specific words are left alone.

    Args:
        n_biased: words of each group, at most a quarter of all words.
        seed: of what is held out.

    Raises:
        InputError: what `most_biased` raises; there are too few words; a number is out of range.
    """
    if rounds < 1:
        raise InputError(f"inlp: rounds must be at least 1, got {rounds}")
    definers = [word for words in definitional for word in words]
    n_biased = min(n_biased, len(vectors) // 4)
    groups = most_biased(vectors, definitional, n=n_biased, without=[*specific, *definers])
    size = min(map(len, groups))  # as many of each, so that chance is 1 / groups
    rows = np.concatenate([rows[:size] for rows in groups])
    numbers = np.repeat(np.arange(len(groups)), size)
    learned = np.random.default_rng(seed).random(len(rows)) >= HELD_OUT
    if len(set(numbers[learned])) < len(groups) or learned.all():
        raise InputError(f"inlp: each group must have words to learn from and to hold out, got {size} words a group")
    classes = range(1) if len(groups) == 2 else range(len(groups))
    dim = vectors.matrix.shape[1]
    gone = np.empty((dim, 0))
    accuracies = []
    while True:
        points = vectors.unit[rows]
        clear = (points - (points @ gone) @ gone.T).astype(np.float32)
        fitted = [fit_logistic(clear[learned], numbers[learned] == number) for number in classes]
        scores = np.stack([each.scores(clear[~learned]) for each in fitted], 1)
        told = (scores[:, 0] <= 0).astype(np.int64) if len(groups) == 2 else scores.argmax(1)
        accuracies.append(float((told == numbers[~learned]).mean()))
        if accuracies[-1] <= 1 / len(groups) + margin or len(accuracies) > rounds:
            break
        if gone.shape[1] + len(classes) >= dim:
            break
        normals = np.stack([each.weights for each in fitted], 1)
        new, sizes, _ = np.linalg.svd(normals - gone @ (gone.T @ normals), full_matrices=False)
        # One classifier of several groups says little that the others do not: that is no direction of its own.
        gone = np.linalg.qr(np.concatenate([gone, new[:, sizes > 0.01 * sizes[0]]], 1))[0]
    basis = np.ascontiguousarray(gone.T, np.float32)
    found = WordVectors(vectors.words, _neutralized(vectors, basis, specific))
    return NullSpace(vectors=found, accuracies=tuple(accuracies), removed=len(basis))


def specific_words(vectors: WordVectors, seed_words: Sequence[str], *, cost: float = 10.0) -> list[str]:
    """The words that mean the attribute: the known ones of the seed list, and those that a classifier takes for such.

    It is a logistic regression on unit vectors that learns the seed list from all other words. A seed list of a
    hundred words or more is asked for; with fewer hardly a word is found. In the order of the vectors.
    Reference: Bolukbasi et al. 2016, appendix C, arXiv:1607.06520.
    Differs: logistic regression in place of a linear support vector machine. A larger `cost` finds
    no more.

    Raises:
        InputError: no seed word is known, or all words are seed words.
    """
    labels = np.zeros(len(vectors), np.bool_)
    labels[[vectors.index[word] for word in seed_words if word in vectors]] = True
    if not labels.any() or labels.all():
        raise InputError(
            f"specific_words: the seed list must have some of the {len(vectors)} words, got {int(labels.sum())} of them"
        )
    fitted = fit_logistic(vectors.unit, labels, cost=cost)
    return [vectors.words[row] for row in np.flatnonzero(labels | (fitted.scores(vectors.unit) > 0))]


def _moments(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """The sum of w w' over the rows w, in float64."""
    total = np.zeros((matrix.shape[1], matrix.shape[1]))
    for begin in range(0, len(matrix), BLOCK):
        block = matrix[begin : begin + BLOCK].astype(np.float64)
        total += block.T @ block
    return total


def _float32(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """The rows as they are, where they are float32 already: numpy's stubs lose that in a product."""
    return rows.astype(np.float32, copy=False)


def _lengths(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.sqrt(np.einsum("vd,vd->v", rows, rows))[:, None]
    return np.where(lengths > 0, lengths, np.float32(1))
