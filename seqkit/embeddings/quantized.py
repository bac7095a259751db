"""Rows of numbers in eight bits: a quarter of the memory and of the file, for about one part in 250 of precision.

A row x is kept as whole numbers q from -127 to 127 and one scale s, with x about s q and s = max |x| / 127. A row for
itself keeps its own precision, so that a short vector beside long ones loses nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seqkit.errors import InputError

BLOCK = 8192  # rows that are float32 at a time
LARGEST = np.float32(3.4e38) / np.float32(128)  # of a scale: each number times it stays finite


class Int8Rows:
    """A matrix that is read as float32 and kept in eight bits; the two arrays may be memory maps.

    Args:
        numbers: q, one row a word.
        scales: s, one a row.

    Raises:
        InputError: rows and scales differ in number, or a scale is negative, not finite or too large.
    """

    def __init__(self, numbers: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        if numbers.ndim != 2 or scales.shape != numbers.shape[:1]:
            raise InputError(
                f"Int8Rows: scales must be one for each row of {numbers.shape}, got the shape {scales.shape}"
            )
        if not bool(((scales >= 0) & (scales <= LARGEST)).all()):
            raise InputError(f"Int8Rows: scales must be from 0 to {LARGEST:.3g}, got another")
        self.numbers, self.scales = numbers, scales
        self.shape: tuple[int, ...] = numbers.shape

    @classmethod
    def of(cls, matrix: NDArray[np.float32]) -> Int8Rows:
        """The nearest such rows; no number moves by more than half a scale.

        Raises:
            InputError: a number is not finite.
        """
        numbers = np.empty(matrix.shape, np.int8)
        scales = np.empty(len(matrix), np.float32)
        for begin in range(0, len(matrix), BLOCK):
            rows = matrix[begin : begin + BLOCK].astype(np.float64)
            if not np.isfinite(rows).all():
                row = begin + int(np.argmin(np.isfinite(rows).all(1)))
                raise InputError(f"Int8Rows: numbers must be finite, got another in row {row}")
            most = np.abs(rows).max(1, initial=0)
            scale = np.minimum(most / 127, LARGEST).astype(np.float32)
            scales[begin : begin + BLOCK] = scale
            wide = np.where(scale > 0, scale, 1).astype(np.float64)[:, None]
            numbers[begin : begin + BLOCK] = np.clip(np.rint(rows / wide), -127, 127)
        return cls(numbers, scales)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: int | np.integer | slice | NDArray[np.integer]) -> NDArray[np.float32]:
        """One row or several, as float32."""
        scales = self.scales[rows]
        return self.numbers[rows].astype(np.float32) * (scales if np.ndim(scales) == 0 else scales[:, None])

    def unit(self) -> NDArray[np.float32]:
        """All rows at length one, a zero row as it is; nothing larger than the result is made."""
        unit = np.empty(self.shape, np.float32)
        for begin in range(0, len(self), BLOCK):
            rows = self.numbers[begin : begin + BLOCK].astype(np.float32)  # the scale drops out
            rows[self.scales[begin : begin + BLOCK] == 0] = 0
            lengths = np.sqrt(np.einsum("vd,vd->v", rows, rows))[:, None]
            unit[begin : begin + BLOCK] = rows / np.where(lengths > 0, lengths, np.float32(1))
        return unit
