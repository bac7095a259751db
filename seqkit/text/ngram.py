r"""N-gram language models with back-off, read from ARPA files.

A model is kept as the arrays of a back-off automaton: its states are the contexts that change a probability, the empty
one first and shorter ones before longer ones; a state's arcs are the words that were seen behind it. `score` walks
them, and `automaton` hands them on to a search (`seqkit.ops.BackoffAutomaton`), so that both compute the same.

Logarithms are natural; ARPA's are to base ten.
"""

from __future__ import annotations

import gzip
import lzma
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import torch

from seqkit.errors import InputError

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
NEVER_LOG10 = -100.0  # of an unknown word, where a file gives none

Ngrams = Mapping[tuple[str, ...], tuple[float, float]]  # log-probability and back-off, natural


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

    def __init__(self, orders: Sequence[Ngrams]) -> None:
        where = "NgramModel"
        if not orders or not orders[0]:
            raise InputError(f"{where}: orders must hold unigrams, got none")
        unigrams = dict(orders[0])
        unigrams.setdefault((UNKNOWN,), (NEVER_LOG10 * math.log(10), 0.0))
        self.order = len(orders)
        self.words: tuple[str, ...] = tuple(gram[0] for gram in unigrams)
        self.ids = {word: number for number, word in enumerate(self.words)}
        numbered: dict[tuple[int, ...], tuple[float, float]] = {}
        for n, grams in enumerate([unigrams, *orders[1:]], start=1):
            for gram, (logp, backoff) in grams.items():
                if len(gram) != n or not all(word in self.ids for word in gram):
                    raise InputError(f"{where}: an n-gram of order {n} must be {n} unigrams, got {' '.join(gram)!r}")
                if not (logp <= 0.0 and math.isfinite(backoff)):
                    raise InputError(f"{where}: {' '.join(gram)!r} must have a log-probability and a finite back-off, "
                                     f"got {logp} and {backoff}")  # fmt: skip
                numbered[tuple(self.ids[word] for word in gram)] = logp, backoff
        contexts = {gram[:-1] for gram in numbered}
        contexts |= {gram for gram, (_, backoff) in numbered.items() if backoff != 0.0 and len(gram) < self.order}
        states = sorted(contexts, key=lambda context: (len(context), context))
        number = {context: state for state, context in enumerate(states)}

        def longest(history: tuple[int, ...]) -> int:
            """The state of the longest end of a history."""
            while history not in number:
                history = history[1:]
            return number[history]

        behind: list[list[tuple[int, float, int]]] = [[] for _ in states]
        for ids, (logp, _) in numbered.items():
            behind[number[ids[:-1]]].append((ids[-1], logp, longest(ids)))
        self._first = [0]
        self._symbols: list[int] = []
        self._scores: list[float] = []
        self._next: list[int] = []
        for arcs in behind:
            for symbol, logp, after in sorted(arcs):
                self._symbols.append(symbol)
                self._scores.append(logp)
                self._next.append(after)
            self._first.append(len(self._symbols))
        self._backoff = [numbered[context][1] if context in numbered else 0.0 for context in states]
        self._suffix = [longest(context[1:]) if context else 0 for context in states]
        self._arcs = {
            (state, self._symbols[arc]): arc
            for state in range(len(states))
            for arc in range(self._first[state], self._first[state + 1])
        }
        self.start = longest((self.ids[BEGIN],)) if BEGIN in self.ids else 0

    @classmethod
    def from_arpa(cls, path: str | Path) -> NgramModel:
        """Reads an ARPA file, also one packed as `.gz` or `.xz`.

        Raises:
            InputError: the file is not as the format says; the line is named.
        """
        return cls(read_arpa(path))

    @property
    def unknown(self) -> int:
        """The number of the word that stands for all others."""
        return self.ids[UNKNOWN]

    def follow(self, state: int, word: int) -> tuple[float, int]:
        """The log-probability of a word in a state, and the state behind it."""
        total = 0.0
        while (arc := self._arcs.get((state, word))) is None:
            total += self._backoff[state]
            state = self._suffix[state]
        return total + self._scores[arc], self._next[arc]

    def score(self, words: Sequence[str], *, begin: bool = True, end: bool = True) -> list[float]:
        """The log-probability of each word of a sentence, and of its end symbol.

        Args:
            begin: the sentence begins here; else nothing is known of what stood before.
            end: it ends here, where the model has an end symbol.
        """
        state, scores = self.start if begin else 0, []
        for word in (*words, *([END] if end and END in self.ids else [])):
            logp, state = self.follow(state, self.ids.get(word, self.unknown))
            scores.append(logp)
        return scores

    def automaton(self, labels: Sequence[str | None] | None = None) -> dict[str, Any]:
        """The arguments of a `seqkit.ops.BackoffAutomaton`.

        Args:
            labels: the word of each label of a search, in their order; None for one that is no word, such as the blank,
                which then costs nothing and forgets the history. A word that the model lacks counts as unknown. By
                default the symbols are the model's words.

        Raises:
            InputError: a word comes twice.
        """
        first, symbols, scores, after = self._first, self._symbols, self._scores, self._next
        if labels is not None:
            given = [self.ids.get(label, self.unknown) if label is not None else None for label in labels]
            named: dict[int, list[int]] = {}
            for label, word in enumerate(given):
                if word is not None:
                    named.setdefault(word, []).append(label)
            if any(len(same) > 1 and word != self.unknown for word, same in named.items()):
                twice = next(self.words[w] for w, same in named.items() if len(same) > 1 and w != self.unknown)
                raise InputError(f"NgramModel.automaton: labels must differ from each other, got {twice!r} twice")
            unigrams = [self._arcs[0, word] if word is not None else -1 for word in given]
            rows = [[(n, scores[arc], after[arc]) if arc >= 0 else (n, 0.0, 0) for n, arc in enumerate(unigrams)]]
            rows += [
                sorted(
                    (label, scores[arc], after[arc])
                    for arc in range(first[state], first[state + 1])
                    for label in named.get(symbols[arc], [])
                )
                for state in range(1, len(first) - 1)
            ]
            first = [0]
            for row in rows:
                first.append(first[-1] + len(row))
            arcs = [arc for row in rows for arc in row]
            symbols, scores, after = [arc[0] for arc in arcs], [arc[1] for arc in arcs], [arc[2] for arc in arcs]
        ends = self.ids.get(END)
        final = [self.follow(state, ends)[0] if ends is not None else 0.0 for state in range(len(first) - 1)]
        return {
            "first": torch.tensor(first, dtype=torch.int32),
            "symbols": torch.tensor(symbols, dtype=torch.int32),
            "scores": torch.tensor(scores, dtype=torch.float32),
            "next": torch.tensor(after, dtype=torch.int32),
            "backoff": torch.tensor(self._backoff, dtype=torch.float32),
            "suffix": torch.tensor(self._suffix, dtype=torch.int32),
            "final": torch.tensor(final, dtype=torch.float32),
            "start": self.start,
        }


def read_arpa(path: str | Path) -> list[Ngrams]:
    """The n-grams of each order of an ARPA file, also one packed as `.gz` or `.xz`, with natural logarithms.

    Raises:
        InputError: the file is not as the format says; the line is named.
    """
    path = Path(path)
    try:
        with _opened(path) as lines:
            return _read_arpa(path, lines)
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
        raise InputError(f"{path}: the file must be readable UTF-8 text, got {error}") from error


def _opened(path: Path) -> TextIOWrapper:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _read_arpa(path: Path, lines: Iterable[str]) -> list[Ngrams]:
    """The n-grams of each order, with natural logarithms."""
    orders: list[Ngrams] = []
    numbered = ((number, line.strip(" \t\r\n")) for number, line in enumerate(lines, start=1))
    stream = ((number, line) for number, line in numbered if line)
    counts = _read_counts(path, stream)
    for n, count in enumerate(counts, start=1):
        grams: dict[tuple[str, ...], tuple[float, float]] = {}
        for number, line in stream:
            if line.startswith("\\"):
                break
            fields = line.split()
            try:
                if len(fields) not in (n + 1, n + 2):
                    raise ValueError
                logp, backoff = float(fields[0]), float(fields[n + 1]) if len(fields) == n + 2 else 0.0
            except ValueError:
                raise InputError(
                    f"{path}:{number}: a line must be a logarithm, {n} words and perhaps a back-off, got {line[:80]!r}"
                ) from None
            gram = tuple(fields[1 : n + 1])
            if gram in grams:
                raise InputError(f"{path}:{number}: an n-gram must stand once, got {' '.join(gram)!r} twice")
            grams[gram] = logp * math.log(10), backoff * math.log(10)
        else:
            raise InputError(f"{path}: the file must end with `\\end\\`, got its end in the {n}-grams")
        wanted = f"\\{n + 1}-grams:" if n < len(counts) else "\\end\\"
        if line != wanted:
            raise InputError(f"{path}:{number}: the line must be `{wanted}`, got {line[:80]!r}")
        if len(grams) != count:
            raise InputError(f"{path}: there must be {count} {n}-grams as its head says, got {len(grams)}")
        orders.append(grams)
    return orders


def _read_counts(path: Path, stream: Iterator[tuple[int, str]]) -> list[int]:
    """How many n-grams the head of the file names, up to the title of the first list."""
    counts: list[int] = []
    inside = False
    for number, line in stream:
        if not inside:
            inside = line == "\\data\\"  # whatever stands before is a comment
        elif line.startswith("ngram "):
            order, _, count = line.removeprefix("ngram ").partition("=")
            if order.strip() != str(len(counts) + 1) or not count.strip().isdecimal():
                raise InputError(
                    f"{path}:{number}: the line must be `ngram {len(counts) + 1}=COUNT`, got {line[:80]!r}"
                )
            counts.append(int(count))
        elif line == "\\1-grams:" and counts:
            return counts
        else:
            raise InputError(
                f"{path}:{number}: the line must be `ngram ORDER=COUNT` or `\\1-grams:`, got {line[:80]!r}"
            )
    missing = "`\\1-grams:`" if inside else "`\\data\\`"
    raise InputError(f"{path}: the file must be an ARPA model, got no line {missing}")
