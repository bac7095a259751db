"""A text as numbers, for every trainer: its vocabulary and its sentences as word ids, held by native code.

Words are what stands between whitespace (space, tab, line ends); a line is a sentence. Words are numbered by falling
count, equals in the order of their bytes. Past `memory` the tables and the ids lie in temporary files.
"""

from __future__ import annotations

import ctypes
import gzip
import lzma
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from seqkit.embeddings import native
from seqkit.errors import InputError
from seqkit.text.corpus import open_bytes

PIECE = 1 << 20  # bytes of a stream at a time

Source = str | Path | Iterable[str | Path] | Iterable[str] | Iterable[list[str]]


class Corpus:
    """A vocabulary, and sentences of its words.

    Args:
        source: a path (``.gz`` and ``.xz`` are unpacked, ``-`` is stdin), a list of `Path`, or any other iterable of
            sentences, each a string or a list of words.
        min_count: rarer words are left out.
        max_vocab: the most frequent so many words are kept; None for all.
        memory: bytes that the tables and ids may take before they go to disk; None for no bound.
        known: words that keep the first ids, in this order, with the counts of an older corpus.

    Raises:
        InputError: a file cannot be read or unpacked, a line is not UTF-8 (file and line are named), a word holds
            whitespace or is empty, there is no word left.
    """

    def __init__(
        self,
        source: Source,
        *,
        min_count: int = 5,
        max_vocab: int | None = None,
        memory: int | None = None,
        threads: int = 1,
        known: Mapping[str, int] | None = None,
    ) -> None:
        folder = os.fsencode(tempfile.gettempdir())
        self.handle = native.call("corpus_new", min_count, max_vocab or 0, memory or 0, threads, folder)
        for word, count in (known or {}).items():
            text = word.encode()
            native.call("corpus_add_known", self.handle, text, len(text), count)
        paths, sentences = _paths_or_sentences(source)
        for path in paths:
            if path == "-" or path.endswith((".gz", ".xz")):
                self._feed_file(path)
            else:
                native.call("corpus_add_file", self.handle, os.fsencode(path))
        if sentences is not None:
            self._feed(_lines(sentences), "sentences")
        native.call("corpus_finish", self.handle)
        if self.n_words == 0:
            raise InputError(f"corpus: text must have words that occur {min_count} times or more, got none")

    def __del__(self) -> None:
        if handle := getattr(self, "handle", None):
            native.call("corpus_free", handle)
            self.handle = None

    def __len__(self) -> int:
        """The number of words in the vocabulary."""
        return int(native.call("corpus_vocabulary", self.handle))

    @property
    def n_words(self) -> int:
        """How many words the sentences have, without those that are left out."""
        return int(native.call("corpus_words", self.handle))

    @property
    def n_raw_words(self) -> int:
        """How many words the text has."""
        return int(native.call("corpus_raw_words", self.handle))

    @property
    def spilled(self) -> bool:
        """Whether a part lies on disk."""
        return bool(native.call("corpus_spilled", self.handle))

    @property
    def words(self) -> list[str]:
        size = ctypes.c_int64()
        text = native.call("corpus_text", self.handle, ctypes.byref(size))
        return ctypes.string_at(text, size.value).decode().split("\n")[:-1]

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.ctypeslib.as_array(native.call("corpus_counts", self.handle), (len(self),)).copy()

    def ids(self, file: IO[bytes] | None = None) -> NDArray[np.int32]:
        """All sentences as one row of ids, -1 at the end of each; in a memory map of `file`, if there is one."""
        size = ctypes.c_int64()
        native.call("corpus_ids", self.handle, None, ctypes.byref(size))
        found = np.empty(size.value, np.int32) if file is None else np.memmap(file, np.int32, "w+", shape=size.value)
        native.call("corpus_ids", self.handle, found.ctypes.data, ctypes.byref(size))
        return found

    def _feed(self, pieces: Iterable[bytes], name: str) -> None:
        where = name.encode()
        for piece in pieces:
            native.call("corpus_feed", self.handle, piece, len(piece), where)
        native.call("corpus_end_stream", self.handle)

    def _feed_file(self, path: str) -> None:
        name = "stdin" if path == "-" else path
        try:
            with open_bytes(path) as file:
                first = file.read(PIECE).removeprefix(b"\xef\xbb\xbf")
                self._feed(_chain(first, iter(lambda: file.read(PIECE), b"")), name)
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
            raise InputError(f"{name}: file must unpack to its end, got {error}") from error
        except OSError as error:
            raise InputError(
                f"{name}: corpus must be a file that can be read, got {error.strerror or error}"
            ) from error


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _paths_or_sentences(source: Source) -> tuple[list[str], Iterable[str] | Iterable[list[str]] | None]:
    if isinstance(source, str | Path):
        return [str(source)], None
    if isinstance(source, list | tuple) and source and all(isinstance(each, Path) for each in source):
        return [str(each) for each in source], None
    return [], source  # type: ignore[return-value]


def _lines(sentences: Iterable[str] | Iterable[list[str]]) -> Iterator[bytes]:
    """Sentences as text, about a megabyte at a time."""
    held: list[str] = []
    size = 0
    for number, sentence in enumerate(sentences, 1):
        if isinstance(sentence, str):
            line = sentence.replace("\n", " ")
        else:
            for word in sentence:
                if not isinstance(word, str) or len(word.split()) != 1 or word.split()[0] != word:
                    raise InputError(f"sentence {number}: word must be a string without whitespace, got {word!r}")
            line = " ".join(sentence)
        held.append(line)
        size += len(line) + 1
        if size > PIECE:
            yield _encoded(held, number)
            held, size = [], 0
    if held:
        yield _encoded(held, number)


def _encoded(lines: list[str], number: int) -> bytes:
    try:
        return ("\n".join(lines) + "\n").encode()
    except UnicodeEncodeError as error:
        raise InputError(f"sentence {number} or one before it: text must be Unicode, got a lone surrogate") from error
