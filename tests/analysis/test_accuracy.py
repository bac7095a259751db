import pytest

from seqkit.analysis.accuracy import Accuracy, accuracy


def test_right_answers_are_counted() -> None:
    found = accuracy(["a", "b", "a"], ["a", "a", "a"])
    assert found == Accuracy(2, 3)
    assert found.value == pytest.approx(2 / 3)


def test_the_interval_is_wilsons() -> None:
    """Newcombe 1998, table I: 81 of 263, 0.2553 to 0.3662; 0 of 20, 0 to 0.1611."""
    assert Accuracy(81, 263).interval == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert Accuracy(0, 20).interval == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_no_answer_tells_nothing() -> None:
    assert Accuracy(0, 0).value == 0.0
    assert Accuracy(0, 0).interval == (0.0, 1.0)


def test_it_reads_as_a_sentence() -> None:
    assert str(Accuracy(81, 263)) == "accuracy = 30.80 % (81 of 263; 95 % interval 25.53 to 36.62)"
