from pathlib import Path

import pytest
import torch

from seqkit.errors import InputError
from seqkit.tasks.lexicon import Lexicon
from seqkit.tasks.word_tagger import TaggingConfig, WordTagger
from seqkit.text.columns import TaggedSentence

TABLES = {"data": {"train": ["a"], "valid": ["a"]}, "model": {"hidden_dim": 8, "embedding_dim": 8}}


def made(n_columns: int = 1) -> WordTagger:
    torch.manual_seed(0)
    config = TaggingConfig.from_tables(TABLES, where="c")
    labels = [["B-x", "I-x", "O"], ["a", "b"]][:n_columns]
    return WordTagger.new(config, Lexicon.build([["a", "b"]], labels, None, lowercase=True, min_count=1), Path("run"))


def test_answers_do_not_depend_on_the_batch() -> None:
    tagger = made(2)
    lines = ["a b c", "", "b", "a " * 30, "c \x00 \ufeff <pad>"]
    together = tagger.tag(lines)
    for line, answer in zip(lines, together, strict=True):
        (alone,) = tagger.tag([line], batch_tokens=1)
        assert alone.labels == answer.labels
        assert [len(column) for column in answer.labels] == [len(line.split())] * 2
        for mine, other in zip(alone.probabilities, answer.probabilities, strict=True):
            assert mine == pytest.approx(other, abs=1e-5)


def test_a_line_of_ten_thousand_words_is_labelled() -> None:
    (answer,) = made().tag(["word " * 10_000])
    assert len(answer.labels[0]) == 10_000


def test_nothing_gives_nothing() -> None:
    assert made().tag([]) == []


def test_labels_that_the_model_does_not_know_count_as_wrong() -> None:
    tagger = made()
    (score,) = tagger.evaluate([TaggedSentence(["a", "b"], [["B-new", "_"]])])
    assert score.accuracy.total == 1
    assert score.accuracy.right == 0
    assert score.spans is not None
    assert score.spans.there == 1
    assert tagger.loss([TaggedSentence(["a"], [["B-new"]])]) == 0.0


def test_another_number_of_columns_is_told() -> None:
    with pytest.raises(InputError, match="must have 2 columns of labels as the model has, got 1"):
        made(2).evaluate([TaggedSentence(["a"], [["O"]])])
    with pytest.raises(InputError, match="must have at least one sentence, got none"):
        made().evaluate([])
