"""`ops.beam_step` against the torch calls it replaces, on one search step of a batch: CPU time.

    python benchmarks/beam_step.py [--threads 1] [--rounds 15]

The peer is the least that torch can do: log_softmax, add the log-probabilities so far, topk of 2K over K * V. It masks
nothing, splits nothing and leaves the order of equals open; `beam_step` returns the whole next state. Both run in turns
in one process; a time is the median over the rounds of the process's CPU time a call, a ratio is theirs over ours. The
reference, which does what `beam_step` does in torch, is timed after them. The error is that of the chosen tokens'
log-probabilities against float64, at its largest.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from seqkit.ops import library
from seqkit.ops.beam_step import BeamState, beam_step, beam_step_reference

# B, K, V
SHAPES = [(1, 1, 8000), (1, 5, 8000), (16, 5, 8000), (1, 5, 32000), (16, 4, 32000), (64, 4, 32000), (16, 20, 32000)]


def clock(run: Callable[[], object], repeats: int) -> float:
    """CPU microseconds a call, after three that bring the logits into the cache, as their product would have."""
    for _ in range(3):
        run()
    begin = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - begin) / repeats * 1e6


def worst_error(logits: Tensor, state: BeamState) -> float:
    """Of the tokens chosen last, against float64."""
    rows = logits.double().log_softmax(dim=-1)
    chosen = rows.gather(1, state.parents[:, :, None].expand(-1, -1, rows.shape[2])).gather(2, state.tokens[:, :, None])
    return float((chosen[:, :, 0] - state.token_logp).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    backend = library.backend("beam_step")
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), backend {backend}; microseconds of CPU")
    print("   B   K      V |    ours  log_softmax+add+topk  ratio  reference  ratio | error ours  torch")
    for B, K, V in SHAPES:
        logits = torch.randn(B, K, V) * 3.0
        start = beam_step(logits[:, :1], BeamState.start(B, pool_size=K), eos=0, beam_size=K)

        def ours(logits: Tensor = logits, state: BeamState = start, K: int = K) -> BeamState:
            return beam_step(logits, state, eos=0, beam_size=K)

        def peer(logits: Tensor = logits, state: BeamState = start, K: int = K) -> tuple[Tensor, Tensor]:
            total = logits.log_softmax(dim=-1) + state.logp[:, :, None]
            return tuple(total.flatten(1).topk(2 * K, dim=1))  # type: ignore[return-value]

        def reference(logits: Tensor = logits, state: BeamState = start, K: int = K) -> BeamState:
            return beam_step_reference(logits, state, eos=0, beam_size=K)

        repeats = max(1, int(20_000 / max(clock(peer, 2), 1.0)))
        rounds = [(clock(ours, repeats), clock(peer, repeats)) for _ in range(arguments.rounds)]
        mine, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
        plain = statistics.median(clock(reference, 1) for _ in range(3))
        errors = worst_error(logits, ours()), worst_error(logits, reference())
        print(
            f"{B:4d} {K:3d} {V:6d} | {mine:7.0f} {theirs:21.0f} {theirs / mine:6.1f} "
            f"{plain:10.0f} {plain / mine:6.1f} | {errors[0]:10.1e} {errors[1]:6.0e}"
        )


if __name__ == "__main__":
    main()
