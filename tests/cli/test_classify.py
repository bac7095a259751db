"""`seqkit classify` and `seqkit evaluate` of a classifier, on a tiny model trained by `seqkit train`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONFIG = """
task = "classification"
[data]
train = ["data.tsv"]
valid = ["data.tsv"]
[model]
embedding_dim = 8
hidden_dim = 8
dropout = 0.0
[training]
max_epochs = 12
batch_tokens = 20
learning_rate = 3e-2
warmup = 3
metric = "accuracy"
"""


@pytest.fixture(scope="module")
def run(seqkit: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "data.tsv").write_text("for\ta good film\nagainst\ta bad film\n" * 8)
    (folder / "config.toml").write_text(CONFIG)
    ran = seqkit("train", folder / "config.toml", "-o", folder / "run", "--threads", "1")
    assert ran.code == 0, ran.err
    assert "accuracy 1.0000" in ran.err
    return folder / "run"


def test_lines_in_and_lines_out(seqkit: Any, run: Path) -> None:
    ran = seqkit("classify", run, stdin=b"a good film\n\n\xff\na bad film")
    assert ran.code == 0
    rows = [line.split("\t") for line in ran.lines]
    assert [row[0] for row in rows[:1] + rows[3:]] == ["for", "against"]
    assert rows[1][0] in ("for", "against")  # an empty text is a text
    assert rows[2] == [""]
    assert all(0.5 <= float(row[1]) <= 1.0 for row in rows if len(row) == 2)
    assert ran.err.splitlines() == ["seqkit classify: warning: line 3: not UTF-8 at byte 1"]


def test_json_has_the_probability_of_each_class(seqkit: Any, run: Path) -> None:
    first, second = map(json.loads, seqkit("classify", run, "--json", stdin=b"good\n\xff\n").lines)
    assert first["label"] == "for"
    assert sum(first["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    assert second == {"line": 2, "label": None, "probabilities": {}}


def test_an_ensemble_with_itself_answers_the_same(seqkit: Any, run: Path) -> None:
    alone = seqkit("classify", run, stdin=b"a good film\n").out
    assert seqkit("classify", run, "--ensemble", run, stdin=b"a good film\n").out == alone
    measured = seqkit("evaluate", run, run.parent / "data.tsv").out
    assert seqkit("evaluate", run, run.parent / "data.tsv", "--ensemble", run).out == measured


def test_it_is_measured_on_a_test_set(seqkit: Any, run: Path) -> None:
    ran = seqkit("evaluate", run, run.parent / "data.tsv")
    assert ran.lines[0].startswith("accuracy = 100.00 % (16 of 16; 95 % interval 80.64 to 100.00)")
    assert ran.lines[1].startswith("loss = ")
    found = json.loads(seqkit("evaluate", run, run.parent / "data.tsv", "--json").lines[0])
    assert found["accuracy"] == 1.0
    assert found["texts"] == 16


def test_what_is_wrong_is_told(seqkit: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("good film\n")
    ran = seqkit("evaluate", run, tmp_path / "bad")
    assert ran.code == 2
    assert "bad:1: line must have a class, a tab and a text, got 'good film'" in ran.err
    ran = seqkit("evaluate", run, tmp_path / "bad", "--baseline", "x")
    assert ran.code == 2
    assert "options of a translator too" in ran.err
