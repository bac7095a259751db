"""Claim: `kill -9` at any moment loses nothing. A short training is killed at random moments, resumed each time, and
ends with the same bytes as one that was left alone.

    python benchmarks/kill_resume.py [--kills 20] [--seed 1]

Trains a small Transformer on generated dates through the command line, once whole and then KILLS times from the start,
each killed once after a random delay and resumed. Prints the step that each kill hit and ends with exit code 1 if any
final model.safetensors differs.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from seqkit.tasks.dates import write_dates

CONFIG = """
[data]
train = ["{folder}/train.tsv"]
valid = ["{folder}/valid.tsv"]

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

[training]
max_epochs = 16
batch_tokens = 200
accumulate = 2
warmup = 20
ema_decay = 0.99
keep_best = 2
average = 2
checkpoint_every = 10
log_every = 5

[validation]
bleu = false
"""


def start(config: Path, output: Path, *, resume: bool) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "seqkit", "train", str(config), "-o", str(output), "--threads", "1"]
    return subprocess.Popen([*command, "--resume"] if resume else command, stderr=subprocess.DEVNULL)


def last_step(folder: Path) -> str:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return lines[-1].split('"step": ')[1].split(",")[0] if lines else "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_dates(folder, train=600, valid=50, test=1, seed=1)
        config = folder / "config.toml"
        config.write_text(CONFIG.format(folder=folder))
        begin = time.monotonic()
        if start(config, folder / "whole", resume=False).wait() != 0:
            raise SystemExit("the whole training failed")
        duration = time.monotonic() - begin
        expected = (folder / "whole" / "model.safetensors").read_bytes()
        print(f"whole training: {duration:.1f} s, last recorded step {last_step(folder / 'whole')}")
        different = 0
        for index in range(arguments.kills):
            output = folder / f"killed-{index}"
            process = start(config, output, resume=False)
            delay = generator.uniform(0.25, 0.99) * duration
            time.sleep(delay)
            process.kill()
            code = process.wait()
            step = last_step(output)
            if start(config, output, resume=True).wait() != 0:
                raise SystemExit(f"kill {index + 1}: the resumed training failed")
            same = (output / "model.safetensors").read_bytes() == expected
            different += not same
            state = "killed" if code == -9 else f"had ended with {code}"
            print(f"{index + 1:>3}: {state} after {delay:5.1f} s, last recorded step {step:>4}: "
                  f"{'same bytes' if same else 'DIFFERENT'}", flush=True)  # fmt: skip
        print(f"{arguments.kills - different} of {arguments.kills} ended with the bytes of the uninterrupted training")
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
