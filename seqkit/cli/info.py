"""What is installed and built, which back end each op uses, and why."""

from __future__ import annotations

import argparse
import json
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    import platform
    from dataclasses import asdict

    import torch

    import seqkit
    from seqkit.ops import library

    facts = library.build_facts()
    lines = library.status()
    versions = {"seqkit": seqkit.__version__, "python": platform.python_version(), "torch": torch.__version__}
    if arguments.json:
        print(json.dumps({**versions, "build": facts, "ops": [asdict(line) for line in lines]}))
        return 0
    for name, version in versions.items():
        print(f"{name:<8} {version}")
    print(f"{'threads':<8} {torch.get_num_threads()}")
    print(f"{'cuda':<8} {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no device'}")
    if facts["built"]:
        cuda = f", CUDA for {', '.join(facts['cuda_archs'])}" if facts.get("cuda_archs") else ", no CUDA kernels"
        print(f"{'built':<8} by {facts['compiler']} for {', '.join(facts['isa'])}{cuda}")
    else:
        print(f"{'built':<8} no: {facts['why']}")
    print(f"\n{'op':<22} {'device':<7} {'back end':<10} why")
    for line in lines:
        print(f"{line.op:<22} {line.device:<7} {line.backend:<10} {line.why}")
    return 0


def warn_if_not_built() -> None:
    """Says once, on stderr, that the plain-torch references run and why."""
    from seqkit.ops import library

    on_reference = sorted({line.op for line in library.status() if line.backend == "reference"})
    if on_reference:
        why = next(line.why for line in library.status() if line.backend == "reference")
        print(f"seqkit: {', '.join(on_reference)} run on plain torch: {why}", file=sys.stderr)
