"""How good word vectors are: analogies by section, and the rank correlation with what people say of word pairs.

Every figure comes with its coverage: questions with an unknown word are left out, as gensim and word2vec.c do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seqkit.embeddings.vectors import WordVectors
from seqkit.text.corpus import LineCorpus


@dataclass(frozen=True, kw_only=True)
class Analogies:
    """What was right, by section."""

    section: str
    right: int
    asked: int
    given: int

    @property
    def accuracy(self) -> float:
        return self.right / self.asked if self.asked else float("nan")


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Spearman's rho over the pairs whose words are known."""

    rho: float
    asked: int
    given: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of rho; NaN for fewer than four pairs.

        It is symmetric in Fisher's z, with the variance (1 + rho^2 / 2) / (n - 3).
        Reference: Bonett and Wright 2000, Psychometrika 65(1).
        """
        if self.asked < 4 or not abs(self.rho) < 1:
            return (self.rho, self.rho) if self.asked >= 4 else (float("nan"), float("nan"))
        half = 1.959964 * math.sqrt((1 + self.rho**2 / 2) / (self.asked - 3))
        middle = math.atanh(self.rho)
        return math.tanh(middle - half), math.tanh(middle + half)


def analogies(vectors: WordVectors, path: str | Path, *, batch: int = 1024) -> list[Analogies]:
    """Whether the word nearest to b - a + c, other than these three, is d: by section, and the whole as the last.

    The file has a question `a b c d` a line and sections that begin with `: name`. All is compared in lower case.
    Reference: Mikolov et al. 2013, arXiv:1301.3781, section 4.
    """
    unit = vectors.unit
    sections: list[tuple[str, list[list[int]], int]] = []
    for line in LineCorpus(path):
        if line.startswith(":"):
            sections.append((line[1:].strip(), [], 0))
            continue
        words = line.lower().split()
        if len(words) != 4:
            continue
        if not sections:
            sections.append(("", [], 0))
        name, questions, given = sections[-1]
        if all(word in vectors for word in words):
            questions.append([vectors.index[word] for word in words])
        sections[-1] = (name, questions, given + 1)
    found = [
        Analogies(section=name, right=_right(unit, questions, batch), asked=len(questions), given=given)
        for name, questions, given in sections
    ]
    whole = Analogies(
        section="all",
        right=sum(each.right for each in found),
        asked=sum(each.asked for each in found),
        given=sum(each.given for each in found),
    )
    return [*found, whole]


def _right(unit: NDArray[np.float32], questions: list[list[int]], batch: int) -> int:
    right = 0
    for begin in range(0, len(questions), batch):
        asked = np.array(questions[begin : begin + batch])
        a, b, c, d = asked.T
        scores = (unit[b] - unit[a] + unit[c]) @ unit.T
        scores[np.arange(len(asked))[:, None], asked[:, :3]] = -np.inf
        right += int((scores.argmax(1) == d).sum())
    return right


def similarity(vectors: WordVectors, path: str | Path) -> Similarity:
    """Spearman's rho between cosines and people's scores; the file has `word word score` a line, comments with #."""
    unit = vectors.unit
    cosines, scores, given = [], [], 0
    for line in LineCorpus(path):
        columns = line.lower().split("\t") if "\t" in line else line.lower().split()
        if line.startswith("#") or len(columns) < 3:
            continue
        try:
            score = float(columns[2])
        except ValueError:
            continue  # a heading
        given += 1
        if columns[0] in vectors and columns[1] in vectors:
            cosines.append(float(unit[vectors.index[columns[0]]] @ unit[vectors.index[columns[1]]]))
            scores.append(score)
    return Similarity(rho=spearman(cosines, scores), asked=len(scores), given=given)


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation, equals with their mean rank; NaN for fewer than two pairs or a constant side."""
    if len(a) < 2:
        return float("nan")
    x, y = _ranks(np.asarray(a, float)), _ranks(np.asarray(b, float))
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else float("nan")


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks
