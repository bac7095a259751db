"""A trained tagger with its lexicon: labels for the words of sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from seqkit.analysis.accuracy import Accuracy, accuracy
from seqkit.analysis.spans import SpanScore, is_spans, span_score
from seqkit.config import option
from seqkit.errors import InputError
from seqkit.models.tagger import Tagger, TaggerConfig
from seqkit.nn.label_chain import MISSING
from seqkit.tasks.lexicon import Lexicon
from seqkit.tasks.run_folder import (
    Families,
    check_device,
    load_weights,
    read_tables,
    saved_tables,
    saved_weights,
    write_tables,
)
from seqkit.text import columns
from seqkit.text.batch import length_batches, pad
from seqkit.text.columns import TaggedSentence
from seqkit.training.loop import TrainingConfig

TASK = "tagging"
MODELS: Families = {"tagger": (TaggerConfig, Tagger)}


@dataclass(frozen=True, kw_only=True)
class TaggingDataConfig:
    """Where the sentences are. A path may hold $VARIABLES; a relative one starts at the config file."""

    train: list[str] = field(metadata={"help": "files of words and labels in columns; .gz and .xz are read too"})
    valid: list[str] = field(metadata={"help": "the same, for validation"})
    vectors: str = option("", "file of word vectors that the table starts from; none without it")
    vector_spread: float = option(0.0, "standard deviation that their numbers are scaled to; 0 leaves them as they are")
    lowercase: bool = option(True, "words lose their case (their spelling keeps it)")
    min_count: int = option(1, "rarer words are unknown")
    max_length: int = option(500, "longer sentences are left out of the training data")

    def __post_init__(self) -> None:
        for name in ("min_count", "max_length"):
            if getattr(self, name) < 1:
                raise InputError(f"data: `{name}` must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.vector_spread < float("inf"):
            raise InputError(f"data: `vector_spread` must be 0 or more, got {self.vector_spread}")


@dataclass(frozen=True, kw_only=True)
class TaggingConfig:
    """Everything a tagger's run is made from: one table a part."""

    data: TaggingDataConfig
    model: TaggerConfig
    training: TrainingConfig

    @classmethod
    def from_tables(cls, tables: dict[str, Any], *, where: str) -> TaggingConfig:
        """The config of TOML tables.

        Raises:
            InputError: an unknown table or key, or a wrong value.
        """
        tables = {"model": {}, **tables}
        if isinstance(tables["model"], dict):
            tables["model"] = {"kind": "tagger", **tables["model"]}
        parts: dict[str, type] = {"data": TaggingDataConfig, "training": TrainingConfig}
        values = read_tables(tables, task=TASK, parts=parts, models=MODELS, where=where)
        training: TrainingConfig = values["training"]
        if training.metric not in ("loss", "accuracy", "f1"):
            raise InputError(
                f"{where} [training]: `metric` must be loss, accuracy or f1 for a tagger, got {training.metric}"
            )
        if training.label_smoothing and "label_smoothing" in tables.get("training", {}):
            raise InputError(
                f"{where} [training]: `label_smoothing` must be 0 for a tagger, got {training.label_smoothing}"
            )
        return cls(**values)

    def to_tables(self) -> dict[str, Any]:
        """TOML tables with every default written out."""
        tables = write_tables(self, task=TASK, names=("data", "model", "training"), models=MODELS)
        tables["training"]["label_smoothing"] = 0.0
        return tables


@dataclass(frozen=True, kw_only=True)
class TaggedWords:
    """A sentence's labels, one list a column, and how likely each is whatever its neighbours are."""

    words: list[str]
    labels: list[list[str]]
    probabilities: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class ColumnScore:
    """How well one column is labelled, where it has labels."""

    accuracy: Accuracy
    """of words"""
    spans: SpanScore | None
    """where the labels mark spans"""

    @property
    def figures(self) -> dict[str, float]:
        """By the names that `training.metric` chooses from."""
        return {"accuracy": self.accuracy.value} | ({"f1": self.spans.f1} if self.spans else {})


class WordTagger:
    """A model with its lexicon."""

    def __init__(self, config: TaggingConfig, model: Tagger, lexicon: Lexicon, folder: Path) -> None:
        self.config, self.model, self.lexicon, self.folder = config, model, lexicon, folder
        self._numbers = [{label: number for number, label in enumerate(column)} for column in lexicon.labels]

    @classmethod
    def new(cls, config: TaggingConfig, lexicon: Lexicon, folder: Path) -> WordTagger:
        """An untrained model."""
        model = Tagger(
            config.model, vocab_size=len(lexicon.words), n_trained=lexicon.n_trained,
            n_characters=len(lexicon.characters), n_labels=[len(column) for column in lexicon.labels],
        )  # fmt: skip
        return cls(config, model, lexicon, folder)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> WordTagger:
        """The model of a run folder.

        Raises:
            InputError: the folder is not one of a tagger's run, or a file in it is damaged.
        """
        folder = Path(folder)
        check_device(device)
        config = TaggingConfig.from_tables(saved_tables(folder), where=str(folder / "config.toml"))
        tagger = cls.new(config, Lexicon.load(folder, lowercase=config.data.lowercase), folder)
        load_weights(tagger.model, saved_weights(folder), where=str(folder / "model.safetensors"))
        tagger.model.to(device).eval()
        return tagger

    def label_ids(self, sentences: Sequence[TaggedSentence]) -> list[torch.Tensor]:
        """The labels of a batch as numbers, [B, T] a column; `MISSING` where there is none that is known."""
        found = []
        for column, numbers in enumerate(self._numbers):
            rows = [[numbers.get(label, MISSING) for label in sentence.labels[column]] for sentence in sentences]
            found.append(pad(rows, pad_id=MISSING)[0])
        return found

    def tag(self, lines: Sequence[str], *, batch_tokens: int = 4096) -> list[TaggedWords]:
        """The labels of each line's words, which white space separates."""
        return self.tag_words([line.split() for line in lines], batch_tokens=batch_tokens)

    @torch.no_grad()
    def tag_words(self, sentences: Sequence[Sequence[str]], *, batch_tokens: int = 4096) -> list[TaggedWords]:
        """The labels of each sentence's words."""
        self.model.eval()
        n_columns = len(self._numbers)
        empty = TaggedWords(words=[], labels=[[] for _ in range(n_columns)], probabilities=[[]] * n_columns)
        answers = [empty] * len(sentences)
        for places in self._batches(sentences, batch_tokens):
            words = self.lexicon.batch([sentences[place] for place in places]).to(self._device)
            emissions = self.model(words)
            best = self.model.decode(emissions, words.lengths)
            chances = self.model.probabilities(emissions, words.lengths)
            labels = [column.tolist() for column in best]
            sure = [
                p.gather(2, b.clamp(min=0)[:, :, None])[..., 0].tolist() for p, b in zip(chances, best, strict=True)
            ]
            for row, place in enumerate(places):
                n = len(sentences[place])
                answers[place] = TaggedWords(
                    words=list(sentences[place]),
                    labels=[
                        [names[number] for number in column[row][:n]]
                        for names, column in zip(self.lexicon.labels, labels, strict=True)
                    ],
                    probabilities=[column[row][:n] for column in sure],
                )
        return answers

    def evaluate(self, sentences: Sequence[TaggedSentence]) -> list[ColumnScore]:
        """How well each column is labelled; words whose label is missing do not count.

        Raises:
            InputError: the sentences have other columns than the model.
        """
        self.check(sentences, name="test set")
        answers = self.tag_words([sentence.words for sentence in sentences])
        scores = []
        for column, known in enumerate(self.lexicon.labels):
            mine, gold = [], []
            for answer, sentence in zip(answers, sentences, strict=True):
                there = [n for n, label in enumerate(sentence.labels[column]) if label != columns.MISSING]
                mine.append([answer.labels[column][n] for n in there])
                gold.append([sentence.labels[column][n] for n in there])
            flat = ([label for row in rows for label in row] for rows in (mine, gold))
            marked = is_spans(known)
            scores.append(ColumnScore(accuracy=accuracy(*flat), spans=span_score(mine, gold) if marked else None))
        return scores

    @torch.no_grad()
    def loss(self, sentences: Sequence[TaggedSentence]) -> float:
        """The negative log-likelihood in nats a label; labels that the model does not know are left out."""
        self.model.eval()
        total, count = 0.0, 0
        for places in self._batches([sentence.words for sentence in sentences], 4096):
            given = [sentences[place] for place in places]
            device = self._device
            words = self.lexicon.batch([sentence.words for sentence in given]).to(device)
            labels = [column.to(device) for column in self.label_ids(given)]
            loss, known = self.model.loss(self.model(words), labels, words.lengths)
            total, count = total + float(loss), count + known
        return total / max(count, 1)

    def check(self, sentences: Sequence[TaggedSentence], *, name: str) -> None:
        """Raises an error unless there is a sentence and all have the model's columns."""
        if not sentences:
            raise InputError(f"{name}: the data must have at least one sentence, got none")
        wanted, got = len(self.lexicon.labels), len(sentences[0].labels)
        if got != wanted:
            raise InputError(f"{name}: the data must have {wanted} columns of labels as the model has, got {got}")

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _batches(self, sentences: Sequence[Sequence[str]], batch_tokens: int) -> Iterator[list[int]]:
        """Places of sentences that have a word."""
        kept = [place for place, sentence in enumerate(sentences) if len(sentence)]
        if kept:
            for batch in length_batches([len(sentences[place]) for place in kept], batch_tokens=batch_tokens):
                yield [kept[n] for n in batch]
