"""`ops.crf_log_likelihood` against the loop over positions that one writes in torch: CPU time and error.

    python benchmarks/crf.py [--threads 1] [--rounds 15]

The peer is `crf_log_likelihood_reference`, one logsumexp of [B, C, C] a position, with autograd. Both give the loss of
a tagger, minus the mean of the log-likelihoods, and its gradients with respect to emissions and transitions, in turns
in one process. A time is the median over the rounds of the process's CPU time, the ratio is torch's over ours. Errors
are the largest differences from float64, of the loss and of the gradient of the transitions.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from seqkit import ops

SHAPES = [(32, 60, 20), (32, 60, 9), (1, 60, 20), (64, 25, 50), (8, 200, 100)]  # B, T, C


def clock(run: Callable[[], object], repeats: int) -> float:
    """CPU milliseconds a call."""
    begin = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - begin) / repeats * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    backend = ops.backend("crf_log_likelihood")
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), backend {backend}; forward and backward")
    print("  B    T    C |  ours ms   torch  ratio | error ours / torch")
    for B, T, C in SHAPES:
        emissions, transitions = torch.randn(B, T, C).requires_grad_(), torch.randn(C, C).requires_grad_()
        tags, lengths = torch.randint(C, (B, T)), torch.randint(T // 2, T + 1, (B,))

        def loss(
            log_likelihood: Callable[..., Tensor],
            leaves: tuple[Tensor, Tensor] = (emissions, transitions),
            tags: Tensor = tags,
            lengths: Tensor = lengths,
        ) -> tuple[Tensor, ...]:
            value = -log_likelihood(leaves[0], tags, leaves[1], lengths=lengths).mean()
            return value.detach(), *torch.autograd.grad(value, leaves)

        runs = [lambda f=f, loss=loss: loss(f) for f in (ops.crf_log_likelihood, ops.crf_log_likelihood_reference)]
        exact = loss(ops.crf_log_likelihood_reference, (emissions.detach().double().requires_grad_(),
                                                        transitions.detach().double().requires_grad_()))  # fmt: skip
        errors = []
        for run in runs:
            result = run()
            differences = [float((result[n] - exact[n]).abs().max()) for n in (0, 2)]
            errors.append(", ".join(f"{difference:.0e}" for difference in differences))
        repeats = max(1, int(20 / max(clock(runs[1], 2), 1e-3)))
        pairs = [(clock(runs[0], repeats), clock(runs[1], repeats)) for _ in range(arguments.rounds)]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{B:3} {T:4} {C:4} | {ours:8.3f} {theirs:7.2f} {theirs / ours:6.1f} | {errors[0]} / {errors[1]}")


if __name__ == "__main__":
    main()
