"""`seqkit tag` and `seqkit evaluate` of a tagger, on a tiny model trained by `seqkit train`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONFIG = """
task = "tagging"
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
metric = "f1"
"""


@pytest.fixture(scope="module")
def run(seqkit: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tagger")
    (folder / "data.tsv").write_text("Ann\tB-person\nsees\tO\nRome\tB-place\n\nRome\tB-place\nsees\tO\n\n" * 8)
    (folder / "config.toml").write_text(CONFIG)
    ran = seqkit("train", folder / "config.toml", "-o", folder / "run", "--threads", "1")
    assert ran.code == 0, ran.err
    assert "f1 1.0000" in ran.err
    return folder / "run"


def test_lines_in_and_lines_out(seqkit: Any, run: Path) -> None:
    ran = seqkit("tag", run, stdin=b"Ann sees Rome\n\n\xff\nRome\tsees \x0c Rome\r\n")
    assert ran.code == 0
    assert ran.lines == ["B-person O B-place", "", "", "B-place O B-place"]
    assert ran.err.splitlines() == ["seqkit tag: warning: line 3: not UTF-8 at byte 1"]


def test_json_has_words_labels_and_probabilities(seqkit: Any, run: Path) -> None:
    (record,) = map(json.loads, seqkit("tag", run, "--json", stdin=b"Ann sees").lines)
    assert record["words"] == ["Ann", "sees"]
    assert record["labels"] == [["B-person", "O"]]
    assert all(0.5 < p <= 1.0 for p in record["probabilities"][0])


def test_a_file_is_written_whole_and_long_lines_are_told(seqkit: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("Ann\n" + "a " * 3000 + "\n" + "Rome\n")
    ran = seqkit("tag", run, tmp_path / "in", "-o", tmp_path / "out", "--max-bytes", "100")
    assert ran.code == 0
    assert (tmp_path / "out").read_text() == "B-person\n\nB-place\n"
    assert ran.err == "seqkit tag: warning: line 2: longer than 100 bytes\n"


def test_it_is_measured_on_a_test_set(seqkit: Any, run: Path) -> None:
    ran = seqkit("evaluate", run, run.parent / "data.tsv")
    assert ran.lines[0].startswith("span F1 = 100.00 (precision 100.00, recall 100.00; 24 right of 24 found")
    assert ran.lines[-1].startswith("accuracy = 100.00 % (40 of 40; ")
    found = json.loads(seqkit("evaluate", run, run.parent / "data.tsv", "--json").lines[0])
    assert found["columns"][0]["f1"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tag", "none"), "none: the model must be a run folder with a config.toml, got none"),
        (("tag", "RUN", "none"), "none: the input must be a readable file"),
        (("tag", "RUN", "--max-bytes", "0"), "--max-bytes: the count must be at least 1, got 0"),
        (("classify", "RUN"), "`task` must be classification, got 'tagging'"),
        (("evaluate", "RUN", "a", "b"), "a model of the task tagging must be given one text"),
        (("evaluate", "RUN", "a", "--ensemble", "b"), "`--ensemble` must be of translators or classifiers"),
        (("evaluate", "RUN", "none"), "none: corpus must be a file that can be read"),
    ],
)
def test_what_is_wrong_is_told(seqkit: Any, run: Path, arguments: tuple[str, ...], sentence: str) -> None:
    ran = seqkit(*(run if argument == "RUN" else argument for argument in arguments))
    assert ran.code == 2
    assert sentence in ran.err
    assert ran.out == b""
