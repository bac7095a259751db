"""Logistic regression: against torch's gradient at the minimum, scikit-learn, and closed forms."""

import numpy as np
import pytest
import torch

from seqkit.embeddings import logistic
from seqkit.embeddings.logistic import fit_logistic
from seqkit.errors import InputError


def drawn(rows: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((rows, dim)).astype(np.float32)
    labels = x[:, 0] + generator.standard_normal(rows) > 0.7
    return x, labels


def test_at_the_minimum_the_gradient_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "BLOCK", 13)  # a last block that is not full
    x, labels = drawn(100, 5)
    for cost in (0.01, 1.0, 1000.0):
        fitted = fit_logistic(x, labels, cost=cost)
        w = torch.tensor([*fitted.weights, fitted.intercept], requires_grad=True)
        signs = torch.tensor(np.where(labels, 1.0, -1.0))
        scores = torch.tensor(x, dtype=torch.float64) @ w[:-1] + w[-1]
        loss = (w[:-1] ** 2).sum() / 2 + cost * torch.nn.functional.softplus(-signs * scores).sum()
        (gradient,) = torch.autograd.grad(loss, w)
        assert gradient.abs().max() <= 1e-6 * max(cost, 1)
        np.testing.assert_allclose(fitted.scores(x), scores.detach(), atol=1e-5)


def test_it_is_scikit_learns() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, labels = drawn(400, 7, seed=1)
    for cost in (0.1, 10.0):
        theirs = linear_model.LogisticRegression(C=cost, tol=1e-8, max_iter=1000).fit(x.astype(float), labels)
        ours = fit_logistic(x, labels, cost=cost)
        np.testing.assert_allclose(ours.weights, theirs.coef_[0], rtol=1e-4, atol=1e-5)
        assert ours.intercept == pytest.approx(theirs.intercept_[0], rel=1e-4)


def test_rows_without_information_give_the_share() -> None:
    fitted = fit_logistic(np.zeros((10, 3), np.float32), np.arange(10) < 3)
    np.testing.assert_array_equal(fitted.weights, 0)
    assert 1 / (1 + np.exp(-fitted.intercept)) == pytest.approx(0.3)


def test_classes_that_a_plane_parts_are_told_apart() -> None:
    x, _ = drawn(200, 3)
    labels = x[:, 1] > 0.1
    fitted = fit_logistic(x, labels, cost=1e6)
    assert np.isfinite(fitted.weights).all()
    assert ((fitted.scores(x) > 0) == labels).all()
    one = fit_logistic(np.array([[1.0], [-1.0]], np.float32), np.array([True, False]))
    assert one.weights[0] > 0
    assert one.intercept == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_fitted_is_refused() -> None:
    x, labels = drawn(5, 2)
    with pytest.raises(InputError, match="labels must be one for each of 5 rows"):
        fit_logistic(x, labels[:4])
    with pytest.raises(InputError, match="both classes must have a row, got 0 of 5 yes"):
        fit_logistic(x, np.zeros(5, bool))
    with pytest.raises(InputError, match="cost must be positive"):
        fit_logistic(x, np.arange(5) < 2, cost=0.0)
