"""`seqkit embed plot`: which words are drawn, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqkit.analysis import word_map
from seqkit.cli.embed_plot import METHODS
from seqkit.embeddings import WordVectors, projection

pytest.importorskip("matplotlib")


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    words = ["the", ",", "king", "queen", "man", "woman", "12", "apple", "pear"]
    matrix = np.random.default_rng(1).normal(size=(len(words), 4)).astype(np.float32)
    WordVectors(words, matrix).save(tmp_path / "v.txt")
    return tmp_path / "v.txt"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The calls that draw; they are made too."""
    calls: list[dict[str, Any]] = []
    real = word_map.save_word_map

    def save(path: Path, points: np.ndarray, words: list[str], **options: Any) -> word_map.Drawn:
        calls.append({"words": words, "points": points, **options})
        return real(path, points, words, **options)

    monkeypatch.setattr(word_map, "save_word_map", save)
    return calls


def test_the_most_frequent_words_are_drawn(seqkit: Any, vectors: Path, tmp_path: Path, drawn: list[Any]) -> None:
    ran = seqkit("embed", "plot", vectors, "-o", tmp_path / "m.png", "--top", "4")
    assert (ran.code, ran.out, ran.err) == (0, b"", "")
    assert drawn[0]["words"] == ["the", "king", "queen", "man"]
    assert drawn[0]["title"].startswith("v.txt: 4 words, principal components\n")
    assert "% of the variance across" in drawn[0]["title"]
    assert (tmp_path / "m.png").read_bytes()[:4] == b"\x89PNG"


def test_given_words_and_groups_are_drawn(seqkit: Any, vectors: Path, tmp_path: Path, drawn: list[Any]) -> None:
    ran = seqkit(
        "embed", "plot", vectors, "-o", tmp_path / "m.svg", "--words", "-", stdin="pear king\nnó pear\n".encode()
    )
    assert ran.code == 0
    assert drawn[0]["words"] == ["pear", "king"]
    assert ran.err == "seqkit embed plot: warning: WordVectors: word must be in the vocabulary of 9 words, got 'nó'\n"
    (tmp_path / "g").write_text(": royal\nking queen\n\n: fruit and more\napple\npear king\n")
    (tmp_path / "w").write_text("the\npear\n")
    for more, words in ([], ["king", "queen", "apple", "pear"]), (
        ["--words", tmp_path / "w"], ["the", "pear", "king", "queen", "apple"],
    ):  # fmt: skip
        ran = seqkit("embed", "plot", vectors, "-o", tmp_path / "m.pdf", "--groups", tmp_path / "g", *more)
        assert (ran.code, ran.err) == (0, "")
        assert drawn[-1]["words"] == words
        fruit = dict.fromkeys(["apple", "pear"], "fruit and more")
        assert drawn[-1]["groups"] == {"king": "royal", "queen": "royal", **fruit}


def test_labels_without_a_place_are_told(seqkit: Any, tmp_path: Path) -> None:
    words = [f"word{'abcdefghij'[row // 10 % 10]}{'abcdefghij'[row % 10]}{row // 100 * 'x'}" for row in range(300)]
    WordVectors(words, np.ones((300, 2), np.float32)).save(tmp_path / "v.txt")
    ran = seqkit("embed", "plot", tmp_path / "v.txt", "-o", tmp_path / "m.png", "--top", "300")
    assert ran.code == 0
    assert "of 300 labels find no free place, left out: word" in ran.err
    assert ran.err.endswith(" …\n")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("method", "package"), [("tsne", "sklearn"), ("umap", "umap")])
def test_the_other_methods(
    seqkit: Any, vectors: Path, tmp_path: Path, drawn: list[Any], method: str, package: str
) -> None:
    pytest.importorskip(package)
    for _ in range(2):
        ran = seqkit("embed", "plot", vectors, "-o", tmp_path / "m.png", "--method", method, "--seed", "4")
        assert (ran.code, ran.err) == (0, "")
    assert (drawn[0]["points"] == drawn[1]["points"]).all()
    assert "axes and distances between groups mean nothing" in drawn[0]["title"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-o", "m.gif"), "picture must end in one of .png, .svg, .pdf, got .gif"),
        (("-o", "m.png", "--top", "0"), "the count must be at least 1, got 0"),
        (("-o", "m.png", "--top", "1"), "words must be 2 or more for pca, got 1"),
        (("-o", "m.png", "--seed", "-1"), "--seed: number must be from 0"),
        (("-o", "m.png", "--words", "none"), "none: corpus must be a file that can be read"),
        (("-o", "m.png", "--words", "-"), "a word must have a vector, got none"),
        (("-o", "m.png", "--groups", "-"), "groups must have a word, got none"),
        (("-o", "nowhere/m.png"), "path must be in a folder that can be written"),
    ],
)
def test_bad_input_ends_with_2_and_a_sentence(
    seqkit: Any, vectors: Path, tmp_path: Path, arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = seqkit("embed", "plot", vectors, *arguments)
    assert (ran.code, ran.out) == (2, b"")
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["v.txt"]


def test_words_above_the_first_group_are_refused(seqkit: Any, vectors: Path, tmp_path: Path) -> None:
    ran = seqkit("embed", "plot", vectors, "-o", tmp_path / "m.png", "--groups", "-", stdin=b"\nking queen\n")
    assert ran.code == 2
    assert "-:2: words must come below a line `: name`, got 'king queen'" in ran.err


def test_the_methods_are_those_of_the_projection() -> None:
    assert METHODS == projection.METHODS
