from pathlib import Path

import numpy as np
import pytest
import torch

from seqkit.embeddings import WordVectors
from seqkit.errors import InputError
from seqkit.nn.word_features import WordFeatures
from seqkit.tasks.lexicon import Lexicon, label_lists

SENTENCES = [["The", "cat", "sat"], ["the", "dog", "<unk>"]]


def vectors() -> WordVectors:
    return WordVectors(["cat", "Bird", "bird", "<pad>"], np.arange(8, dtype=np.float32).reshape(4, 2))


def made(*, lowercase: bool = True, with_vectors: bool = True) -> Lexicon:
    given = vectors() if with_vectors else None
    return Lexicon.build(SENTENCES, [["O"]], given, lowercase=lowercase, min_count=1)


def test_trained_words_stand_before_those_that_have_a_vector_alone() -> None:
    lexicon = made()
    assert lexicon.words.tokens[4:] == ("the", "cat", "dog", "sat", "bird")
    assert lexicon.n_trained == 8
    assert made(lowercase=False).words.tokens[4:] == ("The", "cat", "dog", "sat", "the", "Bird", "bird")


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    lexicon = made()
    lexicon.save(tmp_path)
    assert Lexicon.load(tmp_path, lowercase=True) == lexicon


@pytest.mark.parametrize("content", ["{", "[]", "[[]]", '[["a", 1]]', '{"a": "b"}'])
def test_damaged_labels_are_told(tmp_path: Path, content: str) -> None:
    made().save(tmp_path)
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(InputError, match=r"labels.json: labels must be a JSON list of lists of strings"):
        Lexicon.load(tmp_path, lowercase=True)
    (tmp_path / "labels.json").unlink()
    with pytest.raises(InputError, match=r"labels must be a file that can be read"):
        Lexicon.load(tmp_path, lowercase=True)


def test_a_batch_spells_each_word_once_with_its_case() -> None:
    words = made().batch([["The", "the"], ["The"]])
    assert words.ids.tolist() == [[4, 4], [4, 0]]
    assert words.spelled.tolist() == [[1, 2], [1, 0]]
    assert words.spellings.shape == (3, 3)
    assert words.spellings[0].tolist() == [0, 0, 0]
    assert words.spellings[1, 0] != words.spellings[2, 0]


def test_strange_words_make_a_batch() -> None:
    words = made().batch([[], ["\x00", "x" * 10_000, "</s>", "\U0001f600"]])
    assert words.lengths.tolist() == [0, 4]
    assert words.ids[1].tolist() == [1, 1, 1, 1]
    assert words.spellings.shape == (5, 24)
    assert made().batch([[]]).spellings.shape == (1, 1)


def test_vectors_go_to_their_rows() -> None:
    lexicon = made()
    features = WordFeatures(9, 2, n_trained=8, n_characters=9, character_filters=0)
    assert lexicon.put_vectors(vectors(), features) == 1
    torch.testing.assert_close(features.trained[5].detach(), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(features.kept, torch.tensor([[2.0, 3.0]]))  # of two spellings the first


def test_vectors_are_scaled_to_a_standard_deviation() -> None:
    features = WordFeatures(9, 2, n_trained=8, n_characters=9, character_filters=0)
    made().put_vectors(vectors(), features, spread=10.0)
    scale = 10.0 / torch.tensor([0.0, 1.0, 2.0, 3.0]).std(correction=0)
    torch.testing.assert_close(features.trained[5].detach(), scale * torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(features.kept, scale * torch.tensor([[2.0, 3.0]]))


def test_labels_are_sorted_and_a_column_without_any_is_told() -> None:
    assert label_lists([["b", "_", "a", "b"], ["x"]], missing="_") == [["a", "b"], ["x"]]
    with pytest.raises(InputError, match="`train` must have a label in column 2, got none"):
        label_lists([["a"], ["_"]], missing="_")
