"""Errors between what was found and what is there: word and character error rates.

The distance is the least number of substitutions, deletions and insertions that make one sequence of the other. Where
several ways are least, the one with the fewest substitutions is counted, so that the parts of the sum have one answer.

Reference: Levenshtein 1966; Wagner and Fischer 1974.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorRate:
    """Errors of all sequences over the tokens that are there; above 1 where much is inserted."""

    substitutions: int
    deletions: int
    """tokens that are there and were not found"""
    insertions: int
    """tokens that were found and are not there"""
    total: int
    """tokens that are there"""
    wrong: int
    """sequences with an error"""
    sequences: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def value(self) -> float:
        """The rate; that of no tokens at all is 0 without an error and 1 with one."""
        return self.errors / self.total if self.total else float(self.errors > 0)

    def __str__(self) -> str:
        return (
            f"error rate = {100 * self.value:.2f} % ({self.errors:,} of {self.total:,}: {self.substitutions:,} "
            f"substituted, {self.deletions:,} deleted, {self.insertions:,} inserted; {self.wrong:,} of "
            f"{self.sequences:,} sequences wrong)"
        )


def edits(found: Sequence[Hashable], there: Sequence[Hashable]) -> tuple[int, int, int]:
    """Substitutions, deletions and insertions that make `found` of `there`."""
    # A row of the table: for each prefix of `there`, errors, substitutions, deletions and insertions; the least wins.
    row = [(d, 0, d, 0) for d in range(len(there) + 1)]
    for n, token in enumerate(found, 1):
        before, row = row, [(n, 0, 0, n)]
        for place, other in enumerate(there):
            cost, substituted, deleted, inserted = before[place]
            wrong = token != other
            row.append(
                min(
                    (cost + wrong, substituted + wrong, deleted, inserted),
                    (row[-1][0] + 1, row[-1][1], row[-1][2] + 1, row[-1][3]),
                    (before[place + 1][0] + 1, *before[place + 1][1:3], before[place + 1][3] + 1),
                )
            )
    return row[-1][1:]


def error_rate(found: Iterable[Sequence[Hashable]], there: Iterable[Sequence[Hashable]]) -> ErrorRate:
    """The errors of all sequences; words for the word error rate, characters for that of characters."""
    pairs = list(zip(found, there, strict=True))
    parts = [edits(mine, gold) for mine, gold in pairs]
    return ErrorRate(
        substitutions=sum(each[0] for each in parts), deletions=sum(each[1] for each in parts),
        insertions=sum(each[2] for each in parts), total=sum(len(gold) for _, gold in pairs),
        wrong=sum(any(each) for each in parts), sequences=len(pairs),
    )  # fmt: skip
