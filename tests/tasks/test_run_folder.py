from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seqkit.config import read_toml
from seqkit.errors import InputError
from seqkit.tasks.run_folder import (
    TokenizerConfig,
    check_device,
    check_folder,
    load_weights,
    read_tables,
    save_config,
    saved_tables,
    saved_weights,
    write_tokenizers,
)
from seqkit.text.tokenizer import CharTokenizer, load_tokenizer
from seqkit.training.checkpoint import save_tensors


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def progress(self, step: int, total: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_read_tables_names_what_is_wrong() -> None:
    def read(tables: dict[str, Any]) -> dict[str, Any]:
        parts: dict[str, type] = {"tokenizer": TokenizerConfig}
        return read_tables(tables, task="t", parts=parts, models={"m": (TokenizerConfig, nn.Linear)}, where="c")

    found = read({"task": "t", "tokenizer": {"kind": "char"}, "model": {"kind": "m", "vocab_size": 3}})
    assert found == {"tokenizer": TokenizerConfig(kind="char"), "model": TokenizerConfig(vocab_size=3)}
    for tables, sentence in [
        ({"task": "u"}, "c: `task` must be t, got 'u'"),
        ({"tokeniser": {}}, r"`tokeniser` must be a known table \(did you mean `tokenizer`\?\)"),
        ({"tokenizer": 1}, "`tokenizer` must be a table"),
        ({"model": {"kind": "n"}}, r"c \[model\]: `kind` must be one of m, got 'n'"),
        ({}, "`kind` must be one of m, got None"),
    ]:
        with pytest.raises(InputError, match=sentence):
            read(tables)


def test_check_folder_refuses_a_second_run_and_another_config(tmp_path: Path) -> None:
    tables = {"task": "t", "training": {"seed": 1, "max_steps": 5}, "search": {"beam_size": 5}}
    check_folder(tables, tmp_path, resume=False)
    save_config(tables, tmp_path)
    assert read_toml(tmp_path / "config.toml") == saved_tables(tmp_path) == tables
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="the run folder must be new"):
        check_folder(tables, tmp_path, resume=False)
    changeable = {"task": "t", "training": {"seed": 1, "max_steps": 9}, "search": {"beam_size": 1}}
    check_folder(changeable, tmp_path, resume=True)
    with pytest.raises(InputError, match=r"`training.seed` must be 1 as when the run was started"):
        check_folder({"training": {"seed": 2}}, tmp_path, resume=True)


def test_tokenizers_are_kept_only_with_their_config(tmp_path: Path) -> None:
    def write(lines: list[str], *, keep: bool) -> int:
        write_tokenizers(TokenizerConfig(kind="char"), {"tokenizer": lines}, tmp_path, Notes(), keep=keep)
        tokenizer = load_tokenizer(tmp_path / "tokenizer")
        assert isinstance(tokenizer, CharTokenizer)
        return tokenizer.vocab_size

    small = write(["ab"], keep=True)
    assert write(["abcd"], keep=True) == small + 2  # there is no config.toml that it belongs to
    save_config({}, tmp_path)
    assert write(["ab"], keep=True) == small + 2
    assert write(["ab"], keep=False) == small


def test_saved_weights_and_tables_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a run folder with a config\.toml, got none"):
        saved_tables(tmp_path)
    with pytest.raises(InputError, match=r"no model\.safetensors yet"):
        saved_weights(tmp_path)
    save_tensors(tmp_path / "model.safetensors", {"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    layer = nn.Linear(2, 2)
    load_weights(layer, saved_weights(tmp_path), where="w")
    assert torch.equal(layer.weight, torch.ones(2, 2))
    with pytest.raises(InputError, match="w: the weights must fit the model"):
        load_weights(nn.Linear(3, 2), saved_weights(tmp_path), where="w")


def test_check_device_names_the_device() -> None:
    check_device("cpu")
    with pytest.raises(InputError, match="got `nonsense`"):
        check_device("nonsense")
