"""The measures, on vectors whose answers are known."""

from pathlib import Path

import numpy as np
import pytest

from seqkit.embeddings import WordVectors
from seqkit.embeddings.evaluate import Similarity, analogies, similarity, spearman


def test_analogies_count_by_section_and_skip_unknown_words(tmp_path: Path) -> None:
    # man + royal = king, woman + royal = queen; apple is far from all.
    matrix = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1], [-1, -1, 0]], np.float32)
    vectors = WordVectors(["man", "king", "woman", "queen", "apple"], matrix)
    (tmp_path / "q").write_text(
        ": royal\nMan King Woman Queen\nman king woman apple\n: other\nman king woman pear\n", encoding="utf-8"
    )
    royal, other, whole = analogies(vectors, tmp_path / "q")
    assert (royal.section, royal.right, royal.asked, royal.given) == ("royal", 1, 2, 2)
    assert (other.right, other.asked, other.given) == (0, 0, 1)
    assert (whole.section, whole.right, whole.asked, whole.given) == ("all", 1, 2, 3)
    assert whole.accuracy == 0.5
    assert np.isnan(other.accuracy)


def test_similarity_is_the_rank_correlation_of_known_pairs(tmp_path: Path) -> None:
    vectors = WordVectors(["a", "b", "c"], np.array([[1, 0], [1, 0.1], [0, 1]], np.float32))
    (tmp_path / "s").write_text("# comment\nword1 word2 score\na b 9\nA c 1\nb c 2\na z 5\n")
    found = similarity(vectors, tmp_path / "s")
    assert (found.rho, found.asked, found.given) == (pytest.approx(1.0), 3, 4)


def test_spearman_gives_equals_their_mean_rank() -> None:
    # Ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4: 4.5 / sqrt(4.5 * 5).
    assert spearman([1.0, 5.0, 5.0, 9.0], [0.0, 2.0, 1.0, 3.0]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert spearman([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert np.isnan(spearman([1.0, 1.0], [1.0, 2.0]))
    assert np.isnan(spearman([], []))


def test_the_interval_is_bonett_and_wrights() -> None:
    # rho 0.5 of 100 pairs: atanh(0.5) = 0.549306, half 1.959964 sqrt(1.125 / 97) = 0.211074.
    low, high = Similarity(rho=0.5, asked=100, given=100).interval
    assert (low, high) == (pytest.approx(np.tanh(0.338232), abs=1e-5), pytest.approx(np.tanh(0.760380), abs=1e-5))
    assert np.isnan(Similarity(rho=0.5, asked=3, given=3).interval).all()
    assert Similarity(rho=1.0, asked=4, given=4).interval == (1, 1)
