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


def test_words_that_differ_by_case_are_one_if_it_is_asked_for(tmp_path: Path) -> None:
    # King comes before king and gives its vector; KING, a second king that lies nearest to the answer, does not bar it.
    matrix = np.array(
        [[1, 0, 0], [1, 0, 1], [1, 0, 0.9], [0, 1, 0], [-0.1, 1, 0.8], [0, 1, 1], [0, 1, 0.1]], np.float32
    )
    words = ["Man", "King", "king", "WOMAN", "KING", "Queen", "woman"]
    vectors = WordVectors(words, matrix)
    (tmp_path / "q").write_text("man king woman queen\nMan King WOMAN Queen\nMan King woman Queen\n")
    (whole,) = analogies(vectors, tmp_path / "q")[-1:]
    assert (whole.right, whole.asked, whole.given) == (3, 3, 3)
    (whole,) = analogies(vectors, tmp_path / "q", case_insensitive=False)[-1:]
    assert (whole.right, whole.asked, whole.given) == (0, 2, 3)
    # Any of the words that are the same is the answer.
    answers = WordVectors([*words[:5], "QUEEN", "queen"], matrix[[0, 1, 2, 3, 4, 6, 5]])
    assert analogies(answers, tmp_path / "q")[-1].right == 3
    (tmp_path / "s").write_text("man KING 9\nMan woman 1\nKing WOMAN 2\n")
    found = similarity(vectors, tmp_path / "s")
    assert (found.asked, found.given) == (3, 3)
    assert similarity(vectors, tmp_path / "s", case_insensitive=False).asked == 2


def gensims_accuracy(vectors: WordVectors, questions: list[list[str]]) -> tuple[int, int]:
    """What gensim 4.4's `evaluate_word_analogies(case_insensitive=True)` counts, question by question."""
    known: dict[str, int] = {}
    for row, word in enumerate(vectors.words):
        known.setdefault(word.upper(), row)
    right = asked = 0
    for question in questions:
        a, b, c, expected = (word.upper() for word in question)
        if not {a, b, c, expected} <= known.keys():
            continue
        asked += 1
        scores = vectors.unit @ (vectors.unit[known[b]] - vectors.unit[known[a]] + vectors.unit[known[c]])
        for row in np.argsort(-scores):
            predicted = vectors.words[row].upper()
            if predicted not in (a, b, c):
                right += predicted == expected
                break
    return right, asked


def test_case_is_folded_as_gensim_does(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    words = [word for letter in "abcdefgh" for word in (letter, letter.upper())]
    words = [words[at] for at in generator.permutation(16)][:13]
    vectors = WordVectors(words, generator.normal(size=(13, 3)).astype(np.float32))
    questions = [generator.choice(list("abcdefgh"), 4, replace=False).tolist() for _ in range(400)]
    (tmp_path / "q").write_text("".join(" ".join(each) + "\n" for each in questions))
    found = analogies(vectors, tmp_path / "q", batch=64)[-1]
    assert (found.right, found.asked) == gensims_accuracy(vectors, questions)
    assert 20 < found.right < found.asked <= 400


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
