"""Edit distances against every way of aligning, and the counts of error rates."""

import itertools
import random
from functools import cache

import pytest

from seqkit.analysis.edit_distance import ErrorRate, edits, error_rate


def brute_force(found: str, there: str) -> tuple[int, int, int, int]:
    @cache
    def least(i: int, j: int) -> tuple[int, int, int, int]:
        if i == 0 or j == 0:
            return (i + j, 0, j, i)
        wrong = int(found[i - 1] != there[j - 1])
        ways = [
            (least(i - 1, j - 1), (wrong, wrong, 0, 0)),
            (least(i, j - 1), (1, 0, 1, 0)),
            (least(i - 1, j), (1, 0, 0, 1)),
        ]
        return min((a + e, b + f, c + g, d + h) for (a, b, c, d), (e, f, g, h) in ways)

    return least(len(found), len(there))


def test_the_least_edits_are_found() -> None:
    words = ["".join(word) for n in range(4) for word in itertools.product("ab", repeat=n)]
    for found, there in itertools.product(words, words):
        assert edits(found, there) == brute_force(found, there)[1:]


@pytest.mark.parametrize(
    ("found", "there", "expected"),
    [
        ("", "", (0, 0, 0)), ("abc", "", (0, 0, 3)), ("", "abc", (0, 3, 0)),
        ("sitting", "kitten", (2, 0, 1)), ("ab", "ba", (0, 1, 1)),
    ],
)  # fmt: skip
def test_known_distances(found: str, there: str, expected: tuple[int, int, int]) -> None:
    assert edits(found, there) == expected


def test_errors_are_those_of_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    draw = random.Random(0)
    for _ in range(100):
        found, there = ([draw.choice("abcd") for _ in range(draw.randint(1, 12))] for _ in range(2))
        theirs = jiwer.process_words(" ".join(there), " ".join(found))
        assert sum(edits(found, there)) == theirs.substitutions + theirs.deletions + theirs.insertions


def test_a_rate_is_over_the_tokens_that_are_there() -> None:
    rate = error_rate([["one", "two"], ["three"], []], [["one"], ["three"], ["four", "five"]])
    assert rate == ErrorRate(0, 2, 1, total=4, wrong=2, sequences=3)
    assert rate.errors == 3
    assert rate.value == 0.75
    assert str(rate) == ("error rate = 75.00 % (3 of 4: 0 substituted, 2 deleted, 1 inserted; 2 of 3 sequences wrong)")


def test_no_tokens_at_all() -> None:
    assert error_rate([], []).value == 0.0
    assert error_rate([[]], [[]]).value == 0.0
    assert error_rate(["a"], [""]).value == 1.0
