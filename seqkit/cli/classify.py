"""Tell the class of each line with a trained classifier: N lines in, N lines out, in their order.

A line of output has the class, a tab and its probability. What cannot be read (not UTF-8, too long) gives an empty line
and a warning with its number; an empty line is a text like any other. With --json, one object a line, with the
probability of every class.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="run folder")
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="texts, one a line; - is stdin")
    parser.add_argument("-o", "--output", default="-", help="where to write; - is stdout")
    parser.add_argument(
        "--ensemble", action="append", default=[], type=Path, metavar="MODEL",
        help="a further model whose probabilities count as much; repeatable",
    )  # fmt: skip
    parser.add_argument("--batch-tokens", type=int, default=4096, metavar="N", help="padded words at a time")
    parser.add_argument("--max-bytes", type=int, default=1_000_000, metavar="N", help="a longer line has no class")
    parser.add_argument("--json", action="store_true", help="one object a line: label and probabilities")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


def run(arguments: argparse.Namespace) -> int:
    from seqkit.cli.info import warn_if_not_built
    from seqkit.cli.line_stream import open_output, readable_lines
    from seqkit.cli.threads import set_threads
    from seqkit.tasks.text_classifier import TextClassifier

    set_threads(arguments.threads)
    classifier = TextClassifier.load(arguments.model, device=arguments.device)
    for path in arguments.ensemble:
        classifier.add_to_ensemble(TextClassifier.load(path, device=arguments.device))
    warn_if_not_built()
    with open_output(arguments.output) as output:
        for lines in readable_lines(arguments.file, max_bytes=arguments.max_bytes, warn=_warn):
            texts = [text for _, text in lines if text is not None]
            answers = iter(classifier.classify(texts, batch_tokens=arguments.batch_tokens))
            for number, text in lines:
                answer = None if text is None else next(answers)
                if arguments.json:
                    record = {
                        "line": number, "label": answer and answer.label,
                        "probabilities": {name: round(p, 6) for name, p in answer.probabilities.items()}
                        if answer else {},
                    }  # fmt: skip
                    output.write(json.dumps(record, ensure_ascii=False) + "\n")
                elif answer is None:
                    output.write("\n")
                else:
                    output.write(f"{answer.label}\t{answer.probabilities[answer.label]:.4f}\n")
            output.flush()
    return 0


def _warn(text: str) -> None:
    print(f"seqkit classify: warning: {text}", file=sys.stderr)
