r"""N-gram language models with back-off: probabilities, perplexity, samples, and the automaton that a search walks.

The n-grams of order n stand in the order of their words, each as one number, `prefix * V + word`, where prefix is the
place of its first n - 1 words among the n-grams of order n - 1. So an n-gram is found by bisection, its continuations
stand beside each other, and a text is scored with a few searches of numpy an order (1 µs a word) in 16 bytes an n-gram.

A search reads the model as a back-off automaton: its states are the contexts that change a probability, the empty one
first and shorter ones before longer ones; a state's arcs are the words that were seen behind it. `automaton` hands it
on (`seqkit.ops.BackoffAutomaton`).

Logarithms are natural; ARPA's are to base ten. `seqkit.text.kneser_ney` estimates models, `seqkit.text.arpa` has their
files.
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqkit.atomic import atomic_file
from seqkit.errors import InputError
from seqkit.text.arpa import NgramTable, read_arpa, write_arpa
from seqkit.text.ngram_text import LINE_END, UNITS, read_symbols

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
NEVER_LOG10 = -100.0  # of an unknown word, where a file gives none
BLOCK = 1 << 17  # n-grams that are written, and positions that are scored, at a time

Ngrams = Mapping[tuple[str, ...], tuple[float, float]]  # log-probability and back-off, natural


class NgramLevel(NamedTuple):
    """The n-grams of one order, rising."""

    keys: NDArray[np.int64]  # prefix * V + word
    log_probs: NDArray[np.float32]
    backoffs: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class NgramEvaluation:
    """How well a model foretells a text; a symbol is a word or a character."""

    sentences: int
    symbols: int  # without the ends of sentences, which are foretold too
    characters: int  # of the text, a space between words, and the line ends
    unknown: int  # symbols that the model lacks
    log_prob: float  # of all symbols and ends, natural
    unknown_log_prob: float  # the part of the unknown ones

    @property
    def perplexity(self) -> float:
        """exp of the mean surprise of a symbol, ends counted as symbols."""
        return _exp(-self.log_prob / (self.symbols + self.sentences))

    @property
    def perplexity_of_known(self) -> float:
        """The perplexity over the symbols that the model has, and the ends."""
        return _exp((self.unknown_log_prob - self.log_prob) / (self.symbols - self.unknown + self.sentences))

    @property
    def bits_per_character(self) -> float:
        """The surprise in bits, shared by all characters and line ends."""
        return -self.log_prob / math.log(2) / self.characters


class NgramModel:
    """A back-off n-gram model: p(w | h) is that of the n-gram h w where it was seen, else backoff(h) p(w | h').

    h' is h without its first word.

    Reference: Katz 1987; the ARPA format of Doug Paul, as SRILM and KenLM write it.

    Args:
        orders: the n-grams of each order from 1 up. Order 1 is the vocabulary, in the order of its numbers; `<unk>` is
            added where it is missing.

    Raises:
        InputError: there is no order, an n-gram has another length than its order or a word that is no unigram, or a
            number is not a log-probability.
    """

    order: int
    words: tuple[str, ...]
    ids: dict[str, int]
    unit: str  # what a symbol is: word or char
    levels: list[NgramLevel]

    def __init__(self, orders: Sequence[Ngrams]) -> None:
        where = "NgramModel"
        if not orders:
            raise InputError(f"{where}: orders must hold unigrams, got none")
        words = ["".join(gram) for gram in orders[0]]
        ids = {word: number for number, word in enumerate(words)}
        tables = []
        for n, grams in enumerate(orders, start=1):
            for gram, (logp, backoff) in grams.items():
                if len(gram) != n or not all(word in ids for word in gram):
                    raise InputError(f"{where}: an n-gram of order {n} must be {n} unigrams, got {' '.join(gram)!r}")
                if not (logp <= 0.0 and math.isfinite(backoff)):
                    raise InputError(f"{where}: {' '.join(gram)!r} must have a log-probability and a finite back-off, "
                                     f"got {logp} and {backoff}")  # fmt: skip
            numbers = [[ids[word] for word in gram] for gram in grams]
            values = np.array(list(grams.values()), np.float64).reshape(-1, 2)
            tables.append(NgramTable(np.array(numbers, np.int32).reshape(-1, n), values[:, 0], values[:, 1]))
        self._set_tables(words, tables, "word", where)

    @classmethod
    def from_levels(cls, words: Sequence[str], levels: Sequence[NgramLevel], *, unit: str = "word") -> NgramModel:
        """A model of n-grams that are numbered already; `words` holds `<unk>`."""
        model = cls.__new__(cls)
        model._set_levels(words, levels, unit)
        return model

    @classmethod
    def from_arpa(cls, path: str | Path) -> NgramModel:
        """Reads an ARPA file, also one packed as `.gz` or `.xz`; a million n-grams take a second.

        Raises:
            InputError: the file is not as the format says; the line is named.
        """
        words, tables, unit = read_arpa(path)
        model = cls.__new__(cls)
        model._set_tables(words, tables, unit if unit in UNITS else "word", str(path))
        return model

    def _set_tables(self, words: list[str], tables: list[NgramTable], unit: str, where: str) -> None:
        """Numbers n-grams that come in any order; a prefix that is no n-gram is put in, as likely as by backing off."""
        if not words:
            raise InputError(f"{where}: orders must hold unigrams, got none")
        V = len(words)
        first = tables[0]
        logs, backoffs = first.log_probs.astype(np.float32), first.backoffs.astype(np.float32)
        if UNKNOWN not in words:
            words = [*words, UNKNOWN]
            logs = np.append(logs, np.float32(NEVER_LOG10 * math.log(10)))
            backoffs = np.append(backoffs, np.float32(0.0))
            V += 1
        levels = [NgramLevel(np.arange(V), logs, backoffs)]
        prefixes = [
            table.ids[:, 0].astype(np.int64) for table in tables
        ]  # where the first k - 1 words stand at their order
        for k in range(2, len(tables) + 1):
            table = tables[k - 1]
            keys = prefixes[k - 1] * V + table.ids[:, k - 1]
            order = np.argsort(keys, kind="stable")
            keys = keys[order]
            if (twice := np.flatnonzero(keys[1:] == keys[:-1])).size:
                gram = " ".join(words[word] for word in table.ids[order[twice[0]]])
                raise InputError(f"{where}: an n-gram must stand once, got {gram!r} twice")
            logs, backoffs = table.log_probs[order].astype(np.float32), table.backoffs[order].astype(np.float32)
            longer = [prefixes[n - 1] * V + tables[n - 1].ids[:, k - 1] for n in range(k + 1, len(tables) + 1)]
            found = [_find(keys, wanted) for wanted in longer]
            if any((places < 0).any() for places in found):
                missing = [wanted[places < 0] for wanted, places in zip(longer, found, strict=True)]
                added = np.unique(np.concatenate(missing))
                at = np.searchsorted(keys, added)
                keys = np.insert(keys, at, added)
                logs, backoffs = np.insert(logs, at, _backed_off(levels, V, added)), np.insert(backoffs, at, 0.0)
                found = [_find(keys, wanted) for wanted in longer]
            prefixes[k:] = found
            levels.append(NgramLevel(keys, logs, backoffs))
        self._set_levels(words, levels, unit)

    def _set_levels(self, words: Sequence[str], levels: Sequence[NgramLevel], unit: str) -> None:
        self.words, self.levels, self.unit = tuple(words), list(levels), unit
        self.ids = {word: number for number, word in enumerate(words)}
        self.order = len(levels)

    def save(self, path: str | Path) -> None:
        """Writes an ARPA file, packed where the name ends in `.gz`, whole or not at all."""
        with atomic_file(path) as temporary, temporary.open("wb") as raw:
            if not str(path).endswith(".gz"):
                self.write(raw)
                return
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
                io.BufferedWriter(packed, 1 << 20) as file,
            ):
                self.write(file)

    def write(self, file: io.BufferedIOBase) -> None:
        """Writes the content of an ARPA file."""
        write_arpa(file, self.words, self.n_ngrams, self.tables(), unit=self.unit if self.unit != "word" else None)

    def tables(self) -> Iterator[NgramTable]:
        """The n-grams in tables of at most `BLOCK`."""
        for n, level in enumerate(self.levels, start=1):
            for begin in range(0, len(level.keys), BLOCK):
                rows = np.arange(begin, min(begin + BLOCK, len(level.keys)))
                logs, backoffs = level.log_probs[rows].astype(np.float64), level.backoffs[rows].astype(np.float64)
                yield NgramTable(_words_of(self.levels[:n], len(self.words), rows), logs, backoffs)

    @property
    def n_ngrams(self) -> list[int]:
        """How many n-grams each order has."""
        return [len(level.keys) for level in self.levels]

    @property
    def unknown(self) -> int:
        """The number of the word that stands for all others."""
        return self.ids[UNKNOWN]

    # ---- texts ----

    def score(self, words: Sequence[str], *, begin: bool = True, end: bool = True) -> list[float]:
        """The log-probability of each word of a sentence, and of its end symbol.

        Args:
            begin: the sentence begins here; else nothing is known of what stood before.
            end: it ends here, where the model has an end symbol.
        """
        before = [self.ids[BEGIN]] if begin and BEGIN in self.ids else []
        after = [self.ids[END]] if end and END in self.ids else []
        ids = np.array([*before, *(self.ids.get(word, self.unknown) for word in words), *after], np.int64)
        scores: list[float] = _log_probs(self.levels, ids, np.arange(len(ids)))[len(before) :].tolist()
        return scores

    def evaluate(self, lines: Iterable[str], *, unit: str | None = None) -> NgramEvaluation:
        """How well the model foretells lines of text.

        Args:
            unit: what a symbol is, if not what the model says.

        Raises:
            InputError: there is no line, or the model has no `<s>` or no `</s>`.
        """
        for special in (BEGIN, END):
            if special not in self.ids:
                raise InputError(f"evaluate: model must have {special} among its words, got a model without")
        symbols, text = read_symbols(lines, unit or self.unit)
        if not text.size:
            raise InputError("evaluate: text must have a line, got none")
        total = unknown_total = 0.0
        unknown = 0
        sentences = int(np.count_nonzero(text == LINE_END))
        characters = len(text)
        if (unit or self.unit) == "word":  # a line of n words has n - 1 spaces and its end
            lengths = np.array([*map(len, symbols), 0])
            empty = int(np.count_nonzero((text == LINE_END) & (np.concatenate([[LINE_END], text[:-1]]) == LINE_END)))
            characters = int(lengths[text].sum()) + len(text) - sentences + empty
        stream = framed(text, symbols, self.ids)
        depth = depths(stream, self.ids[BEGIN])
        for at in range(0, len(stream), BLOCK):
            reach = max(0, at - self.order + 1)  # what the first positions of the block look back on
            ids = stream[reach : at + BLOCK]
            scores = _log_probs(self.levels, ids, depth[reach : at + BLOCK])[at - reach :]
            ids = ids[at - reach :]
            total += math.fsum(scores[ids != self.ids[BEGIN]])
            unknown_total += math.fsum(scores[ids == self.unknown])
            unknown += int(np.count_nonzero(ids == self.unknown))
        return NgramEvaluation(
            sentences=sentences,
            symbols=len(text) - sentences,
            characters=characters,
            unknown=unknown,
            log_prob=total,
            unknown_log_prob=unknown_total,
        )

    def sample(
        self, n: int, *, seed: int = 0, temperature: float = 1.0, max_symbols: int = 1000
    ) -> Iterator[list[str]]:
        """Draws sentences; `<unk>` and `<s>` are never drawn.

        Args:
            temperature: log-probabilities are divided by it; at 0 the likeliest symbol is taken.
            max_symbols: a sentence ends here at the latest.

        Raises:
            InputError: a number is out of its range.
        """
        for name, value, least in (("n", n, 0), ("temperature", temperature, 0.0), ("max_symbols", max_symbols, 1)):
            if not least <= value < math.inf:
                raise InputError(f"sample: {name} must be at least {least} and finite, got {value}")
        return self._sample(n, np.random.default_rng(seed), temperature, max_symbols)

    def _sample(
        self, n: int, generator: np.random.Generator, temperature: float, max_symbols: int
    ) -> Iterator[list[str]]:
        begin, end = self.ids.get(BEGIN), self.ids.get(END)
        barred = [number for number in (begin, self.unknown) if number is not None]
        for _ in range(n):
            history = [begin] if begin is not None else []
            drawn: list[int] = []
            while len(drawn) < max_symbols:
                logp = self.distribution(history)
                logp[barred] = -np.inf
                logp -= logp.max()
                if temperature:
                    rising = np.cumsum(np.exp(logp / temperature))
                    word = int(np.searchsorted(rising, generator.random() * rising[-1], side="right"))
                else:
                    word = int(logp.argmax())
                if word == end:
                    break
                drawn.append(word)
                history = [*history, word][-self.order :]
            yield [self.words[word] for word in drawn]

    def distribution(self, history: Sequence[int]) -> NDArray[np.float64]:
        """log p of every word behind a history of numbers, [V]."""
        V = len(self.words)
        logp = self.levels[0].log_probs.astype(np.float64)
        for k in range(1, min(len(history), self.order - 1) + 1):
            node = int(history[-k])
            for level, word in zip(self.levels[1:], history[len(history) - k + 1 :], strict=False):
                node = int(_find(level.keys, np.array([node * V + word]))[0]) if node >= 0 else -1
            if node >= 0:
                level = self.levels[k]
                logp += self.levels[k - 1].backoffs[node]
                low, high = np.searchsorted(level.keys, [node * V, (node + 1) * V])
                logp[level.keys[low:high] - node * V] = level.log_probs[low:high]
        return logp

    # ---- the automaton ----

    @property
    def start(self) -> int:
        """The state at the beginning of a sentence."""
        return int(self._automaton.longest[self.ids[BEGIN]]) if BEGIN in self.ids else 0

    def follow(self, state: int, word: int) -> tuple[float, int]:
        """The log-probability of a word in a state, and the state behind it."""
        automaton = self._automaton
        total = 0.0
        while True:
            low, high = automaton.first[state], automaton.first[state + 1]
            arc = int(low + np.searchsorted(automaton.symbols[low:high], word))
            if arc < high and automaton.symbols[arc] == word:
                return total + float(automaton.scores[arc]), int(automaton.next[arc])
            total += float(automaton.backoff[state])
            state = int(automaton.suffix[state])

    @cached_property
    def _automaton(self) -> _Automaton:
        return _compiled(self.levels, len(self.words))

    def automaton(self, labels: Sequence[str | None] | None = None) -> dict[str, Any]:
        """The arguments of a `seqkit.ops.BackoffAutomaton`.

        Args:
            labels: the word of each label of a search, in their order; None for one that is no word, such as the blank,
                which then costs nothing and forgets the history. A word that the model lacks counts as unknown. By
                default the symbols are the model's words.

        Raises:
            InputError: a word comes twice.
        """
        import torch

        given = self._automaton
        end = self.ids.get(END)
        final = given.scores_of(end) if end is not None else np.zeros(len(given.backoff), np.float32)
        if labels is not None:
            given = self._relabelled(labels)
        return {
            "first": torch.from_numpy(given.first.astype(np.int32)),
            "symbols": torch.from_numpy(given.symbols.astype(np.int32)),
            "scores": torch.from_numpy(given.scores.astype(np.float32)),
            "next": torch.from_numpy(given.next.astype(np.int32)),
            "backoff": torch.from_numpy(given.backoff.astype(np.float32)),
            "suffix": torch.from_numpy(given.suffix.astype(np.int32)),
            "final": torch.from_numpy(final),
            "start": self.start,
        }

    def _relabelled(self, labels: Sequence[str | None]) -> _Automaton:
        """The automaton whose symbols are labels in place of words; state 0 has all of them."""
        own = self._automaton
        words = np.array([-1 if label is None else self.ids.get(label, self.unknown) for label in labels], np.int64)
        known = np.sort(words[(words >= 0) & (words != self.unknown)])
        if (twice := np.flatnonzero(known[1:] == known[:-1])).size:
            name = self.words[known[twice[0]]]
            raise InputError(f"NgramModel.automaton: labels must differ from each other, got {name!r} twice")
        states = np.repeat(np.arange(len(own.backoff)), np.diff(own.first))
        # Arcs of every state but the first, one for each label of its word; several labels may be unknown words.
        arcs = np.arange(own.first[1], len(own.symbols))
        by_word = np.argsort(words, kind="stable")
        low = np.searchsorted(words[by_word], own.symbols[arcs], side="left")
        copies = np.searchsorted(words[by_word], own.symbols[arcs], side="right") - low
        arcs = np.repeat(arcs, copies)
        low = np.repeat(low, copies)
        low += np.arange(len(low)) - np.repeat(np.cumsum(copies) - copies, copies)
        symbols, of = by_word[low], states[arcs]
        order = np.lexsort((symbols, of))
        arcs, symbols, of = arcs[order], symbols[order], of[order]
        counts = np.bincount(of, minlength=len(own.backoff))
        counts[0] = len(labels)
        return own._replace(
            first=np.concatenate([[0], np.cumsum(counts)]),
            symbols=np.concatenate([np.arange(len(labels)), symbols]),
            scores=np.concatenate([np.where(words >= 0, own.scores[words], 0.0), own.scores[arcs]]),
            next=np.concatenate([np.where(words >= 0, own.next[words], 0), own.next[arcs]]),
        )


class _Automaton(NamedTuple):
    """S states, A arcs; see `seqkit.ops.BackoffAutomaton`."""

    first: NDArray[np.int64]
    symbols: NDArray[np.int64]
    scores: NDArray[np.float32]
    next: NDArray[np.int64]
    backoff: NDArray[np.float32]
    suffix: NDArray[np.int64]
    longest: NDArray[np.int64]  # of each word: the state behind it, where nothing is known of what stood before

    def scores_of(self, word: int) -> NDArray[np.float32]:
        """The log-probability of one word in every state."""
        arcs = np.flatnonzero(self.symbols == word)
        states = np.searchsorted(self.first, arcs, side="right") - 1
        scores = np.full(len(self.backoff), np.nan)
        scores[states] = self.scores[arcs]
        while (missing := np.flatnonzero(np.isnan(scores))).size:  # as often as a context has words
            scores[missing] = self.backoff[missing] + scores[self.suffix[missing]]
        return scores.astype(np.float32)


def _compiled(levels: Sequence[NgramLevel], V: int) -> _Automaton:
    """The automaton of a model. A node is an n-gram of any order, 0 the empty one; most are states."""
    sizes = [1, *(len(level.keys) for level in levels)]
    offsets = np.cumsum([0, *sizes])  # the number of the first node of each order
    parents = [level.keys // V if k else np.zeros(V, np.int64) for k, level in enumerate(levels)]
    words = [level.keys % V for level in levels]
    # What an n-gram ends in: the node of its longest proper end that is a node.
    suffixes = [np.zeros(1, np.int64), np.zeros(V, np.int64)]
    for k in range(2, len(levels) + 1):
        ends = suffixes[k - 1][parents[k - 1]]
        found = np.full(len(ends), -1)
        while (open_ := np.flatnonzero(found < 0)).size:
            for order in range(k - 1):
                at = open_[(ends[open_] >= offsets[order]) & (ends[open_] < offsets[order + 1])]
                node = _find(levels[order].keys, (ends[at] - offsets[order]) * V + words[k - 1][at])
                found[at] = np.where(node >= 0, node + offsets[order + 1], -1)
                missed = at[node < 0]
                ends[missed] = suffixes[order][ends[missed] - offsets[order]]
        suffixes.append(found)
    suffix = np.concatenate(suffixes)
    # States: nodes below the highest order that something follows, or that have a back-off.
    inner = int(offsets[len(levels)])
    follows = np.zeros(int(offsets[-1]), bool)
    follows[0] = True
    follows[:inner] |= np.bincount(
        np.concatenate([parent + offsets[k] for k, parent in enumerate(parents)]), minlength=inner
    ) > 0  # fmt: skip
    backoffs = np.concatenate([np.zeros(1, np.float32), *(level.backoffs for level in levels[:-1])])
    follows[:inner] |= backoffs != 0.0
    number = np.cumsum(follows) - 1
    longest = np.empty(len(suffix), np.int64)
    for begin, stop in pairwise(offsets.tolist()):
        part = slice(begin, stop)
        longest[part] = np.where(follows[part], number[part], longest[suffix[part]] if begin else 0)
    states = np.flatnonzero(follows)
    # Arcs stand state by state already: nodes rise with their parents.
    logs = np.concatenate([level.log_probs for level in levels])
    source = np.concatenate([parent + offsets[k] for k, parent in enumerate(parents)])
    counts = np.bincount(number[source], minlength=len(states))
    return _Automaton(
        first=np.concatenate([[0], np.cumsum(counts)]),
        symbols=np.concatenate(words),
        scores=logs,
        next=longest[1:],
        backoff=backoffs[states],
        suffix=longest[suffix[states]],
        longest=longest[1 : V + 1],
    )


def _log_probs(levels: Sequence[NgramLevel], ids: NDArray[Any], depth: NDArray[Any]) -> NDArray[np.float64]:
    """log p of each position behind what stands before it; `depth` is how many symbols of its sentence do."""
    V = len(levels[0].keys)
    total = levels[0].log_probs[ids].astype(np.float64)
    node = ids.astype(np.int64)  # the n-gram of order k - 1 that ends at each position, -1 where there is none
    for k, (shorter, level) in enumerate(pairwise(levels), start=2):
        context = np.full(len(ids), -1)
        context[1:] = node[:-1]
        at = np.flatnonzero((context >= 0) & (depth >= k - 1))
        node = np.full(len(ids), -1)
        node[at] = _find(level.keys, context[at] * V + ids[at])
        total[at] += shorter.backoffs[context[at]]
        at = np.flatnonzero(node >= 0)
        total[at] = level.log_probs[node[at]]
    return total


def _backed_off(levels: Sequence[NgramLevel], V: int, keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """log p of n-grams that were not seen, one order above the highest that is here."""
    prefixes, words = np.divmod(keys, V)
    ids = np.column_stack([_words_of(levels, V, prefixes), words])[:, 1:]  # without their first word
    n = ids.shape[1]
    logs = _log_probs(levels, ids.ravel(), np.tile(np.arange(n), len(keys)))[n - 1 :: n]
    return logs + levels[-1].backoffs[prefixes]


def _words_of(levels: Sequence[NgramLevel], V: int, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """The numbers of the words of n-grams of the highest order, [R, n]."""
    ids = np.empty((len(rows), len(levels)), np.int32)
    for k in range(len(levels), 0, -1):
        rows, ids[:, k - 1] = np.divmod(levels[k - 1].keys[rows], V)
    return ids


def _exp(x: float) -> float:
    return math.exp(x) if x < 709.0 else math.inf


def _find(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each wanted number stands among rising keys, -1 where it does not."""
    if not len(keys):
        return np.full(len(wanted), -1)
    places = np.searchsorted(keys, wanted)
    places[places == len(keys)] = 0
    return np.where(keys[places] == wanted, places, -1)


def framed(text: NDArray[np.int32], symbols: Sequence[str], ids: Mapping[str, int]) -> NDArray[np.int32]:
    """A text of `read_symbols` in a model's numbers, each line between `<s>` and `</s>`.

    What the model lacks is unknown, and so is a symbol of the text that is spelled like one of these two.
    """
    unknown = ids[UNKNOWN]
    number = [unknown if symbol in (BEGIN, END) else ids.get(symbol, unknown) for symbol in symbols]
    ended = text == LINE_END
    sentence = np.cumsum(ended) - ended  # of each position
    stream = np.full(len(text) + int(np.count_nonzero(ended)), ids[BEGIN], np.int32)
    stream[np.arange(len(text)) + 1 + sentence] = np.array([*number, ids[END]], np.int32)[text]
    return stream


def depths(stream: NDArray[np.int32], begin: int) -> NDArray[np.int64]:
    """How many symbols of its sentence stand before each position."""
    at = np.arange(len(stream))
    return at - np.maximum.accumulate(np.where(stream == begin, at, 0))
