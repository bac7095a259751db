"""Words with their vectors, and what is asked of them: the nearest, analogies, the odd one out."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seqkit.embeddings.quantized import Int8Rows
from seqkit.errors import InputError

if TYPE_CHECKING:
    from seqkit.embeddings.neighbours import NeighbourIndex

METHODS = ("3cosadd", "3cosmul")
BATCH = 256  # queries at a time: their cosines with all words are held

Ranked = list[tuple[str, float]]


class WordVectors:
    """A vector for each word.

    Args:
        words: in the order of the rows.
        rows: float32, one row a word, or eight bits a number (`Int8Rows`); it may be a memory map.

    Raises:
        InputError: words and rows differ in number, or a word comes twice.
    """

    def __init__(self, words: Sequence[str], rows: NDArray[np.float32] | Int8Rows) -> None:
        if len(rows.shape) != 2 or len(words) != len(rows):
            raise InputError(f"WordVectors: matrix must have a row for each of {len(words)} words, got {rows.shape}")
        self.words = list(words)
        self.rows = rows
        self.index = {word: row for row, word in enumerate(self.words)}
        if len(self.index) != len(self.words):
            raise InputError("WordVectors: words must differ from each other, got one twice")

    @classmethod
    def load(cls, path: str | Path) -> WordVectors:
        """The vectors of a file, whose format is told by its content: see `seqkit.embeddings.io`.

        Raises:
            InputError: the file cannot be read, or is damaged.
        """
        from seqkit.embeddings.io import load  # it builds these classes

        return load(path)

    def save(self, path: str | Path, format: str | None = None, *, dtype: str = "float32") -> None:
        """Writes a file, whole or not at all, in a format of `seqkit.embeddings.io` or that of the suffix.

        Args:
            dtype: float32, or int8 for a quarter of the size (safetensors only).

        Raises:
            InputError: there is no such format, or it cannot hold these words or this type.
        """
        from seqkit.embeddings.io import save

        save(self, path, format, dtype=dtype)

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return int(self.rows.shape[1])

    @functools.cached_property
    def matrix(self) -> NDArray[np.float32]:
        """The rows as float32: those of a file of float32 are its memory map, others are made once."""
        return self.rows[:] if isinstance(self.rows, Int8Rows) else self.rows

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def __getitem__(self, word: str) -> NDArray[np.float32]:
        """The vector of a word.

        Raises:
            InputError: there is no such word.
        """
        row = self.index.get(word)
        if row is None:
            raise InputError(f"WordVectors: word must be in the vocabulary of {len(self)} words, got {word!r}")
        vector: NDArray[np.float32] = self.rows[row]
        return vector

    @functools.cached_property
    def unit(self) -> NDArray[np.float32]:
        """The rows at length one, a zero row as it is; made once, so the matrix must not change after.

        Raises:
            InputError: a number is not finite.
        """
        if isinstance(self.rows, Int8Rows):
            return self.rows.unit()
        lengths = np.sqrt(np.einsum("vd,vd->v", self.matrix, self.matrix, dtype=np.float64))[:, None]
        if not np.isfinite(lengths).all():
            word = self.words[int(np.argmin(np.isfinite(lengths)))]
            raise InputError(f"WordVectors: numbers must be finite, got another in the vector of {word!r}")
        unit: NDArray[np.float32] = (self.matrix / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        return unit

    def nearest(self, query: str | NDArray[np.float32], n: int = 10, *, approximate: bool = False) -> Ranked:
        """The `n` words of the largest cosine with a word or a vector, best first; the word itself is left out.

        Args:
            approximate: search a part of the words, and miss one now and then; see `seqkit.embeddings.neighbours` for
                when it pays.

        Raises:
            InputError: the word has no vector, the vector is of another length, or `n` is not positive.
        """
        return self.nearest_of_each([query], n, approximate=approximate)[0]

    def nearest_of_each(
        self, queries: Sequence[str | NDArray[np.float32]], n: int = 10, *, approximate: bool = False
    ) -> list[Ranked]:
        """`nearest` of many queries, as matrix products."""
        if n < 1:
            raise InputError(f"WordVectors: n must be at least 1, got {n}")
        found: list[Ranked] = []
        for begin in range(0, len(queries), BATCH):
            batch = queries[begin : begin + BATCH]
            directions = np.stack([self._direction(query) for query in batch])
            if approximate:
                found += self._nearly(directions, n, batch)
                continue
            scores = directions @ self.unit.T
            found += [self._best(row, n, [query]) for row, query in zip(scores, batch, strict=True)]
        return found

    @functools.cached_property
    def neighbours(self) -> NeighbourIndex:
        """What approximate search asks; made once.

        Raises:
            InputError: faiss is not installed.
        """
        from seqkit.embeddings.neighbours import NeighbourIndex

        return NeighbourIndex(self.unit)

    def analogy(self, a: str, b: str, c: str, n: int = 10, *, method: str = "3cosadd") -> Ranked:
        """What is to `c` as `b` is to `a`: `analogy("man", "king", "woman")`; the three are left out.

        3CosAdd ranks d by cos(d, b - a + c) of unit vectors, 3CosMul by cos(d, b) cos(d, c) / (cos(d, a) + 0.001) with
        the cosines moved to 0..1.
        Reference: Mikolov et al. 2013, NAACL; Levy and Goldberg 2014, CoNLL, section 6.

        Raises:
            InputError: a word has no vector, or there is no such method.
        """
        if method not in METHODS:
            raise InputError(f"analogy: method must be one of {', '.join(METHODS)}, got {method!r}")
        rows = [self._direction(word) for word in (a, b, c)]
        if method == "3cosadd":
            scores = self._direction(rows[1] - rows[0] + rows[2]) @ self.unit.T
        else:
            to_a, to_b, to_c = (np.stack(rows) @ self.unit.T + 1) / 2
            scores = to_b * to_c / (to_a + 1e-3)
        return self._best(scores, n, [a, b, c])

    def odd_one_out(self, words: Sequence[str]) -> str:
        """The word of the smallest cosine with the mean of all.

        Raises:
            InputError: there is no word, or one has no vector.
        """
        if not words:
            raise InputError("odd_one_out: words must be one or more, got none")
        rows = np.stack([self._direction(word) for word in words])
        return words[int((rows @ rows.mean(0)).argmin())]

    def similarity(self, a: str, b: str) -> float:
        """The cosine of two words.

        Raises:
            InputError: a word has no vector.
        """
        return float(self._direction(a) @ self._direction(b))

    def sentence(self, words: Iterable[str]) -> NDArray[np.float32]:
        """The mean vector of the words that have one.

        Raises:
            InputError: none has one.
        """
        rows = []
        for word in words:
            try:
                rows.append(self[word])
            except InputError:
                continue
        if not rows:
            raise InputError("sentence: a word must have a vector, got none that has")
        mean: NDArray[np.float32] = np.mean(rows, axis=0, dtype=np.float32)
        return mean

    def _direction(self, query: str | NDArray[np.float32]) -> NDArray[np.float32]:
        """A word's or a vector's unit vector."""
        if isinstance(query, str):
            if query in self.index:
                return self.unit[self.index[query]]
            query = self[query]  # by its subwords, or refused
        vector = np.asarray(query, np.float32)
        if vector.shape != (self.dim,):
            raise InputError(f"WordVectors: vector must have the shape {(self.dim,)}, got {vector.shape}")
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length):
            raise InputError("WordVectors: vector must be finite, got one that is not")
        return vector / np.float32(length) if length > 0 else vector

    def _nearly(
        self, directions: NDArray[np.float32], n: int, queries: Sequence[str | NDArray[np.float32]]
    ) -> list[Ranked]:
        """`_best` by the index; a query for which it finds fewer than `n` words is asked exactly."""
        rows, scores = self.neighbours.search(directions, n + 1)
        found: list[Ranked] = []
        for at, query in enumerate(queries):
            own = self.index.get(query) if isinstance(query, str) else None
            ranked = [
                (self.words[row], score)
                for row, score in zip(rows[at].tolist(), scores[at].tolist(), strict=True)
                if row >= 0 and row != own
            ][:n]
            if len(ranked) < min(n, len(self) - (own is not None)):
                ranked = self._best(directions[at] @ self.unit.T, n, [query])
            found.append(ranked)
        return found

    def _best(self, scores: NDArray[np.float32], n: int, without: Sequence[object]) -> Ranked:
        """The words of the largest scores; equals in the order of the rows."""
        if n < 1:
            raise InputError(f"WordVectors: n must be at least 1, got {n}")
        left_out = [self.index[word] for word in without if isinstance(word, str) and word in self.index]
        scores[left_out] = -np.inf
        n = min(n, len(scores) - len(set(left_out)))
        if n == 0:
            return []
        least = np.partition(scores, len(scores) - n)[len(scores) - n]
        rows = np.flatnonzero(scores >= least)
        rows = rows[np.argsort(-scores[rows], kind="stable")][:n]
        return [(self.words[row], float(scores[row])) for row in rows]
