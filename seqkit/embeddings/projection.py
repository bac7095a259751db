"""Word vectors in the plane, for a picture: principal components, t-SNE or UMAP.

Principal components keep large distances and say how much of the variance the plane shows. t-SNE and UMAP keep who is
near whom: distances between groups and the axes mean nothing there. Vectors are taken at length one, as every question
by cosine takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqkit.embeddings.vectors import WordVectors
from seqkit.errors import InputError

METHODS = ("pca", "tsne", "umap")
SKIPPED = 100  # the first words of a large vocabulary are function words in any language
LARGE = 1000


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Points [N, 2] in the plane."""

    points: NDArray[np.float32]
    method: str
    explained: tuple[float, float] | None = None  # pca: the share of the variance along each axis


def project(matrix: NDArray[np.float32], method: str = "pca", *, seed: int = 0) -> Projection:
    """The rows in the plane; the same seed gives the same points.

    Reference: PCA: Pearson 1901; t-SNE: van der Maaten and Hinton 2008, JMLR 9; UMAP: McInnes et al. 2018,
    arXiv:1802.03426.

    Raises:
        InputError: there are fewer than two rows (four for t-SNE and UMAP), a number is not finite, there is no such
            method, or its package is not installed.
    """
    if method not in METHODS:
        raise InputError(f"project: method must be one of {', '.join(METHODS)}, got {method!r}")
    least = 2 if method == "pca" else 4
    if len(matrix) < least:
        raise InputError(f"project: words must be {least} or more for {method}, got {len(matrix)}")
    if not np.isfinite(matrix).all():
        raise InputError("project: numbers must be finite, got another")
    rows = matrix.astype(np.float64)
    lengths = np.sqrt((rows * rows).sum(1, keepdims=True))
    rows /= np.where(lengths > 0, lengths, 1)
    if method == "pca":
        return _pca(rows)
    points = (_tsne if method == "tsne" else _umap)(rows.astype(np.float32), seed)
    return Projection(points=points.astype(np.float32), method=method)


def words_to_show(vectors: WordVectors, n: int) -> list[str]:
    """The `n` most frequent words of three letters or more; of a large vocabulary without its first hundred words.

    Files of vectors have their words by falling frequency. What is left out says little in a picture: function words,
    numbers, punctuation.

    Raises:
        InputError: `n` is not positive.
    """
    if n < 1:
        raise InputError(f"words_to_show: the count must be at least 1, got {n}")
    begin = SKIPPED if len(vectors) >= LARGE else 0
    shown: list[str] = []
    for word in vectors.words[begin:]:
        if len(word) >= 3 and word.isalpha():
            shown.append(word)
            if len(shown) == n:
                break
    return shown or vectors.words[:n]


def _pca(rows: NDArray[np.float64]) -> Projection:
    rows = rows - rows.mean(0)
    left, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    points = np.zeros((len(rows), 2))
    n = min(2, len(sizes))
    points[:, :n] = left[:, :n] * sizes[:n]
    for axis in range(n):  # a direction has no sign of its own; its largest number is positive here
        if directions[axis][np.abs(directions[axis]).argmax()] < 0:
            points[:, axis] *= -1
    total = float((sizes**2).sum())
    shares: Sequence[float] = (sizes**2 / total).tolist() if total > 0 else [0.0]
    first, second = (*shares, 0.0)[:2]
    return Projection(points=points.astype(np.float32), method="pca", explained=(first, second))


def _tsne(rows: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise _missing("tsne", "scikit-learn", "plot") from None
    begin = "pca" if np.ptp(rows, 0).any() else "random"  # components of equal rows divide by zero
    perplexity = min(30.0, (len(rows) - 1) / 3)
    points: NDArray[np.float32] = TSNE(
        n_components=2, perplexity=perplexity, metric="cosine", init=begin, random_state=seed, n_jobs=1
    ).fit_transform(rows)
    return points


def _umap(rows: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    try:
        from umap import UMAP
    except ImportError:
        raise _missing("umap", "umap-learn", "umap") from None
    begin = "spectral" if len(rows) > 10 else "random"  # the spectrum of a few rows cannot be had
    points: NDArray[np.float32] = UMAP(
        n_components=2, n_neighbors=min(15, len(rows) - 1), metric="cosine", init=begin, random_state=seed, n_jobs=1
    ).fit_transform(rows)  # fmt: skip
    return points


def _missing(method: str, package: str, extra: str) -> InputError:
    return InputError(
        f"project: {package} must be installed for {method}, got no such package (pip install 'seqkit[{extra}]')"
    )
