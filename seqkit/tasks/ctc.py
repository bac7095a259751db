"""Training a CTC model: from a config and recordings to a run folder.

A run folder holds `config.toml` (resolved), `tokenizer.*`, and what `seqkit.training.loop` writes. Recordings are read
when a batch is made, so that memory does not grow with the data. How one is varied is a function of the seed, the epoch
and its place in the data: a run that goes on hears what it would have heard.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqkit.audio.augment import masked, varied
from seqkit.audio.wave import audio_seconds, read_audio
from seqkit.errors import InputError
from seqkit.tasks.ctc_config import TranscriptionConfig
from seqkit.tasks.run_folder import check_folder, make_folder, save_config, write_tokenizers
from seqkit.tasks.transcriber import Recording, Transcriber, read_manifest
from seqkit.text.batch import Batch, TokenBatches, pad
from seqkit.text.tokenizer import load_tokenizer
from seqkit.training.loop import Outcome, Reporter, Trainer

BUCKET = 32  # frames by which the recordings of a batch may differ, more or less


def train_ctc(
    tables: dict[str, Any], folder: Path, *, where: str, base: Path, resume: bool, report: Reporter
) -> Outcome:
    """Trains a CTC model as TOML tables say, in a run folder.

    Args:
        where: what to call the config in an error.
        base: the folder that relative data paths start at.
        resume: go on where the folder's last checkpoint stands.

    Raises:
        InputError: the config or the data is wrong, or the folder holds a run that is not to be resumed.
    """
    config = TranscriptionConfig.from_tables(tables, where=where).with_paths(base)
    check_folder(config.to_tables(), folder, resume=resume)
    train, valid = read_manifest(config.data.train), read_manifest(config.data.valid)
    if not valid:
        raise InputError("data: `valid` must have a recording, got none")
    rate = config.features.rate
    noises = [read_audio(path, rate=rate) for path in config.augment.noise]
    make_folder(folder)
    texts = [recording.text for recording in train]
    write_tokenizers(config.tokenizer, {"tokenizer": texts}, folder, report, keep=resume)
    tokenizer = load_tokenizer(folder / "tokenizer")
    save_config(config.to_tables(), folder)
    training = config.training
    torch.manual_seed(training.seed)
    transcriber = Transcriber.new(config, tokenizer, folder)
    train, targets, frames = _usable(transcriber, train, report)
    n_parameters = sum(parameter.numel() for parameter in transcriber.model.parameters())
    seconds = sum(frames) * transcriber.features.hop_length / rate
    report.note(
        f"CTCModel: {n_parameters:,} parameters, {len(train):,} recordings of {seconds / 60:.1f} minutes, "
        f"{tokenizer.vocab_size:,} labels"
    )

    def heard(epoch: int, index: int) -> Tensor:
        """The frames of a recording as it is varied in an epoch."""
        random = np.random.default_rng([training.seed, epoch, index])
        samples = varied(read_audio(train[index].path, rate=rate), config.augment, noises, random)
        return masked(transcriber.frames(samples), config.augment, random)

    def loss(module: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        epochs = batch.source[:, 0].tolist()
        rows = [heard(epoch, index) for epoch, index in zip(epochs, batch.indices.tolist(), strict=True)]
        features = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        labels, counts = pad([targets[index] for index in batch.indices.tolist()], pad_id=tokenizer.pad_id)
        given = (part.to(batch.source.device) for part in (features, lengths, labels, counts))
        return transcriber.model.loss(*given).sum(), max(1, int(counts.sum()))

    def validate(_: nn.Module) -> dict[str, float]:
        score = transcriber.evaluate(valid)
        return {"loss": score.loss, "error_rate": score.labels.value}

    # A batch tells which recordings and which epoch; the frames, which are counted here, are made in the loss.
    batches = TokenBatches(
        [(range(n), range(0)) for n in frames], batch_tokens=training.batch_tokens, seed=training.seed, bucket=BUCKET,
        pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id,
        encode=lambda epoch, _: ([epoch], []),
    )  # fmt: skip
    return Trainer(
        transcriber.model, batches, loss, training, folder, validate=validate, report=report
    ).run(resume=resume)  # fmt: skip


def _usable(
    transcriber: Transcriber, recordings: list[Recording], report: Reporter
) -> tuple[list[Recording], list[list[int]], list[int]]:
    """The recordings that are not too long and have a frame for each label, their labels, and how many frames."""
    config = transcriber.config
    kept, targets, frames, too_long, too_short = [], [], [], 0, 0
    for recording in recordings:
        seconds = audio_seconds(recording.path)
        labels = transcriber.tokenizer.encode(recording.text)
        n = int(transcriber.features.n_frames(torch.tensor(int(seconds * config.features.rate))))
        needed = len(labels) + sum(a == b for a, b in pairwise(labels))
        if seconds > config.data.longest:
            too_long += 1
        elif int(transcriber.model.n_frames(torch.tensor(n))) < max(1, needed):
            too_short += 1
        else:
            kept.append(recording)
            targets.append(labels)
            frames.append(n)
    if too_long or too_short:
        report.note(
            f"left out {too_long + too_short:,} of {len(recordings):,} recordings: {too_long:,} longer than "
            f"{config.data.longest:g} s, {too_short:,} with fewer frames than labels"
        )
    if not kept:
        raise InputError("data: `train` must have a usable recording, got none")
    return kept, targets, frames
