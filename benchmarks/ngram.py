"""Claim: our Kneser-Ney models are lmplz's, in about the time that lmplz takes, and score as KenLM does.

    python benchmarks/ngram.py TRAIN TEST [--unit word] [--order 5] [--prune 0] [--lmplz PATH] [--rounds 3]

Estimates a model of TRAIN and writes its ARPA file, by seqkit and by KenLM's lmplz in turn, each in a process of its
own, and prints CPU seconds (medians, system time included), their ratio, the largest memory of each, and the largest
difference of two entries. lmplz is built from KenLM's sources (`cmake` and `make lmplz`; it needs Boost); without it
seqkit stands alone. With the package kenlm installed, TEST is scored by both, and the largest difference of two
words' log10 probabilities is printed.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from seqkit.text.arpa import read_arpa
from seqkit.text.corpus import LineCorpus
from seqkit.text.ngram import NgramModel
from seqkit.text.ngram_text import LINE_END, read_symbols

ESTIMATE = """
import sys
from seqkit.text.corpus import LineCorpus
from seqkit.text.kneser_ney import kneser_ney
_, text, unit, order, output, *prune = sys.argv
lines = LineCorpus(text, max_chars=None)
kneser_ney(lines, unit=unit, order=int(order), prune=[*map(int, prune)]).model.save(output)
"""


def spaced(path: Path, unit: str) -> list[str]:
    """The lines with a space between symbols, as KenLM wants them."""
    symbols, ids = read_symbols(LineCorpus(path, max_chars=None), unit)
    ends = np.flatnonzero(ids == LINE_END)
    begins = [0, *(ends[:-1] + 1)]
    return [" ".join(symbols[k] for k in ids[a:b].tolist()) for a, b in zip(begins, ends.tolist(), strict=True)]


def measured(command: list[str], stdin: Path | None) -> tuple[float, float]:
    """CPU seconds and megabytes of a command."""
    child = (
        "import json, resource, subprocess, sys\n"
        "source = open(sys.argv[1], 'rb') if sys.argv[1] else None\n"
        "subprocess.run(sys.argv[2:], stdin=source, check=True, stderr=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", child, str(stdin or ""), *command], check=True, capture_output=True, text=True
    )
    seconds, megabytes = json.loads(done.stdout.splitlines()[-1])
    return seconds, megabytes


def largest_difference(ours: Path, theirs: Path) -> float:
    """Of two entries' log10, in files that must hold the same n-grams."""
    a, b = read_arpa(ours), read_arpa(theirs)
    number = {word: k for k, word in enumerate(a.words)}
    to_ours = np.array([number[word] for word in b.words], np.int32)
    worst = 0.0
    for mine, its in zip(a.tables, b.tables, strict=True):
        its_ids = to_ours[its.ids]
        left, right = np.lexsort(mine.ids.T[::-1]), np.lexsort(its_ids.T[::-1])
        assert np.array_equal(mine.ids[left], its_ids[right])
        worst = max(worst, float(np.abs(mine.log_probs[left] - its.log_probs[right]).max(initial=0.0)))
        worst = max(worst, float(np.abs(mine.backoffs[left] - its.backoffs[right]).max(initial=0.0)))
    return worst / math.log(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--unit", choices=("word", "char"), default="word")
    parser.add_argument("--order", type=int, default=5)
    parser.add_argument("--prune", type=int, nargs="+", default=[0])
    parser.add_argument("--lmplz", default=shutil.which("lmplz"))
    parser.add_argument("--memory", default="2G", help="what lmplz may take to sort")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    prune = [str(n) for n in arguments.prune]
    order = str(arguments.order)
    ours, theirs, text = folder / "ours.arpa", folder / "theirs.arpa", folder / "text"
    commands = {
        "seqkit": [sys.executable, "-c", ESTIMATE, str(arguments.train), arguments.unit, order, str(ours), *prune]
    }
    if arguments.lmplz:
        text.write_text("".join(f"{line}\n" for line in spaced(arguments.train, arguments.unit)), encoding="utf-8")
        commands["lmplz"] = [
            arguments.lmplz, "-o", order, "-S", arguments.memory, "-T", str(folder), "--discount_fallback",
            *(["--prune", *prune] if any(arguments.prune) else []), "--arpa", str(theirs),
        ]  # fmt: skip
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            figures[name].append(measured(command, text if name == "lmplz" else None))
    seconds = {name: statistics.median(s for s, _ in rows) for name, rows in figures.items()}
    for name, rows in figures.items():
        print(f"{name}: {seconds[name]:.1f} CPU s, {max(m for _, m in rows):,.0f} MB")
    if arguments.lmplz:
        print(f"seqkit / lmplz: {seconds['seqkit'] / seconds['lmplz']:.2f} of the CPU time")
        print(f"entries differ by {largest_difference(ours, theirs):.1e} in log10 at most")

    begin = time.process_time()
    model = NgramModel.from_arpa(ours)
    read = time.process_time() - begin
    begin = time.process_time()
    found = model.evaluate(LineCorpus(arguments.test, max_chars=None))
    scored = time.process_time() - begin
    n = found.symbols + found.sentences
    print(
        f"n-grams {sum(model.n_ngrams):,}, read in {read:.1f} s; {n:,} {arguments.unit}s of the test in {scored:.2f} s "
        f"({1e6 * scored / n:.2f} µs each): {found.bits_per_character:.4f} bits per character, perplexity "
        f"{found.perplexity:.2f}, without {found.unknown:,} unknown ones {found.perplexity_of_known:.2f}"
    )
    try:
        import kenlm
    except ImportError:
        print("kenlm is not installed")
        return
    peer = kenlm.Model(str(ours))
    lines = spaced(arguments.test, arguments.unit)
    begin = time.process_time()
    total = math.fsum(map(peer.score, lines))
    seconds_of_peer = time.process_time() - begin
    worst = max(
        np.abs(np.array(model.score(line.split(" ") if line else [])) / math.log(10)
               - [score for score, _, _ in peer.full_scores(line)]).max()
        for line in lines
    )  # fmt: skip
    print(
        f"kenlm: {1e6 * seconds_of_peer / n:.2f} µs each; sums of log10 {total:.4f} and "
        f"{found.log_prob / math.log(10):.4f}, words differ by {worst:.1e} at most"
    )


if __name__ == "__main__":
    main()
