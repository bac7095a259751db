import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text").write_text("the cat sat\nthe dog sat on the cat\n\na cat\n" * 4)
    return tmp_path / "text"


@pytest.mark.parametrize("unit", ["word", "char"])
def test_train_evaluate_and_sample(seqkit: Any, text: Path, unit: str) -> None:
    model = text.parent / "m.arpa.gz"
    ran = seqkit("ngram", "train", text, "-o", model, "--order", "3", "--unit", unit)
    assert ran.code == 0
    assert f"n-grams written to {model}" in ran.err
    ran = seqkit("ngram", "evaluate", model, text, "--unit", unit, "--json")
    record = json.loads(ran.out)
    assert record["characters"] == len(text.read_text())
    assert record["tokens"] == (len(text.read_text()) if unit == "char" else len(text.read_text().split()) + 16)
    assert record["unknown"] == 0
    assert 0 < record["bits_per_character"] < 2
    assert b"bits per character = " in seqkit("ngram", "evaluate", model, text, "--unit", unit).out
    ran = seqkit("ngram", "sample", model, "-n", "5", "--seed", "3", "--unit", unit)
    assert ran.code == 0
    assert len(ran.lines) == 5
    assert {*"".join(ran.lines)} <= {*text.read_text()}


def test_bad_input_is_told_in_one_sentence(seqkit: Any, text: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    for arguments, sentence in [
        (("train", tmp_path / "none", "-o", tmp_path / "m"), "none: corpus must be a file that can be read"),
        (("train", tmp_path / "empty", "-o", tmp_path / "m"), "kneser_ney: text must have symbols, got none"),
        (("train", text, "-o", tmp_path / "m", "--order", "0"), "order must be from 1 to 16, got 0"),
        (("evaluate", text, text), "the file must be an ARPA model"),
        (("sample", text, "-n", "0"), "n must be at least 1, got 0"),
    ]:
        ran = seqkit("ngram", *arguments)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert sentence in ran.err
        assert not (tmp_path / "m").exists()


def test_evaluate_tells_the_unknown(seqkit: Any, text: Path, tmp_path: Path) -> None:
    assert seqkit("ngram", "train", text, "-o", tmp_path / "m", "--vocab-size", "4", "--prune", "0", "1").code == 0
    ran = seqkit("ngram", "evaluate", tmp_path / "m", text)
    assert (ran.code, ran.err) == (0, "")
    bits, perplexity, known = ran.lines
    assert bits.startswith("bits per character = ")
    assert "over 60 words, line ends among them; 8 are unknown (18.18 %)" in perplexity
    assert known.startswith("perplexity = ")
    assert known.endswith(" without the unknown ones")


def test_a_model_of_characters_says_so(seqkit: Any, text: Path, tmp_path: Path) -> None:
    model = seqkit("ngram", "train", text, "-o", "-", "--unit", "char")
    assert model.out.startswith(b"# unit: char\n")
    assert " chars in 16 lines, 0 unknown\n1-grams: " in model.err
    (tmp_path / "m").write_bytes(model.out)
    ran = seqkit("ngram", "evaluate", tmp_path / "m", text, "--json")
    assert json.loads(ran.out)["tokens"] == len(text.read_text())
    ran = seqkit("ngram", "sample", tmp_path / "m", "-n", "20", "--seed", "1")
    assert any(" " in line for line in ran.lines)
    assert not any("▁" in line for line in ran.lines)


def test_a_line_too_short_is_told(seqkit: Any, text: Path, tmp_path: Path) -> None:
    ran = seqkit("ngram", "train", text, "-o", tmp_path / "m", "--order", "16")
    assert "no line is long enough for n-grams of more than 8 words" in ran.err
    ran = seqkit("ngram", "train", text, "-o", tmp_path / "m", "--prune", "0", "2", "1")
    assert ran.code == 2
    assert "prune must be at most 5 numbers from 0 on that do not fall, got 0 2 1" in ran.err
