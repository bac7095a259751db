"""The example of analogies: what its docstring shows, and that the loop by hand answers as seqkit does."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from seqkit.embeddings import WordVectors, native

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/embeddings/analogies.py"
built = pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the trainer is not built")


@built
def test_the_small_text_teaches_every_analogy(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE))["main"]([])
    cosines, *lines = capsys.readouterr().out.splitlines()
    assert cosines.startswith("cosine of mother and father 0.")
    wanted = ["queen", "girl", "princess", "rome", "madrid", "daughter"]
    by_hand = [line.partition("seqkit:")[0].split()[-1] for line in lines]
    by_seqkit = [line.partition("seqkit:")[2].split()[0] for line in lines]
    assert by_hand == by_seqkit == wanted


@built
def test_it_trains_on_a_given_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("the man and the king saw the woman and the queen and the boy\n" * 30)
    runpy.run_path(str(EXAMPLE))["main"](["--corpus", str(tmp_path / "text")])
    assert "man : king = woman : " in capsys.readouterr().out


def test_given_vectors_answer_by_hand_as_by_seqkit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["man", "king", "woman", "queen", "boy", "girl", *(f"w{row}" for row in range(50))]
    matrix = np.random.default_rng(1).normal(size=(len(words), 5)).astype(np.float32)
    WordVectors(words, matrix).save(tmp_path / "v.txt")
    runpy.run_path(str(EXAMPLE))["main"](["--vectors", str(tmp_path / "v.txt")])
    cosines, *lines = capsys.readouterr().out.splitlines()
    assert cosines == "cosine of "
    for line in lines[:2]:
        assert line.partition("seqkit:")[0].split()[-1] == line.partition("seqkit:")[2].split()[0]
    assert "?   WordVectors: word must be in the vocabulary of 56 words, got 'prince'" in lines[2]
