"""Read a model that another program trained, and write it as a run folder.

`--from ctranslate2` reads a Transformer's folder (model.bin and its vocabularies); nothing else need be installed. Text
is split into the vocabulary's tokens as `--tokens` says: one a character, or separated by spaces.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the model to read")
    parser.add_argument("-o", "--output", type=Path, required=True, help="run folder to write, which must not exist")
    parser.add_argument("--from", dest="source", default="ctranslate2", choices=("ctranslate2",), help="the format")
    parser.add_argument("--tokens", default="char", choices=("char", "word"), help="how text is split into tokens")


def run(arguments: argparse.Namespace) -> int:
    from seqkit.tasks.ctranslate2 import import_run

    import_run(arguments.folder, arguments.output, tokens=arguments.tokens)
    print(f"{arguments.output}: try `seqkit translate {arguments.output}`", file=sys.stderr)
    return 0
