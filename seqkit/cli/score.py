"""Log-probabilities of given translations, by force-decoding them.

One line a pair: the sum in nats, the mean a token, and the number of tokens (end symbol included), between tabs. With
--json each token's own log-probability too.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="run folder")
    parser.add_argument("source", help="source lines, or one .tsv with both sides")
    parser.add_argument("target", nargs="?", help="target lines, as many")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


def run(arguments: argparse.Namespace) -> int:
    from seqkit.cli.info import warn_if_not_built
    from seqkit.cli.threads import set_threads
    from seqkit.tasks.translator import Translator
    from seqkit.text.corpus import ParallelCorpus

    set_threads(arguments.threads)
    pairs = list(ParallelCorpus(arguments.source, arguments.target))
    translator = Translator.load(arguments.model, device=arguments.device)
    warn_if_not_built()
    for scores, (_, target) in zip(translator.score(pairs), pairs, strict=True):
        total = math.fsum(scores)
        if arguments.json:
            pieces = [*translator.target.pieces(translator.target.encode(target)), "</s>"]
            print(json.dumps({"logprob": total, "pieces": pieces, "token_logprobs": scores}, ensure_ascii=False))
        else:
            print(f"{total:.4f}\t{total / len(scores):.4f}\t{len(scores)}")
    return 0
