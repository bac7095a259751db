"""`seqkit embed plot`: words in the plane."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from seqkit.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Those of seqkit.embeddings.projection, which takes too long to import for --help.
METHODS = ("pca", "tsne", "umap")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vectors", metavar="VECTORS", help="file of vectors")
    parser.add_argument("-o", "--output", required=True, metavar="PICTURE", help="where to write: .png, .svg or .pdf")
    parser.add_argument("--words", metavar="FILE", help="the words to draw, between blanks or line ends; - is stdin")
    parser.add_argument(
        "--top", type=int, default=200, metavar="N",
        help="without --words and --groups: the N most frequent words of three letters or more, of a large vocabulary "
        "without its first hundred (the, of, and …)",
    )  # fmt: skip
    parser.add_argument(
        "--groups", metavar="FILE", help="words in colours: lines `: name`, and the group's words below"
    )
    parser.add_argument(
        "--method", choices=METHODS, default="pca",
        help="pca keeps large distances; tsne and umap keep who is near whom",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of tsne and umap")


def run(arguments: argparse.Namespace) -> int:
    from seqkit.analysis.word_map import check_suffix, save_word_map
    from seqkit.embeddings import WordVectors
    from seqkit.embeddings.projection import project, words_to_show

    check_suffix(arguments.output)  # a wrong name is told before the work
    if not 0 <= arguments.seed < 1 << 32:
        raise InputError(f"--seed: number must be from 0 to {(1 << 32) - 1}, got {arguments.seed}")
    groups = {} if arguments.groups is None else _read_groups(arguments.groups)
    words = [] if arguments.words is None else [word for line in _lines(arguments.words) for word in line.split()]
    words += [word for word in groups if word not in set(words)]
    vectors = WordVectors.load(arguments.vectors)
    if arguments.words is None and arguments.groups is None:
        words = words_to_show(vectors, arguments.top)
    known, rows = [], []
    for word in dict.fromkeys(words):
        try:
            rows.append(vectors[word])
            known.append(word)
        except InputError as error:
            print(f"seqkit embed plot: warning: {error}", file=sys.stderr)
    if not known:
        raise InputError("plot: a word must have a vector, got none that has")
    found = project(_stacked(rows), arguments.method, seed=arguments.seed)
    title = f"{Path(arguments.vectors).name}: {len(known)} words, "
    if found.explained is None:
        title += {"tsne": "t-SNE", "umap": "UMAP"}[found.method] + " (axes and distances between groups mean nothing)"
    else:
        first, second = (100 * share for share in found.explained)
        title += f"principal components\n{first:.1f} % of the variance across, {second:.1f} % up"
    drawn = save_word_map(
        arguments.output, found.points, known, groups=groups, title=title, axes_mean=found.explained is not None
    )
    if drawn.left_out:
        some = ", ".join(drawn.left_out[:10]) + (" …" if len(drawn.left_out) > 10 else "")
        print(
            f"seqkit embed plot: {len(drawn.left_out)} of {len(known)} labels find no free place, left out: {some}",
            file=sys.stderr,
        )
    if drawn.no_font:
        print(f"seqkit embed plot: warning: no installed font has the characters {drawn.no_font[:40]}", file=sys.stderr)
    return 0


def _stacked(rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    import numpy as np

    return np.stack(rows)


def _lines(path: str) -> Iterable[str]:
    from seqkit.text.corpus import LineCorpus

    return LineCorpus(path)


def _read_groups(path: str) -> dict[str, str]:
    """The group of each word; of a word that comes twice the first."""
    groups: dict[str, str] = {}
    name = None
    for number, line in enumerate(_lines(path), 1):
        if line.startswith(":"):
            name = line[1:].strip()
        elif line.strip():
            if name is None:
                raise InputError(f"{path}:{number}: words must come below a line `: name`, got {line[:40]!r}")
            for word in line.split():
                groups.setdefault(word, name)
    if not groups:
        raise InputError(f"{path}: groups must have a word, got none")
    return groups
