"""Claim: our beam search finds what CTranslate2's finds, with the same weights, and how fast.

    python benchmarks/translate.py MODEL SOURCE [--reference FILE] [--beam 4] [--threads 1] [--rounds 3]

Exports a Transformer's run folder to CTranslate2 (float32) and translates the lines of SOURCE with both programs in
turn: the same tokens, beam, length penalty and longest output, 32 sentences a batch, sorted by length. Prints the share
of equal outputs, the differing ones with both scores, the ratio of the median CPU times (above 1 we are faster), and
the BLEU of both where a reference is given.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import ctranslate2
import torch

import seqkit
from seqkit.analysis.bleu import bleu
from seqkit.tasks.ctranslate2 import export_run
from seqkit.text.corpus import LineCorpus
from seqkit.training.allocator import keep_freed_memory

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("source")
    parser.add_argument("--reference")
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as the command line does
    lines = list(LineCorpus(arguments.source))
    ours = seqkit.load(arguments.model)
    options = replace(
        ours.search, beam_size=arguments.beam, n_best=1, length_penalty="power:1", stopping="patience", patience=1.0,
        max_length=200, max_length_ratio=0.0, min_length=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        export_run(arguments.model, Path(temporary) / "model")
        theirs = ctranslate2.Translator(
            str(Path(temporary) / "model"), compute_type="float32", intra_threads=arguments.threads, inter_threads=1
        )
    tokens = [ours.source.pieces(ours.source.encode(line)) for line in lines]

    def run_ours() -> list[tuple[list[str], float]]:
        found = ours.translate(lines, options, batch_size=BATCH)
        return [(each.pieces[0], each.hypotheses[0].score) for each in found]

    def run_theirs() -> list[tuple[list[str], float]]:
        found = theirs.translate_batch(
            tokens, beam_size=arguments.beam, length_penalty=1.0, max_decoding_length=200, min_decoding_length=0,
            max_batch_size=BATCH, max_input_length=0, return_scores=True,
        )  # fmt: skip
        return [(each.hypotheses[0], each.scores[0]) for each in found]

    results, times = {}, {"seqkit": [], "ctranslate2": []}
    for _ in range(arguments.rounds):
        for name, program in (("seqkit", run_ours), ("ctranslate2", run_theirs)):
            begin = time.process_time()
            results[name] = program()
            times[name].append(time.process_time() - begin)
    pairs = list(zip(results["seqkit"], results["ctranslate2"], strict=True))
    different = [index for index, (mine, its) in enumerate(pairs) if mine[0] != its[0]]
    print(f"{len(lines)} sentences, beam {arguments.beam}, {arguments.threads} thread(s)")
    print(f"equal outputs: {100 * (1 - len(different) / len(lines)):.2f} %")
    error = max((abs(mine[1] - its[1]) for mine, its in pairs if mine[0] == its[0]), default=0.0)
    print(f"largest difference of scores where outputs are equal: {error:.2e}")
    for index in different:
        mine, its = pairs[index]
        print(f"  line {index + 1}: seqkit {mine[1]:.6f} {''.join(mine[0])}\n"
              f"  {'':>{len(str(index + 1)) + 5}}  ctranslate2 {its[1]:.6f} {''.join(its[0])}")  # fmt: skip
    ratio = statistics.median(times["ctranslate2"]) / statistics.median(times["seqkit"])
    print(
        f"CPU time of ctranslate2 over seqkit's, medians of {arguments.rounds}, tokenizing in ours alone: {ratio:.2f}"
    )
    if arguments.reference:
        references = [list(LineCorpus(arguments.reference))]
        for name, found in results.items():
            texts = [ours.target.decode(_ids(ours, pieces)) for pieces, _ in found]
            print(f"{name}: {bleu(texts, references)}")


def _ids(translator: object, pieces: list[str]) -> list[int]:
    target = translator.target  # type: ignore[attr-defined]
    index = {piece: number for number, piece in enumerate(target.pieces(range(target.vocab_size)))}
    return [index[piece] for piece in pieces]


if __name__ == "__main__":
    main()
