"""Phrases: pairs of words that stand together more often than chance has it become one word, `new_york`.

The score of the pair a b, of n(ab) occurrences in a text of N words, is (n(ab) - delta) / (n(a) n(b)) N.
Reference: Mikolov et al. 2013, arXiv:1310.4546, section 4; word2phrase.c.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from seqkit.embeddings.corpus import Corpus
from seqkit.errors import InputError

PAIR_BYTES = 64  # what a pair takes while it is counted: its key, sorted copies, its count

Counted = tuple[NDArray[np.int64], NDArray[np.int64]]  # keys, rising, and how often each comes


def find_phrases(
    corpus: Corpus, *, delta: float = 5.0, threshold: float = 100.0, memory: int = 256 << 20
) -> dict[tuple[str, str], float]:
    """The pairs whose score is above the threshold, with their scores, best first.

    Pairs are counted within sentences; words that are too rare for the vocabulary are passed over.
    Differs: word2phrase.c drops rare pairs when its table is full; here sorted runs go to a temporary file and are
    merged, so that counts are exact in any memory. The file and the text's ids are memory maps, whose pages the system
    takes back when it needs them.

    Args:
        memory: bytes that the counting may take, beside the vocabulary and what is found.

    Raises:
        InputError: `delta` is negative, or `memory` less than a megabyte.
    """
    if not delta >= 0:
        raise InputError(f"find_phrases: delta must be 0 or more, got {delta}")
    if memory < 1 << 20:
        raise InputError(f"find_phrases: memory must be a megabyte or more, got {memory} bytes")
    counts, words = corpus.counts.astype(np.float64), corpus.words
    keys, scores = [], []
    with tempfile.TemporaryFile() as id_file, tempfile.TemporaryFile() as run_file:
        ids = corpus.ids(id_file)
        for found, times in _merged(_runs(ids, len(words), memory // PAIR_BYTES, run_file), memory // PAIR_BYTES):
            score = (times - delta) / (counts[found // len(words)] * counts[found % len(words)]) * corpus.n_words
            keys.append(found[score > threshold])
            scores.append(score[score > threshold])
    pairs, values = np.concatenate(keys), np.concatenate(scores)
    best = np.argsort(-values, kind="stable")
    return {(words[pairs[i] // len(words)], words[pairs[i] % len(words)]): float(values[i]) for i in best.tolist()}


def _runs(ids: NDArray[np.int32], n_words: int, room: int, file: IO[bytes]) -> list[Counted]:
    """The counted pairs of each piece of the text: in memory if there is one piece, else in memory maps of the file."""
    ends = []
    for begin in range(0, max(len(ids) - 1, 1), room):
        piece = ids[begin : begin + room + 1].astype(np.int64)
        inside = (piece[:-1] >= 0) & (piece[1:] >= 0)
        keys, times = np.unique(piece[:-1][inside] * n_words + piece[1:][inside], return_counts=True)
        if len(ids) - 1 <= room:
            return [(keys, times)]
        if len(keys):
            file.write(keys.tobytes())
            file.write(times.astype(np.int64).tobytes())
            ends.append(file.tell() // 8)
    file.flush()
    lines = np.memmap(file, np.int64, "r") if ends else np.empty(0, np.int64)
    parts = [lines[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    return [(part[: len(part) // 2], part[len(part) // 2 :]) for part in parts]


def _merged(runs: list[Counted], room: int) -> Iterator[Counted]:
    """The runs as one, in pieces of at most `room` entries of theirs that rise from piece to piece."""
    if len(runs) == 1:
        yield runs[0]
        return
    if not runs:
        yield np.empty(0, np.int64), np.empty(0, np.int64)
        return
    # Every step-th key of a run stands for `step` entries, and a piece has at most as many more of each run.
    step = max(room // (2 * len(runs)), 1)
    marks = np.sort(np.concatenate([keys[::step] for keys, _ in runs]))
    borders = np.unique(marks[:: max(room // (2 * step), 1)])
    at = [[*np.searchsorted(keys, borders).tolist(), len(keys)] for keys, _ in runs]
    for piece in range(len(borders)):
        slices = [(run, slice(ends[piece], ends[piece + 1])) for run, ends in zip(runs, at, strict=True)]
        keys = np.concatenate([run[0][part] for run, part in slices])
        order = np.argsort(keys, kind="stable")
        times = np.concatenate([run[1][part] for run, part in slices])[order]
        keys = keys[order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        yield keys[first], np.add.reduceat(times, first)


def join_phrases(
    sentences: Iterable[list[str]], phrases: dict[tuple[str, str], float], *, joint: str = "_"
) -> Iterator[list[str]]:
    """The sentences with their phrases as one word each, from the left; a word is part of one phrase at most."""
    for sentence in sentences:
        joined: list[str] = []
        at = 0
        while at < len(sentence):
            if at + 1 < len(sentence) and (sentence[at], sentence[at + 1]) in phrases:
                joined.append(sentence[at] + joint + sentence[at + 1])
                at += 2
            else:
                joined.append(sentence[at])
                at += 1
        yield joined
