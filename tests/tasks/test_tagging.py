"""Training taggers: they learn, also from partly missing labels, resume bit for bit, and what is wrong is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seqkit as package
from seqkit.config import read_toml
from seqkit.embeddings import WordVectors
from seqkit.errors import InputError
from seqkit.tasks import tagging
from seqkit.tasks.tagging import train_tagger
from seqkit.tasks.text_classifier import ClassificationConfig
from seqkit.tasks.word_tagger import TaggingConfig, WordTagger
from seqkit.text.columns import read_columns
from seqkit.training.loop import Outcome


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def progress(self, step: int, total: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


PLACES, PEOPLE = ["Ulm", "Rome", "Bonn"], ["Ann", "Bob", "Eve"]


def text(*, second: bool = False, missing: bool = False) -> str:
    """Sentences with names; the second column says whether a word has a capital letter."""
    sentences = []
    for number in range(36):
        person, place = PEOPLE[number % 3], PLACES[number // 3 % 3]
        rows = [(person, "B-person"), ("lives", "O"), ("in", "O"), ("New", "B-place"), (place, "I-place")]
        lines = []
        for at, (word, label) in enumerate(rows):
            other = "upper" if word[0].isupper() else "lower"
            known = ["_", other] if missing and number % 3 == 0 else [label, "" if missing and at % 2 else other]
            lines.append("\t".join([word, *known][: 3 if second else 2]))
        sentences.append("\n".join(lines))
    return "\n\n".join(sentences) + "\n"


def train(
    folder: Path, name: str, *, resume: bool = False, content: str | None = None, **changes: dict[str, Any]
) -> tuple[Outcome, Notes]:
    (folder / "data.tsv").write_text(text() if content is None else content)
    tables: dict[str, Any] = {
        "task": "tagging",
        "data": {"train": ["data.tsv"], "valid": ["data.tsv"]},
        "model": {"embedding_dim": 12, "hidden_dim": 12, "character_filters": 6, "dropout": 0.1},
        "training": {
            "max_epochs": 6, "batch_tokens": 40, "learning_rate": 0.02, "warmup": 3, "checkpoint_every": 3,
            "schedule": "cosine", "metric": "f1",
        },
    }  # fmt: skip
    for section, values in changes.items():
        tables[section] = tables.get(section, {}) | values
    notes = Notes()
    return train_tagger(tables, folder / name, where="c", base=folder, resume=resume, report=notes), notes


@pytest.mark.parametrize("output", ["crf", "softmax"])
def test_it_learns_and_loads(tmp_path: Path, output: str) -> None:
    outcome, _ = train(tmp_path, "run", model={"output": output})
    assert outcome.best_value == 1.0
    tagger = package.load(tmp_path / "run")
    assert isinstance(tagger, WordTagger)
    answer = tagger.tag(["Bob lives in New Ulm", ""])
    assert answer[0].labels == [["B-person", "O", "O", "B-place", "I-place"]]
    assert all(0.5 < p <= 1.0 for p in answer[0].probabilities[0])
    assert answer[1].labels == [[]]


def test_two_columns_with_missing_labels_are_learnt_together(tmp_path: Path) -> None:
    train(tmp_path, "run", content=text(second=True, missing=True), training={"max_epochs": 10})
    tagger = package.load(tmp_path / "run")
    first, second = tagger.evaluate(read_columns([str(tmp_path / "data.tsv")]))
    assert first.spans is not None
    assert first.spans.f1 == 1.0
    assert first.accuracy.total == 24 * 5  # words without a label do not count
    assert second.spans is None
    assert second.accuracy.value == 1.0


def test_a_batch_without_labels_changes_nothing_but_its_count(tmp_path: Path) -> None:
    none = "a\t_\nb\t_\n\n" * 8 + "c\tB-x\n"
    outcome, _ = train(tmp_path, "run", content=none, training={"batch_tokens": 2, "max_epochs": 2, "metric": "loss"})
    assert outcome.reason == "finished"


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, "whole")
    expected = (tmp_path / "whole/model.safetensors").read_bytes()
    real = tagging.Trainer._update
    for killed_at in (2, 5, 9):
        calls = 0

        def dying(self: Any, group: Any, killed_at: int = killed_at) -> Any:
            nonlocal calls
            calls += 1
            if calls == killed_at:
                raise MemoryError
            return real(self, group)

        with monkeypatch.context() as patch:
            patch.setattr(tagging.Trainer, "_update", dying)
            with pytest.raises(MemoryError):
                train(tmp_path, f"cut-{killed_at}")
        train(tmp_path, f"cut-{killed_at}", resume=True)
        assert (tmp_path / f"cut-{killed_at}/model.safetensors").read_bytes() == expected


def test_vectors_are_taken_from_a_file(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    words = ["ann", "bob", "lives", "in", "paris"]
    rows = draw.normal(size=(5, 7)).astype(np.float32)
    WordVectors(words, rows).save(tmp_path / "v.safetensors")
    _, notes = train(
        tmp_path, "run", data={"vectors": "v.safetensors"}, model={"train_vectors": False}, training={"max_epochs": 1}
    )
    assert "4 of 13 words of the training data have a vector" in notes.notes
    tagger = package.load(tmp_path / "run")
    assert tagger.config.model.embedding_dim == 7
    np.testing.assert_array_equal(tagger.model.features.kept.numpy(), rows[4:])
    number = tagger.lexicon.words.id("bob")
    np.testing.assert_array_equal(tagger.model.features.trained[number].detach().numpy(), rows[1])


@pytest.mark.parametrize(
    ("changes", "content", "sentence"),
    [
        ({"training": {"metric": "bleu"}}, None, "`metric` must be loss, accuracy or f1 for a tagger, got bleu"),
        ({"training": {"label_smoothing": 0.1}}, None, "`label_smoothing` must be 0 for a tagger, got 0.1"),
        ({"model": {"outptu": "crf"}}, None, "output"),
        ({"model": {"kind": "crf"}}, None, "`kind` must be one of tagger, got 'crf'"),
        ({"model": {"train_vectors": False}}, None, "`train_vectors` must be true where `data.vectors` names no file"),
        ({"data": {"max_length": 1}}, None, "`train` must have a usable sentence, got none"),
        ({}, "", "`train` must have a usable sentence, got none"),
        ({}, "a\t_\n", "`train` must have a label in column 1, got none"),
        ({}, "a\tNOUN\n", "`metric` must be loss or accuracy where labels mark no spans, got f1"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, changes: dict[str, dict[str, Any]], content: str | None, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        train(tmp_path, "run", content=content, **changes)


def test_the_configs_of_the_examples_are_right() -> None:
    folder = Path(__file__).resolve().parents[2] / "examples"
    TaggingConfig.from_tables(read_toml(folder / "tagging/wnut17.toml"), where="wnut17")
    ClassificationConfig.from_tables(read_toml(folder / "classification/polarity.toml"), where="polarity")


def test_sentences_left_out_are_told(tmp_path: Path) -> None:
    _, notes = train(
        tmp_path, "run", content=text() + "\na\tO\n", data={"max_length": 3},
        training={"max_epochs": 1, "metric": "loss"},
    )  # fmt: skip
    assert "left out 36 of 37 sentences: longer than 3 words" in notes.notes
