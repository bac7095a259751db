"""`ops.attention` against torch's scaled_dot_product_attention, on sentences: CPU time and error.

    python benchmarks/attention.py [--threads 1] [--rounds 15] [--only TEXT]

Both run in turns in one process on the same tensors, [B, H, T, Dh] views of [B, T, H, Dh] memory as a projection leaves
them. A time is the median over the rounds of the process's CPU time; the ratio is torch's over ours, so above 1 we are
faster. The error is the largest difference from a float64 reference, of the output and of the gradient of q.

Every shape runs twice: with all sentences of full length, and with lengths drawn uniformly from S/2 to S (seed 0), one
of them S. The queries have those lengths too where T equals S, as in self-attention. Torch has no lengths: it gets the
mask that says so, built before the clock starts, in the form that is fastest for it, which is measured first: boolean,
of its numbers, or `is_causal` where that is all there is to say. Freed memory is kept, for both: fresh pages for a
gradient would cost either side as much as its arithmetic, now and then.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seqkit import ops
from seqkit.training.allocator import keep_freed_memory

# B, H, T, S, Dh, causal
SHAPES = [
    (64, 8, 10, 10, 32, False),
    (64, 8, 10, 10, 64, True),
    (64, 8, 30, 30, 64, False),
    (64, 8, 30, 30, 64, True),
    (64, 8, 60, 60, 32, False),
    (64, 8, 60, 60, 64, True),
    (64, 8, 64, 64, 64, False),
    (64, 8, 25, 30, 64, False),
    (320, 8, 1, 30, 64, False),
    (8, 8, 512, 512, 64, False),
    (8, 8, 512, 512, 64, True),
]
MILLISECONDS = 20  # of torch's time that are measured at once

Run = Callable[[], object]


def clock(run: Run, repeats: int) -> float:
    """CPU milliseconds a call."""
    begin = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - begin) / repeats * 1e3


def medians(runs: list[Run], rounds: int) -> list[float]:
    """Median CPU milliseconds of each, in turns; every other round backwards, for the first of a round runs colder."""
    repeats = max(1, int(MILLISECONDS / max(clock(runs[-1], 2), 1e-3)))
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds):
        for n in range(len(runs))[:: -1 if turn % 2 else 1]:
            times[n].append(clock(runs[n], repeats))
    return [statistics.median(column) for column in times]


def draw_lengths(B: int, S: int) -> Tensor:
    lengths = torch.randint((S + 1) // 2, S + 1, (B,), generator=torch.Generator().manual_seed(0))
    lengths[0] = S
    return lengths


def forward(attend: Callable[..., Tensor], leaves: list[Tensor]) -> Run:
    def run() -> object:
        with torch.inference_mode():
            return attend(*leaves)

    return run


def training(attend: Callable[..., Tensor], leaves: list[Tensor], grad: Tensor) -> Run:
    return lambda: torch.autograd.grad(attend(*leaves), leaves, grad)


def compare(
    B: int, H: int, T: int, S: int, D: int, causal: bool, padded: bool, dtype: torch.dtype, rounds: int
) -> None:
    """Prints one row of the table."""
    torch.manual_seed(0)
    leaves = [torch.randn(B, n, H, D).to(dtype).transpose(1, 2).requires_grad_() for n in (T, S, S)]
    grad = torch.randn(B, T, H, D).transpose(1, 2)
    lengths = draw_lengths(B, S) if padded else None
    counted = torch.ones(B, 1, T, 1)
    seen = torch.ones(1, 1, 1, S, dtype=torch.bool)
    if causal:
        seen = seen & torch.ones(T, S, dtype=torch.bool).tril(S - T)
    if lengths is not None:
        seen = seen & (torch.arange(S) < lengths[:, None])[:, None, None]
        if T == S:
            counted = (torch.arange(T) < lengths[:, None])[:, None, :, None].float()
    grad = (grad * counted).to(dtype)  # the loss does not look at padding

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ops.attention(q, k, v, q_lengths=lengths if T == S else None, k_lengths=lengths, causal=causal)

    def torch_with(**mask: Any) -> Callable[..., Tensor]:
        return lambda *leaves: F.scaled_dot_product_attention(*leaves, **mask)

    numbers = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, -torch.inf)
    peers = [torch_with(attn_mask=seen), torch_with(attn_mask=numbers.to(dtype))]
    if not padded:
        peers.append(torch_with(is_causal=causal))

    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    truth = torch_with(attn_mask=numbers)(*exact) * counted
    slope = torch.autograd.grad(truth, exact, grad.double())[0]
    errors = []
    for attend in (ours, peers[0]):
        out = attend(*leaves)
        slopes = torch.autograd.grad(out, leaves, grad)[0]
        errors.append(f"{(out * counted - truth).abs().max():.0e}, {(slopes - slope).abs().max():.0e}")

    cells = []
    for wrap in (forward, lambda attend, leaves: training(attend, leaves, grad)):
        runs = [wrap(peer, leaves) for peer in peers]
        tries = medians(runs, 3)
        mine, theirs = medians([wrap(ours, leaves), runs[tries.index(min(tries))]], rounds)
        cells.append(f"{mine:10.3f} {theirs:6.3f} {theirs / mine:5.2f}")
    kind = str(dtype).removeprefix("torch.")
    print(
        f"{B:4} {H:2} {T:4} {S:4} {D:3} {'causal' if causal else '':6} {'lengths' if padded else '':7} {kind:8}"
        f" | {cells[0]} |  {cells[1]} | {errors[0]} / {errors[1]}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", metavar="TEXT", help="run the shapes that read so, as in 64x8x30x30x64")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), backend {ops.backend('attention')}")
    print(f"{'   B  H    T    S  Dh mask           dtype':45} | forward ms  torch ratio", end="")
    print(" | training ms  torch ratio | error ours / torch")
    for dtype in (torch.float32, torch.bfloat16):
        for shape in SHAPES:
            if arguments.only not in "x".join(map(str, shape[:5])):
                continue
            for padded in (False, True):
                compare(*shape, padded, dtype, arguments.rounds)


if __name__ == "__main__":
    main()
