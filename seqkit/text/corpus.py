"""Corpora on disk: lines, and lines in pairs.

A corpus is read anew each time it is iterated, so that a trainer can make several passes over a file that does not fit
in memory. Only the byte ``\\n`` ends a line (U+2028, form feeds, lone carriage returns are text), one ``\\r`` before
it is dropped, and so is a byte order mark at the start of a file. What is wrong with a line is told with file and
number.

Files ending in ``.gz`` and ``.xz`` are unpacked on the way. The name ``-`` is standard input, which can be read once.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import lzma
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from seqkit.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineCorpus:
    """The lines of one or more files, one after the other.

    Args:
        paths: a path or several; ``-`` is standard input.
        max_chars: a line with more characters is an error, not a silent gap or a full memory; None for no bound.

    Raises:
        InputError: on iteration: a file cannot be read or unpacked, a line is not UTF-8 or too long, or standard input
            is read a second time.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path], *, max_chars: int | None = 100_000) -> None:
        self.paths = [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
        self.max_chars = max_chars
        self._stdin_read = False

    def __iter__(self) -> Iterator[str]:
        for _, line in self.located():
            yield line

    def located(self) -> Iterator[tuple[str, str]]:
        """Each line after its place, ``file:number``."""
        for path in self.paths:
            yield from self.located_in(path)

    def located_in(self, path: str) -> Iterator[tuple[str, str]]:
        """The lines of one of the files, each after its place."""
        if path == "-":
            if self._stdin_read:
                raise InputError("stdin: corpus must be read once, got a second pass; put it in a file")
            self._stdin_read = True
        yield from _lines(path, self.max_chars)


class ParallelCorpus:
    """Pairs of lines that translate each other.

    From two lists of files, line by line; or, without `targets`, from tables (``.tsv``, ``.tsv.gz``, ``.tsv.xz``) whose
    first two columns are the two sides (further columns are ignored).

    Args:
        sources: a path or several.
        targets: as many paths as sources, each with as many lines as its source.
        max_chars: bound on the characters of a line (of a whole line of a table); None for no bound.

    Raises:
        InputError: at once: the numbers of files differ. On iteration: what `LineCorpus` raises, sides that differ in
            their number of lines, a table's line without a tab.
    """

    def __init__(
        self,
        sources: str | Path | Sequence[str | Path],
        targets: str | Path | Sequence[str | Path] | None = None,
        *,
        max_chars: int | None = 100_000,
    ) -> None:
        self._sources = LineCorpus(sources, max_chars=max_chars)
        self._targets = LineCorpus(targets, max_chars=max_chars) if targets is not None else None
        if self._targets is not None and len(self._sources.paths) != len(self._targets.paths):
            raise InputError(
                f"ParallelCorpus: targets must be as many files as sources ({len(self._sources.paths)}), "
                f"got {len(self._targets.paths)}"
            )
        if self._targets is None:
            for path in self._sources.paths:
                if not path.removesuffix(".gz").removesuffix(".xz").endswith(".tsv"):
                    raise InputError(
                        f"ParallelCorpus: sources must be .tsv tables when targets is not given, got {path}"
                    )
        elif (self._sources.paths + self._targets.paths).count("-") > 1:
            raise InputError("ParallelCorpus: one side at most must be standard input, got `-` twice")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        if self._targets is None:
            for where, line in self._sources.located():
                columns = line.split("\t")
                if len(columns) < 2:
                    raise InputError(f"{where}: line must have two columns with a tab between them, got one")
                yield columns[0], columns[1]
            return
        for source, target in zip(self._sources.paths, self._targets.paths, strict=True):
            lines = itertools.zip_longest(self._sources.located_in(source), self._targets.located_in(target))
            for number, (left, right) in enumerate(lines, 1):
                if left is None or right is None:
                    short, long = (source, target) if left is None else (target, source)
                    raise InputError(
                        f"{short}:{number}: line must be there as in {long}, got the end after {number - 1} lines"
                    )
                yield left[1], right[1]


def _lines(path: str, max_chars: int | None) -> Iterator[tuple[str, str]]:
    """The lines of one file with their places."""
    name = "stdin" if path == "-" else path
    limit = -1 if max_chars is None else 4 * max_chars + len(BYTE_ORDER_MARK) + 2  # bytes: 4 a character, "\r\n"
    try:
        with open_bytes(path) as file:
            for number in itertools.count(1):
                raw = file.readline(limit)
                if not raw:
                    return
                where = f"{name}:{number}"
                yield where, _decoded(raw, where, max_chars, first=number == 1)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{name}: file must unpack to its end, got {error}") from error
    except OSError as error:
        raise InputError(f"{name}: corpus must be a file that can be read, got {error.strerror or error}") from error


def open_bytes(path: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    """The bytes of a file, unpacked where its name ends in .gz or .xz; of stdin for `-`."""
    if path == "-":
        return contextlib.nullcontext(sys.stdin.buffer)  # read, not closed
    if path.endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.endswith(".xz"):
        return lzma.open(path, "rb")
    return open(path, "rb")


def _decoded(raw: bytes, where: str, max_chars: int | None, *, first: bool) -> str:
    if first:
        raw = raw.removeprefix(BYTE_ORDER_MARK)
    if raw.endswith(b"\n"):
        raw = raw[:-1].removesuffix(b"\r")
    try:
        line = raw.decode()
    except UnicodeDecodeError as error:
        if max_chars is not None and len(raw) > 4 * max_chars:  # cut inside a character, and too long in any case
            raise InputError(f"{where}: line must have at most {max_chars} characters, got more") from error
        raise InputError(f"{where}: line must be UTF-8, got byte 0x{raw[error.start]:02x} at {error.start}") from error
    if max_chars is not None and len(line) > max_chars:
        raise InputError(f"{where}: line must have at most {max_chars} characters, got more")
    return line
