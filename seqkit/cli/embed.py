"""Train word vectors, ask, measure, debias, draw and convert them.

Files of vectors are read by their content: word2vec's text and binary, GloVe's text, fastText's .vec and .bin, gensim's
KeyedVectors, safetensors, packed or not. They are written by their suffix, or as --format says.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqkit.cli import embed_debias, embed_plot, embed_train
from seqkit.errors import InputError

if TYPE_CHECKING:
    from seqkit.embeddings import WordVectors

BATCH = 256  # queries of a stream at a time
# Those of seqkit.embeddings.io, which takes too long to import for --help.
FORMATS = ("safetensors", "word2vec", "word2vec-text", "glove", "fasttext", "projector")
DTYPES = ("float32", "int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, run: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, formatter_class=parser.formatter_class)
        made.set_defaults(run=run)
        return made

    embed_train.add_arguments(command("train", "train vectors on a text", embed_train.run))

    nearest = command("nearest", "the nearest words: lines of QUERY, WORD and cosine, with tabs", run_nearest)
    nearest.add_argument("vectors", metavar="VECTORS", help="file of vectors")
    nearest.add_argument("words", nargs="+", metavar="WORD", help="- reads words from stdin, one a line")
    nearest.add_argument(
        "--approximate", action="store_true",
        help="search a part of the words by faiss, and miss some; for thousands of queries or a million words",
    )  # fmt: skip
    _add_ranked(nearest)

    analogy = command("analogy", "A is to B as C is to what? lines of QUERY, WORD and score, with tabs", run_analogy)
    analogy.add_argument("vectors", metavar="VECTORS", help="file of vectors")
    analogy.add_argument("words", nargs="+", metavar="WORD", help="A B C; - reads three words a line from stdin")
    analogy.add_argument("--method", choices=("3cosadd", "3cosmul"), default="3cosadd", help="how scores combine")
    _add_ranked(analogy)

    evaluate = command("evaluate", "accuracy on analogies, rank correlation on similarity sets", run_evaluate)
    evaluate.add_argument("vectors", metavar="VECTORS", help="file of vectors")
    evaluate.add_argument("--analogies", metavar="FILE", help="questions of four words a line, sections after `:`")
    evaluate.add_argument("--similarity", nargs="+", default=[], metavar="FILE", help="lines of two words and a score")
    evaluate.add_argument(
        "--case-sensitive", action="store_true",
        help="compare words as they are; otherwise in lower case, and the first of words that differ by case counts",
    )  # fmt: skip
    evaluate.add_argument("--json", action="store_true", help="one JSON object")

    embed_debias.add_arguments(command("debias", "take the bias out of vectors, and measure it", embed_debias.run))
    embed_plot.add_arguments(command("plot", "a picture of words in the plane", embed_plot.run))

    convert = command("convert", "write vectors in another format", run_convert)
    convert.add_argument("vectors", metavar="IN", help="file of vectors; - is stdin")
    convert.add_argument("output", metavar="OUT", help="where to write; - is stdout")
    convert.add_argument(
        "--format", choices=FORMATS,
        help="in place of that of the suffix; projector makes a folder for `tensorboard --logdir OUT`",
    )  # fmt: skip
    convert.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="int8 takes a quarter of the room, in .safetensors"
    )


def _add_ranked(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", type=int, default=10, metavar="N", help="words for each query")
    parser.add_argument("--json", action="store_true", help="one object a query")


def run(arguments: argparse.Namespace) -> int:
    code: int = arguments.run(arguments)
    return code


def run_nearest(arguments: argparse.Namespace) -> int:
    _check_n(arguments.n)
    vectors = _load(arguments.vectors)
    if arguments.words != ["-"]:
        found = vectors.nearest_of_each(arguments.words, arguments.n, approximate=arguments.approximate)
        _print_ranked(arguments, arguments.words, found)
        return 0
    for lines in _stdin_batches():
        known = []
        for number, word in lines:
            try:
                vectors[word]
                known.append(word)
            except InputError as error:
                print(f"seqkit embed nearest: warning: stdin:{number}: {error}", file=sys.stderr)
        found = vectors.nearest_of_each(known, arguments.n, approximate=arguments.approximate)
        _print_ranked(arguments, known, found)
    return 0


def run_analogy(arguments: argparse.Namespace) -> int:
    _check_n(arguments.n)
    vectors = _load(arguments.vectors)
    if arguments.words != ["-"]:
        if len(arguments.words) != 3:
            raise InputError(f"analogy: words must be three, or - for stdin, got {len(arguments.words)}")
        a, b, c = arguments.words
        found = vectors.analogy(a, b, c, arguments.n, method=arguments.method)
        _print_ranked(arguments, [" ".join(arguments.words)], [found])
        return 0
    for lines in _stdin_batches():
        for number, line in lines:
            words = line.split()
            try:
                if len(words) != 3:
                    raise InputError(f"analogy: line must have three words, got {len(words)}")
                a, b, c = words
                found = vectors.analogy(a, b, c, arguments.n, method=arguments.method)
                _print_ranked(arguments, [" ".join(words)], [found])
            except InputError as error:
                print(f"seqkit embed analogy: warning: stdin:{number}: {error}", file=sys.stderr)
    return 0


def run_evaluate(arguments: argparse.Namespace) -> int:
    from seqkit.embeddings.evaluate import analogies, similarity

    if not arguments.analogies and not arguments.similarity:
        raise InputError("evaluate: --analogies or --similarity must be given, got neither")
    vectors = _load(arguments.vectors)
    record: dict[str, Any] = {"vectors": arguments.vectors, "words": len(vectors), "dim": vectors.dim}
    folded = not arguments.case_sensitive
    rows = [("set", "score", "coverage")]
    if arguments.analogies:
        record["analogies"] = []
        for found in analogies(vectors, arguments.analogies, case_insensitive=folded):
            score = f"{100 * found.accuracy:.2f} %" if found.asked else "-"
            rows.append((f"analogies: {found.section}", score, _coverage(found.asked, found.given)))
            record["analogies"].append(
                {"section": found.section, "accuracy": _number(found.accuracy), "right": found.right,
                 "asked": found.asked, "given": found.given}
            )  # fmt: skip
    for path in arguments.similarity:
        result = similarity(vectors, path, case_insensitive=folded)
        low, high = result.interval
        score = f"rho {result.rho:.3f}" if result.asked > 1 else "-"
        score += f"  95 % from {low:.3f} to {high:.3f}" if low == low else ""
        rows.append((Path(path).name, score, _coverage(result.asked, result.given)))
        record.setdefault("similarity", []).append(
            {"set": path, "rho": _number(result.rho), "low": _number(low), "high": _number(high),
             "asked": result.asked, "given": result.given}
        )  # fmt: skip
    if arguments.json:
        print(json.dumps(record, ensure_ascii=False))
        return 0
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, score, coverage in rows:
        print(f"{name:<{widths[0]}}  {score:<{widths[1]}}  {coverage}")
    return 0


def run_convert(arguments: argparse.Namespace) -> int:
    from seqkit.embeddings.io import format_of

    format_of(arguments.output, arguments.format, dtype=arguments.dtype)  # a wrong name is told before the work
    _load(arguments.vectors).save(arguments.output, arguments.format, dtype=arguments.dtype)
    return 0


def _check_n(n: int) -> None:
    if n < 1:
        raise InputError(f"-n: the count must be at least 1, got {n}")


def _load(path: str) -> WordVectors:
    from seqkit.embeddings import WordVectors

    return WordVectors.load(path)


def _stdin_batches() -> Iterator[list[tuple[int, str]]]:
    """Lines of stdin with their numbers, blank ones left out."""
    from seqkit.text.corpus import LineCorpus

    lines = ((number, line.strip()) for number, line in enumerate(LineCorpus("-"), 1) if line.strip())
    while batch := list(islice(lines, BATCH)):
        yield batch


def _print_ranked(arguments: argparse.Namespace, queries: list[str], found: list[list[tuple[str, float]]]) -> None:
    for query, ranked in zip(queries, found, strict=True):
        if arguments.json:
            words = [{"word": word, "score": score} for word, score in ranked]
            print(json.dumps({"query": query, "words": words}, ensure_ascii=False))
        else:
            for word, score in ranked:
                print(f"{query}\t{word}\t{score:.4f}")
    sys.stdout.flush()


def _coverage(asked: int, given: int) -> str:
    share = f" ({100 * asked / given:.1f} %)" if given else ""
    return f"{asked:,} of {given:,}{share}"


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
