"""What a tagger or a classifier knows of words: their numbers, their characters' numbers, and its labels.

Words of the training data come first; those that only a file of vectors has follow, with a count of 0, so that a word
of the test data which has a vector is no unknown word. In a run folder: `words.vocab`, `characters.vocab`,
`labels.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from seqkit.atomic import write_atomically
from seqkit.config import resolve_path
from seqkit.embeddings import WordVectors
from seqkit.errors import InputError
from seqkit.nn.word_features import WordFeatures, Words
from seqkit.text.batch import pad
from seqkit.text.vocab import SPECIALS, Vocab

LETTERS = 24  # characters of a word that are spelled


@dataclass(frozen=True)
class Lexicon:
    """Words and characters by number; with `lowercase` the words are, and the characters keep their case."""

    words: Vocab
    characters: Vocab
    labels: list[list[str]]
    """of each column"""
    lowercase: bool

    @classmethod
    def build(
        cls, sentences: Sequence[Sequence[str]], labels: list[list[str]], vectors: WordVectors | None, *,
        lowercase: bool, min_count: int,
    ) -> Lexicon:  # fmt: skip
        """The words of the training data that come `min_count` times, then those that have a vector."""
        trained = Vocab.build((_cased(sentence, lowercase) for sentence in sentences), min_count=min_count)
        words, counts = list(trained.tokens[len(SPECIALS) :]), list(trained.counts[len(SPECIALS) :])
        if vectors is not None:
            others = dict.fromkeys(_cased(vectors.words, lowercase))
            words += [word for word in others if word not in trained]
            counts += [0] * (len(words) - len(counts))
        characters = Vocab.build(word for sentence in sentences for word in sentence)
        return cls(Vocab(words, counts), characters, labels, lowercase)

    @property
    def n_trained(self) -> int:
        """How many of the words, specials included, have a row that is trained."""
        return len(SPECIALS) + sum(count > 0 for count in self.words.counts)

    def save(self, folder: Path) -> None:
        self.words.save(folder / "words.vocab")
        self.characters.save(folder / "characters.vocab")
        write_atomically(folder / "labels.json", json.dumps(self.labels, ensure_ascii=False).encode())

    @classmethod
    def load(cls, folder: Path, *, lowercase: bool) -> Lexicon:
        """Reads what `save` wrote.

        Raises:
            InputError: a file is missing or damaged.
        """
        words, characters = Vocab.load(folder / "words.vocab"), Vocab.load(folder / "characters.vocab")
        path = folder / "labels.json"
        try:
            labels = json.loads(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path}: labels must be a file that can be read, got: {error.strerror}") from None
        except ValueError:
            labels = None
        if not isinstance(labels, list) or not labels or not all(
            isinstance(column, list) and column and all(isinstance(label, str) for label in column)
            for column in labels
        ):  # fmt: skip
            raise InputError(f"{path}: labels must be a JSON list of lists of strings, got another content")
        return cls(words, characters, labels, lowercase)

    def batch(self, sentences: Sequence[Sequence[str]]) -> Words:
        """Sentences as numbers."""
        ids, lengths = pad([self.words.encode(_cased(s, self.lowercase)) for s in sentences], pad_id=Vocab.pad_id)
        rows: dict[str, int] = {"": 0}  # padding is a word without letters
        spelled, _ = pad([[rows.setdefault(word, len(rows)) for word in s] for s in sentences], pad_id=0)
        spellings, _ = pad([self.characters.encode(word[:LETTERS]) for word in rows], pad_id=Vocab.pad_id)
        if not spellings.shape[1]:
            spellings = torch.zeros(len(rows), 1, dtype=torch.int64)
        return Words(ids, lengths, spelled, spellings)

    def put_vectors(self, vectors: WordVectors, features: WordFeatures, *, spread: float = 0.0) -> int:
        """Puts the vectors of a file in a model's table; gives how many words of the training data have one.

        Args:
            spread: the standard deviation that the numbers put in are scaled to; 0 leaves them as they are.
        """
        rows: dict[int, int] = {}
        for row, word in enumerate(_cased(vectors.words, self.lowercase)):
            (number,) = self.words.encode([word])
            if number != Vocab.unk_id:
                rows.setdefault(number, row)  # the more frequent of two spellings stands first
        if rows:
            matrix = torch.from_numpy(vectors.matrix[list(rows.values())])
            deviation = float(matrix.std(correction=0))
            if spread and deviation:
                matrix = matrix * (spread / deviation)
            features.set_rows(torch.tensor(list(rows)), matrix)
        n_trained = self.n_trained
        return sum(number < n_trained for number in rows)


def label_lists(columns: Iterable[Iterable[str]], *, missing: str) -> list[list[str]]:
    """The different labels of each column, sorted.

    Raises:
        InputError: a column has none.
    """
    found = [sorted(set(column) - {missing}) for column in columns]
    for number, labels in enumerate(found, 1):
        if not labels:
            raise InputError(f"data: `train` must have a label in column {number}, got none")
    return found


def with_vectors(config: Any, base: Path) -> tuple[Any, WordVectors | None]:
    """The config with full paths and the width of its file of vectors, and those vectors.

    Raises:
        InputError: the file cannot be read, or there is none where the model needs one.
    """
    data = config.data
    paths = {
        name: [os.path.abspath(resolve_path(path, base)) for path in getattr(data, name)] for name in ("train", "valid")
    }
    if not data.vectors and not config.model.train_vectors:
        raise InputError("model: `train_vectors` must be true where `data.vectors` names no file, got false")
    if not data.vectors:
        return replace(config, data=replace(data, **paths)), None
    path = os.path.abspath(resolve_path(data.vectors, base))
    vectors = WordVectors.load(path)
    model = replace(config.model, embedding_dim=vectors.dim)
    return replace(config, data=replace(data, **paths, vectors=path), model=model), vectors


def _cased(words: Iterable[str], lowercase: bool) -> list[str]:
    return [word.lower() for word in words] if lowercase else list(words)
