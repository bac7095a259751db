"""Training a translation model: from a config to a run folder.

A run folder holds `config.toml` (resolved), the tokenizers (`tokenizer.*` where both sides share one, else `source.*`
and `target.*`), and what `seqkit.training.loop` writes.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqkit.analysis.bleu import bleu
from seqkit.config import resolve_path
from seqkit.errors import InputError
from seqkit.nn.losses import cross_entropy
from seqkit.tasks.run_folder import check_folder, make_folder, save_config, write_tokenizers
from seqkit.tasks.translation_config import DataConfig, TranslationConfig, ValidationConfig, build_model
from seqkit.tasks.translator import Translator, load_tokenizers
from seqkit.text.batch import Batch, TokenBatches
from seqkit.text.corpus import ParallelCorpus
from seqkit.text.tokenizer import SentencePieceTokenizer
from seqkit.training.loop import Outcome, Reporter, Trainer


def train_translation(
    tables: dict[str, Any], folder: Path, *, where: str, base: Path, resume: bool, report: Reporter
) -> Outcome:
    """Trains a translation model as TOML tables say, in a run folder.

    Args:
        where: what to call the config in an error.
        base: the folder that relative data paths start at.
        resume: go on where the folder's last checkpoint stands.

    Raises:
        InputError: the config or the data is wrong, or the folder holds a run that is not to be resumed.
    """
    config = TranslationConfig.from_tables(tables, where=where)
    config = replace(config, data=_resolved(config.data, base))
    check_folder(config.to_tables(), folder, resume=resume)
    train = _read_pairs(config.data.train, name="train", report=report)
    valid = _read_pairs(config.data.valid, name="valid", report=report)

    make_folder(folder)
    sides = {"source": [source for source, _ in train], "target": [target for _, target in train]}
    if config.tokenizer.shared:
        sides = {"tokenizer": sides["source"] + sides["target"]}
    write_tokenizers(config.tokenizer, sides, folder, report, keep=resume)
    source, target = load_tokenizers(folder, config.tokenizer.shared)
    save_config(config.to_tables(), folder)
    training = config.training
    torch.manual_seed(training.seed)
    model = build_model(config.model, source, target)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    report.note(f"{type(model).__name__}: {n_parameters:,} parameters, {source.vocab_size:,} source and "
                f"{target.vocab_size:,} target tokens")  # fmt: skip

    translator = Translator(config, model, source, target, folder)
    batches = _training_batches(config, train, translator, report)

    def loss(module: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        logits = module(batch.source, batch.source_lengths, batch.target_in)
        total = cross_entropy(logits, batch.target_out, pad_id=target.pad_id, label_smoothing=training.label_smoothing)
        return total, batch.n_tokens

    def validate(_: nn.Module) -> dict[str, float]:
        return _figures(translator, valid, config.validation)

    trainer = Trainer(model, batches, loss, training, folder, validate=validate, report=report)
    return trainer.run(resume=resume)


def _figures(translator: Translator, pairs: list[tuple[str, str]], config: ValidationConfig) -> dict[str, float]:
    """Loss in nats a token, perplexity, and BLEU where it is asked for."""
    scores = translator.score(pairs)
    mean = -sum(map(math.fsum, scores)) / sum(map(len, scores))
    figures = {"loss": mean, "perplexity": math.exp(min(mean, 700.0))}
    if config.bleu:
        options = replace(
            translator.search, beam_size=config.beam_size, n_best=1, return_attention=False, diverse_groups=1
        )
        outputs = translator.translate([source for source, _ in pairs], options)
        figures["bleu"] = bleu([output.texts[0] for output in outputs], [[target for _, target in pairs]]).value
    return figures


def _training_batches(
    config: TranslationConfig, pairs: list[tuple[str, str]], translator: Translator, report: Reporter
) -> TokenBatches:
    """The training pairs as batches; pairs with an empty or too long side are left out, and how many is told."""
    encoded = [(translator.encode(source), translator.target.encode(target)) for source, target in pairs]
    longest = min(config.data.max_length, translator.max_positions)
    kept = [
        index for index, (source, target) in enumerate(encoded)
        if len(translator.framed([])) < len(source) <= longest and 0 < len(target) < longest
    ]  # fmt: skip
    if len(kept) < len(pairs):
        report.note(f"left out {len(pairs) - len(kept):,} of {len(pairs):,} training pairs: a side is empty or longer "
                    f"than {longest} tokens")  # fmt: skip
    if not kept:
        raise InputError("data: `train` must have a usable pair, got none")
    training, alpha = config.training, config.tokenizer.sampling
    sampled = None
    if alpha:
        source, target = translator.source, translator.target
        assert isinstance(source, SentencePieceTokenizer)
        assert isinstance(target, SentencePieceTokenizer)

        def sampled(epoch: int, index: int) -> tuple[list[int], list[int]]:
            text = pairs[kept[index]]
            seed = (training.seed * 1_000_003 + epoch) * 1_000_003 + index
            drawn = (
                translator.framed(source.encode_sampled(text[0], alpha=alpha, seed=2 * seed)),
                target.encode_sampled(text[1], alpha=alpha, seed=2 * seed + 1),
            )
            return drawn if max(len(drawn[0]), len(drawn[1]) + 1) <= longest else encoded[kept[index]]

    tokenizer = translator.target
    return TokenBatches(
        [encoded[index] for index in kept], batch_tokens=training.batch_tokens, seed=training.seed, encode=sampled,
        pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id,
    )  # fmt: skip


def _resolved(data: DataConfig, base: Path) -> DataConfig:
    for name in ("train", "valid"):
        if len(getattr(data, name)) not in (1, 2):
            raise InputError(
                f"data: `{name}` must be a source and a target file, or one .tsv, got {len(getattr(data, name))} paths"
            )
    return replace(
        data,
        train=[os.path.abspath(resolve_path(path, base)) for path in data.train],
        valid=[os.path.abspath(resolve_path(path, base)) for path in data.valid],
    )


def _read_pairs(paths: list[str], *, name: str, report: Reporter) -> list[tuple[str, str]]:
    pairs = list(ParallelCorpus(paths[0], paths[1] if len(paths) == 2 else None))
    if not pairs:
        raise InputError(f"{paths[0]}: `{name}` must have at least one pair, got none")
    report.note(f"{name}: {len(pairs):,} pairs")
    return pairs
