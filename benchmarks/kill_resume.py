"""Claim: `kill -9` at any moment loses nothing. A short training of each task is killed at random moments, resumed each
time, and ends with the same bytes as one that was left alone.

    python benchmarks/kill_resume.py [--tasks translation language-model tagging classification] [--kills 20] [--seed 1]

Trains a small model of generated dates through the command line, once whole and then KILLS times from the start, each
killed once after a random delay and resumed. Prints the step that each kill hit and ends with exit code 1 if any final
model.safetensors differs.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from seqkit.tasks.dates import write_dates

TRAINING = """
[training]
max_epochs = {epochs}
batch_tokens = 200
accumulate = 2
warmup = 20
ema_decay = 0.99
keep_best = 2
average = 2
checkpoint_every = 10
log_every = 5
"""
CONFIGS = {  # and the passes that last some ten seconds
    "translation": (16, """
[data]
train = ["train.tsv"]
valid = ["valid.tsv"]

[tokenizer]
kind = "bpe"
vocab_size = 250
sampling = 0.1

[model]
kind = "transformer"
model_dim = 32
ffn_dim = 64
n_heads = 2
encoder_layers = 1
decoder_layers = 1

[validation]
bleu = false
"""),
    "language-model": (16, """
task = "language-model"

[data]
train = ["train.txt"]
valid = ["valid.txt"]
window = 20

[tokenizer]
kind = "char"

[model]
kind = "rnn"
embedding_dim = 32
hidden_dim = 48
weight_dropout = 0.2
zoneout = 0.1

[validation]
samples = 1
"""),
    "tagging": (16, """
task = "tagging"

[data]
train = ["train.conll"]
valid = ["valid.conll"]

[model]
encoder = "lstm"
hidden_dim = 16
output = "crf"
"""),
    "classification": (24, """
task = "classification"

[data]
train = ["train.classes"]
valid = ["valid.classes"]

[model]
encoder = "gru"
hidden_dim = 16
"""),
}  # fmt: skip


def write_data(folder: Path) -> None:
    """Dates to translate, as running text, with their year as an entity, and with their month as a class."""
    write_dates(folder, train=600, valid=50, test=1, seed=1)
    for part in ("train", "valid"):
        pairs = [line.split("\t") for line in (folder / f"{part}.tsv").read_text().splitlines()]
        text, columns, classes = [], [], []
        for date, iso in pairs:
            text.append(f"{date}\n")
            columns += [f"{word}\t{'B-year' if iso[:4] in word else 'O'}\n" for word in date.split()] + ["\n"]
            classes.append(f"{iso[5:7]}\t{date}\n")
        for suffix, lines in (("txt", text), ("conll", columns), ("classes", classes)):
            (folder / f"{part}.{suffix}").write_text("".join(lines))


def start(config: Path, output: Path, *, resume: bool) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "seqkit", "train", str(config), "-o", str(output), "--threads", "1"]
    return subprocess.Popen([*command, "--resume"] if resume else command, stderr=subprocess.DEVNULL)


def last_step(folder: Path) -> str:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return lines[-1].split('"step": ')[1].split(",")[0] if lines else "none"


def kill_and_resume(folder: Path, task: str, kills: int, generator: random.Random) -> int:
    """How many of the resumed trainings ended with other bytes than the whole one."""
    epochs, tables = CONFIGS[task]
    config = folder / f"{task}.toml"
    config.write_text(tables + TRAINING.format(epochs=epochs))
    begin = time.monotonic()
    whole = folder / f"{task}-whole"
    if start(config, whole, resume=False).wait() != 0:
        raise SystemExit(f"{task}: the whole training failed")
    duration = time.monotonic() - begin
    expected = (whole / "model.safetensors").read_bytes()
    print(f"{task}: {duration:.1f} s, last recorded step {last_step(whole)}", flush=True)
    different = 0
    for index in range(kills):
        output = folder / f"{task}-{index}"
        process = start(config, output, resume=False)
        delay = generator.uniform(0.25, 0.99) * duration
        time.sleep(delay)
        process.kill()
        code = process.wait()
        step = last_step(output)
        if start(config, output, resume=True).wait() != 0:
            raise SystemExit(f"{task}, kill {index + 1}: the resumed training failed")
        same = (output / "model.safetensors").read_bytes() == expected
        different += not same
        state = "killed" if code == -9 else f"had ended with {code}"
        print(f"{index + 1:>3}: {state} after {delay:5.1f} s, last recorded step {step:>4}: "
              f"{'same bytes' if same else 'DIFFERENT'}", flush=True)  # fmt: skip
    print(f"{task}: {kills - different} of {kills} ended with the bytes of the uninterrupted training")
    return different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_data(folder)
        different = sum(kill_and_resume(folder, task, arguments.kills, generator) for task in arguments.tasks)
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
