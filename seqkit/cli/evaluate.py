"""Measure a model on a test set.

A translator: BLEU, chrF and TER with their sacreBLEU signatures, and perplexity. A language model: bits per character
and perplexity of a text. A tagger: span F1 as conlleval counts it, where labels mark spans, and the accuracy of words.
A classifier: accuracy with its 95 % interval. A CTC model, on a manifest: error rates of labels, words and characters,
found as the `[search]` table of its config.toml says.
"""

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
    parser.add_argument(
        "source", help="source lines, or one .tsv with both sides; the text or test set of another model"
    )
    parser.add_argument("reference", nargs="?", help="reference lines, as many")
    parser.add_argument("-o", "--output", help="also write the translations to this file")
    parser.add_argument("--baseline", help="another system's translations, for a paired bootstrap test")
    parser.add_argument(
        "--ensemble", action="append", default=[], type=Path, metavar="MODEL",
        help="a further translator or classifier that votes; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--adapt", type=float, default=0.0, metavar="RATE",
        help="dynamic evaluation of a language model with a carried state: it learns from the text at this rate, each "
        "piece after it was scored",
    )  # fmt: skip
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
    from seqkit.tasks.run_folder import saved_tables
    from seqkit.tasks.translator import Translator
    from seqkit.text.corpus import LineCorpus, ParallelCorpus

    set_threads(arguments.threads)
    warn_if_not_built()
    task = saved_tables(arguments.model).get("task", "translation")
    if arguments.adapt and task != "language-model":
        raise InputError(f"evaluate: `--adapt` must be for a language model, got a model of the task {task}")
    if task in OTHERS:
        if arguments.reference or arguments.output or arguments.baseline:
            raise InputError(
                f"evaluate: a model of the task {task} must be given one text, got options of a translator too"
            )
        if arguments.ensemble and task != "classification":
            raise InputError(
                f"evaluate: `--ensemble` must be of translators or classifiers, got a model of the task {task}"
            )
        return OTHERS[task](arguments)
    pairs = list(ParallelCorpus(arguments.source, arguments.reference))
    if not pairs:
        raise InputError(f"{arguments.source}: the test set must have at least one pair, got none")
    baseline = list(LineCorpus(arguments.baseline)) if arguments.baseline else None
    translator = Translator.load(arguments.model, device=arguments.device)
    for path in arguments.ensemble:
        translator.add_to_ensemble(Translator.load(path, device=arguments.device))
    options = with_flags(translator.search, arguments)
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


def _evaluate_language_model(arguments: argparse.Namespace) -> int:
    from seqkit.tasks.language_model import LanguageModel, read_lines

    lines = read_lines([arguments.source], name="text")
    model = LanguageModel.load(arguments.model, device=arguments.device)
    score = model.score(lines, adapt=arguments.adapt)
    figures = {
        "bits_per_character": score.bits_per_character, "perplexity": score.perplexity,
        "word_perplexity": score.word_perplexity, "loss": score.loss, "tokens": score.tokens,
        "characters": score.characters, "words": score.words, "unknown": score.unknown, "adapt": arguments.adapt,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(figures))
        return 0
    print(f"bits per character = {score.bits_per_character:.4f} over {score.characters:,} characters, line ends among "
          "them")  # fmt: skip
    print(f"perplexity = {score.perplexity:.3f} a token ({score.tokens:,}), {score.word_perplexity:.3f} a word "
          f"({score.words:,})")  # fmt: skip
    data = model.config.data
    context = "each line for itself" if data.lines else "one text, each token behind its past within the model's reach"
    if arguments.adapt:
        context = f"one text that the model learns from at the rate {arguments.adapt:g}, each piece after its score"
    print(f"scored as {context}; {score.unknown:,} tokens are unknown to the model")
    return 0


def _evaluate_tagger(arguments: argparse.Namespace) -> int:
    from seqkit.tasks.word_tagger import WordTagger
    from seqkit.text.columns import read_columns

    sentences = read_columns(arguments.source)
    scores = WordTagger.load(arguments.model, device=arguments.device).evaluate(sentences)
    if arguments.json:
        columns = [
            score.figures | {"words": score.accuracy.total} | ({"spans": asdict(score.spans)} if score.spans else {})
            for score in scores
        ]
        print(json.dumps({"columns": columns, "sentences": len(sentences)}))
        return 0
    for number, score in enumerate(scores, 1):
        if len(scores) > 1:
            print(f"column {number} of labels")
        if score.spans:
            print(score.spans)
            for kind, part in score.spans.by_type.items():
                print(f"  {kind}: {part}")
        print(f"{score.accuracy} of words")
    return 0


def _evaluate_classifier(arguments: argparse.Namespace) -> int:
    from seqkit.tasks.text_classifier import TextClassifier, read_labelled

    examples = read_labelled([arguments.source])
    classifier = TextClassifier.load(arguments.model, device=arguments.device)
    for path in arguments.ensemble:
        classifier.add_to_ensemble(TextClassifier.load(path, device=arguments.device))
    found, nats = classifier.evaluate(examples)
    if arguments.json:
        low, high = found.interval
        print(json.dumps({"accuracy": found.value, "low": low, "high": high, "loss": nats, "texts": found.total}))
        return 0
    print(found)
    print(f"loss = {nats:.4f} nats a text")
    return 0


def _evaluate_transcriber(arguments: argparse.Namespace) -> int:
    from seqkit.tasks.transcriber import Transcriber, read_manifest

    recordings = read_manifest([arguments.source])
    score = Transcriber.load(arguments.model, device=arguments.device).evaluate(recordings)
    if arguments.json:
        rates = {
            name: asdict(rate) | {"error_rate": rate.value}
            for name, rate in (("labels", score.labels), ("words", score.words), ("characters", score.characters))
        }
        print(json.dumps({"loss": score.loss, "recordings": len(recordings)} | rates))
        return 0
    print(f"label {score.labels}")
    print(f"word {score.words}")
    print(f"character {score.characters}")
    print(f"loss = {score.loss:.4f} nats a label")
    return 0


OTHERS = {
    "ctc": _evaluate_transcriber,
    "language-model": _evaluate_language_model,
    "tagging": _evaluate_tagger,
    "classification": _evaluate_classifier,
}
