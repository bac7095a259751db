"""`ops.WordModel`: the lexicon spells every word and no other."""

import random
from typing import Any

import pytest
import torch

from seqkit import ops
from seqkit.errors import InputError


def words(count: int) -> ops.BackoffAutomaton:
    """A model that gives every word the same."""
    return ops.BackoffAutomaton(
        first=torch.tensor([0, count], dtype=torch.int32),
        symbols=torch.arange(count, dtype=torch.int32),
        scores=torch.full((count,), -1.0),
        next=torch.zeros(count, dtype=torch.int32),
        backoff=torch.zeros(1),
        suffix=torch.zeros(1, dtype=torch.int32),
        final=torch.zeros(1),
    )


def node_of(model: ops.WordModel, spelling: list[int]) -> int:
    node = 0
    for label in spelling:
        node = model.spell(node, label) if node >= 0 else -1
    return node


def test_word_model_spells_every_word_and_no_other() -> None:
    draw = random.Random(0)
    spellings = [[draw.randrange(1, 5) for _ in range(draw.randrange(6))] for _ in range(80)]
    model = ops.WordModel.spelled(words(80), spellings, space=0, unknown=79)
    for _ in range(2000):
        spelling = [draw.randrange(1, 5) for _ in range(draw.randrange(6))]
        node = node_of(model, spelling)
        wanted = spellings.index(spelling) if spelling and spelling in spellings else -1
        assert model.word(node) == wanted
        assert (node >= 0) == (not spelling or any(s[: len(spelling)] == spelling for s in spellings))


def test_word_model_arcs_are_sorted_in_each_node() -> None:
    model = ops.WordModel.spelled(words(4), [[3, 1], [1, 2], [3], []], space=0, unknown=3)
    assert model.first.tolist() == [0, 2, 3, 3, 4, 4]
    assert model.labels.tolist() == [1, 3, 2, 1]
    assert sorted(model.ends.tolist()) == [-1, -1, 0, 1, 2]
    empty = ops.WordModel.spelled(words(1), [], space=0, unknown=0)
    assert empty.first.tolist() == [0, 0]
    assert empty.spell(0, 1) == -1
    assert empty.word(-1) == -1


def test_word_model_is_copied_to_a_device_once() -> None:
    model, device = ops.WordModel.spelled(words(3), [[1], [1, 2]], space=0, unknown=2), torch.device("meta")
    copied = model.tensors(device)
    assert all(x.device == device for x in copied)
    assert all(a is b for a, b in zip(copied, model.tensors(device), strict=True))
    assert all(a is b for a, b in zip(model.tensors(), model.tensors(torch.device("cpu")), strict=True))


@pytest.mark.parametrize(
    ("spellings", "options", "rule"),
    [
        ([[1], [2], [3]], {}, "spellings must be at most one a word, 2, got 3"),
        ([[1, 0]], {}, "a spelling must be of labels and no space"),
        ([[-1]], {}, "a spelling must be of labels and no space"),
        ([], {"unknown": 2}, "unknown must be from 0 to 1, got 2"),
        ([], {"space": -1}, "space must be a label, got -1"),
        ([], {"unknown_score": float("nan")}, "unknown_score must be finite"),
    ],
)
def test_word_model_refuses_what_does_not_fit(spellings: Any, options: dict[str, Any], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        ops.WordModel.spelled(words(2), spellings, **{"space": 0, "unknown": 1, **options})
