"""Words with their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seqkit.atomic import atomic_file
from seqkit.errors import InputError


class WordVectors:
    """A vector for each word.

    Args:
        words: in the order of the rows.
        matrix: float32, one row a word.

    Raises:
        InputError: words and rows differ in number, or a word comes twice.
    """

    def __init__(self, words: Sequence[str], matrix: NDArray[np.float32]) -> None:
        if matrix.ndim != 2 or len(words) != len(matrix):
            raise InputError(f"WordVectors: matrix must have a row for each of {len(words)} words, got {matrix.shape}")
        self.words = list(words)
        self.matrix = matrix
        self.index = {word: row for row, word in enumerate(self.words)}
        if len(self.index) != len(self.words):
            raise InputError("WordVectors: words must differ from each other, got one twice")

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
        return self.matrix[row]

    def save(self, path: str | Path) -> None:
        """Writes word2vec's binary format, whole or not at all."""
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            file.write(f"{len(self)} {self.matrix.shape[1]}\n".encode())
            for word, row in zip(self.words, self.matrix.astype("<f4", copy=False), strict=True):
                file.write(word.encode() + b" " + row.tobytes() + b"\n")
