"""`seqkit VERB …`: finds the verb, and turns what goes wrong into one sentence and an exit code.

Exit codes: 0 done, 1 a fault of seqkit (with its traceback), 2 bad input (one sentence), 128 + n ended by signal n.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

import seqkit
from seqkit.config import nearest
from seqkit.errors import InputError
from seqkit.training.allocator import keep_freed_memory

VERBS = {
    "embed": "train word vectors, ask, measure, draw and convert them",
    "ngram": "estimate, measure and sample n-gram language models",
    "train": "train a model as a TOML file says",
    "translate": "translate lines with a trained model",
    "sample": "draw texts from a language model",
    "tag": "label the words of lines with a trained tagger",
    "classify": "tell the class of each line with a trained classifier",
    "transcribe": "write down what is said in sound files with a trained CTC model",
    "score": "log-probabilities of given translations",
    "evaluate": "a model on a test set: BLEU, chrF, TER, perplexity, bits per character, F1, accuracy, error rates",
    "average": "average the weights of checkpoints",
    "export": "write a model in another program's format",
    "import": "read a model that another program trained",
    "info": "what is built, which back end each op uses, and why",
    "demo": "the main job end to end, in minutes: dates in ten languages to ISO dates",
}
# `import` is a word of Python's; every other verb is the name of its file.
_FILES = {"import": "import_model"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of another encoding must not end the work
            stream.reconfigure(encoding="utf-8", errors="replace")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # whatever the locale is: text is data here
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"seqkit {seqkit.__version__}")
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        print(
            f"seqkit: the command must be one of {', '.join(VERBS)}, got `{verb}`{nearest(verb, VERBS)}",
            file=sys.stderr,
        )
        return 2
    module = importlib.import_module(f"seqkit.cli.{_FILES.get(verb, verb)}")
    parser = argparse.ArgumentParser(prog=f"seqkit {verb}", description=module.__doc__, formatter_class=_Formatter)
    module.add_arguments(parser)
    keep_freed_memory()  # the process is the command's own
    try:
        parsed = parser.parse_args(arguments[1:])
        code: int = module.run(parsed)
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"seqkit {verb}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"seqkit {verb}: interrupted", file=sys.stderr)
        return 130
    except SystemExit as exit_:  # argparse has said what is wrong
        return exit_.code if isinstance(exit_.code, int) else 2


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The module's docstring as it stands, and defaults after each flag."""


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    return f"{seqkit.__doc__}\n\nusage: seqkit COMMAND …      seqkit COMMAND --help says more\n\n{verbs}\n"
