"""Write down what is said in sound files with a trained CTC model: one line a file, in their order.

With `-` the files are named on stdin, one a line. A file that cannot be read gives an empty line and a sentence on
stderr, and the exit code is 2. With --timestamps each word stands behind the second in which it begins. With --json,
one object a line: path, text, score, and the words with their starts; the text of what cannot be read is null.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="run folder")
    parser.add_argument(
        "audio", nargs="*", default=["-"], metavar="AUDIO", help="sound files; - reads names from stdin"
    )
    parser.add_argument("-o", "--output", default="-", help="where to write; - is stdout")
    parser.add_argument("--timestamps", action="store_true", help="the second in which each word begins")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    search = parser.add_argument_group("search", "defaults are the [search] table of the model's config.toml")
    search.add_argument("--beam", type=int, metavar="N", help="prefixes that a search keeps; 0 for the best path")
    search.add_argument("--lm", metavar="ARPA", help="n-gram model of words or characters that the search asks")
    search.add_argument("--lm-weight", type=float, metavar="X", help="times its log-probabilities")
    search.add_argument("--word-bonus", type=float, metavar="X", help="what each of its words or characters adds")
    search.add_argument("--hot-words", metavar="FILE", help="phrases that are made likelier, one a line")
    search.add_argument("--hot-word-weight", type=float, metavar="X", help="log-probability that each of them adds")


def run(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from seqkit.cli.info import warn_if_not_built
    from seqkit.cli.line_stream import open_output
    from seqkit.cli.threads import set_threads
    from seqkit.errors import InputError
    from seqkit.tasks.ctc_decoder import CTCDecoder
    from seqkit.tasks.transcriber import Transcriber
    from seqkit.text.corpus import LineCorpus

    if "-" in arguments.audio and len(arguments.audio) > 1:
        raise InputError(f"transcribe: `-` must be given alone, got {len(arguments.audio)} names")
    set_threads(arguments.threads)
    transcriber = Transcriber.load(arguments.model, device=arguments.device)
    given = {
        "beam_size": arguments.beam, "lm": arguments.lm, "lm_weight": arguments.lm_weight,
        "word_bonus": arguments.word_bonus, "hot_word_weight": arguments.hot_word_weight,
    }  # fmt: skip
    options = replace(transcriber.config.search, **{name: value for name, value in given.items() if value is not None})
    hot_words = (
        [line.strip() for line in LineCorpus(arguments.hot_words) if line.strip()] if arguments.hot_words else []
    )
    decoder = CTCDecoder(transcriber.tokenizer, options, hot_words)
    warn_if_not_built()
    failed = False
    with open_output(arguments.output) as output:
        for paths in _paths(arguments.audio):
            for path, found in zip(paths, transcriber.transcribe(paths, decoder), strict=True):
                if isinstance(found, InputError):
                    print(f"seqkit transcribe: {found}", file=sys.stderr)
                    failed = True
                output.write(_line(path, None if isinstance(found, InputError) else found, arguments) + "\n")
            output.flush()
    return 2 if failed else 0


def _paths(given: list[str]) -> Iterator[list[str]]:
    """The names of the files, as many at a time as have arrived."""
    from seqkit.cli.line_stream import readable_lines

    if given != ["-"]:
        yield given
        return
    for lines in readable_lines("-", max_bytes=4096, warn=_warn):
        yield [text or "" for _, text in lines]


def _line(path: str, found: Any, arguments: argparse.Namespace) -> str:
    if arguments.json:
        words = [{"word": word, "start": round(start, 3)} for word, start in found.words] if found else []
        record = {
            "path": path, "text": found and found.text, "score": found and round(found.score, 4), "words": words
        }  # fmt: skip
        return json.dumps(record, ensure_ascii=False)
    if found is None:
        return ""
    if arguments.timestamps:
        return " ".join(f"{start:.2f} {word}" for word, start in found.words)
    text: str = found.text.replace("\n", " ")
    return text


def _warn(text: str) -> None:
    print(f"seqkit transcribe: warning: {text}", file=sys.stderr)
