"""Training a classifier of texts: from a config to a run folder.

A run folder holds `config.toml` (resolved), the files of `seqkit.tasks.lexicon`, and what `seqkit.training.loop`
writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.errors import InputError
from seqkit.tasks.lexicon import Lexicon, label_lists, with_vectors
from seqkit.tasks.run_folder import check_folder, make_folder, save_config
from seqkit.tasks.text_classifier import ClassificationConfig, TextClassifier, read_labelled
from seqkit.text.batch import Batch, TokenBatches
from seqkit.text.vocab import Vocab
from seqkit.training.loop import Outcome, Reporter, Trainer


def train_classifier(
    tables: dict[str, Any], folder: Path, *, where: str, base: Path, resume: bool, report: Reporter
) -> Outcome:
    """Trains a classifier as TOML tables say, in a run folder.

    Args:
        where: what to call the config in an error.
        base: the folder that relative data paths start at.
        resume: go on where the folder's last checkpoint stands.

    Raises:
        InputError: the config or the data is wrong, or the folder holds a run that is not to be resumed.
    """
    config, vectors = with_vectors(ClassificationConfig.from_tables(tables, where=where), base)
    check_folder(config.to_tables(), folder, resume=resume)
    train, valid = read_labelled(config.data.train), read_labelled(config.data.valid)
    for name, examples in (("train", train), ("valid", valid)):
        if not examples:
            raise InputError(f"data: `{name}` must have at least one text, got none")
    make_folder(folder)
    if resume and (folder / "config.toml").exists():
        lexicon = Lexicon.load(folder, lowercase=config.data.lowercase)
    else:
        labels = label_lists([[example.label for example in train]], missing="")
        none_yet = TextClassifier.new(config, Lexicon(Vocab([]), Vocab([]), labels, config.data.lowercase), folder)
        lexicon = Lexicon.build(
            [none_yet.split(example.text) for example in train], labels, vectors, lowercase=config.data.lowercase,
            min_count=config.data.min_count,
        )  # fmt: skip
        lexicon.save(folder)
    save_config(config.to_tables(), folder)
    training = config.training
    torch.manual_seed(training.seed)
    classifier = TextClassifier.new(config, lexicon, folder)
    if vectors is not None:
        n_known = lexicon.put_vectors(vectors, classifier.model.features, spread=config.data.vector_spread)
        report.note(f"{n_known:,} of {lexicon.n_trained:,} words of the training data have a vector")
    n_parameters = sum(parameter.numel() for parameter in classifier.model.parameters())
    report.note(f"Classifier: {n_parameters:,} parameters, {len(train):,} texts, {len(classifier.classes)} classes")
    sentences = [classifier.split(example.text) for example in train]
    numbers = {label: number for number, label in enumerate(classifier.classes)}
    wanted = torch.tensor([numbers[example.label] for example in train])

    def loss(module: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        words = lexicon.batch([sentences[place] for place in batch.indices.tolist()])
        logits = module(words.to(batch.source.device)).float()
        labels = wanted[batch.indices.cpu()].to(logits.device)
        total = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=training.label_smoothing)
        return total, len(labels)

    def validate(_: nn.Module) -> dict[str, float]:
        found, nats = classifier.evaluate(valid)
        return {"loss": nats, "accuracy": found.value}

    pairs: list[tuple[list[int], list[int]]] = [(lexicon.words.encode(words), []) for words in sentences]
    batches = TokenBatches(
        pairs, batch_tokens=training.batch_tokens, seed=training.seed, pad_id=Vocab.pad_id, bos_id=Vocab.bos_id,
        eos_id=Vocab.eos_id,
    )  # fmt: skip
    return Trainer(
        classifier.model, batches, loss, training, folder, validate=validate, report=report
    ).run(resume=resume)  # fmt: skip
