"""N-gram language models with modified Kneser-Ney smoothing, in ARPA files.

Words are what stands between white space. With --unit char a line's characters are the words, `▁` stands for a space,
and the file says so in its first line; evaluate and sample go by that.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

from seqkit.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, run: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, formatter_class=parser.formatter_class)
        made.set_defaults(run=run)
        return made

    train = command("train", "estimate a model of a text", run_train)
    train.add_argument("text", nargs="+", metavar="TEXT", help="lines, each a sentence; .gz and .xz too; - is stdin")
    train.add_argument(
        "-o", "--output", required=True, metavar="ARPA", help="the model; packed if it ends in .gz; - is stdout"
    )
    train.add_argument("--order", type=int, default=5, metavar="N", help="words of the longest n-gram")
    train.add_argument(
        "--prune", type=int, nargs="+", default=[0], metavar="N",
        help="leave out n-grams that were seen so often or less: a number for each order from 1 up, the last one for "
        "all further ones; the first is 0",
    )  # fmt: skip
    train.add_argument("--min-count", type=int, default=1, metavar="N", help="rarer words become <unk>")
    train.add_argument("--vocab-size", type=int, metavar="N", help="keep so many words, the most frequent ones")
    train.add_argument("--unit", choices=("word", "char"), default="word", help="what the words of the model are")

    evaluate = command("evaluate", "perplexity and bits per character of a text", run_evaluate)
    evaluate.add_argument("model", metavar="ARPA", help="the model")
    evaluate.add_argument("text", nargs="+", metavar="TEXT", help="lines, each a sentence")
    evaluate.add_argument("--json", action="store_true", help="one JSON object")
    _add_unit(evaluate)

    sample = command("sample", "draw sentences, one a line", run_sample)
    sample.add_argument("model", metavar="ARPA", help="the model")
    sample.add_argument("-n", type=int, default=1, metavar="N", help="sentences")
    sample.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws")
    sample.add_argument(
        "--temperature", type=float, default=1.0, metavar="X", help="below 1 the likely becomes likelier"
    )
    sample.add_argument("--max-length", type=int, default=200, metavar="N", help="words of a sentence, at most")
    _add_unit(sample)


def _add_unit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unit", choices=("word", "char"), default=argparse.SUPPRESS,
        help="what the words of the model are, if not what its file says",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    code: int = arguments.run(arguments)
    return code


def run_train(arguments: argparse.Namespace) -> int:
    from seqkit.text.corpus import LineCorpus
    from seqkit.text.kneser_ney import describe, kneser_ney

    if arguments.output != "-" and not Path(arguments.output).resolve().parent.is_dir():  # told before the work
        raise InputError(f"{arguments.output}: path must be in a folder that exists")
    found = kneser_ney(
        LineCorpus(arguments.text, max_chars=None),
        order=arguments.order,
        unit=arguments.unit,
        prune=arguments.prune,
        min_count=arguments.min_count,
        vocab_size=arguments.vocab_size,
        report=_say,
    )
    _say(f"{found.symbols:,} {arguments.unit}s in {found.sentences:,} lines, {found.unknown:,} unknown")
    _say(describe(found))
    if found.model.order < arguments.order:
        _say(f"no line is long enough for n-grams of more than {found.model.order} words")
    if arguments.output == "-":
        found.model.write(cast(BufferedIOBase, sys.stdout.buffer))
    else:
        _say("writing")
        found.model.save(arguments.output)
        _say(f"{sum(found.model.n_ngrams):,} n-grams written to {arguments.output}")
    return 0


def run_evaluate(arguments: argparse.Namespace) -> int:
    from seqkit.text.corpus import LineCorpus
    from seqkit.text.ngram import NgramModel

    model = NgramModel.from_arpa(arguments.model)
    unit = getattr(arguments, "unit", model.unit)
    found = model.evaluate(LineCorpus(arguments.text, max_chars=None), unit=unit)
    tokens = found.symbols + found.sentences
    figures = {
        "bits_per_character": found.bits_per_character, "perplexity": found.perplexity,
        "perplexity_of_known": found.perplexity_of_known, "loss": -found.log_prob / tokens, "tokens": tokens,
        "characters": found.characters, "sentences": found.sentences, "unknown": found.unknown,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps({name: value if math.isfinite(value) else None for name, value in figures.items()}))
        return 0
    share = 100 * found.unknown / max(found.symbols, 1)
    print(f"bits per character = {found.bits_per_character:.4f} over {found.characters:,} characters, "
          "line ends among them")  # fmt: skip
    print(f"perplexity = {found.perplexity:.3f} over {tokens:,} {unit}s, line ends among them; "
          f"{found.unknown:,} are unknown ({share:.2f} %)")  # fmt: skip
    if found.unknown:
        print(f"perplexity = {found.perplexity_of_known:.3f} without the unknown ones")
    return 0


def run_sample(arguments: argparse.Namespace) -> int:
    from seqkit.text.ngram import NgramModel
    from seqkit.text.ngram_text import join_symbols

    for name, least in (("n", 1), ("max_length", 1), ("temperature", 0), ("seed", 0)):
        if not least <= getattr(arguments, name) < math.inf:
            raise InputError(f"sample: {name} must be at least {least}, got {getattr(arguments, name)}")
    model = NgramModel.from_arpa(arguments.model)
    unit = getattr(arguments, "unit", model.unit)
    for words in model.sample(
        arguments.n, seed=arguments.seed, temperature=arguments.temperature, max_symbols=arguments.max_length
    ):
        print(join_symbols(words, unit), flush=True)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
