"""`ops.attention` against torch's scaled_dot_product_attention with a mask, on sentences: CPU time and error.

    python benchmarks/attention.py [--threads 1] [--rounds 15]

Both run in turns in one process on the same tensors, [B, H, T, Dh] views of [B, T, H, Dh] memory as a projection leaves
them. A time is the median over the rounds of the process's CPU time; the ratio is torch's over ours, so above 1 we are
faster. The error is the largest difference from a float64 reference, of the output and of the gradient of q.

In the sentence shapes every second length is short, as after bucketing: torch gets the mask that says so, built before
the clock starts.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from seqkit import ops

# B, H, T, S, Dh, causal
SHAPES = [
    (64, 8, 10, 10, 32, False),
    (64, 8, 10, 10, 64, True),
    (64, 8, 30, 30, 64, False),
    (64, 8, 30, 30, 64, True),
    (64, 8, 60, 60, 32, False),
    (64, 8, 60, 60, 64, True),
    (64, 8, 25, 30, 64, False),
    (320, 8, 1, 30, 64, False),
    (2, 8, 512, 512, 64, True),
]


def clock(run: Callable[[], object], repeats: int) -> float:
    """CPU milliseconds a call."""
    begin = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - begin) / repeats * 1e3


def compare(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median CPU milliseconds of both, in turns."""
    repeats = max(1, int(20 / max(clock(peer, 2), 1e-3)))
    pairs = [(clock(ours, repeats), clock(peer, repeats)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def lengths_of(B: int, S: int) -> Tensor:
    return torch.tensor([S if b % 2 == 0 else max(1, S * 4 // 5) for b in range(B)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), backend {ops.backend('attention')}")
    print("   B  H    T    S  Dh causal | forward ms  torch  ratio | +backward ms  torch  ratio | error ours / torch")
    for B, H, T, S, D, causal in SHAPES:
        q, k, v = (torch.randn(B, n, H, D).transpose(1, 2).requires_grad_() for n in (T, S, S))
        lengths = lengths_of(B, S)
        seen = (torch.arange(S) < lengths[:, None])[:, None, None]
        if causal:
            seen = seen & torch.ones(T, S, dtype=torch.bool).tril(S - T)
        mask = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
        grad = torch.randn(B, T, H, D).transpose(1, 2)
        leaves = (q, k, v)

        def ours(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor = lengths, causal: bool = causal) -> Tensor:
            return ops.attention(q, k, v, k_lengths=lengths, causal=causal)

        def peer(q: Tensor, k: Tensor, v: Tensor, mask: Tensor = mask) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))

        def forward(f: Callable[..., Tensor], leaves: tuple[Tensor, ...] = leaves) -> Callable[[], object]:
            def run() -> object:
                with torch.inference_mode():
                    return f(*leaves)

            return run

        def both(
            f: Callable[..., Tensor], leaves: tuple[Tensor, ...] = leaves, grad: Tensor = grad
        ) -> Callable[[], object]:
            return lambda: torch.autograd.grad(f(*leaves), leaves, grad)

        exact = tuple(leaf.detach().double().requires_grad_() for leaf in leaves)
        truth = peer(*exact)
        slope = torch.autograd.grad(truth, exact, grad.double())[0]
        errors = []
        for f in (ours, peer):
            out = f(*leaves)
            slopes = torch.autograd.grad(out, leaves, grad)[0]
            errors.append(f"{(out - truth).abs().max():.0e}, {(slopes - slope).abs().max():.0e}")
        one, two = (compare(kind(ours), kind(peer), arguments.rounds) for kind in (forward, both))
        print(
            f"{B:4} {H:2} {T:4} {S:4} {D:3} {causal!s:6} | {one[0]:10.3f} {one[1]:6.3f} {one[1] / one[0]:6.2f} |"
            f" {two[0]:12.3f} {two[1]:6.3f} {two[1] / two[0]:6.2f} | {errors[0]} / {errors[1]}"
        )


if __name__ == "__main__":
    main()
