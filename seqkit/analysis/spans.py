"""Spans of labelled words and how many are found, counted as conlleval does (the CoNLL-2000 shared task's script).

A label is `O` or a prefix, a hyphen and a type: `B-` begins a span and `I-` is inside one (IOB1, IOB2); with `E-` for
its end and `S-` for one of a single word it is IOBES, and `L-` and `U-` are read as these two. A span also begins
where an inside label follows `O` or another type, so that every sequence of labels has spans. A span is found when its
first word, last word and type are right.

Reference: Tjong Kim Sang and Buchholz 2000, section 4; conlleval.pl, startOfChunk and endOfChunk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

PREFIXES = frozenset("BIESLU")
_ENDS = frozenset("BSOU")


class Span(NamedTuple):
    """Words `begin` to `end` - 1."""

    begin: int
    end: int
    type: str


@dataclass(frozen=True)
class SpanScore:
    """How many spans of a test set are found, in all and by type."""

    correct: int
    found: int
    there: int
    by_type: dict[str, SpanScore] = field(default_factory=dict)

    @property
    def precision(self) -> float:
        """The share of the spans found that are right; 0 where none is found."""
        return self.correct / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """The share of the spans there that are found; 0 where none is there."""
        return self.correct / self.there if self.there else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of the two."""
        return 2 * self.correct / (self.found + self.there) if self.found + self.there else 0.0

    def __str__(self) -> str:
        return (
            f"span F1 = {100 * self.f1:.2f} (precision {100 * self.precision:.2f}, recall {100 * self.recall:.2f}; "
            f"{self.correct:,} right of {self.found:,} found and {self.there:,} there)"
        )


def spans(labels: Sequence[str]) -> list[Span]:
    """The spans of a sentence, in their order."""
    found: list[Span] = []
    begin = 0
    before, type_before = "O", ""
    for place, label in enumerate([*labels, "O"]):
        prefix, type_ = split_label(label)
        changes = type_ != type_before
        if before != "O" and (before in "ESLU" or prefix in _ENDS or changes):
            found.append(Span(begin, place, type_before))
            before = "O"
        if prefix != "O" and before == "O":
            begin = place
        before, type_before = prefix, type_
    return found


def split_label(label: str) -> tuple[str, str]:
    """The prefix and the type of a label; a label without a hyphen, other than O, is all prefix."""
    prefix, _, type_ = label.partition("-")
    return prefix, type_


def is_spans(labels: Iterable[str]) -> bool:
    """Whether labels mark spans: all of them are O or have a prefix and a type, and some are not O."""
    kinds = set(labels) - {"O"}
    return bool(kinds) and all(len(kind) > 2 and kind[1] == "-" and kind[0] in PREFIXES for kind in kinds)


def span_score(found: Iterable[Sequence[str]], there: Iterable[Sequence[str]]) -> SpanScore:
    """How many of the spans there are found; each sentence of `found` has as many labels as that of `there`."""
    right, ours, theirs = Counter[str](), Counter[str](), Counter[str]()
    for mine, gold in zip(found, there, strict=True):
        assert len(mine) == len(gold)
        first, second = spans(mine), spans(gold)
        ours.update(span.type for span in first)
        theirs.update(span.type for span in second)
        right.update(span.type for span in set(first) & set(second))
    by_type = {kind: SpanScore(right[kind], ours[kind], theirs[kind]) for kind in sorted({*ours, *theirs})}
    return SpanScore(right.total(), ours.total(), theirs.total(), by_type)
