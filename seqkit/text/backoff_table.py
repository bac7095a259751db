"""A back-off n-gram model as sorted arrays: millions of n-grams, scored many positions at a time.

Order n holds, for each n-gram, which (n-1)-gram it extends and by which word: one sorted key, prefix V + word. So an
n-gram is found by n binary searches, all positions of a text at once, and the continuations of a context stand side by
side. `seqkit.text.NgramModel` is the same model as an automaton for a search.

Logarithms are natural; ARPA's are to base ten.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seqkit.atomic import write_atomically
from seqkit.errors import InputError
from seqkit.text.ngram import BEGIN, END, UNKNOWN, Ngrams, read_arpa

NEVER = -99.0  # the base-10 logarithm that stands for probability zero in ARPA files


@dataclass(frozen=True)
class Order:
    """The n-grams of one order, by rising key."""

    keys: NDArray[np.int64]
    logp: NDArray[np.float64]
    backoff: NDArray[np.float64]


class BackoffTable:
    """p(w | h) is that of the n-gram h w where it was seen, else backoff(h) p(w | h'); h' is h without its first word.

    Args:
        words: the vocabulary in the order of its numbers; it holds `<unk>`, `<s>` and `</s>`.
        orders: from unigrams up. The keys of order n are (number of the (n-1)-gram) V + word, of order 1 the word.

    Raises:
        InputError: one of the three symbols is missing.
    """

    def __init__(self, words: Sequence[str], orders: Sequence[Order]) -> None:
        self.words, self.orders, self.order = tuple(words), tuple(orders), len(orders)
        self.ids = {word: number for number, word in enumerate(self.words)}
        for symbol in (UNKNOWN, BEGIN, END):
            if symbol not in self.ids:
                raise InputError(f"n-gram model: the vocabulary must hold {symbol}, got none")
        self.unknown, self.begin, self.end = (self.ids[symbol] for symbol in (UNKNOWN, BEGIN, END))

    def encode(self, sentences: Iterable[Sequence[str]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All sentences as one row of numbers, each between its begin and end symbol, and where each begins."""
        return encode(sentences, self.ids, self.unknown)

    def score(self, sentences: Iterable[Sequence[str]]) -> list[NDArray[np.float64]]:
        """The log-probability of each word of each sentence, and of its end symbol."""
        ids, begins = self.encode(sentences)
        if not len(begins):
            return []
        return [part[1:] for part in np.split(self.score_ids(ids, begins), begins[1:])]

    def score_ids(self, ids: NDArray[np.int64], begins: NDArray[np.int64]) -> NDArray[np.float64]:
        """The log-probability of each number behind those before it in its sentence; 0 for the begin symbols."""
        vocabulary = len(self.words)
        first = np.zeros(len(ids), bool)
        first[begins] = True
        place = ids.copy()  # of the n-gram that ends here, -1 for none
        logp = self.orders[0].logp[ids]
        for n in range(1, self.order):
            # The context of n words that ends before each position: its back-off holds until a longer n-gram is found.
            before = np.concatenate([[-1], place[:-1]])
            before[first] = -1
            known = before >= 0
            backoff = np.where(known, self.orders[n - 1].backoff[before], 0.0)
            place = np.full(len(ids), -1)
            place[known] = self._find(n, before[known] * vocabulary + ids[known])
            found = place >= 0
            logp = np.where(found, self.orders[n].logp[place], logp + backoff)
        logp[first] = 0.0
        return logp

    def sample(self, n: int, *, seed: int, max_length: int, temperature: float = 1.0) -> list[list[str]]:
        """Sentences drawn one word after the other; the end symbol is left out, unknown words are not drawn."""
        generator = np.random.default_rng(seed)
        return [self._draw(generator, max_length, temperature) for _ in range(n)]

    def distribution(self, history: Sequence[int]) -> NDArray[np.float64]:
        """The log-probability of each word behind these numbers."""
        vocabulary = len(self.words)
        logp = self.orders[0].logp.copy()
        for n in range(1, min(self.order - 1, len(history)) + 1):
            place = int(history[-n])
            for k, word in enumerate(history[len(history) - n + 1 :], start=1):
                place = int(self._find(k, np.array([place * vocabulary + word]))[0]) if place >= 0 else -1
            if place < 0:
                continue
            logp += self.orders[n - 1].backoff[place]
            keys = self.orders[n].keys
            begin, end = np.searchsorted(keys, [place * vocabulary, (place + 1) * vocabulary])
            logp[keys[begin:end] - place * vocabulary] = self.orders[n].logp[begin:end]
        return logp

    def save(self, path: str | Path) -> None:
        """Writes an ARPA file, packed where the name ends in `.gz`."""
        text = "".join(self._arpa()).encode()
        write_atomically(Path(path), gzip.compress(text, mtime=0) if str(path).endswith(".gz") else text)

    @classmethod
    def load(cls, path: str | Path) -> BackoffTable:
        """Reads an ARPA file, also one packed as `.gz` or `.xz`.

        Raises:
            InputError: the file is not as the format says; the line is named.
        """
        return cls.of(read_arpa(path))

    @classmethod
    def of(cls, ngrams: Sequence[Ngrams]) -> BackoffTable:
        """The table of n-grams by their words, each order's in any order; a missing `<unk>` is never likely.

        Raises:
            InputError: an n-gram extends one that is not there.
        """
        unigrams = dict(ngrams[0])
        for symbol in (UNKNOWN, BEGIN, END):
            unigrams.setdefault((symbol,), (NEVER * math.log(10), 0.0))
        words = [gram[0] for gram in unigrams]
        ids = {word: number for number, word in enumerate(words)}
        orders: list[Order] = []
        places: dict[tuple[str, ...], int] = {}
        for n, grams in enumerate([unigrams, *ngrams[1:]], start=1):
            keys = np.empty(len(grams), np.int64)
            for row, gram in enumerate(grams):
                prefix = places.get(gram[:-1], -1) if n > 1 else 0
                if prefix < 0 or gram[-1] not in ids:
                    raise InputError(f"n-gram model: {' '.join(gram)!r} must extend an n-gram of the model, got none")
                keys[row] = prefix * len(words) + ids[gram[-1]]
            values = np.array(list(grams.values()), np.float64).reshape(-1, 2)
            order = np.argsort(keys, kind="stable")
            rank = np.empty(len(order), np.int64)
            rank[order] = np.arange(len(order))
            places = dict(zip(grams, rank.tolist(), strict=True))
            orders.append(Order(keys[order], values[order, 0], values[order, 1]))
        return cls(words, orders)

    def _find(self, n: int, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the (n+1)-grams of these keys stand, -1 for none."""
        table = self.orders[n].keys
        if not len(table):
            return np.full(len(keys), -1)
        place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
        return np.where(table[place] == keys, place, -1)

    def _draw(self, generator: np.random.Generator, max_length: int, temperature: float) -> list[str]:
        history = [self.begin]
        while len(history) <= max_length:
            logp = self.distribution(history[-self.order :])
            logp[[self.unknown, self.begin]] = -np.inf
            if temperature == 0.0:
                word = int(logp.argmax())
            else:
                shares = np.exp((logp - logp.max()) / temperature)
                word = int(np.searchsorted(np.cumsum(shares), generator.random() * shares.sum(), side="right"))
            if word == self.end:
                break
            history.append(word)
        return [self.words[number] for number in history[1:]]

    def _arpa(self) -> Iterator[str]:
        counts = "".join(f"ngram {n}={len(order.keys)}\n" for n, order in enumerate(self.orders, start=1))
        yield f"\\data\\\n{counts}"
        texts = list(self.words)
        for n, order in enumerate(self.orders, start=1):
            yield f"\n\\{n}-grams:\n"
            if n > 1:
                prefixes, lasts = np.divmod(order.keys, len(self.words))
                texts = [
                    f"{texts[prefix]} {self.words[last]}"
                    for prefix, last in zip(prefixes.tolist(), lasts.tolist(), strict=True)
                ]
            logp = np.maximum(order.logp / math.log(10), NEVER).tolist()
            backoff = (order.backoff / math.log(10)).tolist()
            last_order = n == self.order
            yield "".join(
                f"{p:.7g}\t{text}\n" if last_order or b == 0.0 else f"{p:.7g}\t{text}\t{b:.7g}\n"
                for p, text, b in zip(logp, texts, backoff, strict=True)
            )
        yield "\n\\end\\\n"


def encode(
    sentences: Iterable[Sequence[str]], ids: dict[str, int], unknown: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All sentences as one row of numbers, each between its begin and end symbol, and where each begins.

    The three symbols are no words: where a text has them, they are unknown.
    """
    known = {**ids, UNKNOWN: unknown, BEGIN: unknown, END: unknown}
    begin, end = ids[BEGIN], ids[END]
    row: list[int] = []
    begins: list[int] = []
    for sentence in sentences:
        begins.append(len(row))
        row.append(begin)
        row += [known.get(word, unknown) for word in sentence]
        row.append(end)
    return np.array(row, np.int64), np.array(begins, np.int64)
