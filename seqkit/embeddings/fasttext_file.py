"""fastText's own model file, `.bin`: the words, their rows and those of all n-gram buckets.

Numbers are little-endian. Magic, version 12; twelve options and a double; the dictionary: counts, then each word ended
by a zero byte with its count and kind; then two matrices, each after a byte that says whether it is quantised.
Reference: fastText 0.9.2, fasttext.cc, dictionary.cc, args.cc and densematrix.cc.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from seqkit.embeddings.fasttext import SubwordVectors, subword_buckets
from seqkit.embeddings.vectors import WordVectors
from seqkit.errors import InputError

MAGIC = struct.pack("<i", 793712314)
VERSION = 12
END = "</s>"  # the one word without n-grams
BLOCK = 1 << 16  # buckets written at a time

_OPTIONS = struct.Struct("<i12id")
_SIZES = struct.Struct("<iiiqq")
_MATRIX = struct.Struct("<?qq")


def read_fasttext(data: mmap.mmap, name: str) -> WordVectors:
    """Its words, with subwords where the model has them; the n-grams' rows stay in the file.

    Raises:
        InputError: the file ends early, disagrees with itself, or is of a kind that is not read: quantised, pruned,
            of another version.
    """
    at = 4
    if len(data) < at + _OPTIONS.size + _SIZES.size:
        raise InputError(f"{name}: file must have a header of fastText, got the end at byte {len(data)}")
    version, dim, _, _, _, _, _, _, _, n_buckets, min_n, max_n, _, _ = _OPTIONS.unpack_from(data, at)
    at += _OPTIONS.size
    size, n_words, n_labels, _, pruned = _SIZES.unpack_from(data, at)
    at += _SIZES.size
    if version != VERSION:
        raise InputError(f"{name}: fastText's version must be {VERSION}, got {version}")
    if pruned > 0:
        raise InputError(f"{name}: fastText's model must not be pruned, got {pruned} pruned n-grams")
    if dim < 1 or n_words < 1 or n_labels < 0 or size != n_words + n_labels or n_buckets < 0:
        raise InputError(f"{name}: fastText's sizes must fit, got {dim} numbers, {n_words} of {size} words")
    if 10 * size > len(data) - at:
        raise InputError(f"{name}: file must have {size} words, got {len(data) - at} bytes for them")
    words, at = _words(data, name, at, size, n_words)
    rows, at = _matrix(data, name, at, n_words + n_buckets, dim)
    if len(data) - at < _MATRIX.size:
        raise InputError(f"{name}: file must have an output matrix, got the end at byte {len(data)}")
    if not 1 <= min_n <= max_n <= 64 or n_buckets == 0:
        return WordVectors(words, rows[:n_words].copy())
    ngrams = rows[n_words:]
    matrix = composed(words, rows[:n_words], ngrams, (min_n, max_n, n_buckets), alone=END)
    return SubwordVectors(words, matrix, ngrams, np.arange(n_buckets, dtype=np.int32), (min_n, max_n, n_buckets))


def composed(
    words: list[str],
    own: NDArray[np.float32],
    ngrams: NDArray[np.float32],
    hashing: tuple[int, int, int],
    *,
    alone: str | None = None,
) -> NDArray[np.float32]:
    """The words' vectors: the mean of their own rows and those of their n-grams; the word `alone` has its own only."""
    matrix = own.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told when it is asked for
        for row, word in enumerate(words):
            if word != alone:
                found = subword_buckets(word, *hashing)
                matrix[row] = (matrix[row] + ngrams[found].sum(0)) / np.float32(1 + len(found))
    return matrix


def _words(data: mmap.mmap, name: str, at: int, size: int, n_words: int) -> tuple[list[str], int]:
    words: list[str] = []
    seen: set[str] = set()
    for number in range(size):
        end = data.find(b"\0", at, at + (1 << 16))
        if end < 0 or end + 10 > len(data):
            raise InputError(f"{name}: word {number + 1} of {size} must end in a zero byte, got none from byte {at}")
        if number < n_words:  # labels of a classifier follow
            try:
                word = data[at:end].decode()
            except UnicodeDecodeError as error:
                raise InputError(f"{name}: byte {at}: word must be UTF-8, got {data[at:end][:40]!r}") from error
            if word in seen or not word:
                raise InputError(f"{name}: byte {at}: word must come once and have a character, got {word!r}")
            seen.add(word)
            words.append(word)
        at = end + 10
    return words, at


def _matrix(data: mmap.mmap, name: str, at: int, n_rows: int, dim: int) -> tuple[NDArray[np.float32], int]:
    if len(data) - at < _MATRIX.size:
        raise InputError(f"{name}: file must have an input matrix, got the end at byte {len(data)}")
    quantised = data[at] != 0
    _, rows, columns = _MATRIX.unpack_from(data, at)
    at += _MATRIX.size
    if quantised:
        raise InputError(f"{name}: fastText's matrix must not be quantised, got one that is (a .ftz model)")
    if (rows, columns) != (n_rows, dim):
        raise InputError(f"{name}: matrix must be of {n_rows} rows of {dim} numbers, got {rows} of {columns}")
    if 4 * rows * columns > len(data) - at:
        raise InputError(f"{name}: matrix must have {4 * rows * columns} bytes, got {len(data) - at} from byte {at}")
    return np.frombuffer(data, "<f4", rows * columns, at).reshape(rows, columns), at + 4 * rows * columns


def write_fasttext(vectors: SubwordVectors, put: Callable[[bytes], object]) -> None:
    """Writes a model whose words and n-grams have these vectors; its output matrix is zero, so it cannot train on."""
    min_n, max_n, n_buckets = vectors.hashing
    size, dim = len(vectors), vectors.dim
    put(MAGIC + _OPTIONS.pack(VERSION, dim, 5, 5, 1, 5, 1, 2, 2, n_buckets, min_n, max_n, 100, 1e-4))
    put(_SIZES.pack(size, size, 0, size * (size + 1) // 2, -1))
    for row, word in enumerate(vectors.words):  # counts are not kept: falling ones keep the order
        put(word.encode() + b"\0" + struct.pack("<qb", size - row, 0))
    put(_MATRIX.pack(False, size + n_buckets, dim))
    for row, word in enumerate(vectors.words):
        own = vectors.matrix[row].astype(np.float64)
        if word != END:
            wanted = subword_buckets(word, min_n, max_n, n_buckets)
            own = own * (1 + len(wanted)) - _ngrams(vectors, wanted).sum(0, dtype=np.float64)
        put(own.astype("<f4").tobytes())
    for begin in range(0, n_buckets, BLOCK):
        wanted = np.arange(begin, min(begin + BLOCK, n_buckets), dtype=np.int32)
        put(_ngrams(vectors, wanted).astype("<f4", copy=False).tobytes())
    put(_MATRIX.pack(False, size, dim))
    zeros = bytes(4 * dim)
    for _ in range(size):
        put(zeros)


def _ngrams(vectors: SubwordVectors, wanted: NDArray[np.int32]) -> NDArray[np.float32]:
    """The rows of buckets; zeros for those that were never seen."""
    rows = np.zeros((len(wanted), vectors.dim), np.float32)
    at = np.minimum(np.searchsorted(vectors.buckets, wanted), max(len(vectors.buckets) - 1, 0))
    if len(vectors.buckets):
        known = vectors.buckets[at] == wanted
        rows[known] = vectors.ngrams[at[known]]
    return rows
