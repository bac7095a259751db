"""`seqkit embed train`: vectors of a text's words.

An option that is not given keeps the trainer's default.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqkit.errors import InputError

if TYPE_CHECKING:
    from tqdm import tqdm

    from seqkit.embeddings import GloVe, Word2Vec
    from seqkit.embeddings.glove import GloVeProgress
    from seqkit.embeddings.word2vec import Progress

MODELS = ("skipgram", "cbow", "fasttext", "glove")
SAID_EVERY = 10.0  # seconds between two lines in a pipe
# Field, type and help of the options that trainers have.
OPTIONS = [
    ("dim", int, "numbers of a vector (100)"),
    ("window", int, "words on each side, at most (5; glove 10)"),
    ("negative", int, "drawn words for each pair (5)"),
    ("min_count", int, "rarer words are left out (5)"),
    ("max_vocab", int, "the most frequent so many words are kept"),
    ("sample", float, "share of the text above which a word is sub-sampled; 0 for never (1e-4)"),
    ("epochs", int, "passes over the text (5; glove, over its pairs, 25)"),
    ("alpha", float, "learning rate at the begin (0.05; cbow 0.075); glove: the power of a weight (0.75)"),
    ("min_alpha", float, "learning rate at the end (1e-4)"),
    ("min_n", int, "fasttext: characters of the shortest n-gram (3)"),
    ("max_n", int, "fasttext: characters of the longest n-gram (6)"),
    ("buckets", int, "fasttext: hashed n-grams (2000000)"),
    ("x_max", float, "glove: the count from which a pair has the whole weight (100)"),
    ("eta", float, "glove: learning rate at the begin (0.05)"),
    ("threads", int, "CPU threads (1)"),
    ("seed", int, "of all that is random (1)"),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", nargs="+", metavar="CORPUS", help="text, .gz and .xz too; - is stdin")
    parser.add_argument("-o", "--output", required=True, metavar="VECTORS", help="where to write; the suffix says how")
    parser.add_argument("--format", help="in place of that of the suffix: see `seqkit embed convert`")
    parser.add_argument(
        "--dtype",
        choices=("float32", "int8"),
        default="float32",
        help="int8 takes a quarter of the room, in .safetensors",
    )
    parser.add_argument("--model", choices=MODELS, default="skipgram", help="what is trained")
    for name, kind, text in OPTIONS:
        parser.add_argument(
            "--" + name.replace("_", "-"), type=kind, default=argparse.SUPPRESS, metavar="X", help=text
        )  # fmt: skip
    for name, text in [
        ("hierarchical", "the Huffman tree's softmax in place of negative sampling"),
        ("deterministic", "the same bytes for any number of threads, slower"),
    ]:
        parser.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help=text)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default=argparse.SUPPRESS,
        help="where skipgram and cbow train (cpu); cuda is a GPU that torch sees",
    )  # fmt: skip
    parser.add_argument(
        "--memory", type=_bytes, default=argparse.SUPPRESS, metavar="SIZE",
        help="what vocabulary and text may take before they go to disk, as 500M or 2G",
    )  # fmt: skip
    parser.add_argument("--checkpoint", metavar="FILE", help="keep the run here, now and then and on interruption")
    parser.add_argument("--resume", action="store_true", help="go on from --checkpoint, with the same text and options")
    parser.add_argument("--grow-from", metavar="FILE", help="checkpoint of another text's run: its words are kept")
    parser.add_argument("--json", action="store_true", help="progress and result as JSON lines on stdout")


def run(arguments: argparse.Namespace) -> int:
    from seqkit.embeddings.io import format_of

    trainer = _trainer(arguments)
    format_of(arguments.output, arguments.format, dtype=arguments.dtype)  # a wrong name is told before hours of work
    folder = Path(arguments.output).resolve().parent
    if arguments.output == "-" and arguments.json:
        raise InputError("--json: vectors must go to a file beside JSON lines, got -o -")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{arguments.output}: path must be in a folder that can be written, got {folder}")
    report = _Report(as_json=arguments.json, resumed=arguments.resume)
    growth = {} if arguments.grow_from is None else {"grow_from": arguments.grow_from}
    if growth and arguments.model == "glove":
        raise InputError("--grow-from: model must have this option, got glove")
    try:
        with _terminated_as_interrupted():
            vectors = trainer.train(
                [Path(path) for path in arguments.corpus], checkpoint=arguments.checkpoint, resume=arguments.resume,
                on_progress=report.progress, **growth,
            )  # fmt: skip
    except _Terminated:
        kept = f"the run is kept in {arguments.checkpoint}" if arguments.checkpoint else "nothing is kept"
        print(f"seqkit embed: terminated; {kept}", file=sys.stderr)
        return 128 + signal.SIGTERM
    finally:
        report.close()
    vectors.save(arguments.output, arguments.format, dtype=arguments.dtype)
    report.done(len(vectors), vectors.dim, arguments.output)
    return 0


def _trainer(arguments: argparse.Namespace) -> Word2Vec | GloVe:
    from seqkit.embeddings import FastText, GloVe, Word2Vec

    # A trainer is its class and what makes it this model; its fields are the options that it takes.
    trainers: dict[str, tuple[type[Word2Vec | GloVe], dict[str, Any]]] = {
        "skipgram": (Word2Vec, {"architecture": "skipgram"}),
        "cbow": (Word2Vec, {"architecture": "cbow"}),
        "fasttext": (FastText, {}),
        "glove": (GloVe, {}),
    }
    kind, options = trainers[arguments.model]
    known = {field.name for field in fields(kind)}
    for name in (*(name for name, _, _ in OPTIONS), "hierarchical", "deterministic", "memory", "device"):
        if hasattr(arguments, name):
            if name not in known:
                raise InputError(f"--{name.replace('_', '-')}: model must have this option, got {arguments.model}")
            options[name] = getattr(arguments, name)
    return kind(**options)


def _bytes(text: str) -> int:
    """A size such as 1000, 500M or 2G."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    unit = units.get(text[-1:].upper())
    size = int(float(text[:-1]) * unit) if unit else int(text)
    if size < 1:
        raise ValueError(text)
    return size


class _Terminated(KeyboardInterrupt):
    """SIGTERM: the checkpoint is written as on Ctrl-C."""


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Report:
    """A bar on a terminal, lines in a pipe."""

    def __init__(self, *, as_json: bool, resumed: bool) -> None:
        self.as_json, self.resumed = as_json, resumed
        self.begin: tuple[int, float] | None = None
        self.bar: tqdm[Any] | None = None
        self.unit = "word"
        self.said = time.monotonic()
        self.last: dict[str, Any] = {}

    def progress(self, now: Progress | GloVeProgress) -> None:
        from seqkit.embeddings.word2vec import Progress

        if not isinstance(now, Progress):  # GloVe's work is pairs
            self.unit = "pair"
            now = Progress(words=now.terms, total_words=now.total_terms, loss=now.loss, seconds=now.seconds)
        if self.begin is None:  # a resumed run has words behind it that took none of these seconds
            self.begin = (now.words, now.seconds) if self.resumed else (0, 0.0)
        seconds = now.seconds - self.begin[1]
        speed = (now.words - self.begin[0]) / seconds if seconds > 0 else 0.0
        left = (now.total_words - now.words) / speed if speed else None
        self.last = {
            "kind": "progress", f"{self.unit}s": now.words, f"total_{self.unit}s": now.total_words,
            "seconds": round(now.seconds, 3),
            f"{self.unit}s_per_second": round(speed), "seconds_left": None if left is None else round(left, 1),
            "loss": now.loss if now.loss == now.loss else None,
        }  # fmt: skip
        if sys.stderr.isatty():
            self._draw(now)
        if time.monotonic() - self.said >= SAID_EVERY or now.words >= now.total_words:
            self.said = time.monotonic()
            if self.as_json:
                print(json.dumps(self.last), flush=True)
            if self.bar is None:
                share = 100 * now.words / max(now.total_words, 1)
                wait = "?" if left is None else f"{left:.0f} s"
                print(
                    f"{share:5.1f} %  {speed:,.0f} {self.unit}s/s  {wait} left  loss {now.loss:.4f}",
                    file=sys.stderr, flush=True,
                )  # fmt: skip

    def _draw(self, now: Progress) -> None:
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(
                total=now.total_words,
                initial=now.words,
                unit=self.unit,
                unit_scale=True,
                dynamic_ncols=True,
                leave=False,
            )
        self.bar.set_postfix_str(f"loss {now.loss:.4f}", refresh=False)
        self.bar.update(now.words - self.bar.n)

    def done(self, words: int, dim: int, path: str) -> None:
        print(f"{words:,} words of {dim} numbers written to {path}", file=sys.stderr)
        if self.as_json:
            print(json.dumps({**self.last, "kind": "done", "vocabulary": words, "dim": dim, "output": path}))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
