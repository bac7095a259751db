import math
from pathlib import Path

import pytest
import torch

from seqkit.errors import InputError
from seqkit.tasks.lexicon import Lexicon
from seqkit.tasks.text_classifier import ClassificationConfig, LabelledText, TextClassifier, read_labelled


def made(seed: int = 0, classes: tuple[str, ...] = ("for", "against"), words: str = "split") -> TextClassifier:
    torch.manual_seed(seed)
    tables = {"data": {"train": ["a"], "valid": ["a"], "words": words}, "model": {"hidden_dim": 8, "embedding_dim": 8}}
    config = ClassificationConfig.from_tables(tables, where="c")
    lexicon = Lexicon.build([["good", "bad"]], [list(classes)], None, lowercase=True, min_count=1)
    return TextClassifier.new(config, lexicon, Path("run"))


def test_answers_do_not_depend_on_the_batch() -> None:
    classifier = made()
    lines = ["good", "", "bad bad good", "\x00 \u2028", "good " * 10_000]
    together = classifier.classify(lines)
    for line, answer in zip(lines, together, strict=True):
        (alone,) = classifier.classify([line])
        assert alone.label == answer.label
        assert alone.probabilities == pytest.approx(answer.probabilities, abs=1e-5)
        assert sum(answer.probabilities.values()) == pytest.approx(1.0)
    assert classifier.classify([]) == []


def test_an_ensemble_answers_with_the_mean() -> None:
    first, second = made(0), made(1)
    expected = [
        (a.probabilities["for"] + b.probabilities["for"]) / 2
        for a, b in zip(first.classify(["good", "bad"]), second.classify(["good", "bad"]), strict=True)
    ]
    first.add_to_ensemble(second)
    assert [answer.probabilities["for"] for answer in first.classify(["good", "bad"])] == pytest.approx(expected)
    with pytest.raises(InputError, match="must know the classes for, against to join an ensemble, got a, b"):
        first.add_to_ensemble(made(classes=("a", "b")))


def test_the_figures_are_those_of_the_probabilities() -> None:
    classifier = made()
    examples = [LabelledText("for", "good"), LabelledText("against", "good"), LabelledText("new", "bad")]
    found, nats = classifier.evaluate(examples)
    assert (found.right, found.total) == (1, 3)
    chances = classifier.classify(["good"])[0].probabilities
    assert nats == pytest.approx(-(math.log(chances["for"]) + math.log(chances["against"])) / 2, rel=1e-5)
    with pytest.raises(InputError, match="at least one text, got none"):
        classifier.evaluate([])


def test_words_are_split_as_the_config_says() -> None:
    assert made().split('Well, "yes".') == ["Well", ",", '"', "yes", '"', "."]
    assert made(words="spaces").split('Well, "yes".') == ["Well,", '"yes".']
    assert len(made().split("a " * 600)) == 500


def test_files_of_classes_and_texts_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("for\tgood\tfilm\nagainst\t\n")
    assert read_labelled([str(tmp_path / "a")]) == [LabelledText("for", "good\tfilm"), LabelledText("against", "")]
    for content in ("good film\n", "\tgood\n"):
        (tmp_path / "a").write_text(content)
        with pytest.raises(InputError, match="a:1: line must have a class, a tab and a text"):
            read_labelled([str(tmp_path / "a")])
