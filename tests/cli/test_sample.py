import json
from pathlib import Path
from typing import Any

import pytest

from seqkit import ops

CONFIG = """
task = "language-model"
[data]
train = ["names"]
valid = ["names"]
lines = {lines}
window = 12
[tokenizer]
kind = "char"
[model]
kind = "rnn"
embedding_dim = 8
hidden_dim = 16
n_layers = 1
[training]
max_steps = 3
batch_tokens = 48
"""


@pytest.fixture(params=["true", "false"])
def run(request: pytest.FixtureRequest, seqkit: Any, tmp_path: Path) -> tuple[Path, bool]:
    """The folder of a run that has learnt little, and whether its lines are texts."""
    (tmp_path / "names").write_text("emma\nolivia\nava\nmia\nzoe\n" * 5)
    (tmp_path / "lm.toml").write_text(CONFIG.format(lines=request.param))
    ran = seqkit("train", tmp_path / "lm.toml", "-o", tmp_path / "run", "--threads", "1")
    assert ran.code == 0, ran.err
    return tmp_path / "run", request.param == "true"


def test_sample_prints_texts_that_begin_with_the_prompt(seqkit: Any, run: tuple[Path, bool]) -> None:
    folder, lines = run
    ran = seqkit("sample", folder, "--prompt", "em", "--n-samples", "3", "--max-length", "9", "--seed", "2")
    assert ran.code == 0
    texts = ran.out.decode().removesuffix("\n").split("\n" if lines else "\n---\n")
    assert len(texts) == 3
    assert all(text.startswith("em") for text in texts)
    again = seqkit(
        "sample", folder, "--prompt", "-", "--n-samples", "3", "--max-length", "9", "--seed", "2", "--json",
        stdin=b"em\n",
    )  # fmt: skip
    assert json.loads(again.out) == {"prompt": "em", "texts": texts}


def test_evaluate_says_how_the_text_was_scored(seqkit: Any, run: tuple[Path, bool]) -> None:
    folder, lines = run
    text = folder.parent / "names"
    ran = seqkit("evaluate", folder, text)
    assert ran.code == 0
    assert "bits per character = " in ran.out.decode()
    assert ("each line for itself" in ran.out.decode()) == lines
    record = json.loads(seqkit("evaluate", folder, text, "--json").out)
    assert record["characters"] == len(text.read_text())
    assert record["bits_per_character"] == pytest.approx(record["loss"] / 0.6931471805599453)
    assert seqkit("evaluate", folder, text, text).code == 2
    with ops.use_backend("reference"):
        assert "run on plain torch" in seqkit("evaluate", folder, text).err


def test_bad_input_is_told_in_one_sentence(seqkit: Any, run: tuple[Path, bool], tmp_path: Path) -> None:
    folder, _ = run
    for arguments, sentence in [
        ((folder, "--temperature", "-1"), "`temperature` must be at least 0"),
        ((tmp_path / "nothing",), "a run folder with a config.toml, got none"),
    ]:
        ran = seqkit("sample", *arguments)
        assert ran.code == 2
        assert sentence in ran.err
        assert ran.err.count("\n") == 1
    (folder / "config.toml").write_text((folder / "config.toml").read_text().replace("language-model", "languge-model"))
    assert "did you mean `language-model`?" in seqkit("train", folder / "config.toml").err
    ran = seqkit("sample", folder)
    assert ran.code == 2
    assert "`task` must be language-model" in ran.err
