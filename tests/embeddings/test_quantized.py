"""Rows in eight bits: no number moves by more than half a step, and what is read is what was kept."""

import numpy as np
import pytest

from seqkit.embeddings.quantized import BLOCK, Int8Rows
from seqkit.errors import InputError


def test_no_number_moves_by_more_than_half_a_scale() -> None:
    matrix = np.random.default_rng(1).normal(size=(BLOCK + 3, 6)).astype(np.float32)
    matrix *= np.float32(10) ** np.arange(-3, 2, dtype=np.float32)[np.arange(len(matrix)) % 5][:, None]
    rows = Int8Rows.of(matrix)
    assert rows.shape == matrix.shape
    assert len(rows) == len(matrix)
    np.testing.assert_allclose(rows.scales, np.abs(matrix).max(1) / 127, rtol=1e-6)
    assert (np.abs(rows[:] - matrix) <= rows.scales[:, None] * 0.5001).all()
    assert (np.abs(rows.numbers.astype(int)).max(1) == 127).all()


def test_rows_are_read_one_by_one_in_slices_and_by_index() -> None:
    matrix = np.random.default_rng(2).normal(size=(7, 3)).astype(np.float32)
    rows = Int8Rows.of(matrix)
    whole = rows[:]
    assert whole.dtype == np.float32
    assert (rows[2] == whole[2]).all()
    assert rows[2].shape == (3,)
    assert (rows[np.int64(2)] == whole[2]).all()
    assert (rows[1:4] == whole[1:4]).all()
    assert (rows[np.array([5, 0, 5])] == whole[[5, 0, 5]]).all()


def test_the_unit_rows_are_those_of_the_float_matrix() -> None:
    matrix = np.random.default_rng(3).normal(size=(BLOCK + 2, 4)).astype(np.float32)
    matrix[5] = 0
    rows = Int8Rows.of(matrix)
    lengths = np.linalg.norm(rows[:], axis=1, keepdims=True)
    np.testing.assert_allclose(rows.unit(), rows[:] / np.where(lengths > 0, lengths, 1), atol=1e-6)
    assert (rows.unit()[5] == 0).all()
    # A scale of zero says that the row is zero, whatever its numbers are.
    assert (Int8Rows(np.ones((1, 2), np.int8), np.zeros(1, np.float32)).unit() == 0).all()


def test_the_largest_and_the_smallest_numbers_stay_finite() -> None:
    big = np.finfo(np.float32).max
    matrix = np.array([[big, -big], [1e-45, 0], [1e-38, -1e-40], [0, 0]], np.float32)
    rows = Int8Rows.of(matrix)
    assert np.isfinite(rows[:]).all()
    assert rows[0] == pytest.approx(matrix[0], rel=0.01)
    assert (rows[3] == 0).all()
    assert Int8Rows.of(np.empty((0, 3), np.float32)).shape == (0, 3)


def test_what_does_not_fit_is_refused() -> None:
    numbers = np.zeros((2, 3), np.int8)
    for scales in ([1], [1, -1], [1, np.nan], [1, np.inf], [1, 3e38], [[1, 1]]):
        with pytest.raises(InputError, match="scales must be"):
            Int8Rows(numbers, np.array(scales, np.float32))
    with pytest.raises(InputError, match="numbers must be finite, got another in row 1"):
        Int8Rows.of(np.array([[1, 2], [np.nan, 1]], np.float32))
