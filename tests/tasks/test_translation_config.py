from pathlib import Path

import pytest

from seqkit.config import read_toml
from seqkit.errors import InputError
from seqkit.tasks.translation_config import TranslationConfig, build_model
from seqkit.text.tokenizer import CharTokenizer


def test_config_survives_its_tables(tiny_config: Path) -> None:
    config = TranslationConfig.from_tables(read_toml(tiny_config), where="c")
    tables = config.to_tables()
    assert TranslationConfig.from_tables(tables, where="c") == config
    assert tables["model"]["kind"] == "transformer"
    assert tables["search"]["length_penalty"] == "power:0.7"  # defaults are written out


@pytest.mark.parametrize(("key", "value"), [("task", "parsing"), ("training", 3)])
def test_a_task_or_table_of_another_kind_is_refused(tiny_config: Path, key: str, value: object) -> None:
    with pytest.raises(InputError, match=f"`{key}` must be"):
        TranslationConfig.from_tables({**read_toml(tiny_config), key: value}, where="c")


def test_missing_model_kind_is_named() -> None:
    tables = {"data": {"train": ["a.tsv"], "valid": ["a.tsv"]}}
    with pytest.raises(InputError, match=r"c \[model\]: `kind` must be one of .*seq2seq, plain_seq2seq, got None"):
        TranslationConfig.from_tables(tables, where="c")


@pytest.mark.parametrize(
    ("section", "values", "sentence"),
    [
        ("tokenizer", {"sampling": 0.1}, "`sampling` must be 0 for char tokens, got 0.1"),
        ("tokenizer", {"sampling": 1.5}, "`sampling` must be from 0 to 1, got 1.5"),
        ("tokenizer", {"vocab_size": 0}, "`vocab_size` must be at least 1, got 0"),
        ("validation", {"beam_size": 0}, "`beam_size` must be at least 1, got 0"),
        ("training", {"metric": "bleu"}, r"c \[validation\]: `bleu` must be true where training.metric is bleu"),
        ("model", {"n_heads": 3}, "`model_dim` must be a multiple of `n_heads`, got 16 and 3"),
    ],
)
def test_values_that_do_not_go_together_are_refused(
    tiny_config: Path, section: str, values: dict[str, object], sentence: str
) -> None:
    tables = read_toml(tiny_config)
    tables[section] |= values
    with pytest.raises(InputError, match=sentence):
        TranslationConfig.from_tables(tables, where="c")


def test_a_model_is_built_for_its_vocabularies(tiny_config: Path) -> None:
    config = TranslationConfig.from_tables(read_toml(tiny_config), where="c")
    source, target = CharTokenizer.train(["abc"]), CharTokenizer.train(["abcdef"])
    state = build_model(config.model, source, target).state_dict()
    assert state["source_embedding"].shape == (7, 16)
    assert state["target_embedding"].shape == (10, 16)
    with pytest.raises(TypeError, match="no model family has the config str"):
        build_model("transformer", source, target)
