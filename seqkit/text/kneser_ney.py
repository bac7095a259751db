"""Modified Kneser-Ney smoothing, interpolated: the n-gram model that every neural one is compared with.

    p(w | h) = (a(h w) - D(a(h w))) / sum over v of a(h v) + gamma(h) p(w | h')

a is the count of an n-gram of the highest order, and of those that begin a sentence; of any other, the number of
different words that stand before it. D is one of three discounts, for counts of 1, 2 and more, estimated for each order
from the counts of counts; gamma(h) is what they leave over. Unigrams are mixed with the uniform distribution. The
interpolation is folded into the probabilities, so that any reader of ARPA files gives the same ones.

Reference: Chen and Goodman 1999, section 3.3, doi:10.1006/csla.1999.0128; as KenLM's lmplz does it: Heafield et al.
2013 (one begin symbol, which has no probability itself).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from seqkit.errors import InputError
from seqkit.text.backoff_table import BackoffTable, Order, encode
from seqkit.text.ngram import BEGIN, END, UNKNOWN

FALLBACK = (0.5, 1.0, 1.5)  # discounts where counts of counts give none, as lmplz has them


def estimate(sentences: Iterable[Sequence[str]], *, order: int, min_count: int = 1) -> BackoffTable:
    """The model of these sentences.

    Args:
        order: the longest n-gram, from 1 up.
        min_count: rarer words become `<unk>`.

    Raises:
        InputError: there is no word, or the order is below 1.
    """
    if order < 1 or min_count < 1:
        raise InputError(f"kneser_ney: order and min_count must be at least 1, got {order} and {min_count}")
    held = [list(sentence) for sentence in sentences]
    counts = Counter(word for sentence in held for word in sentence)
    kept = [word for word, count in counts.most_common() if count >= min_count and word not in (UNKNOWN, BEGIN, END)]
    if not kept:
        raise InputError(f"kneser_ney: the text must have words that occur {min_count} times or more, got none")
    words = [UNKNOWN, BEGIN, END, *kept]
    ids = {word: number for number, word in enumerate(words)}
    text, begins = encode(held, ids, ids[UNKNOWN])
    del held
    return BackoffTable(words, _orders(text, begins, len(words), order))


class _Level:
    """The different n-grams of one order in a text."""

    def __init__(self, keys: NDArray[np.int64], counts: NDArray[np.int64], opens: NDArray[np.bool_]) -> None:
        self.keys, self.counts, self.opens = keys, counts, opens  # opens: begins with the begin symbol
        self.prefix = np.zeros(len(keys), np.int64)
        self.suffix = np.zeros(len(keys), np.int64)


def _orders(text: NDArray[np.int64], begins: NDArray[np.int64], vocabulary: int, order: int) -> list[Order]:
    levels = _count(text, begins, vocabulary, order)
    for level, longer in itertools.pairwise(levels):
        before = np.bincount(longer.suffix, minlength=len(level.keys))
        level.counts = np.where(level.opens, level.counts, before)
    levels[0].counts[levels[0].opens] = 0  # the begin symbol is never drawn

    # From unigrams up: a probability needs that of the shorter n-gram.
    shorter = np.full(len(levels[0].keys), 1.0 / (vocabulary - 1))  # uniform, but for the begin symbol
    probabilities: list[NDArray[np.float64]] = []
    backoffs: list[NDArray[np.float64]] = []
    for n, level in enumerate(levels):
        discount = _discounts(level.counts)[np.minimum(level.counts, 3)]
        contexts = 1 if n == 0 else len(levels[n - 1].keys)
        total = np.bincount(level.prefix, level.counts, contexts)
        left = np.bincount(level.prefix, discount, contexts)  # what the discounts take of each context
        some = total > 0
        gamma = np.where(some, left / np.where(some, total, 1.0), 1.0)
        if n > 0:
            shorter = probabilities[n - 1][level.suffix]
            backoffs.append(gamma)
        found = (level.counts - discount) / np.where(some, total, 1.0)[level.prefix] + gamma[level.prefix] * shorter
        if n == 0:
            found[level.opens] = 0.0
        probabilities.append(found)
    backoffs.append(np.ones(len(levels[-1].keys)))
    with np.errstate(divide="ignore"):
        return [
            Order(level.keys, np.log(p), np.log(gamma))
            for level, p, gamma in zip(levels, probabilities, backoffs, strict=True)
        ]


def _count(text: NDArray[np.int64], begins: NDArray[np.int64], vocabulary: int, order: int) -> list[_Level]:
    """The n-grams of each order, each within its sentence, with their counts."""
    opens = np.zeros(vocabulary, bool)
    opens[text[begins[0]]] = True
    levels = [_Level(np.arange(vocabulary), np.bincount(text, minlength=vocabulary), opens)]
    place = text  # of the n-gram that ends at each position, -1 where it would begin before its sentence
    first = np.zeros(len(text), bool)
    first[begins] = True
    for _ in range(1, order):
        before = np.concatenate([[-1], place[:-1]])
        before[first] = -1
        inside = before >= 0
        keys, inverse, counts = np.unique(
            before[inside] * vocabulary + text[inside], return_inverse=True, return_counts=True
        )
        level = _Level(keys, counts, np.zeros(len(keys), bool))
        level.prefix = keys // vocabulary
        level.opens = levels[-1].opens[level.prefix]
        level.suffix[inverse] = place[inside]
        place = np.full(len(text), -1)
        place[inside] = inverse
        levels.append(level)
    return levels


def _discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What is taken of counts of 0, 1, 2 and more; fixed values where the counts of counts give none."""
    t = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    found = [0.0]
    y = t[1] / (t[1] + 2 * t[2]) if t[1] else 0.0
    for k, fallback in enumerate(FALLBACK, start=1):
        discount = k - (k + 1) * y * t[k + 1] / t[k] if t[k] else -1.0
        found.append(discount if 0.0 <= discount <= k and t[1] and t[2] else fallback)
    return np.array(found)


def characters(line: str) -> list[str]:
    """A line's characters as the words of an ARPA file: `▁` for a space, and `<U+00A0>` for what cannot stand there."""
    return [_symbol(char) for char in line]


def _symbol(char: str) -> str:
    if char == " ":
        return "▁"
    return f"<U+{ord(char):04X}>" if char.isspace() or char == "▁" or not char.isprintable() else char


def text_of(symbols: Sequence[str]) -> str:
    """The text that `characters` gave these symbols for."""
    return "".join(
        " " if symbol == "▁" else chr(int(symbol[3:-1], 16)) if symbol.startswith("<U+") else symbol
        for symbol in symbols
    )
