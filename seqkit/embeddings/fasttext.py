"""Skip-gram vectors of character n-grams: words that were never seen have a vector too.

A word's vector is the mean of its own row and those of its n-grams: `min_n` to `max_n` characters of ``<word>``, hashed
(FNV-1a, as fastText does) into `buckets`. Only buckets that a word of the vocabulary reaches get a row.
Reference: Bojanowski et al. 2017, arXiv:1607.04606.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqkit.embeddings import native
from seqkit.embeddings.quantized import Int8Rows
from seqkit.embeddings.vectors import WordVectors
from seqkit.embeddings.word2vec import TrainingRun, Word2Vec
from seqkit.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FastText(Word2Vec):
    """A trainer of subword vectors: skip-gram with negative sampling, the word's n-grams predict its window.

    Differs: the words of a window share their negatives and are one step.

    Raises:
        InputError: an option is out of its range, or asks for another architecture or objective.
    """

    min_n: int = 3
    max_n: int = 6
    buckets: int = 2_000_000
    alpha: float | None = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.min_n <= self.max_n <= 64:
            raise InputError(f"FastText: min_n must be from 1 to max_n {self.max_n}, got {self.min_n}")
        if not 1 <= self.buckets < 1 << 31:
            raise InputError(f"FastText: buckets must be from 1 to {(1 << 31) - 1}, got {self.buckets}")
        if self.architecture != "skipgram" or self.hierarchical or self.softmax:
            raise InputError("FastText: training must be skip-gram with negative sampling, got another")
        if self.device != "cpu":
            raise InputError(f"FastText: device must be cpu, got {self.device}")

    def _options(self) -> native.Options:
        options = super()._options()
        options.min_n, options.max_n, options.buckets = self.min_n, self.max_n, self.buckets
        return options

    def _vectors(self, run: TrainingRun) -> SubwordVectors:
        rows = run.matrix(0)[:, : self.dim]
        size, buckets = len(run.corpus), run.buckets()
        words = run.corpus.words
        matrix = np.empty((size, self.dim), np.float32)
        for index, word in enumerate(words):
            found = np.searchsorted(buckets, subword_buckets(word, self.min_n, self.max_n, self.buckets))
            matrix[index] = (rows[index] + rows[size + found].sum(0)) / (1 + len(found))
        return SubwordVectors(words, matrix, rows[size:].copy(), buckets, (self.min_n, self.max_n, self.buckets))


class SubwordVectors(WordVectors):
    """Vectors of words, and of any other word by its n-grams.

    Args:
        ngrams: the vectors of the buckets that have one.
        buckets: which these are, rising.
        hashing: min_n, max_n and the number of buckets.
    """

    def __init__(
        self,
        words: Sequence[str],
        rows: NDArray[np.float32] | Int8Rows,
        ngrams: NDArray[np.float32] | Int8Rows,
        buckets: NDArray[np.int32],
        hashing: tuple[int, int, int],
    ) -> None:
        super().__init__(words, rows)
        self.ngrams, self.buckets, self.hashing = ngrams, buckets, hashing

    def __getitem__(self, word: str) -> NDArray[np.float32]:
        """The vector of a word; of an unknown one the mean over its n-grams, those never seen counting as zeros.

        Raises:
            InputError: no n-gram of the word was ever seen.
        """
        if word in self.index:
            return super().__getitem__(word)
        wanted = subword_buckets(word, *self.hashing)
        at = np.searchsorted(self.buckets, wanted)
        known = at[(at < len(self.buckets)) & (self.buckets[np.minimum(at, len(self.buckets) - 1)] == wanted)]
        if len(known) == 0:
            raise InputError(f"SubwordVectors: word must share an n-gram with the vocabulary, got {word!r}")
        vector: NDArray[np.float32] = self.ngrams[known].sum(0) / np.float32(len(wanted))
        return vector


def subword_buckets(word: str, min_n: int, max_n: int, buckets: int) -> NDArray[np.int32]:
    """The buckets of a word's n-grams, in fastText's order."""
    text = word.encode()
    room = (len(text) + 2) * (max_n - min_n + 1)
    found = np.empty(room, np.int32)
    size = native.call("subword_buckets", text, len(text), min_n, max_n, buckets, found.ctypes.data, room)
    return found[:size]
