"""A trained classifier with its lexicon: the class of each text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from seqkit.analysis.accuracy import Accuracy, accuracy
from seqkit.config import option
from seqkit.errors import InputError
from seqkit.models.classifier import Classifier, ClassifierConfig
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
from seqkit.text.batch import length_batches
from seqkit.text.corpus import LineCorpus
from seqkit.text.tokenizer import JOINER, split_words
from seqkit.training.loop import TrainingConfig

TASK = "classification"
MODELS: Families = {"classifier": (ClassifierConfig, Classifier)}


class LabelledText(NamedTuple):
    """A text and its class."""

    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ClassificationDataConfig:
    """Where the texts are. A path may hold $VARIABLES; a relative one starts at the config file."""

    train: list[str] = field(metadata={"help": "files of a class, a tab and a text a line; .gz and .xz are read too"})
    valid: list[str] = field(metadata={"help": "the same, for validation"})
    vectors: str = option("", "file of word vectors that the table starts from; none without it")
    vector_spread: float = option(0.0, "standard deviation that their numbers are scaled to; 0 leaves them as they are")
    words: str = option("split", "punctuation split off, or what spaces separate", choices=("split", "spaces"))
    lowercase: bool = option(True, "words lose their case (their spelling keeps it)")
    min_count: int = option(1, "rarer words are unknown")
    max_length: int = option(500, "words of a text that are read, at most")

    def __post_init__(self) -> None:
        for name in ("min_count", "max_length"):
            if getattr(self, name) < 1:
                raise InputError(f"data: `{name}` must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.vector_spread < float("inf"):
            raise InputError(f"data: `vector_spread` must be 0 or more, got {self.vector_spread}")


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig:
    """Everything a classifier's run is made from: one table a part."""

    data: ClassificationDataConfig
    model: ClassifierConfig
    training: TrainingConfig

    @classmethod
    def from_tables(cls, tables: dict[str, Any], *, where: str) -> ClassificationConfig:
        """The config of TOML tables.

        Raises:
            InputError: an unknown table or key, or a wrong value.
        """
        tables = {"model": {}, **tables}
        if isinstance(tables["model"], dict):
            tables["model"] = {"kind": "classifier", **tables["model"]}
        parts: dict[str, type] = {"data": ClassificationDataConfig, "training": TrainingConfig}
        values = read_tables(tables, task=TASK, parts=parts, models=MODELS, where=where)
        training: TrainingConfig = values["training"]
        if training.metric not in ("loss", "accuracy"):
            raise InputError(
                f"{where} [training]: `metric` must be loss or accuracy for a classifier, got {training.metric}"
            )
        if "label_smoothing" not in tables.get("training", {}):
            values["training"] = TrainingConfig(**{**vars(training), "label_smoothing": 0.0})
        return cls(**values)

    def to_tables(self) -> dict[str, Any]:
        """TOML tables with every default written out."""
        return write_tables(self, task=TASK, names=("data", "model", "training"), models=MODELS)


class Classified(NamedTuple):
    """A text's class, and how likely each class is."""

    label: str
    probabilities: dict[str, float]


class TextClassifier:
    """A model with its lexicon; several models that know the same classes can answer together."""

    def __init__(self, config: ClassificationConfig, model: Classifier, lexicon: Lexicon, folder: Path) -> None:
        self.config, self.model, self.lexicon, self.folder = config, model, lexicon, folder
        self.classes = lexicon.labels[0]
        self.others: list[TextClassifier] = []

    @classmethod
    def new(cls, config: ClassificationConfig, lexicon: Lexicon, folder: Path) -> TextClassifier:
        """An untrained model."""
        model = Classifier(
            config.model, vocab_size=len(lexicon.words), n_trained=lexicon.n_trained,
            n_characters=len(lexicon.characters), n_classes=len(lexicon.labels[0]),
        )  # fmt: skip
        return cls(config, model, lexicon, folder)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> TextClassifier:
        """The model of a run folder.

        Raises:
            InputError: the folder is not one of a classifier's run, or a file in it is damaged.
        """
        folder = Path(folder)
        check_device(device)
        config = ClassificationConfig.from_tables(saved_tables(folder), where=str(folder / "config.toml"))
        classifier = cls.new(config, Lexicon.load(folder, lowercase=config.data.lowercase), folder)
        load_weights(classifier.model, saved_weights(folder), where=str(folder / "model.safetensors"))
        classifier.model.to(device).eval()
        return classifier

    def add_to_ensemble(self, other: TextClassifier) -> None:
        """Makes another model's probabilities count as much as this one's.

        Raises:
            InputError: it knows other classes.
        """
        if other.classes != self.classes:
            raise InputError(
                f"{other.folder}: the model must know the classes {', '.join(self.classes)} to join an ensemble, "
                f"got {', '.join(other.classes)}"
            )
        self.others.append(other)

    def split(self, text: str) -> list[str]:
        """The words that the model reads."""
        words = text.split() if self.config.data.words == "spaces" else split_words(text)
        if self.config.data.words == "split":
            words = [word.strip(JOINER) for word in words]
        return words[: self.config.data.max_length]

    def classify(self, lines: Sequence[str], *, batch_tokens: int = 4096) -> list[Classified]:
        """The class of each text, which may be empty."""
        chances = self._probabilities(lines, batch_tokens)
        for other in self.others:
            chances += other._probabilities(lines, batch_tokens)
        chances /= 1 + len(self.others)
        best = chances.argmax(1).tolist()
        return [
            Classified(self.classes[at], dict(zip(self.classes, row, strict=True)))
            for at, row in zip(best, chances.tolist(), strict=True)
        ]

    def evaluate(self, examples: Sequence[LabelledText]) -> tuple[Accuracy, float]:
        """The share of right classes, and the negative log-likelihood in nats a text (a class unknown here left out).

        Raises:
            InputError: there is no example.
        """
        if not examples:
            raise InputError("test set: the data must have at least one text, got none")
        answers = self.classify([example.text for example in examples])
        found = accuracy([answer.label for answer in answers], [example.label for example in examples])
        known = [
            answer.probabilities[example.label]
            for answer, example in zip(answers, examples, strict=True)
            if example.label in answer.probabilities
        ]
        logp = torch.tensor(known, dtype=torch.float64).clamp(min=1e-30).log()
        return found, -float(logp.mean()) if known else 0.0

    @torch.no_grad()
    def _probabilities(self, lines: Sequence[str], batch_tokens: int) -> torch.Tensor:
        """Of each class for each text, [N, C] in float64 on the CPU."""
        self.model.eval()
        sentences = [self.split(line) for line in lines]
        found = torch.zeros(len(lines), len(self.classes), dtype=torch.float64)
        if sentences:
            for places in length_batches([max(len(s), 1) for s in sentences], batch_tokens=batch_tokens):
                words = self.lexicon.batch([sentences[place] for place in places])
                found[places] = self.model(words.to(self.model.out.weight.device)).double().softmax(1).cpu()
        return found


def read_labelled(paths: Sequence[str]) -> list[LabelledText]:
    """The texts of files with a class, a tab and a text a line.

    Raises:
        InputError: a file cannot be read, a line has no tab or no class; names the line.
    """
    found = []
    for where, line in LineCorpus(list(paths)).located():
        label, tab, text = line.partition("\t")
        if not tab or not label.strip():
            raise InputError(f"{where}: line must have a class, a tab and a text, got {line[:60]!r}")
        found.append(LabelledText(label.strip(), text))
    return found
