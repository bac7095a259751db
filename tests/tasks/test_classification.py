"""Training classifiers: they learn, resume bit for bit, and what is wrong is told."""

from pathlib import Path
from typing import Any

import pytest

import seqkit as package
from seqkit.errors import InputError
from seqkit.tasks import classification
from seqkit.tasks.classification import train_classifier
from seqkit.tasks.text_classifier import TextClassifier, read_labelled
from seqkit.training.loop import Outcome


class Notes:
    def progress(self, step: int, total: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...


def text() -> str:
    lines = []
    for subject in ("plot", "film", "end"):
        for good, bad in (("good", "bad"), ("warm", "cold"), ("clever", "dull")):
            lines += [f"for\tThe {subject} is {good}.", f"against\tthe {subject} is {bad}!"]
            lines += [f"against\tthe {subject} is not {good}", f"for\tthe {subject} is not {bad}"]
    return "\n".join(lines) + "\n"


def train(
    folder: Path, name: str, *, resume: bool = False, content: str | None = None, **changes: dict[str, Any]
) -> Outcome:
    (folder / "data.tsv").write_text(text() if content is None else content)
    tables: dict[str, Any] = {
        "task": "classification",
        "data": {"train": ["data.tsv"], "valid": ["data.tsv"]},
        "model": {"embedding_dim": 16, "hidden_dim": 16, "dropout": 0.1, "word_dropout": 0.0},
        "training": {
            "max_epochs": 10, "batch_tokens": 60, "learning_rate": 0.02, "warmup": 3, "checkpoint_every": 3,
            "schedule": "cosine", "metric": "accuracy",
        },
    }  # fmt: skip
    for section, values in changes.items():
        tables[section] = tables.get(section, {}) | values
    return train_classifier(tables, folder / name, where="c", base=folder, resume=resume, report=Notes())


def test_it_learns_what_a_not_turns_and_loads(tmp_path: Path) -> None:
    assert train(tmp_path, "run").best_value == 1.0
    classifier = package.load(tmp_path / "run")
    assert isinstance(classifier, TextClassifier)
    assert [answer.label for answer in classifier.classify(["the film is warm", "the film is not warm"])] == [
        "for", "against",
    ]  # fmt: skip
    found, nats = classifier.evaluate(read_labelled([str(tmp_path / "data.tsv")]))
    assert found.value == 1.0
    assert nats < 0.3


def test_the_mean_of_the_vectors_cannot_read_the_not(tmp_path: Path) -> None:
    outcome = train(tmp_path, "run", model={"encoder": "none", "pool": "mean"})
    assert outcome.best_value is not None
    assert 0.4 < outcome.best_value < 0.9


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"max_epochs": 3, "label_smoothing": 0.1}
    train(tmp_path, "whole", training=short)
    expected = (tmp_path / "whole/model.safetensors").read_bytes()
    real = classification.Trainer._update
    calls = 0

    def dying(self: Any, group: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise MemoryError
        return real(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(classification.Trainer, "_update", dying)
        with pytest.raises(MemoryError):
            train(tmp_path, "cut", training=short)
    train(tmp_path, "cut", resume=True, training=short)
    assert (tmp_path / "cut/model.safetensors").read_bytes() == expected


@pytest.mark.parametrize(
    ("changes", "content", "sentence"),
    [
        ({"training": {"metric": "f1"}}, None, "`metric` must be loss or accuracy for a classifier, got f1"),
        ({"model": {"pool": "last"}}, None, "pool"),
        ({"data": {"max_length": 0}}, None, "`max_length` must be at least 1, got 0"),
        ({}, "", "`train` must have at least one text, got none"),
        ({}, "good\n", "data.tsv:1: line must have a class, a tab and a text"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, changes: dict[str, dict[str, Any]], content: str | None, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        train(tmp_path, "run", content=content, **changes)
