"""Text as the symbols of an n-gram model: the words of a line, or its characters.

A word is what stands between white space. A character is a code point; a space is written ``▁``, and what cannot stand
in a file of words (other white space, control characters, ``▁`` itself) as ``<U+00A0>``, so that no character is lost.
A line is a sentence, an empty one too.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, islice

import numpy as np
from numpy.typing import NDArray

from seqkit.errors import InputError

UNITS = ("word", "char")
SPACE = "▁"
LINES = 1 << 13  # at a time
LINE_END = -1


def read_symbols(lines: Iterable[str], unit: str) -> tuple[list[str], NDArray[np.int32]]:
    """The distinct symbols of a text, and the text as their numbers with -1 at the end of each line.

    Raises:
        InputError: the unit is none.
    """
    if unit not in UNITS:
        raise InputError(f"n-gram text: unit must be one of {', '.join(UNITS)}, got {unit!r}")
    stream = iter(lines)
    blocks = iter(lambda: list(islice(stream, LINES)), [])
    return _read_words(blocks) if unit == "word" else _read_characters(blocks)


def join_symbols(symbols: Sequence[str], unit: str) -> str:
    """The line that has these symbols."""
    return " ".join(symbols) if unit == "word" else "".join(map(_character, symbols))


def _read_words(blocks: Iterator[list[str]]) -> tuple[list[str], NDArray[np.int32]]:
    numbers: dict[str, int] = defaultdict(count().__next__)  # a new word gets the next number
    pieces = [np.empty(0, np.int32)]
    for block in blocks:
        sentences = [line.split() for line in block]
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        ends = np.cumsum(lengths + 1) - 1
        ids = np.full(len(sentences) + int(lengths.sum()), LINE_END, np.int32)
        inside = np.ones(len(ids), bool)
        inside[ends] = False
        ids[inside] = np.fromiter(map(numbers.__getitem__, chain.from_iterable(sentences)), np.int32)
        pieces.append(ids)
    return list(numbers), np.concatenate(pieces)


def _read_characters(blocks: Iterator[list[str]]) -> tuple[list[str], NDArray[np.int32]]:
    pieces = [np.empty(0, np.int32)]
    seen = np.zeros(sys.maxunicode + 1, bool)
    for block in blocks:
        text = "".join(chain.from_iterable((line, "\n") for line in block))
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        pieces.append(codes.astype(np.int32))
        seen[codes] = True
    codes = np.concatenate(pieces)
    seen[ord("\n")] = False  # no line has one inside
    found = np.flatnonzero(seen)
    number = np.full(sys.maxunicode + 1, LINE_END, np.int32)
    number[found] = np.arange(len(found))
    return [_symbol(chr(code)) for code in found], number[codes]


def _symbol(char: str) -> str:
    if char == " ":
        return SPACE
    return f"<U+{ord(char):04X}>" if char == SPACE or char.isspace() or not char.isprintable() else char


def _character(symbol: str) -> str:
    escaped = re.fullmatch("<U\\+([0-9A-F]{4,6})>", symbol)
    return chr(int(escaped[1], 16)) if escaped else " " if symbol == SPACE else symbol
