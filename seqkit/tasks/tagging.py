"""Training a tagger: from a config to a run folder.

A run folder holds `config.toml` (resolved), the files of `seqkit.tasks.lexicon`, and what `seqkit.training.loop`
writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqkit.errors import InputError
from seqkit.tasks.lexicon import Lexicon, label_lists, with_vectors
from seqkit.tasks.run_folder import check_folder, make_folder, save_config
from seqkit.tasks.word_tagger import TaggingConfig, WordTagger
from seqkit.text import columns
from seqkit.text.batch import Batch, TokenBatches
from seqkit.text.columns import TaggedSentence, read_columns
from seqkit.text.vocab import Vocab
from seqkit.training.loop import Outcome, Reporter, Trainer


def train_tagger(
    tables: dict[str, Any], folder: Path, *, where: str, base: Path, resume: bool, report: Reporter
) -> Outcome:
    """Trains a tagger as TOML tables say, in a run folder.

    Args:
        where: what to call the config in an error.
        base: the folder that relative data paths start at.
        resume: go on where the folder's last checkpoint stands.

    Raises:
        InputError: the config or the data is wrong, or the folder holds a run that is not to be resumed.
    """
    config, vectors = with_vectors(TaggingConfig.from_tables(tables, where=where), base)
    check_folder(config.to_tables(), folder, resume=resume)
    train, valid = _training_sentences(config, report), read_columns(config.data.valid)
    make_folder(folder)
    if resume and (folder / "config.toml").exists():
        lexicon = Lexicon.load(folder, lowercase=config.data.lowercase)
    else:
        by_column = zip(*(sentence.labels for sentence in train), strict=True)
        labels = label_lists(([label for row in rows for label in row] for rows in by_column), missing=columns.MISSING)
        lexicon = Lexicon.build(
            [sentence.words for sentence in train], labels, vectors, lowercase=config.data.lowercase,
            min_count=config.data.min_count,
        )  # fmt: skip
        lexicon.save(folder)
    save_config(config.to_tables(), folder)
    torch.manual_seed(config.training.seed)
    tagger = WordTagger.new(config, lexicon, folder)
    tagger.check(valid, name="data: `valid`")
    has_f1 = "f1" in tagger.evaluate(valid[:1])[0].figures
    if config.training.metric == "f1" and not has_f1:
        raise InputError(f"{where} [training]: `metric` must be loss or accuracy where labels mark no spans, got f1")
    if vectors is not None:
        n_known = lexicon.put_vectors(vectors, tagger.model.features, spread=config.data.vector_spread)
        report.note(f"{n_known:,} of {lexicon.n_trained:,} words of the training data have a vector")
    n_parameters = sum(parameter.numel() for parameter in tagger.model.parameters())
    sizes = ", ".join(str(len(column)) for column in lexicon.labels)
    report.note(f"Tagger: {n_parameters:,} parameters, {len(train):,} sentences, {sizes} labels")

    def loss(module: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        sentences = [train[place] for place in batch.indices.tolist()]
        device = batch.source.device
        words = lexicon.batch([sentence.words for sentence in sentences]).to(device)
        labels = [column.to(device) for column in tagger.label_ids(sentences)]
        emissions = module(words)
        total, count = tagger.model.loss(emissions, labels, words.lengths)
        if not count:  # a batch without a label: a gradient of zero
            return emissions[0].sum() * 0.0, 1
        return total, count

    def validate(_: nn.Module) -> dict[str, float]:
        figures = {"loss": tagger.loss(valid)}
        for column, score in enumerate(tagger.evaluate(valid), 1):
            suffix = "" if column == 1 else f"_{column}"
            figures |= {f"{name}{suffix}": value for name, value in score.figures.items()}
        return figures

    pairs: list[tuple[list[int], list[int]]] = [(lexicon.words.encode(sentence.words), []) for sentence in train]
    batches = TokenBatches(
        pairs, batch_tokens=config.training.batch_tokens, seed=config.training.seed, pad_id=Vocab.pad_id,
        bos_id=Vocab.bos_id, eos_id=Vocab.eos_id,
    )  # fmt: skip
    return Trainer(
        tagger.model, batches, loss, config.training, folder, validate=validate, report=report
    ).run(resume=resume)  # fmt: skip


def _training_sentences(config: TaggingConfig, report: Reporter) -> list[TaggedSentence]:
    """Those that are not too long; how many are is told."""
    sentences = read_columns(config.data.train)
    kept = [sentence for sentence in sentences if len(sentence.words) <= config.data.max_length]
    if len(kept) < len(sentences):
        report.note(f"left out {len(sentences) - len(kept):,} of {len(sentences):,} sentences: longer than "
                    f"{config.data.max_length} words")  # fmt: skip
    if not kept:
        raise InputError("data: `train` must have a usable sentence, got none")
    return kept
