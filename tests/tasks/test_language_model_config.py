from typing import Any

import pytest

from seqkit.errors import InputError
from seqkit.models import RNNLM, RNNLMConfig, TransformerLM, TransformerLMConfig
from seqkit.tasks.language_model_config import LanguageModelConfig, build_model

TABLES: dict[str, dict[str, Any]] = {"data": {"train": ["a"], "valid": ["b"]}, "model": {"kind": "rnn"}}


def test_tables_and_back() -> None:
    config = LanguageModelConfig.from_tables({"task": "language-model", **TABLES}, where="c")
    tables = config.to_tables()
    assert tables["model"]["kind"] == "rnn"
    assert tables["training"]["label_smoothing"] == 0.0
    assert LanguageModelConfig.from_tables(tables, where="c").to_tables() == tables


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": {"train": ["a"], "valid": ["b"], "window": 1}}, "`window` must be at least 2 and `context` at least"),
        ({"model": {"kind": "lstm"}}, "`kind` must be one of rnn, transformer, got 'lstm'"),
        ({"training": {"metric": "bleu"}}, "`metric` must be loss for a language model, got bleu"),
        ({"training": {"label_smoothing": 0.1}}, "`label_smoothing` must be 0 for a language model, got 0.1"),
        ({"training": {"batch_tokens": 100}}, r"`batch_tokens` must be at least data.window \(128\), got 100"),
        ({"validation": {"samples": -1}}, "`samples` must be at least 0"),
    ],
)
def test_wrong_configs_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        LanguageModelConfig.from_tables(TABLES | changes, where="c")


def test_build_model_makes_the_family_of_the_config() -> None:
    assert isinstance(build_model(RNNLMConfig(hidden_dim=4), 9), RNNLM)
    assert isinstance(build_model(TransformerLMConfig(model_dim=8, n_heads=2), 9), TransformerLM)
    with pytest.raises(TypeError, match="no model family has the config int"):
        build_model(3, 9)
