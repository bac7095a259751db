"""The config of a CTC model's run: defaults, paths, and what is wrong."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from toy_recordings import CONFIG

from seqkit.config import apply_overrides, read_toml
from seqkit.errors import InputError
from seqkit.tasks.ctc_config import TranscriptionConfig


def test_tables_come_back_with_every_default() -> None:
    config = TranscriptionConfig.from_tables(tomllib.loads(CONFIG), where="c")
    tables = config.to_tables()
    assert tables["task"] == "ctc"
    assert tables["model"]["kind"] == "ctc"
    assert tables["training"]["label_smoothing"] == 0.0
    assert TranscriptionConfig.from_tables(tables, where="c") == config


def test_paths_start_at_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE", str(tmp_path / "there"))
    tables = tomllib.loads(CONFIG)
    tables["data"] = {"train": ["a.tsv", "$THERE/b.tsv"], "valid": ["/c.tsv"]}
    tables["augment"], tables["search"] = {"noise": ["n.wav"]}, {"lm": "lm.arpa", "beam_size": 4}
    config = TranscriptionConfig.from_tables(tables, where="c").with_paths(tmp_path)
    assert config.data.train == [str(tmp_path / "a.tsv"), str(tmp_path / "there/b.tsv")]
    assert config.data.valid == ["/c.tsv"]
    assert config.augment.noise == [str(tmp_path / "n.wav")]
    assert config.search.lm == str(tmp_path / "lm.arpa")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.metric=bleu", "`metric` must be loss or error_rate for a CTC model, got bleu"),
        ("training.label_smoothing=0.1", "`label_smoothing` must be 0 for a CTC model, got 0.1"),
        ("data.longest=0", "`longest` must be above 0, got 0"),
        ("model.kind=rnn", "`kind` must be one of ctc, got 'rnn'"),
        ("feature.rate=1", "`feature` must be a known table"),
        ("features.rates=1", "`rates` must be a known key, got an unknown one"),
        ("search.lm=a.arpa", "`beam_size` must be at least 1 to ask a language model, got 0"),
        ("task=tagging", "`task` must be ctc, got 'tagging'"),
    ],
)
def test_what_is_wrong_is_told(override: str, sentence: str) -> None:
    tables: dict[str, Any] = tomllib.loads(CONFIG)
    apply_overrides(tables, [override])
    with pytest.raises(InputError, match=sentence):
        TranscriptionConfig.from_tables(tables, where="c")


def test_the_config_of_the_example_is_right() -> None:
    path = Path(__file__).resolve().parents[2] / "examples/ctc/digits.toml"
    TranscriptionConfig.from_tables(read_toml(path), where="digits")
