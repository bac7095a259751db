"""`ops.BackoffAutomaton` and `ops.hot_word_automaton`: what a sequence is given, and what is refused."""

import math
import random
from typing import Any

import pytest
import torch

from seqkit import ops
from seqkit.errors import InputError

ARRAYS: dict[str, Any] = {
    "first": torch.tensor([0, 2, 3], dtype=torch.int32),
    "symbols": torch.tensor([0, 1, 1], dtype=torch.int32),
    "scores": torch.tensor([-1.0, -2.0, -0.5]),
    "next": torch.tensor([0, 1, 1], dtype=torch.int32),
    "backoff": torch.tensor([0.0, -0.25]),
    "suffix": torch.tensor([0, 0], dtype=torch.int32),
    "final": torch.tensor([-3.0, -4.0]),
}


def total(automaton: ops.BackoffAutomaton, sequence: list[int]) -> float:
    state, score = automaton.start, 0.0
    for symbol in sequence:
        gain, state = automaton.follow(state, symbol)
        score += gain
    return score + automaton.end(state)


def test_backoff_automaton_backs_off_where_there_is_no_arc() -> None:
    automaton = ops.BackoffAutomaton(**ARRAYS)
    assert automaton.n_symbols == 2
    assert automaton.follow(0, 1) == (-2.0, 1)
    assert automaton.follow(1, 1) == (-0.5, 1)
    assert automaton.follow(1, 0) == (-1.25, 0)
    assert total(automaton, [1, 1, 0]) == -2.0 - 0.5 - 1.25 - 3.0
    heavier = automaton.weighted(2.0, 0.5)
    assert total(heavier, [1, 1, 0]) == 2 * total(automaton, [1, 1, 0]) + 3 * 0.5


def test_backoff_automaton_is_copied_to_a_device_once() -> None:
    model, device = ops.BackoffAutomaton(**ARRAYS), torch.device("meta")
    copied = model.tensors(device)
    assert all(x.device == device for x in copied)
    assert all(a is b for a, b in zip(copied, model.tensors(device), strict=True))
    assert all(a is b for a, b in zip(model.tensors(), model.tensors(torch.device("cpu")), strict=True))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"first": torch.tensor([0, 2, 4], dtype=torch.int32)}, "first must rise from 0 to 3"),
        ({"first": torch.tensor([0, 3, 2], dtype=torch.int32)}, "first must rise"),
        ({"first": torch.tensor([0, 2, 3])}, "first must be contiguous torch.int32"),
        ({"symbols": torch.tensor([1, 0, 1], dtype=torch.int32)}, "state 0 must have one arc for each symbol"),
        ({"symbols": torch.tensor([0, 1, 2], dtype=torch.int32)}, "symbols must rise in each state and be below 2"),
        ({"next": torch.tensor([0, 1, 2], dtype=torch.int32)}, "next must be from 0 to 1"),
        ({"suffix": torch.tensor([0, 1], dtype=torch.int32)}, "suffix must be a state below its own"),
        ({"scores": torch.tensor([0.0, math.nan, 0.0])}, "scores must be below infinity and not NaN"),
        ({"final": torch.tensor([0.0])}, "final must have 2 numbers, got 1"),
        ({"start": 2}, "start must be from 0 to 1, got 2"),
    ],
)
def test_backoff_automaton_refuses_what_does_not_fit(change: dict[str, Any], rule: str) -> None:
    automaton = object.__new__(ops.BackoffAutomaton)  # past the shape types
    for name, value in {**ARRAYS, "start": 0, **change}.items():
        object.__setattr__(automaton, name, value)
    with pytest.raises(InputError, match=rule):
        automaton.__post_init__()


def test_backoff_automaton_refuses_weights() -> None:
    automaton = ops.BackoffAutomaton(**ARRAYS)
    for alpha, beta in ((-1.0, 0.0), (math.nan, 0.0), (1.0, math.inf)):
        with pytest.raises(InputError, match="alpha must be finite and at least 0"):
            automaton.weighted(alpha, beta)


def test_hot_words_give_whole_phrases_their_weight() -> None:
    hot = ops.hot_word_automaton([[1, 2], [3]], [4.0, 1.0], n_labels=5)
    assert total(hot, []) == 0.0
    assert total(hot, [1, 2]) == 4.0
    assert total(hot, [1]) == 0.0
    assert total(hot, [1, 1, 2, 3, 4]) == 5.0
    assert total(hot, [1, 3]) == 1.0
    assert hot.follow(0, 1)[0] == 2.0  # half of the phrase, half of its weight


def test_hot_words_that_overlap_give_the_first_or_what_is_left() -> None:
    hot = ops.hot_word_automaton([[1, 2, 3, 4], [2, 3], [1, 2]], [8.0, 1.0, 2.0], n_labels=6)
    assert total(hot, [1, 2, 3, 4]) == 8.0
    assert total(hot, [1, 2, 3, 5]) == 3.0
    assert total(hot, [1, 2, 3]) == 3.0
    assert total(hot, [2, 3, 4]) == 1.0


def words_in(sequence: list[int], space: int) -> list[tuple[int, ...]]:
    words: list[list[int]] = [[]]
    for label in sequence:
        words.append([]) if label == space else words[-1].append(label)
    return [tuple(word) for word in words]


@pytest.mark.parametrize("prefixes", [False, True])
def test_hot_words_between_spaces_are_counted_word_by_word(prefixes: bool) -> None:
    weights = {(1, 2): 4.0, (2,): 1.0, (3, 1): 0.5}
    hot = ops.hot_word_automaton(list(weights), list(weights.values()), n_labels=5, space=0, prefixes=prefixes)
    draw = random.Random(0)
    for _ in range(300):
        sequence = [draw.randrange(4) for _ in range(draw.randrange(9))]
        wanted = 0.0
        for word in words_in(sequence, 0):
            found = [w for phrase, w in weights.items() if (word[: len(phrase)] if prefixes else word) == phrase]
            wanted += sum(found)
        assert total(hot, sequence) == pytest.approx(wanted), sequence


def test_hot_words_of_two_words_and_below_zero() -> None:
    hot = ops.hot_word_automaton([[1, 0, 2], [3]], [-6.0, 1.0], n_labels=5, space=0)
    assert total(hot, [1, 0, 2]) == pytest.approx(-6.0)
    assert total(hot, [1, 0, 2, 2]) == pytest.approx(0.0)
    assert total(hot, [1, 0, 3]) == pytest.approx(1.0)


def test_hot_words_of_none_give_nothing() -> None:
    assert total(ops.hot_word_automaton([], 1.0, n_labels=3), [0, 1, 2]) == 0.0
    assert total(ops.hot_word_automaton([], 1.0, n_labels=3, space=0), [0, 1, 2]) == 0.0


@pytest.mark.parametrize(
    ("phrases", "weights", "space", "rule"),
    [
        ([[]], 1.0, None, "a phrase must be labels from 0 to 2"),
        ([[3]], 1.0, None, "a phrase must be labels from 0 to 2"),
        ([[1]], [1.0, 2.0], None, "weights must be one a phrase, got 2 for 1"),
        ([[1]], math.inf, None, "weights must be finite, got inf"),
        ([[1]], 1.0, 3, "space must be from 0 to 2, got 3"),
    ],
)
def test_hot_words_refuse_what_does_not_fit(phrases: Any, weights: Any, space: Any, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        ops.hot_word_automaton(phrases, weights, n_labels=3, space=space)
