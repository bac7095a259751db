"""Phrases: pairs of words that stand together more often than chance has it become one word, `new_york`.

The score of the pair a b, of n(ab) occurrences in a text of N words, is (n(ab) - delta) / (n(a) n(b)) N.
Reference: Mikolov et al. 2013, arXiv:1310.4546, section 4; word2phrase.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from seqkit.embeddings.corpus import Corpus
from seqkit.errors import InputError


def find_phrases(corpus: Corpus, *, delta: float = 5.0, threshold: float = 100.0) -> dict[tuple[str, str], float]:
    """The pairs whose score is above the threshold, with their scores, best first.

    Pairs are counted within sentences; words that are too rare for the vocabulary are passed over.
    All pairs of the text are held in memory, eight bytes each.

    Raises:
        InputError: `delta` is negative.
    """
    if not delta >= 0:
        raise InputError(f"find_phrases: delta must be 0 or more, got {delta}")
    ids, counts, words = corpus.ids().astype(np.int64), corpus.counts.astype(np.float64), corpus.words
    inside = (ids[:-1] >= 0) & (ids[1:] >= 0)
    keys, found = np.unique(ids[:-1][inside] * len(words) + ids[1:][inside], return_counts=True)
    first, second = keys // len(words), keys % len(words)
    scores = (found - delta) / (counts[first] * counts[second]) * corpus.n_words
    best = np.flatnonzero(scores > threshold)
    best = best[np.argsort(-scores[best], kind="stable")]
    return {(words[first[i]], words[second[i]]): float(scores[i]) for i in best.tolist()}


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
