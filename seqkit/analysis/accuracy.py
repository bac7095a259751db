"""The share of answers that are right, and how far it may be from what more data would show.

Reference: Wilson 1927 (the score interval, which also holds near 0 and 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Accuracy:
    """`right` of `total` answers."""

    right: int
    total: int

    @property
    def value(self) -> float:
        """The share; 0 where there is no answer."""
        return self.right / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval: the shares p with |value - p| <= 1.96 sqrt(p (1 - p) / total)."""
        if not self.total:
            return 0.0, 1.0
        n, p = self.total, self.value
        middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"accuracy = {100 * self.value:.2f} % ({self.right:,} of {self.total:,}; "
            f"95 % interval {100 * low:.2f} to {100 * high:.2f})"
        )


def accuracy(found: Sequence[str], there: Sequence[str]) -> Accuracy:
    """How many of the answers found are those there."""
    return Accuracy(sum(mine == gold for mine, gold in zip(found, there, strict=True)), len(there))
