"""Train a model as a TOML file says.

The run folder gets the resolved config, the tokenizers, metrics.jsonl, model.safetensors and checkpoints. Ctrl-C or
SIGTERM saves after the current step; `--resume` goes on from the last checkpoint, bit for bit.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="what to train, on what, and how")
    parser.add_argument("-o", "--output", type=Path, help="run folder; runs/NAME of the config's name without it")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override a value of the config; repeatable",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint, or start if there is none"
    )
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice without it")
    parser.add_argument("--json", action="store_true", help="records as JSON lines on stdout")


def run(arguments: argparse.Namespace) -> int:
    from seqkit.cli.info import warn_if_not_built
    from seqkit.cli.progress import TrainingReport
    from seqkit.cli.threads import set_threads
    from seqkit.config import apply_overrides, read_toml
    from seqkit.tasks import entry, task_of

    tables = read_toml(arguments.config)
    apply_overrides(tables, arguments.set)
    train = entry(task_of(tables, where=str(arguments.config)).trainer)
    set_threads(arguments.threads)
    warn_if_not_built()
    folder = arguments.output or Path("runs") / arguments.config.stem
    report = TrainingReport(as_json=arguments.json)
    try:
        outcome = train(
            tables,
            folder,
            where=str(arguments.config),
            base=arguments.config.parent,
            resume=arguments.resume,
            report=report,
        )
    finally:
        report.close()
    if outcome.signal is not None:
        print(f"{outcome.reason}: saved at step {outcome.step} in {folder}; go on with --resume", file=sys.stderr)
        return 128 + outcome.signal
    ended = "no progress" if outcome.reason == "early" else "finished"
    print(
        f"{ended} at step {outcome.step}; best at step {outcome.best_step}; the model is in {folder}", file=sys.stderr
    )
    return 0
