"""Words with their vectors."""

from pathlib import Path

import numpy as np
import pytest

from seqkit.embeddings import WordVectors
from seqkit.errors import InputError


def test_word_vectors_find_rows_and_refuse_what_does_not_fit() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    vectors = WordVectors(["a", "b"], matrix)
    assert (vectors["b"] == matrix[1]).all()
    assert "a" in vectors
    assert "c" not in vectors
    with pytest.raises(InputError, match="word must be in the vocabulary of 2 words, got 'c'"):
        vectors["c"]
    with pytest.raises(InputError, match="a row for each of 1 words"):
        WordVectors(["a"], matrix)
    with pytest.raises(InputError, match="got one twice"):
        WordVectors(["a", "a"], matrix)


def test_save_writes_word2vecs_binary(tmp_path: Path) -> None:
    matrix = np.array([[1, 2], [3, 4]], np.float32)
    WordVectors(["a", "é"], matrix).save(tmp_path / "v.bin")
    expected = b"2 2\na " + matrix[0].tobytes() + b"\n" + "é ".encode() + matrix[1].tobytes() + b"\n"
    assert (tmp_path / "v.bin").read_bytes() == expected
