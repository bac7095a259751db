"""Training language models: they learn, resume bit for bit, and what is wrong is told."""

from pathlib import Path
from typing import Any

import pytest
import torch

import seqkit as package
from seqkit.errors import InputError
from seqkit.tasks import language_modelling
from seqkit.tasks.language_model import LanguageModel
from seqkit.tasks.language_modelling import train_language_model
from seqkit.training.checkpoint import load_tensors
from seqkit.training.loop import Outcome


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def progress(self, step: int, total: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def train(folder: Path, name: str, *, resume: bool = False, **changes: dict[str, Any]) -> tuple[Outcome, Notes]:
    (folder / "text").write_text("the cat sat on the mat\nand the dog sat on the cat\n" * 12)
    tables: dict[str, Any] = {
        "task": "language-model",
        "data": {"train": ["text"], "valid": ["text"], "window": 12},
        "tokenizer": {"kind": "char"},
        "model": {"kind": "rnn", "embedding_dim": 16, "hidden_dim": 32, "n_layers": 1, "dropout": 0.1},
        "training": {
            "max_epochs": 6, "batch_tokens": 96, "learning_rate": 0.02, "warmup": 5, "checkpoint_every": 3,
            "schedule": "cosine",
        },
    }  # fmt: skip
    for section, values in changes.items():
        tables[section] = tables.get(section, {}) | values
    notes = Notes()
    return train_language_model(tables, folder / name, where="c", base=folder, resume=resume, report=notes), notes


SHAPES: list[dict[str, dict[str, Any]]] = [
    {},
    {"model": {"cell": "gru", "weight_dropout": 0.1}},
    {"model": {"tied": True, "n_layers": 2, "layer_norm": True}, "training": {"max_epochs": 15}},
    {"data": {"lines": True, "window": 40}},
]


@pytest.mark.parametrize("changes", SHAPES)
def test_it_learns_and_loads(tmp_path: Path, changes: dict[str, dict[str, Any]]) -> None:
    train(tmp_path, "run", **changes)
    model = package.load(tmp_path / "run")
    assert isinstance(model, LanguageModel)
    score = model.score((tmp_path / "text").read_text().splitlines())
    assert score.bits_per_character < 2.2  # 4.1 before
    assert not model.model.training


def test_a_transformer_learns(tmp_path: Path) -> None:
    model = {"kind": "transformer", "model_dim": 32, "ffn_dim": 64, "n_heads": 2, "n_layers": 1}
    torch.manual_seed(0)
    tables: dict[str, Any] = {"learning_rate": 0.01, "max_epochs": 8}
    (tmp_path / "text").write_text("")
    with pytest.raises(InputError, match="unknown"):
        train(tmp_path, "run", model=model, training=tables)  # the keys of an RNN stay in the table
    outcome, _ = _train_tables(tmp_path, model, tables)
    assert outcome.best_value is not None
    assert -outcome.best_value < 1.6


def _train_tables(folder: Path, model: dict[str, Any], training: dict[str, Any]) -> tuple[Outcome, Notes]:
    notes = Notes()
    tables = {
        "data": {"train": ["text"], "valid": ["text"], "window": 24}, "tokenizer": {"kind": "char"}, "model": model,
        "training": {"batch_tokens": 96, "warmup": 5, **training},
    }  # fmt: skip
    return train_language_model(tables, folder / "other", where="c", base=folder, resume=False, report=notes), notes


@pytest.mark.parametrize("changes", [SHAPES[0], SHAPES[3]])
def test_a_killed_run_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, dict[str, Any]]
) -> None:
    """The carried state is part of it: a run of running text that forgot it would differ."""
    train(tmp_path, "whole", **changes)
    expected = (tmp_path / "whole/model.safetensors").read_bytes()
    real = language_modelling.Trainer._update
    for killed_at in (2, 5, 9):
        calls = 0

        def dying(self: Any, group: Any, killed_at: int = killed_at) -> Any:
            nonlocal calls
            calls += 1
            if calls == killed_at:
                raise MemoryError
            return real(self, group)

        with monkeypatch.context() as patch:
            patch.setattr(language_modelling.Trainer, "_update", dying)
            with pytest.raises(MemoryError):
                train(tmp_path, f"cut-{killed_at}", **changes)
        train(tmp_path, f"cut-{killed_at}", resume=True, **changes)
        assert (tmp_path / f"cut-{killed_at}/model.safetensors").read_bytes() == expected


def test_samples_are_shown_while_it_learns(tmp_path: Path) -> None:
    _, notes = train(tmp_path, "run", validation={"samples": 2, "sample_length": 5}, training={"max_epochs": 1})
    assert sum(note.startswith("  ") for note in notes.notes) >= 2


def test_lines_left_out_are_told(tmp_path: Path) -> None:
    _, notes = train(tmp_path, "run", data={"lines": True, "window": 24}, training={"max_epochs": 1})
    assert "left out 12 of 24 lines: empty, or longer than 24 tokens" in notes.notes
    with pytest.raises(InputError, match="`train` must have a usable line, got none"):
        train(tmp_path, "none", data={"lines": True, "window": 5})


def test_a_text_too_short_for_its_streams_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 tokens for each of 800 streams"):
        train(tmp_path, "run", training={"batch_tokens": 9600})


def test_the_state_is_carried_from_window_to_window(tmp_path: Path) -> None:
    """With weights that do not move, the state in the checkpoint is that of reading the streams without a break."""
    settings = {"learning_rate": 1e-30, "max_epochs": 1, "max_steps": 5}
    train(tmp_path, "run", model={"dropout": 0.0}, training=settings)
    model = package.load(tmp_path / "run")
    tensors, _ = load_tensors(tmp_path / "run/checkpoints/latest.safetensors")
    lines = (tmp_path / "text").read_text().splitlines()
    ids = torch.tensor([token for line in lines for token in model.encode(line)])
    length = (len(ids) - 1) // 8  # of the 96 / 12 streams
    streams = ids[: 8 * length].view(8, length)[:, :60]
    with torch.no_grad():
        _, last = model.model(streams, model.model.initial_state(8))
    torch.testing.assert_close(tensors["carried.state"], last)
