"""Read a network that another program trained, and write it as a run folder.

PATH is one of

  a folder of CTranslate2    a Transformer: model.bin and its vocabularies
  a folder of TensorFlow.js  Keras's lstm_seq2seq, a character translator: model.json, its shards, metadata.json
  the folder of g2p-en       or its checkpoint20.npz: letters of an English word to ARPAbet phonemes

and its content tells which. Nothing else need be installed, and nothing is unpickled. The run folder is like any other:
`seqkit translate` runs it, by default with its owner's search, with a beam by `--beam 5`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

FORMATS = ("ctranslate2", "tensorflow-js", "g2p-en")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="the network to read")
    parser.add_argument("-o", "--output", type=Path, required=True, help="run folder to write, which must not exist")
    parser.add_argument("--from", dest="source", choices=FORMATS, help="the format, where its content does not tell")
    parser.add_argument(
        "--tokens", choices=("char", "word"),
        help="how a CTranslate2 model's text is split: one token a character (default), or separated by spaces",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from seqkit.tasks.importer import import_run

    import_run(arguments.path, arguments.output, source=arguments.source, tokens=arguments.tokens)
    print(f"{arguments.output}: try `seqkit translate {arguments.output}`", file=sys.stderr)
    return 0
