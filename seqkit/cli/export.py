"""Write a trained Transformer in another program's format.

`--to ctranslate2` needs `pip install 'seqkit[ctranslate2]'` and gives a folder that ctranslate2.Translator loads.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="run folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write, which must not exist")
    parser.add_argument("--to", required=True, choices=("ctranslate2",), help="the format")


def run(arguments: argparse.Namespace) -> int:
    from seqkit.tasks.ctranslate2 import export_run

    export_run(arguments.model, arguments.output)
    print(f"{arguments.output}: a CTranslate2 model", file=sys.stderr)
    return 0
