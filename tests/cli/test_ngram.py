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
    assert "n-grams of the orders 1 to 3: " in ran.err
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
        (("train", tmp_path / "empty", "-o", tmp_path / "m"), "must have words that occur 1 times or more"),
        (("train", text, "-o", tmp_path / "m", "--order", "0"), "order and min_count must be at least 1"),
        (("evaluate", text, text), "the file must be an ARPA model"),
        (("sample", text, "-n", "0"), "n must be at least 1, got 0"),
    ]:
        ran = seqkit("ngram", *arguments)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert sentence in ran.err
        assert not (tmp_path / "m").exists()
