"""`decode.CTCDecoder` against pyctcdecode on frames of real speech, with the same models and weights: n-best, time.

    pip install --no-deps --target PEERS pyctcdecode pygtrie hypothesis sortedcontainers kenlm
    python benchmarks/ctc_known_answers.py --data DATA --peers PEERS [--threads 1] [--rounds 5]

The frames (371 of 29 classes) and the models are pyctcdecode's own and a 3-gram of 200,000 words, in
`speech/ctc-fixtures` of the data folder. Both decoders run in turns in one process; a time is the median over the
rounds of the process's CPU time, the ratio the peer's over ours, so above 1 we are faster.

At the default pruning few hypotheses are left. The wide beam prunes next to nothing, so that the two agree but for what
their searches lose: a prefix is one place in our beam and up to two in the peer's, and a word that the model lacks is
dearer there while it is being spelled. The peer is told all words of the model (by itself it takes those of an ARPA
file that have a back-off), and our `unknown_score` is its price of a whole unknown word, alpha ln(10) times its offset.

`compared` are the peer's best hypotheses, at most 100; `missing` those that we do not have; then the largest
differences of the log-probability and of the score.
"""

import argparse
import json
import logging
import lzma
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqkit.decode import CTCDecoder
from seqkit.text import NgramModel

LABELS = [" ", *(chr(97 + n) for n in range(26)), "'", ""]
ALPHA, BETA, OFFSET = 0.5, 1.5, -10.0  # pyctcdecode's
MODELS = (None, "bugs_bunny_kenlm.arpa", "lm.arpa.xz")
BEAMS: tuple[tuple[int, dict[str, float]], ...] = (
    (100, {"token_min_logp": -5.0, "beam_prune_logp": -10.0}),
    (4000, {"token_min_logp": -7.0, "beam_prune_logp": -60.0}),
)
MOST = 100


def clock(run: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    result = run()
    return time.process_time() - begin, result


def build_ours(path: Path | None) -> CTCDecoder:
    lm = NgramModel.from_arpa(path) if path else None
    price = ALPHA * math.log(10) * OFFSET
    return CTCDecoder(LABELS, blank=28, lm=lm, alpha=ALPHA, beta=BETA, unknown_score=price)


def build_peer(path: Path | None) -> Any:
    from pyctcdecode import build_ctcdecoder

    if path is None:
        return build_ctcdecoder(LABELS)
    known = [word for word in NgramModel.from_arpa(path).words if word not in ("<unk>", "<s>", "</s>")]
    return build_ctcdecoder(LABELS, str(path), known, ALPHA, BETA)


def compare(ours: CTCDecoder, peer: Any, logits: np.ndarray, width: int, pruning: dict[str, float], rounds: int) -> str:
    log_probs = torch.from_numpy(logits).log_softmax(dim=-1)[None]
    times = []
    for _ in range(rounds):
        us, (found,) = clock(
            lambda: ours.beam_search(log_probs, beam_size=width, n_best=min(width, MOST + 10), **pruning)
        )
        them, theirs = clock(lambda: peer.decode_beams(logits, beam_width=width, **pruning))
        times.append((us, them))
    mine = {x.text: (x.logp, x.score) for x in found}
    best = theirs[:MOST]
    there = [(mine[text], (logp, score)) for text, _, _, logp, score in best if text in mine]
    gaps = [max((abs(a[n] - b[n]) for a, b in there), default=0.0) for n in range(2)]
    us, them = (statistics.median(pair[n] for pair in times) for n in range(2))
    return (
        f"  beam {width:4}: same best {found[0].text == best[0][0]}, compared {len(best)}, "
        f"missing {len(best) - len(there)}, log-probability within {gaps[0]:.1e}, score within {gaps[1]:.1e}; "
        f"{1000 * us:.1f} ms, peer {1000 * them:.1f} ms, ratio {them / us:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("SEQKIT_DATA", ""), help="the data folder")
    parser.add_argument("--peers", help="the folder that pyctcdecode and kenlm are installed in")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(arguments.peers)
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    folder = Path(arguments.data) / "speech" / "ctc-fixtures"
    if not folder.is_dir():
        parser.error("--data or SEQKIT_DATA must name the data folder, which has speech/ctc-fixtures")
    logits = np.array(json.loads(lzma.decompress((folder / "libri_logits.json.xz").read_bytes())), np.float64)
    for name in MODELS:
        with tempfile.TemporaryDirectory() as scratch:
            path = folder / name if name else None
            if path and path.suffix == ".xz":  # KenLM reads no packed file
                packed, path = path, Path(scratch) / path.stem
                path.write_bytes(lzma.decompress(packed.read_bytes()))
            ours_built, ours = clock(lambda path=path: build_ours(path))
            peer_built, peer = clock(lambda path=path: build_peer(path))
        print(f"{name or 'no model'}: built in {ours_built:.2f} s, the peer in {peer_built:.2f} s", flush=True)
        for width, pruning in BEAMS:
            print(compare(ours, peer, logits, width, pruning, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
