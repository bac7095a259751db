"""Logistic regression of two classes, by Newton's method: a few passes over the rows, and no package beside numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqkit.errors import InputError

BLOCK = 1 << 15  # rows at a time: their float64 copies are held
MAX_STEPS = 100
SMALLEST_STEP = 2.0**-30


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """P(yes | x) = 1 / (1 + exp(-(w . x + c)))."""

    weights: NDArray[np.float64]
    intercept: float

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """w . x + c of each row: above 0 where yes is the likelier."""
        found: NDArray[np.float64] = rows @ self.weights + self.intercept
        return found


def fit_logistic(rows: NDArray[np.float32], labels: NDArray[np.bool_], *, cost: float = 1.0) -> Logistic:
    """The w and c of the least |w|^2 / 2 + cost * sum of log(1 + exp(-t (w . x + c))), where t is 1 for yes, -1 for no.

    The intercept c is not held down. It is scikit-learn's LogisticRegression, whose `C` is the cost.

    Raises:
        InputError: rows and labels differ in number, a class has no row, or the cost is not positive.
    """
    if rows.ndim != 2 or labels.shape != rows.shape[:1]:
        raise InputError(f"fit_logistic: labels must be one for each of {len(rows)} rows, got {labels.shape}")
    if labels.all() or not labels.any():
        raise InputError(f"fit_logistic: both classes must have a row, got {int(labels.sum())} of {len(labels)} yes")
    if not cost > 0:
        raise InputError(f"fit_logistic: cost must be positive, got {cost}")
    dim = rows.shape[1]
    both = np.zeros(dim + 1)  # w, and c at the end
    both[-1] = np.log(labels.sum() / (len(labels) - labels.sum()))
    loss, gradient, curvature = _terms(rows, labels, both, cost)
    tolerance = 1e-9 * max(cost * len(rows), 1.0)
    for _ in range(MAX_STEPS):
        if np.abs(gradient).max() <= tolerance:
            break
        direction = np.linalg.solve(curvature, gradient)
        step = 1.0
        while True:  # a whole step may overshoot far from the minimum
            tried = both - step * direction
            terms = _terms(rows, labels, tried, cost)
            if terms[0] <= loss or step < SMALLEST_STEP:
                break
            step /= 2
        if step < SMALLEST_STEP:  # no smaller loss can be told in float64
            break
        both, (loss, gradient, curvature) = tried, terms
    return Logistic(weights=both[:-1], intercept=float(both[-1]))


def _terms(
    rows: NDArray[np.float32], labels: NDArray[np.bool_], both: NDArray[np.float64], cost: float
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """The loss with its gradient and its matrix of second derivatives."""
    held = np.append(np.ones(len(both) - 1), 0.0)
    loss = float(both @ (held * both)) / 2
    gradient = held * both
    curvature = np.diag(held)
    for begin in range(0, len(rows), BLOCK):
        block = rows[begin : begin + BLOCK]
        x = np.empty((len(block), len(both)))
        x[:, :-1], x[:, -1] = block, 1
        yes = labels[begin : begin + BLOCK]
        scores = x @ both
        loss += cost * float(np.logaddexp(0, np.where(yes, -scores, scores)).sum())
        p = np.exp(-np.logaddexp(0, -scores))
        gradient += cost * (x.T @ (p - yes))
        curvature += cost * (x.T @ (x * (p * (1 - p))[:, None]))
    return loss, gradient, curvature
