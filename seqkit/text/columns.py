"""Words with their labels on disk: a word and its labels a line, with tabs between them, and a blank line between
sentences (the format of the CoNLL shared tasks).

An empty label and `_` are missing ones. A line whose word is empty or blank ends a sentence too, as some files have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from seqkit.errors import InputError
from seqkit.text.corpus import LineCorpus

MISSING = "_"


class TaggedSentence(NamedTuple):
    """A sentence of N words."""

    words: list[str]
    labels: list[list[str]]
    """one list of N labels a column; `_` where there is none"""


def read_columns(paths: str | Path | Sequence[str | Path]) -> list[TaggedSentence]:
    """The sentences of one or more files; .gz and .xz are unpacked.

    Raises:
        InputError: a file cannot be read, a line has no tab, or not as many columns as the first; names the line.
    """
    sentences: list[TaggedSentence] = []
    rows: list[list[str]] = []
    width = 0

    def end() -> None:
        if rows:
            words, *labels = (list(column) for column in zip(*rows, strict=True))
            sentences.append(TaggedSentence(words, labels))
            rows.clear()

    corpus = LineCorpus(paths)
    for path in corpus.paths:
        for where, line in corpus.located_in(path):
            word, *labels = line.split("\t")
            if not word.strip():
                end()
                continue
            if not labels:
                raise InputError(f"{where}: line must have a word, a tab and a label, got no tab")
            width = width or len(labels)
            if len(labels) != width:
                raise InputError(
                    f"{where}: line must have {width + 1} columns as the first one has, got {len(labels) + 1}"
                )
            rows.append([word, *(label.strip() or MISSING for label in labels)])
        end()
    return sentences
