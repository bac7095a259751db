"""N-gram language models with modified Kneser-Ney smoothing, in ARPA files.

Words are what stands between white space. With --unit char a line's characters are the words, `▁` stands for a space.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, run: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, formatter_class=parser.formatter_class)
        made.set_defaults(run=run)
        return made

    train = command("train", "estimate a model of a text", run_train)
    train.add_argument("text", nargs="+", metavar="TEXT", help="lines, each a sentence; .gz and .xz too; - is stdin")
    train.add_argument("-o", "--output", required=True, metavar="ARPA", help="the model; packed if it ends in .gz")
    train.add_argument("--order", type=int, default=5, metavar="N", help="words of the longest n-gram")
    train.add_argument("--min-count", type=int, default=1, metavar="N", help="rarer words become <unk>")
    _add_unit(train)

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
    parser.add_argument("--unit", choices=("word", "char"), default="word", help="what the words of the model are")


def run(arguments: argparse.Namespace) -> int:
    code: int = arguments.run(arguments)
    return code


def run_train(arguments: argparse.Namespace) -> int:
    from seqkit.text.kneser_ney import estimate

    model = estimate(_sentences(arguments), order=arguments.order, min_count=arguments.min_count)
    model.save(arguments.output)
    counts = ", ".join(f"{len(order.keys):,}" for order in model.orders)
    print(f"n-grams of the orders 1 to {model.order}: {counts}; written to {arguments.output}", file=sys.stderr)
    return 0


def run_evaluate(arguments: argparse.Namespace) -> int:
    import numpy as np

    from seqkit.errors import InputError
    from seqkit.text.backoff_table import BackoffTable

    model = BackoffTable.load(arguments.model)
    sentences = _sentences(arguments)
    if not sentences:
        raise InputError(f"{arguments.text[0]}: the text must have at least one line, got none")
    ids, begins = model.encode(sentences)
    nats = -math.fsum(model.score_ids(ids, begins))
    tokens = len(ids) - len(begins)
    unknown = int(np.count_nonzero(ids == model.unknown))
    # A line's end counts as a character; between words there is a space.
    characters = (
        tokens if arguments.unit == "char" else sum(sum(map(len, line)) + max(len(line), 1) for line in sentences)
    )
    figures = {
        "bits_per_character": nats / math.log(2) / characters, "perplexity": math.exp(min(nats / tokens, 700.0)),
        "loss": nats / tokens, "tokens": tokens, "characters": characters, "unknown": unknown,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(figures))
        return 0
    print(
        f"bits per character = {figures['bits_per_character']:.4f} over {characters:,} characters, line ends among them"
    )
    print(f"perplexity = {figures['perplexity']:.3f} over {tokens:,} {arguments.unit}s, line ends among them; "
          f"{unknown:,} are unknown")  # fmt: skip
    return 0


def run_sample(arguments: argparse.Namespace) -> int:
    from seqkit.errors import InputError
    from seqkit.text.backoff_table import BackoffTable
    from seqkit.text.kneser_ney import text_of

    for name, least in (("n", 1), ("max_length", 1), ("temperature", 0), ("seed", 0)):
        if not getattr(arguments, name) >= least:
            raise InputError(f"sample: {name} must be at least {least}, got {getattr(arguments, name)}")
    model = BackoffTable.load(arguments.model)
    found = model.sample(
        arguments.n, seed=arguments.seed, max_length=arguments.max_length, temperature=arguments.temperature
    )
    for words in found:
        print(text_of(words) if arguments.unit == "char" else " ".join(words))
    return 0


def _sentences(arguments: argparse.Namespace) -> list[list[str]]:
    from seqkit.text.corpus import LineCorpus
    from seqkit.text.kneser_ney import characters

    split = characters if arguments.unit == "char" else str.split
    return [split(line) for line in LineCorpus(arguments.text, max_chars=None)]
