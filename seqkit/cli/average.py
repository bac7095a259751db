"""Average the weights of checkpoints (Vaswani et al. 2017, section 6.1).

Give checkpoint files, or one run folder for all of its step checkpoints. The result is a model.safetensors; copy it
over the run folder's to use it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CKPT", help="checkpoint files, or a run folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="safetensors file to write")


def run(arguments: argparse.Namespace) -> int:
    from seqkit.errors import InputError
    from seqkit.training.checkpoint import average_checkpoints, save_tensors

    paths: list[Path] = []
    for path in arguments.checkpoints:
        if path.is_dir():
            found = sorted((path / "checkpoints").glob("step-*.safetensors"))
            if not found:
                raise InputError(f"{path}: the run folder must have step checkpoints, got none")
            paths += found
        else:
            paths.append(path)
    save_tensors(arguments.output, average_checkpoints(paths))
    print(f"{arguments.output}: the mean of {len(paths)} checkpoints", file=sys.stderr)
    return 0
