"""Training a language model: from a config to a run folder.

A run folder holds `config.toml` (resolved), `tokenizer.*`, and what `seqkit.training.loop` writes. A recurrent model
goes through a text in windows and carries its state from one to the next (truncated back-propagation through time); the
checkpoint holds that state too.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqkit.config import resolve_path
from seqkit.errors import InputError
from seqkit.tasks.language_model import LanguageModel, read_lines
from seqkit.tasks.language_model_config import LanguageModelConfig, build_model
from seqkit.tasks.run_folder import check_folder, make_folder, save_config, write_tokenizers
from seqkit.text.batch import Batch, TokenBatches
from seqkit.text.stream import StreamBatches, Window
from seqkit.text.tokenizer import load_tokenizer
from seqkit.training.loop import Outcome, Reporter, Trainer


def train_language_model(
    tables: dict[str, Any], folder: Path, *, where: str, base: Path, resume: bool, report: Reporter
) -> Outcome:
    """Trains a language model as TOML tables say, in a run folder.

    Args:
        where: what to call the config in an error.
        base: the folder that relative data paths start at.
        resume: go on where the folder's last checkpoint stands.

    Raises:
        InputError: the config or the data is wrong, or the folder holds a run that is not to be resumed.
    """
    config = LanguageModelConfig.from_tables(tables, where=where)
    train_paths, valid_paths = (
        [os.path.abspath(resolve_path(path, base)) for path in paths]
        for paths in (config.data.train, config.data.valid)
    )
    config = replace(config, data=replace(config.data, train=train_paths, valid=valid_paths))
    check_folder(config.to_tables(), folder, resume=resume)
    train, valid = read_lines(train_paths, name="train"), read_lines(valid_paths, name="valid")
    make_folder(folder)
    write_tokenizers(config.tokenizer, {"tokenizer": train}, folder, report, keep=resume)
    tokenizer = load_tokenizer(folder / "tokenizer")
    save_config(config.to_tables(), folder)
    training = config.training
    torch.manual_seed(training.seed)
    model = build_model(config.model, tokenizer.vocab_size)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    report.note(f"{type(model).__name__}: {n_parameters:,} parameters, {tokenizer.vocab_size:,} tokens")
    language_model = LanguageModel(config, model, tokenizer, folder)
    pad_id = tokenizer.pad_id

    def validate(_: nn.Module) -> dict[str, float]:
        score = language_model.score(valid)
        if n := config.validation.samples:
            length = config.validation.sample_length
            options = replace(config.sampling, n_samples=n, max_length=length, min_length=0)
            for text in language_model.sample([""], options)[0]:
                report.note(f"  {text}")
        return {"loss": score.loss, "perplexity": score.perplexity, "bits_per_character": score.bits_per_character}

    if config.data.lines:
        batches = _line_batches(language_model, train, report)

        def line_loss(module: nn.Module, batch: Batch) -> tuple[Tensor, int]:
            hidden, _ = module(batch.target_in, model.initial_state(len(batch)))
            return model.loss(hidden, batch.target_out, pad_id=pad_id), batch.n_tokens

        return Trainer(
            model, batches, line_loss, training, folder, validate=validate, report=report
        ).run(resume=resume)  # fmt: skip

    ids = np.array([token for line in train for token in language_model.encode(line)], np.int64)
    report.note(f"train: {len(ids):,} tokens in {len(train):,} lines")
    n_streams = max(1, training.batch_tokens // config.data.window)
    windows = StreamBatches(ids, n_streams=n_streams, window=config.data.window, seed=training.seed)
    carried: dict[str, Tensor] = {}

    def window_loss(module: nn.Module, window: Window) -> tuple[Tensor, int]:
        state = carried.get("state")
        if state is not None and window.first:
            state.zero_()
        # A copy, since backward reads it after it has moved on.
        hidden, last = module(window.tokens, None if state is None else state.clone())
        if state is not None:
            state.copy_(last.detach())
        return model.loss(hidden, window.targets, pad_id=pad_id), window.targets.numel()

    trainer = Trainer(
        model, windows, window_loss, training, folder, validate=validate, report=report, carried=carried
    )  # fmt: skip
    if (first := model.initial_state(n_streams)) is not None:  # on the trainer's device now
        carried["state"] = first
    return trainer.run(resume=resume)


def _line_batches(language_model: LanguageModel, lines: list[str], report: Reporter) -> TokenBatches:
    """Each line as a text; empty ones and those longer than `data.window` are left out, and how many is told."""
    config, tokenizer = language_model.config, language_model.tokenizer
    encoded = [tokenizer.encode(line) for line in lines]
    kept: list[tuple[list[int], list[int]]] = [([], ids) for ids in encoded if 0 < len(ids) < config.data.window]
    if len(kept) < len(encoded):
        report.note(f"left out {len(encoded) - len(kept):,} of {len(encoded):,} lines: empty, or longer than "
                    f"{config.data.window} tokens")  # fmt: skip
    if not kept:
        raise InputError("data: `train` must have a usable line, got none")
    return TokenBatches(
        kept, batch_tokens=config.training.batch_tokens, seed=config.training.seed, pad_id=tokenizer.pad_id,
        bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id,
    )  # fmt: skip
