"""The main job end to end: dates as people write them in ten languages, translated to ISO 8601.

Makes its own data, trains an attention LSTM and a small Transformer, translates held-out dates with beam 5, draws where
the LSTM looked, and translates a line from stdin with the model it has just trained. Run it again to go on where it was
stopped; remove the folder to start anew.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqkit.tasks.translator import Translation

MODELS: dict[str, dict[str, Any]] = {
    "dates-lstm": {
        "model": {"kind": "seq2seq", "embedding_dim": 64, "hidden_dim": 128, "dropout": 0.1},
        "training": {"max_epochs": 6, "batch_tokens": 3000, "learning_rate": 6e-3, "warmup": 60},
    },
    "dates-transformer": {
        "model": {
            "kind": "transformer", "model_dim": 128, "ffn_dim": 256, "n_heads": 4, "encoder_layers": 2,
            "decoder_layers": 2, "dropout": 0.1, "tied_embeddings": "decoder",
        },
        "training": {
            "max_epochs": 7, "batch_tokens": 1500, "learning_rate": 4e-3, "schedule": "cosine", "warmup": 150,
        },
    },
}  # fmt: skip
TRAIN, HELD_OUT = 20000, 1000
EXAMPLE = "jeudi 4 février 1999"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder for data, models and picture")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")


def run(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    from seqkit.cli.info import warn_if_not_built
    from seqkit.cli.progress import TrainingReport
    from seqkit.cli.threads import set_threads
    from seqkit.tasks.dates import write_dates
    from seqkit.tasks.translation import train_translation
    from seqkit.tasks.translator import Translator

    set_threads(arguments.threads)
    warn_if_not_built()
    folder: Path = arguments.output
    _say(f"Making dates in ten languages in {folder}/data")
    train, valid, test = write_dates(folder / "data", train=TRAIN, valid=500, test=HELD_OUT, seed=1)
    pairs = [tuple(line.split("\t")) for line in test.read_text(encoding="utf-8").splitlines()]
    dates, answers = [date for date, _ in pairs], [answer for _, answer in pairs]

    outputs: dict[str, list[Translation]] = {}
    for name, tables in MODELS.items():
        _say(f"\nTraining {folder / name}")
        report = TrainingReport()
        outcome = train_translation(
            _config(tables, train, valid), folder / name, where="demo", base=Path(), resume=True, report=report
        )
        report.close()
        if outcome.signal is not None:
            _say(f"{outcome.reason}: saved; run the demo again to go on")
            return 128 + outcome.signal
        outputs[name] = Translator.load(folder / name).translate(dates)

    _show_table(dates, answers, outputs)
    print()
    for name, translations in outputs.items():
        right = sum(translation.texts[0] == answer for translation, answer in zip(translations, answers, strict=True))
        print(f"{name:<18} exact match on {HELD_OUT} held-out dates, beam 5: {100 * right / HELD_OUT:.1f} %")

    picture = folder / "attention.png"
    _draw(folder / "dates-lstm", picture)
    print(f"\nWhere the LSTM looked for each character of `{EXAMPLE}`: {picture}")
    _translate_from_stdin(folder / "dates-transformer")
    _say(f"\nDone in {time.monotonic() - started:.0f} s")
    return 0


def _config(tables: dict[str, Any], train: Path, valid: Path) -> dict[str, Any]:
    return {
        "data": {"train": [str(train)], "valid": [str(valid)]},
        "tokenizer": {"kind": "char", "shared": False},
        "model": tables["model"],
        "training": {"label_smoothing": 0.05, "log_every": 100, "checkpoint_every": 200, **tables["training"]},
        "validation": {"bleu": False},
        "search": {"beam_size": 5, "max_length": 12},
    }


def _show_table(dates: list[str], answers: list[str], outputs: dict[str, list[Translation]]) -> None:
    """Twelve inputs with what each model made of them and its score (mean log-probability by length^0.7)."""
    print(f"\n{'input':<34} {'right answer':<12}" + "".join(f" {name:<18} {'score':>7}" for name in outputs))
    for index in range(12):
        row = _padded(dates[index], 34) + f" {answers[index]:<12}"
        for translations in outputs.values():
            text, best = translations[index].texts[0], translations[index].hypotheses[0]
            row += f" {text:<18} {best.score:>7.3f}"
        print(row)


def _padded(text: str, width: int) -> str:
    """Text padded to columns of a terminal, where a CJK character takes two."""
    columns = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
    return text + " " * (width - columns)


def _draw(model: Path, path: Path) -> None:
    from dataclasses import replace

    from seqkit.analysis.attention_map import save_attention_map
    from seqkit.tasks.translator import Translator

    translator = Translator.load(model)
    (translation,) = translator.translate([EXAMPLE], replace(translator.search, return_attention=True))
    weights = translation.hypotheses[0].attention
    assert weights is not None
    target = translation.pieces[0]
    save_attention_map(
        path, weights[: len(target)], source=[*translation.source_pieces[:-1], "end"], target=target,
        title=f"{EXAMPLE} → {translation.texts[0]}",
    )  # fmt: skip


def _translate_from_stdin(model: Path) -> None:
    """Runs the command that the person can run next, and shows it with its output."""
    command = [sys.executable, "-m", "seqkit", "translate", str(model)]
    print(f"\n$ echo '{EXAMPLE}' | seqkit translate {model}", flush=True)
    subprocess.run(command, input=EXAMPLE + "\n", text=True, encoding="utf-8", check=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
