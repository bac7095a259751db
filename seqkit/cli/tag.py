"""Label the words of lines with a trained tagger: N lines in, N lines out, in their order.

White space separates words; a line of output has a label for each word, with spaces between them. Where the model has
several columns of labels, `|` stands between those of a word. What cannot be read (not UTF-8, too long) gives an empty
line and a warning with its number. With --json, one object a line: words, labels, and the probability of each label
whatever its neighbours are.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="run folder")
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="text to label; - is stdin")
    parser.add_argument("-o", "--output", default="-", help="where to write; - is stdout")
    parser.add_argument("--batch-tokens", type=int, default=4096, metavar="N", help="padded words at a time")
    parser.add_argument("--max-bytes", type=int, default=1_000_000, metavar="N", help="a longer line is not labelled")
    parser.add_argument("--json", action="store_true", help="one object a line: words, labels, probabilities")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


def run(arguments: argparse.Namespace) -> int:
    from seqkit.cli.info import warn_if_not_built
    from seqkit.cli.line_stream import open_output, readable_lines
    from seqkit.cli.threads import set_threads
    from seqkit.tasks.word_tagger import WordTagger

    set_threads(arguments.threads)
    tagger = WordTagger.load(arguments.model, device=arguments.device)
    warn_if_not_built()
    with open_output(arguments.output) as output:
        for lines in readable_lines(arguments.file, max_bytes=arguments.max_bytes, warn=_warn):
            answers = tagger.tag([text or "" for _, text in lines], batch_tokens=arguments.batch_tokens)
            for (number, _), answer in zip(lines, answers, strict=True):
                if arguments.json:
                    record = {
                        "line": number, "words": answer.words, "labels": answer.labels,
                        "probabilities": [[round(p, 6) for p in column] for column in answer.probabilities],
                    }  # fmt: skip
                    output.write(json.dumps(record, ensure_ascii=False) + "\n")
                else:
                    output.write(" ".join("|".join(labels) for labels in zip(*answer.labels, strict=True)) + "\n")
            output.flush()
    return 0


def _warn(text: str) -> None:
    print(f"seqkit tag: warning: {text}", file=sys.stderr)
