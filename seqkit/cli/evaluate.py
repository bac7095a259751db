"""Translate a test set and score it: BLEU, chrF and TER with their sacreBLEU signatures, and perplexity."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

from seqkit.cli.flags import add_flags, with_flags
from seqkit.cli.translate import FLAG_NAMES
from seqkit.decode.options import BeamOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="run folder")
    parser.add_argument("source", help="source lines, or one .tsv with both sides")
    parser.add_argument("reference", nargs="?", help="reference lines, as many")
    parser.add_argument("-o", "--output", help="also write the translations to this file")
    parser.add_argument("--baseline", help="another system's translations, for a paired bootstrap test")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    search = parser.add_argument_group("search", "defaults are the [search] table of the model's config.toml")
    add_flags(search, BeamOptions, names=FLAG_NAMES, skip=("return_attention",))


def run(arguments: argparse.Namespace) -> int:
    from seqkit.analysis.bleu import bleu, chrf, paired_bootstrap, ter
    from seqkit.atomic import write_atomically
    from seqkit.cli.info import warn_if_not_built
    from seqkit.cli.threads import set_threads
    from seqkit.errors import InputError
    from seqkit.tasks.translator import Translator
    from seqkit.text.corpus import LineCorpus, ParallelCorpus

    set_threads(arguments.threads)
    pairs = list(ParallelCorpus(arguments.source, arguments.reference))
    if not pairs:
        raise InputError(f"{arguments.source}: the test set must have at least one pair, got none")
    baseline = list(LineCorpus(arguments.baseline)) if arguments.baseline else None
    translator = Translator.load(arguments.model, device=arguments.device)
    options = with_flags(translator.search, arguments)
    warn_if_not_built()
    sources, references = [source for source, _ in pairs], [[target for _, target in pairs]]
    outputs = [translation.texts[0] for translation in translator.translate(sources, options)]
    if arguments.output:
        write_atomically(arguments.output, "".join(line.replace("\n", " ") + "\n" for line in outputs).encode())
    scores = [metric(outputs, references) for metric in (bleu, chrf, ter)]
    per_token = [logp for sentence in translator.score(pairs) for logp in sentence]
    perplexity = math.exp(min(-math.fsum(per_token) / len(per_token), 700.0))
    test = paired_bootstrap(baseline, outputs, references) if baseline is not None else None
    if arguments.json:
        record = {"scores": [asdict(score) for score in scores], "perplexity": perplexity, "sentences": len(pairs)}
        print(json.dumps(record | ({"bootstrap": asdict(test)} if test else {})))
        return 0
    for score in scores:
        print(score)
    print(f"perplexity = {perplexity:.3f} over {len(per_token):,} tokens of the model, end symbols included")
    if test:
        print(test)
    return 0
