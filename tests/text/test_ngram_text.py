"""Lines as symbols: nothing of a text is lost, and no symbol holds what separates symbols."""

import numpy as np
import pytest

from seqkit.errors import InputError
from seqkit.text.ngram_text import join_symbols, read_symbols


def sentences(lines: list[str], unit: str) -> list[list[str]]:
    symbols, ids = read_symbols(lines, unit)
    assert ids.dtype == np.int32
    found: list[list[str]] = [[]]
    for number in ids.tolist():
        if number < 0:
            found.append([])
        else:
            found[-1].append(symbols[number])
    assert found.pop() == []
    assert len(set(symbols)) == len(symbols)
    return found


def test_words_are_what_stands_between_white_space() -> None:
    assert sentences(["a  b\ta", "", " c\u00a0a "], "word") == [["a", "b", "a"], [], ["c", "a"]]


@pytest.mark.parametrize("unit", ["word", "char"])
def test_a_text_of_any_length_is_read(unit: str) -> None:
    assert sentences([], unit) == []
    assert sentences([""], unit) == [[]]
    lines = [f"{number} x" for number in range(20_000)]  # more than are read at a time
    found = sentences(lines, unit)
    assert [join_symbols(line, unit) for line in found] == lines


@pytest.mark.parametrize("line", ["a b", "", "▁ \u00a0\u2028\t x", "日本 語𝄞", "\ud800 <U+0041>", "\x00\x0b"])
def test_characters_and_back(line: str) -> None:
    (symbols,) = sentences([line], "char")
    assert len(symbols) == len(line)
    assert all(symbol.split() == [symbol] for symbol in symbols)
    assert join_symbols(symbols, "char") == line


def test_unit_must_be_known() -> None:
    with pytest.raises(InputError, match="unit must be one of word, char, got 'byte'"):
        read_symbols([], "byte")
