r"""N-gram models estimated by interpolated modified Kneser-Ney smoothing.

    p(w | h) = (c(h w) - D(c(h w))) / sum over v of c(h v) + backoff(h) p(w | h')

h' is h without its first word; p of no history is uniform over the vocabulary with `<unk>` and `</s>`, without `<s>`.
c is how often an n-gram of the highest order, or one that begins with `<s>`, was seen; of the others, how many
different words were seen before it. The discount D has a value for the counts 1, 2, and 3 and more, from the counts of
counts n1 to n4 of the order: with Y = n1 / (n1 + 2 n2), D(j) = j - (j + 1) Y n(j+1) / n(j). backoff(h) gives away what
the discounts take and what pruning cuts. Written as p(w | h) of what was seen and backoff(h), it is an ordinary
back-off model.

Reference: Chen and Goodman 1999, section 3, doi:10.1006/csla.1999.0128. Sentence ends, pruning and unigrams are those
of KenLM's lmplz (Heafield et al. 2013, section 3), whose files ours equal in every digit but the last.

Differs: where a discount of an order is not above 0 or has no value, lmplz refuses the text; ours takes 0.5, 1 and 1.5
for that order, as lmplz does with --discount_fallback.

How: the n-grams at all positions of the text are numbered in their order, one order after the other: a position's pair
of (number of its first n - 1 words, last word) is one integer. All the rest is sums over them. 17 million words and the
45 million n-grams up to order 5 take 2.3 GB, about 40 bytes a word and 32 an n-gram.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqkit.errors import InputError
from seqkit.text.ngram import BEGIN, END, UNKNOWN, NgramLevel, NgramModel, framed
from seqkit.text.ngram_text import LINE_END, read_symbols

FALLBACK = (0.5, 1.0, 1.5)
MAX_ORDER = 16
DENSE = 4  # possible keys a position up to which they are counted in a table


@dataclass(frozen=True)
class KneserNey:
    """A model, and how it came about."""

    model: NgramModel
    discounts: list[tuple[float, float, float]]  # of each order: for a count of 1, of 2, of 3 and more
    fallback: list[int]  # the orders whose counts gave no discounts
    symbols: int  # of the text, line ends not counted
    sentences: int
    unknown: int  # symbols that the vocabulary leaves out


@dataclass
class _Counts:
    """The n-grams of one order, rising by (prefix, word)."""

    prefix: NDArray[np.int32]
    word: NDArray[np.int32]
    suffix: NDArray[np.int32]  # where the n-gram without its first word stands at its order
    seen: NDArray[np.int32]  # how often it was seen
    from_begin: NDArray[np.bool_]  # whether it begins with <s>
    adjusted: NDArray[np.int32]  # c of the definition


def kneser_ney(
    lines: Iterable[str],
    *,
    order: int = 5,
    unit: str = "word",
    prune: Sequence[int] = (),
    min_count: int = 1,
    vocab_size: int | None = None,
    report: Callable[[str], Any] = lambda _: None,
) -> KneserNey:
    """The model of a text; each line is a sentence.

    Args:
        order: the words of the longest n-grams.
        unit: what a word is: word or char, see `seqkit.text.ngram_text`.
        prune: n-grams that were seen so often or less are left out; one number an order from 1 up, the last one for all
            further orders. The first must be 0 and they must not fall.
        min_count: words that were seen less often are `<unk>`.
        vocab_size: so many words are kept, the most frequent ones, besides `<unk>`, `<s>` and `</s>`.
        report: is told what is being done.

    Raises:
        InputError: an option is out of its range, or the text has no symbol.
    """
    where = "kneser_ney"
    if not 1 <= order <= MAX_ORDER:
        raise InputError(f"{where}: order must be from 1 to {MAX_ORDER}, got {order}")
    for name, value in (("min_count", min_count), ("vocab_size", vocab_size)):
        if value is not None and value < 1:
            raise InputError(f"{where}: {name} must be at least 1, got {value}")
    thresholds = [*prune, *([prune[-1] if prune else 0] * order)][: max(order, len(prune))]
    if len(prune) > order or thresholds[0] != 0 or sorted(thresholds) != thresholds:
        raise InputError(
            f"{where}: prune must be at most {order} numbers from 0 on that do not fall, "
            f"got {' '.join(map(str, prune))}"
        )
    symbols, text = read_symbols(lines, unit)
    sentences = int(np.count_nonzero(text == LINE_END))
    if len(text) == sentences:
        raise InputError(f"{where}: text must have symbols, got none")
    words = _vocabulary(symbols, text, min_count, vocab_size)
    ids = {word: number for number, word in enumerate(words)}
    stream = framed(text, symbols, ids)
    del text
    unknown = int(np.count_nonzero(stream == ids[UNKNOWN]))
    orders = _count(stream, order, ids, len(words), report)
    n_symbols = len(stream) - 2 * sentences
    del stream
    report("estimating")
    discounts, fallback = [], []
    for n, counts in enumerate(orders, start=1):
        found = _discounts(counts.adjusted)
        discounts.append(found or FALLBACK)
        if not found:
            fallback.append(n)
    levels = _estimate(orders, discounts, thresholds, ids)
    model = NgramModel.from_levels(words, levels, unit=unit)
    return KneserNey(model, discounts, fallback, n_symbols, sentences, unknown)


def _vocabulary(symbols: list[str], text: NDArray[np.int32], min_count: int, vocab_size: int | None) -> list[str]:
    """The specials, then symbols by falling count, equals by their code points."""
    counts = np.bincount(text[text >= 0], minlength=len(symbols)).tolist()
    specials = (UNKNOWN, BEGIN, END)
    kept = [(-n, s) for s, n in zip(symbols, counts, strict=True) if n >= min_count and s not in specials]
    return [*specials, *(symbol for _, symbol in sorted(kept)[:vocab_size])]


def _count(
    stream: NDArray[np.int32], order: int, ids: dict[str, int], V: int, report: Callable[[str], Any]
) -> list[_Counts]:
    """The n-grams of each order that lie within a sentence; fewer orders where no sentence is so long."""
    words = np.arange(V, dtype=np.int32)
    seen = np.bincount(stream, minlength=V).astype(np.int32)
    adjusted = seen.copy()
    orders = [_Counts(np.zeros(V, np.int32), words, np.zeros(V, np.int32), seen, words == ids[BEGIN], adjusted)]
    number = stream.copy()  # of the n-gram that begins at each position
    starts = np.arange(len(stream), dtype=np.int32 if len(stream) < 2**31 else np.int64)
    for n in range(2, order + 1):
        report(f"counting {n}-grams")
        starts = starts[stream[starts + (n - 2)] != ids[END]]
        if not len(starts):
            break
        shorter = orders[-1]
        keys = number[starts].astype(np.int64) * V + stream[starts + (n - 1)]
        found, seen, at, ranks = _numbered(keys, len(shorter.seen) * V, starts)
        suffix = number[at + 1]
        number[starts] = ranks
        del keys, ranks
        # So many different words stand before an n-gram of the order below as there are n-grams that end in it.
        before = np.bincount(suffix, minlength=len(shorter.seen)).astype(np.int32)
        shorter.adjusted = np.where(shorter.from_begin, shorter.seen, before)
        orders.append(
            _Counts(
                (found // V).astype(np.int32),
                (found % V).astype(np.int32),
                suffix,
                seen,
                stream[at] == ids[BEGIN],
                seen,
            )
        )
    orders[0].adjusted[ids[BEGIN]] = 0  # it is never foretold
    return orders


def _numbered(
    keys: NDArray[np.int64], bound: int, starts: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any], NDArray[np.int32]]:
    """The different keys, rising; how often and where each comes; and the number of the key at each position.

    Where the keys that can be are few, as of characters, a table of them is three to five times as fast as a sort.
    """
    if bound <= DENSE * len(keys):
        counts = np.bincount(keys, minlength=bound)
        found = np.flatnonzero(counts)
        table = np.empty(bound, starts.dtype)
        table[keys] = starts
        at = table[found]
        table[found] = np.arange(len(found))
        return found, counts[found].astype(np.int32), at, table[keys].astype(np.int32)
    by_key = np.argsort(keys)
    keys = keys[by_key]
    fresh = np.empty(len(keys), bool)
    fresh[0] = True
    np.not_equal(keys[1:], keys[:-1], out=fresh[1:])
    first = np.flatnonzero(fresh)
    ranks = np.empty(len(keys), np.int32)
    ranks[by_key] = np.cumsum(fresh, dtype=np.int32) - 1
    return keys[first], np.diff(first, append=len(keys)).astype(np.int32), starts[by_key[first]], ranks


def _discounts(adjusted: NDArray[np.int32]) -> tuple[float, float, float] | None:
    """D of the counts 1, 2, and 3 and more; None where the counts of counts give none that is above 0."""
    n1, n2, n3, n4 = (int(np.count_nonzero(adjusted == j)) for j in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return None
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 < d <= j for j, d in enumerate(found, start=1)) else None


def _estimate(
    orders: list[_Counts],
    discounts: list[tuple[float, float, float]],
    thresholds: Sequence[int],
    ids: dict[str, int],
) -> list[NgramLevel]:
    """Probabilities from counts, the lowest order first; frees the counts on the way."""
    V = len(orders[0].word)
    levels: list[NgramLevel] = []
    below = np.full(1, 1 / (V - 1))  # p of the n-grams of the order below, without those that are pruned
    place = np.zeros(1, np.int64)  # where each n-gram of the order below stands there once they are gone
    for n, (threshold, discount) in enumerate(zip(thresholds, discounts, strict=False), start=1):
        counts = orders.pop(0)
        table = np.array([0.0, *discount])
        contexts = len(place)
        adjusted = counts.adjusted.astype(np.float64)
        kept = (counts.seen > threshold) if n > 1 else np.ones(V, bool)
        taken = np.where(kept, table[np.minimum(counts.adjusted, 3)], adjusted)  # what a context has to give away
        total = np.bincount(counts.prefix, adjusted, contexts)
        given = np.bincount(counts.prefix, taken, contexts)
        backoff = np.divide(given, total, out=np.ones(contexts), where=total > 0)
        prefix, suffix = counts.prefix[kept], counts.suffix[kept]
        p = (adjusted - taken)[kept] / total[prefix] + backoff[prefix] * below[place[suffix]]
        if n == 1:
            p[ids[BEGIN]] = 1.0  # as lmplz has it; no context asks for it
        else:
            shorter = levels[-1]
            levels[-1] = shorter._replace(backoffs=np.log(backoff[place >= 0]).astype(np.float32))
        logs = np.minimum(np.log(p), 0.0).astype(np.float32)
        levels.append(NgramLevel(place[prefix] * V + counts.word[kept], logs, np.zeros(len(p), np.float32)))
        below = p
        place = np.where(kept, np.cumsum(kept) - 1, -1)
    return levels


def describe(found: KneserNey) -> str:
    """The n-grams and the discounts of each order, a line each."""
    rows = zip(found.model.n_ngrams, found.discounts, strict=True)
    return "\n".join(
        f"{n}-grams: {count:,}  discounts " + " ".join(f"{d:.3f}" for d in discounts)
        + ("  (given, as the counts have none)" if n in found.fallback else "")
        for n, (count, discounts) in enumerate(rows, start=1)
    )  # fmt: skip
