"""What every kind of run has in common: its config's tables, its folder, its tokenizers and its weights.

A run folder holds `config.toml` (resolved, with the name of its task), tokenizer files, and what
`seqkit.training.loop` writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqkit.atomic import write_atomically
from seqkit.config import from_table, nearest, option, read_toml, to_table, write_toml
from seqkit.errors import InputError
from seqkit.text.tokenizer import CharTokenizer, SentencePieceTokenizer, WordTokenizer, train_tokenizer
from seqkit.training.checkpoint import load_tensors
from seqkit.training.loop import Reporter

TOKENIZER_SUFFIXES = (SentencePieceTokenizer.suffix, CharTokenizer.suffix, WordTokenizer.suffix)
# What may change when a run goes on: how long it lasts, and what only looks at it.
CHANGEABLE = {"max_epochs", "max_steps", "patience", "checkpoint_every", "log_every", "tensorboard"}
CHANGEABLE_TABLES = {"search", "validation", "sampling"}


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How text becomes tokens."""

    kind: str = option("unigram", "subwords, words or characters", choices=("unigram", "bpe", "word", "char"))
    vocab_size: int = option(8000, "most tokens, specials included")
    character_coverage: float = option(1.0, "share of the characters that subwords must cover")

    def __post_init__(self) -> None:
        if self.vocab_size < 1:
            raise InputError(f"tokenizer: `vocab_size` must be at least 1, got {self.vocab_size}")


Families = dict[str, tuple[type, type]]  # of models: the name of each, its config and its module


def read_tables(
    tables: dict[str, Any], *, task: str, parts: dict[str, type], models: Families, where: str
) -> dict[str, Any]:
    """The config of each part, and that of `model` by its `kind`, from the TOML tables of a run of `task`.

    Raises:
        InputError: an unknown table or key, a wrong value, another task, or no `model.kind`.
    """
    tables = dict(tables)
    if (given := tables.pop("task", task)) != task:
        raise InputError(f"{where}: `task` must be {task}, got {given!r}")
    for name, table in tables.items():
        if name not in (*parts, "model"):
            raise InputError(f"{where}: `{name}` must be a known table{nearest(name, (*parts, 'model'))}, got another")
        if not isinstance(table, dict):
            raise InputError(f"{where}: `{name}` must be a table, got {table!r}")
    model = dict(tables.pop("model", {}))
    kind = model.pop("kind", None)
    if kind not in models:
        allowed = ", ".join(models)
        raise InputError(f"{where} [model]: `kind` must be one of {allowed}, got {kind!r}{nearest(str(kind), models)}")
    values: dict[str, Any] = {
        name: from_table(part, tables.get(name, {}), where=f"{where} [{name}]") for name, part in parts.items()
    }
    values["model"] = from_table(models[kind][0], model, where=f"{where} [model]")
    return values


def write_tables(config: Any, *, task: str, names: tuple[str, ...], models: Families) -> dict[str, Any]:
    """TOML tables of a config's parts with every default written out."""
    kind = next(kind for kind, (config_class, _) in models.items() if type(config.model) is config_class)
    tables: dict[str, Any] = {"task": task}
    for name in names:
        tables[name] = to_table(getattr(config, name))
    tables["model"] = {"kind": kind, **tables["model"]}
    return tables


def check_folder(tables: dict[str, Any], folder: Path, *, resume: bool) -> None:
    """Refuses to overwrite a run, and to go on with another config than it was started with.

    Raises:
        InputError: which of the two.
    """
    saved = folder / "config.toml"
    if not resume:
        if (folder / "checkpoints").exists() or (folder / "model.safetensors").exists():
            raise InputError(f"{folder}: the run folder must be new, got one with a run in it; go on with --resume")
        return
    if not saved.exists():
        return
    before = read_toml(saved)
    for table, values in tables.items():
        if not isinstance(values, dict) or table in CHANGEABLE_TABLES:
            continue
        for key, value in values.items():
            old = before.get(table, {}).get(key)
            if value != old and key not in CHANGEABLE:
                raise InputError(
                    f"{folder}: `{table}.{key}` must be {old!r} as when the run was started, to resume, got {value!r}"
                )


def make_folder(folder: Path) -> None:
    """Makes the run folder.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: the run folder must be one that can be made, got: {error.strerror}") from None


def save_config(tables: dict[str, Any], folder: Path) -> None:
    """Writes the resolved config; the files that it stands for, such as tokenizers, are written before it."""
    write_atomically(folder / "config.toml", write_toml(tables).encode())


def write_tokenizers(
    config: TokenizerConfig, texts: dict[str, list[str]], folder: Path, report: Reporter, *, keep: bool
) -> None:
    """Trains a tokenizer on the lines of each name, unless those are kept that belong to the folder's config.toml.

    They are written before config.toml: without it, they may be left over from another config.
    """
    keep = keep and (folder / "config.toml").exists()
    for name, lines in texts.items():
        found = [path for suffix in TOKENIZER_SUFFIXES if (path := folder / f"{name}{suffix}").exists()]
        if not (keep and found):
            for path in found:
                path.unlink()
            report.note(f"training the {config.kind} tokenizer `{name}` on {len(lines):,} lines")
            train_tokenizer(
                config.kind, lines, vocab_size=config.vocab_size, character_coverage=config.character_coverage
            ).save(folder / name)


def saved_tables(folder: Path) -> dict[str, Any]:
    """The tables of a run's config.toml.

    Raises:
        InputError: there is no run.
    """
    if not (folder / "config.toml").is_file():
        raise InputError(f"{folder}: the model must be a run folder with a config.toml, got none")
    return read_toml(folder / "config.toml")


def saved_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a run.

    Raises:
        InputError: there are none yet, or they are damaged.
    """
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"{folder}: the model must have been trained up to a validation, got no model.safetensors yet")
    tensors, _ = load_tensors(folder / "model.safetensors")
    return tensors


def load_weights(model: nn.Module, tensors: dict[str, Tensor], *, where: str) -> None:
    """Puts weights into a model.

    Raises:
        InputError: their names or shapes are not the model's.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        raise InputError(
            f"{where}: the weights must fit the model of its config.toml, got other names or shapes"
        ) from None


def check_device(name: str) -> None:
    """Raises an error unless this torch can use the device."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device: the device must be one that this torch can use, got `{name}`: {reason}") from None
