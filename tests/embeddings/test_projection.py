"""Words in the plane: principal components in closed form, neighbours that stay neighbours."""

import sys

import numpy as np
import pytest

from seqkit.embeddings import WordVectors
from seqkit.embeddings.projection import project, words_to_show
from seqkit.errors import InputError


def test_pca_is_the_largest_eigenvectors_of_the_covariance() -> None:
    matrix = np.random.default_rng(1).normal(size=(30, 6)).astype(np.float32)
    found = project(matrix)
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    centred = unit - unit.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    expected = centred @ vectors[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(found.points), np.abs(expected), atol=1e-5)
    assert found.explained == pytest.approx((values[-1] / values.sum(), values[-2] / values.sum()), abs=1e-6)
    # A cosine has no length: a word twice as long lies where it lay. A turn of all changes nothing but signs.
    np.testing.assert_allclose(project(2 * matrix).points, found.points, atol=1e-5)
    np.testing.assert_allclose(np.abs(project(matrix[:, ::-1]).points), np.abs(found.points), atol=1e-5)
    for seed in range(8):  # nor does another order of the words, signs included
        order = np.random.default_rng(seed).permutation(30)
        np.testing.assert_allclose(project(matrix[order]).points, found.points[order], atol=1e-5)


def test_pca_of_little_or_equal_words() -> None:
    two = project(np.array([[1, 0], [0, 1]], np.float32))
    assert np.abs(two.points[:, 0]) == pytest.approx([np.sqrt(0.5)] * 2)
    assert two.explained == pytest.approx((1, 0), abs=1e-6)
    equal = project(np.ones((3, 4), np.float32))
    assert np.abs(equal.points).max() < 1e-6
    assert project(np.array([[1], [-1], [0]], np.float32)).points[:, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("method", "package"), [("tsne", "sklearn"), ("umap", "umap")])
@pytest.mark.filterwarnings("ignore")
def test_clouds_stay_apart(method: str, package: str) -> None:
    pytest.importorskip(package)
    generator = np.random.default_rng(2)
    matrix = np.eye(4)[np.repeat([0, 1, 2], 15)] + 0.1 * generator.normal(size=(45, 4))
    found = project(matrix.astype(np.float32), method, seed=3)
    assert found.explained is None
    assert (project(matrix.astype(np.float32), method, seed=3).points == found.points).all()
    distances = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (distances.argmin(1) // 15 == np.repeat([0, 1, 2], 15)).all()
    for few in (np.eye(4), np.ones((5, 2))):
        assert np.isfinite(project(few.astype(np.float32), method).points).all()


@pytest.mark.parametrize(("method", "package", "extra"), [("tsne", "sklearn", "plot"), ("umap", "umap", "umap")])
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, method: str, package: str, extra: str
) -> None:
    for name in [package, *(each for each in sys.modules if each.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"must be installed for {method}, .*seqkit\[{extra}\]"):
        project(np.eye(5, dtype=np.float32), method)


def test_wrong_questions_are_refused() -> None:
    for matrix, method, says in [
        (np.ones((1, 3)), "pca", "words must be 2 or more for pca, got 1"),
        (np.ones((3, 3)), "tsne", "words must be 4 or more for tsne, got 3"),
        (np.full((4, 3), np.nan), "pca", "numbers must be finite"),
        (np.ones((4, 3)), "mds", "method must be one of pca, tsne, umap, got 'mds'"),
    ]:
        with pytest.raises(InputError, match=says):
            project(matrix.astype(np.float32), method)


def test_words_to_show_are_frequent_and_say_something() -> None:
    words = ["the", "of", ",", "12", "king", "e4", "straße", "日本語"]
    assert words_to_show(WordVectors(words, np.ones((8, 2), np.float32)), 3) == ["the", "king", "straße"]
    many = [f"w{'abcdefghij'[row % 10]}{'abcdefghij'[row // 10 % 10]}{'x' * (row // 100)}" for row in range(1200)]
    assert words_to_show(WordVectors(many, np.ones((1200, 2), np.float32)), 5) == many[100:105]
    assert words_to_show(WordVectors(["a", "1"], np.ones((2, 2), np.float32)), 5) == ["a", "1"]
    with pytest.raises(InputError, match="at least 1, got 0"):
        words_to_show(WordVectors(["a"], np.ones((1, 2), np.float32)), 0)
