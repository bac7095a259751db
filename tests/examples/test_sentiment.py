"""The example of sentiment: what it reads, how it splits, and that the LSTM reads a `not`."""

import runpy
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqkit.embeddings import WordVectors, native

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/embeddings/sentiment.py"


@pytest.fixture
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the trainer is not built")
def test_the_lstm_reads_what_the_mean_cannot(example: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    example["main"]([])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "2,400, 300, 300 sentences to train, choose and test; 100.0 % of the words have a vector"
    found = [float(line[18:].split("%")[0]) for line in lines if "%" in line]
    assert found[1] > 95
    assert found[1] > found[0] + 5
    assert [line[:18].strip() for line in lines] == ["averaged vectors", "LSTM", "bag of words"]


def test_an_archive_and_vectors_are_read(
    example: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a/README.txt", "no sentence")
        archive.writestr("a/rt.pos", "a good film \n" * 40)
        archive.writestr("a/rt.neg", "a bad film \n\n" * 40)
    words = ["a", "good", "bad"]
    WordVectors(words, np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)).save(tmp_path / "v.txt")
    examples = example["read"](str(tmp_path / "z.zip"))
    assert examples[:2] == [(["a", "bad", "film"], 0), (["a", "good", "film"], 1)]
    assert len(examples) == 80
    example["main"]([str(tmp_path / "z.zip"), "--vectors", str(tmp_path / "v.txt"), "--epochs", "20"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "64, 8, 8 sentences to train, choose and test; 66.7 % of the words have a vector"
    assert "averaged vectors  100.0 %" in lines[0]


def test_the_parts_share_no_sentence_and_have_both_sides(example: dict[str, Any]) -> None:
    examples = [([str(at)], at % 2) for at in range(100)]
    parts = example["split"](examples)
    assert [len(part) for part in parts] == [80, 10, 10]
    assert sorted(int(words[0]) for part in parts for words, _ in part) == list(range(100))
    assert all(sum(side for _, side in part) * 2 == len(part) for part in parts)


def test_padding_changes_no_answer(example: dict[str, Any]) -> None:
    torch.manual_seed(1)
    table = torch.randn(6, 3)
    table[0] = 0
    for kind in ("Average", "BothWays"):
        model = example[kind](table).eval()
        ids = torch.tensor([[1, 2, 0, 0], [3, 4, 5, 1]])
        both = model(ids, torch.tensor([2, 4]))
        assert torch.allclose(both[:1], model(ids[:1, :2], torch.tensor([2])), atol=1e-6)


def test_wrong_archives_are_told_in_a_sentence(example: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.pos", "good\n")
    for name, says in (("text", "must be a zip file"), ("none", "must be a zip file"), ("z.zip", "got pos")):
        with pytest.raises(SystemExit, match=says):
            example["main"]([str(tmp_path / name)])
