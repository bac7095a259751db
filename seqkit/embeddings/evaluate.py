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


def analogies(
    vectors: WordVectors, path: str | Path, *, case_insensitive: bool = True, batch: int = 1024
) -> list[Analogies]:
    """Whether the word nearest to b - a + c, other than these three, is d: by section, and the whole as the last.

    The file has a question `a b c d` a line and sections that begin with `: name`.
    Reference: Mikolov et al. 2013, arXiv:1301.3781, section 4.

    Args:
        case_insensitive: compare in lower case, as gensim can. Of words that differ by case alone the first, the most
            frequent, gives the vector of a question, and any of them is an answer.
    """
    keys = _Keys(vectors, case_insensitive=case_insensitive)
    sections: list[tuple[str, list[list[int | None]], int]] = []
    for line in LineCorpus(path):
        if line.startswith(":"):
            sections.append((line[1:].strip(), [], 0))
            continue
        words = line.split()
        if len(words) != 4:
            continue
        if not sections:
            sections.append(("", [], 0))
        name, questions, given = sections[-1]
        rows = [keys.row(word) for word in words]
        if None not in rows:
            questions.append(rows)
        sections[-1] = (name, questions, given + 1)
    found = [
        Analogies(section=name, right=_right(keys, questions, batch), asked=len(questions), given=given)
        for name, questions, given in sections
    ]
    whole = Analogies(
        section="all",
        right=sum(each.right for each in found),
        asked=sum(each.asked for each in found),
        given=sum(each.given for each in found),
    )
    return [*found, whole]


class _Keys:
    """Which row a word of a question means, and which rows are the same word to it."""

    def __init__(self, vectors: WordVectors, *, case_insensitive: bool) -> None:
        self.unit = vectors.unit
        self.fold = str.lower if case_insensitive else str
        self.first: dict[str, int] = {}
        self.first_of = np.arange(len(vectors))  # row -> the first row of the same word
        self.others: dict[int, list[int]] = {}  # first row -> the rows after it, if there are any
        for row, word in enumerate(vectors.words):
            first = self.first.setdefault(self.fold(word), row)
            if first != row:
                self.first_of[row] = first
                self.others.setdefault(first, []).append(row)

    def row(self, word: str) -> int | None:
        return self.first.get(self.fold(word))


def _right(keys: _Keys, questions: list[list[int | None]], batch: int) -> int:
    right, unit = 0, keys.unit
    for begin in range(0, len(questions), batch):
        asked = np.array(questions[begin : begin + batch], np.int64)
        a, b, c, d = asked.T
        scores = (unit[b] - unit[a] + unit[c]) @ unit.T
        scores[np.arange(len(asked))[:, None], asked[:, :3]] = -np.inf
        if keys.others:
            for row, three in zip(scores, asked[:, :3].tolist(), strict=True):
                row[[other for first in three for other in keys.others.get(first, ())]] = -np.inf
        right += int((keys.first_of[scores.argmax(1)] == d).sum())
    return right


def similarity(vectors: WordVectors, path: str | Path, *, case_insensitive: bool = True) -> Similarity:
    """Spearman's rho between cosines and people's scores; the file has `word word score` a line, comments with #.

    Args:
        case_insensitive: compare in lower case; of words that differ by case alone the first gives the vector.
    """
    keys = _Keys(vectors, case_insensitive=case_insensitive)
    cosines, scores, given = [], [], 0
    for line in LineCorpus(path):
        columns = line.split("\t") if "\t" in line else line.split()
        if line.startswith("#") or len(columns) < 3:
            continue
        try:
            score = float(columns[2])
        except ValueError:
            continue  # a heading
        given += 1
        a, b = keys.row(columns[0]), keys.row(columns[1])
        if a is not None and b is not None:
            cosines.append(float(keys.unit[a] @ keys.unit[b]))
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
