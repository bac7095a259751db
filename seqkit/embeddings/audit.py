"""Every measure of bias and quality of one set of vectors: those before a correction stand beside those after."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seqkit.embeddings.attribute import Attribute
from seqkit.embeddings.bias import (
    BiasedAnalogy,
    Weat,
    bias_subspace,
    biased_analogies,
    cluster_purity,
    direct_bias,
    most_biased,
    ripa,
    weat,
)
from seqkit.embeddings.evaluate import Analogies, Similarity, analogies, similarity
from seqkit.embeddings.vectors import WordVectors
from seqkit.errors import InputError

N_BIASED = 500  # words of each group whose clusters are looked at


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What is measured by: chosen once, from the vectors as they came, for both sides of a comparison."""

    attribute: Attribute
    subspace: NDArray[np.float32]  # [k d], of the vectors as they came
    targets: tuple[str, ...]  # those with a vector that do not mean the attribute
    biased: tuple[NDArray[np.int64], ...]  # rows of each group's most biased words; empty where there are too few
    specific: frozenset[str]
    lengths: NDArray[np.float32]  # of the targets' vectors as they came


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was measured; None where the lists or the vectors do not allow it."""

    direct_bias: float | None  # of the targets, along the direction that the vectors had as they came
    direct_bias_anew: float | None  # along the direction that these vectors' own definitional sets give
    ripa: float | None  # mean size over the targets, which count as long as they came
    told_apart: float | None  # the share of the most biased words that k-means puts with their group
    projections: tuple[float, ...]  # of the targets, on the direction that the vectors had as they came
    weat: tuple[Weat | None, ...]
    biased_analogies: tuple[BiasedAnalogy, ...]
    analogies: Analogies | None
    similarity: tuple[Similarity, ...]


def probe(vectors: WordVectors, attribute: Attribute, *, specific: Collection[str]) -> Probe:
    """The direction, the targets and the most biased words of vectors that were not corrected yet.

    Raises:
        InputError: no definitional set is known.
    """
    kept = frozenset(specific)
    targets = tuple(word for word in attribute.targets if word in vectors and word not in kept)
    count = min(N_BIASED, len(vectors) // 4)
    try:
        groups = most_biased(vectors, attribute.definitional, n=count, without=kept)
    except InputError:  # sets of different lengths, or no word for a group
        groups = []
    size = min(map(len, groups), default=0)
    return Probe(
        attribute=attribute,
        subspace=bias_subspace(vectors, attribute.definitional, components=attribute.components),
        targets=targets,
        biased=tuple(rows[:size] for rows in groups) if size > 1 else (),
        specific=kept,
        lengths=_lengths(vectors, targets),
    )


def audit(
    vectors: WordVectors, by: Probe, *, analogy_file: str | Path | None = None, similarity_files: Sequence[str] = ()
) -> Audit:
    """The measures of one side: of the vectors that `by` was made from, or of what a correction gave for them.

    Raises:
        InputError: a file cannot be read, or a vector has a number that is not finite.
    """
    attribute = by.attribute
    pairs = [words for words in attribute.definitional if len(words) == 2]
    targets = by.targets
    anew = ripas = None
    if targets:
        try:
            own = bias_subspace(vectors, attribute.definitional, components=attribute.components)
            anew = direct_bias(vectors, own, targets)
            if len(pairs) == len(attribute.definitional):
                # A correction brings vectors to length one; what it did to their direction is to be seen here.
                longer = by.lengths / np.maximum(_lengths(vectors, targets), 1e-12)
                ripas = float((np.abs(ripa(vectors, targets, pairs)) * longer).mean())
        except InputError:  # a correction may leave the words of every set equal: no direction is left
            anew = ripas = None
    told_apart = None
    if by.biased:
        numbers = np.repeat(np.arange(len(by.biased)), len(by.biased[0]))
        told_apart = cluster_purity(vectors.unit[np.concatenate(by.biased)], numbers)
    rows = [vectors.index[word] for word in targets]
    found: list[BiasedAnalogy] = []
    if len(attribute.analogy) == 2 and all(word in vectors for word in attribute.analogy):
        a, b = attribute.analogy
        found = biased_analogies(vectors, a, b, without=by.specific)
    return Audit(
        direct_bias=direct_bias(vectors, by.subspace, targets) if targets else None,
        direct_bias_anew=anew,
        ripa=ripas,
        told_apart=told_apart,
        projections=tuple((vectors.unit[rows] @ by.subspace[0]).tolist()),
        weat=tuple(_weat(vectors, test.x, test.y, test.a, test.b) for test in attribute.weat),
        biased_analogies=tuple(found),
        analogies=analogies(vectors, analogy_file)[-1] if analogy_file is not None else None,
        similarity=tuple(similarity(vectors, path) for path in similarity_files),
    )


def _lengths(vectors: WordVectors, words: Sequence[str]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.linalg.norm(vectors.matrix[[vectors.index[word] for word in words]], axis=1)
    return lengths


def _weat(vectors: WordVectors, *sets: Sequence[str]) -> Weat | None:
    """The test, or None where a set has no known word."""
    if not all(any(word in vectors for word in words) for words in sets):
        return None
    x, y, a, b = sets
    return weat(vectors, x, y, a, b)
