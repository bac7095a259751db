r"""Files of back-off n-gram models in the ARPA format, as SRILM and KenLM write it.

After ``\data\`` and the number of n-grams of each order come their lists: a logarithm to base ten, the words, and the
back-off where it is not 0. Lines before ``\data\`` are comments, and KenLM wants a # before them.

Lines are read by the hundred thousand: a block is split at once and its columns looked up, 3 µs an n-gram. A
block in which anything is not as the format says is read again line by line, to tell the line.
"""

from __future__ import annotations

import gzip
import lzma
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from seqkit.errors import InputError

LINES = 1 << 17  # of a block
UNIT = "# unit: "  # seqkit's own comment: what the symbols are


class NgramTable(NamedTuple):
    """R n-grams of one order n: their words by number [R, n], probabilities and back-offs as natural logarithms."""

    ids: NDArray[np.int32]
    log_probs: NDArray[np.float64]
    backoffs: NDArray[np.float64]


class Arpa(NamedTuple):
    """What a file holds: the words in the order of their numbers, a table for each order from 1 up, and the unit."""

    words: list[str]
    tables: list[NgramTable]
    unit: str | None


def read_arpa(path: str | Path) -> Arpa:
    """Reads a file, also one packed as `.gz` or `.xz`.

    Raises:
        InputError: the file is not as the format says; the line is named.
    """
    path = Path(path)
    opened = gzip.open if path.suffix == ".gz" else lzma.open if path.suffix == ".xz" else open
    try:
        with opened(path, "rb") as file:
            return _read(_Lines(path, cast(BufferedIOBase, file)))
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: the file must be readable UTF-8 text, got {error}") from error


def write_arpa(
    file: BufferedIOBase, words: Sequence[str], counts: Sequence[int], tables: Iterable[NgramTable], *, unit: str | None
) -> None:
    """Writes a model.

    Args:
        counts: how many n-grams each order has.
        tables: the n-grams, rising in their order; an order may come in several.
        unit: what the symbols are, told in a comment; None for none.
    """
    head = [f"{UNIT}{unit}"] if unit else []
    head += ["\\data\\", *(f"ngram {n}={count}" for n, count in enumerate(counts, 1))]
    file.write("\n".join([*head, ""]).encode())
    spelled = [word.encode() for word in words]
    titled = 0
    for table in tables:
        n = table.ids.shape[1]
        for title in range(titled + 1, n + 1):
            file.write(f"\n\\{title}-grams:\n".encode())
        titled = n
        grams = map(b" ".join, zip(*(map(spelled.__getitem__, column.tolist()) for column in table.ids.T), strict=True))
        columns = [_decimals(table.log_probs), grams]
        if n < len(counts):
            columns.append(_decimals(table.backoffs))
        file.write(b"\n".join(map(b"\t".join, zip(*columns, strict=True))))
        file.write(b"\n")
    for title in range(titled + 1, len(counts) + 1):
        file.write(f"\n\\{title}-grams:\n".encode())
    file.write(b"\n\\end\\\n")


def _decimals(natural: NDArray[np.float64]) -> list[bytes]:
    """Logarithms to base ten with six places. By columns of digits, four times as fast as one number at a time."""
    logs = natural / math.log(10)
    if not np.all((logs <= 0) & (logs > -1000)):
        return [b"%.7g" % log for log in logs.tolist()]
    millionths = np.rint(logs * -1e6).astype(np.int64)
    text = np.zeros((len(logs), 11), np.uint8)  # what is behind a number stays 0, which ends a byte string
    text[:, 0] = ord("-")
    for whole, low, high in ((1, 0, 10), (2, 10, 100), (3, 100, 1001)):
        rows = np.flatnonzero((millionths >= low * 1_000_000) & (millionths < high * 1_000_000))
        left = millionths[rows]
        for place in range(whole + 7, 0, -1):
            if place == whole + 1:
                text[rows, place] = ord(".")
            else:
                left, digit = np.divmod(left, 10)
                text[rows, place] = ord("0") + digit
    text[millionths == 0] = np.frombuffer(b"0".ljust(11, b"\0"), np.uint8)
    found: list[bytes] = text.view("S11").ravel().tolist()
    return found


class _Lines:
    """The lines of a file with their numbers, one by one or in blocks."""

    def __init__(self, path: Path, file: BufferedIOBase) -> None:
        self.path, self.file = path, file
        self.number = 0  # of the line that was read last
        self.held: list[bytes] = []
        self.at = 0

    def _fill(self) -> bool:
        if self.at == len(self.held):
            self.held, self.at = self.file.readlines(1 << 24), 0
        return self.at < len(self.held)

    def next(self) -> str | None:
        """The next line that is not blank, without white space at its ends; None at the end of the file."""
        while self._fill():
            line = self.held[self.at].strip(b" \t\r\n")
            self.at += 1
            self.number += 1
            if line:
                return line.decode()
        return None

    def take(self, most: int) -> list[bytes]:
        """Some of the next lines as they are, one at least where there is one."""
        if not self._fill():
            return []
        block = self.held[self.at : self.at + most]
        self.at += len(block)
        self.number += len(block)
        return block

    def put_back(self, n: int) -> None:
        """Undoes the reading of the last n lines of a block."""
        self.at -= n
        self.number -= n


def _read(lines: _Lines) -> Arpa:
    counts, unit = _read_head(lines)
    words: list[str] = []
    numbers: dict[bytes, int] = {}
    tables = []
    for n, count in enumerate(counts, start=1):
        blocks = list(_read_blocks(lines, n, count, words, numbers))
        line = lines.next()
        wanted = f"\\{n + 1}-grams:" if n < len(counts) else "\\end\\"
        if line is None:
            raise InputError(f"{lines.path}: the file must end with `\\end\\`, got its end in the {n}-grams")
        if line != wanted:
            raise InputError(f"{lines.path}:{lines.number}: the line must be `{wanted}`, got {line[:80]!r}")
        empty = NgramTable(np.empty((0, n), np.int32), np.empty(0), np.empty(0))
        tables.append(NgramTable(*map(np.concatenate, zip(empty, *blocks, strict=True))))
    return Arpa(words, tables, unit)


def _read_head(lines: _Lines) -> tuple[list[int], str | None]:
    """How many n-grams the head of the file names, up to the title of the first list; and the unit, if it is told."""
    counts: list[int] = []
    unit = None
    inside = False
    while (line := lines.next()) is not None:
        where = f"{lines.path}:{lines.number}"
        if not inside:
            inside = line == "\\data\\"  # whatever stands before is a comment
            if line.startswith(UNIT):
                unit = line.removeprefix(UNIT)
        elif line.startswith("ngram "):
            order, _, count = line.removeprefix("ngram ").partition("=")
            if order.strip() != str(len(counts) + 1) or not count.strip().isdecimal():
                raise InputError(f"{where}: the line must be `ngram {len(counts) + 1}=COUNT`, got {line[:80]!r}")
            counts.append(int(count))
        elif line == "\\1-grams:" and counts:
            return counts, unit
        else:
            raise InputError(f"{where}: the line must be `ngram ORDER=COUNT` or `\\1-grams:`, got {line[:80]!r}")
    missing = "`\\1-grams:`" if inside else "`\\data\\`"
    raise InputError(f"{lines.path}: the file must be an ARPA model, got no line {missing}")


def _read_blocks(
    lines: _Lines, n: int, count: int, words: list[str], numbers: dict[bytes, int]
) -> Iterator[NgramTable]:
    """The n-grams of one order; words of order 1 are numbered as they come."""
    got = 0
    while got < count:
        first = lines.number + 1
        block = lines.take(min(LINES, count - got))
        if not block:
            raise InputError(f"{lines.path}: the file must end with `\\end\\`, got its end in the {n}-grams")
        fields = _split_evenly(block, n)
        at: Sequence[int] = range(first, first + len(block))
        if fields is None:
            rows: list[tuple[int, list[bytes]]] = []
            for number, line in enumerate(block, start=first):
                if line.startswith(b"\\"):
                    found = got + len(rows)
                    raise InputError(f"{lines.path}: there must be {count} {n}-grams as its head says, got {found}")
                if row := _split_line(f"{lines.path}:{number}", line, n):
                    rows.append((number, row))
            fields, at = [field for _, row in rows for field in row], [number for number, _ in rows]
        table = _table(lines.path, at, fields, n, words, numbers)
        got += len(table.ids)
        yield table
    following = lines.take(1)
    if following and following[0].strip(b" \t\r\n") and not following[0].startswith(b"\\"):
        raise InputError(f"{lines.path}: there must be {count} {n}-grams as its head says, got more")
    lines.put_back(len(following))


def _split_evenly(block: list[bytes], n: int) -> list[bytes] | None:
    """The fields of a block, n + 2 a line; None where a line has another number of them or is blank."""
    text = b"".join(block)
    letters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(letters == ord("\n"))
    if len(ends) != len(block):
        return None
    separators = np.cumsum((letters == ord("\t")) | (letters == ord(" ")), dtype=np.int32)[ends]
    found = np.diff(separators, prepend=0)
    short = found == n
    if not np.all(short | (found == n + 1)):
        return None
    if short.any():  # a back-off of 0 may be left out
        padded = [line[:-1].rstrip(b"\r") + b"\t0\n" if cut else line for line, cut in zip(block, short, strict=True)]
        text = b"".join(padded)
    fields = text.split()
    return fields if len(fields) == (n + 2) * len(block) else None


def _split_line(where: str, line: bytes, n: int) -> list[bytes]:
    """The fields of one line, a back-off of 0 where it has none; none of a blank line."""
    fields = line.split()
    try:
        if fields and len(fields) not in (n + 1, n + 2):
            raise ValueError
        for number in (fields[:1], fields[n + 1 :]):
            list(map(float, number))
    except ValueError:
        shown = line.strip(b" \t\r\n")[:80].decode(errors="replace")
        raise InputError(
            f"{where}: a line must be a logarithm, {n} words and perhaps a back-off, got {shown!r}"
        ) from None
    return [*fields, b"0"] if len(fields) == n + 1 else fields


def _table(
    path: Path, at: Sequence[int], fields: list[bytes], n: int, words: list[str], numbers: dict[bytes, int]
) -> NgramTable:
    """The n-grams of the lines with the numbers `at`."""
    width, rows = n + 2, len(at)
    columns = [fields[k::width] for k in range(width)]
    try:
        logs, backoffs = (np.fromiter(map(float, column), np.float64, rows) for column in (columns[0], columns[-1]))
    except ValueError:
        for row, number in enumerate(at):
            _split_line(f"{path}:{number}", b" ".join(fields[row * width : (row + 1) * width]), n)
        raise
    if n == 1:
        for number, word in zip(at, columns[1], strict=True):
            if word in numbers:
                raise InputError(f"{path}:{number}: an n-gram must stand once, got {word.decode()!r} twice")
            numbers[word] = len(words)
            words.append(word.decode())
    wrong = ~((logs <= 0.0) & np.isfinite(backoffs))
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{path}:{at[row]}: {_shown(columns, row)} must have a log-probability and a finite back-off, "
            f"got {logs[row]} and {backoffs[row]}"
        )
    try:
        ids = [np.fromiter(map(numbers.__getitem__, column), np.int32, rows) for column in columns[1:-1]]
    except KeyError:
        row = next(row for row in range(rows) if not all(column[row] in numbers for column in columns[1:-1]))
        raise InputError(
            f"{path}:{at[row]}: an n-gram of order {n} must be {n} unigrams, got {_shown(columns, row)}"
        ) from None
    return NgramTable(np.stack(ids, axis=1), logs * math.log(10), backoffs * math.log(10))


def _shown(columns: Sequence[list[bytes]], row: int) -> str:
    return repr(" ".join(column[row].decode(errors="replace") for column in columns[1:-1]))
