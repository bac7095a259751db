"""`ops.roi_align` against torchvision's: CPU time forward and backward, and error.

    python benchmarks/roi_align.py [--threads 1] [--rounds 15]

The peer is `torchvision.ops.roi_align`, which must be installed beside a torch that it fits; without it the peer is
`roi_align_reference`, and the first line says so. Both pool the same boxes of a detector's proposals (a side is 2 to 28
pixels of the map, or as the row says) into 7 x 7 or 14 x 14 bins, in turns in one process. A time is the median over
the rounds of the process's CPU time, the ratio is the peer's over ours; freed memory is kept, for both, since fresh
pages for 25 MB of features cost some 8 ms. Errors are the largest differences from
float64, of the features and, over the largest gradient, of the gradient of the input.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from seqkit import ops
from seqkit.training.allocator import keep_freed_memory

# B, C, H, W, K, bins, sampling ratio, largest side in pixels
CASES = [
    (1, 256, 50, 68, 512, 7, 2, 28),
    (2, 256, 50, 68, 512, 7, 2, 28),
    (1, 256, 200, 272, 512, 7, 2, 28),
    (1, 256, 50, 68, 512, 7, -1, 28),
    (1, 256, 50, 68, 512, 7, -1, 50),
    (1, 256, 200, 272, 512, 7, -1, 200),
    (1, 256, 100, 136, 100, 14, 2, 28),
    (2, 64, 25, 34, 64, 7, 2, 10),
]


def peer() -> tuple[str, Callable[..., Tensor]]:
    """What ours is raced with, and its name."""
    try:
        import torchvision  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except (ImportError, RuntimeError) as error:  # a RuntimeError where it does not fit the torch beside it
        print(f"torchvision is not there ({type(error).__name__}: {error}); the peer is plain torch")
        return "plain torch", ops.roi_align_reference
    return f"torchvision {torchvision.__version__}", torchvision.ops.roi_align


def clock(run: Callable[[], object], repeats: int) -> float:
    """CPU milliseconds a call."""
    begin = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - begin) / repeats * 1e3


def draw_boxes(B: int, H: int, W: int, K: int, largest: int) -> Tensor:
    centres = torch.rand(K, 2) * torch.tensor([W, H])
    sides = 2 + torch.rand(K, 2) * (largest - 2)
    corners = torch.cat([centres - sides / 2, centres + sides / 2], 1).clamp(min=0)
    corners = torch.minimum(corners, torch.tensor([W, H, W, H]))
    return torch.cat([torch.randint(B, (K, 1)).float(), corners], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    name, other = peer()
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), {name}, backend {ops.backend('roi_align')}")
    print(f"{'':42} |       forward, ms         |       backward, ms        | error ours / peer")
    print(f"{'map, boxes, bins, points, largest side':42} |    ours    peer  ratio    |    ours    peer  ratio    |")
    for B, C, H, W, K, bins, points, largest in CASES:
        input, boxes = torch.randn(B, C, H, W).requires_grad_(), draw_boxes(B, H, W, K, largest)
        gradient = torch.randn(K, C, bins, bins)
        options = ((bins, bins), 1.0, points, True)
        errors = []
        plain = input.detach()
        exact_input = plain.double().requires_grad_()
        exact = ops.roi_align(exact_input, boxes.double(), *options)
        (exact_grad,) = torch.autograd.grad(exact, exact_input, gradient.double())
        runs: list[tuple[Callable[[], object], Callable[[], object]]] = []
        for f in (ops.roi_align, other):

            def forward(f: Callable[..., Tensor] = f, x: Tensor = plain, boxes: Tensor = boxes) -> Tensor:
                return f(x, boxes, *options)  # noqa: B023

            out = f(input, boxes, *options)

            def backward(out: Tensor = out, x: Tensor = input, gradient: Tensor = gradient) -> object:
                return torch.autograd.grad(out, x, gradient, retain_graph=True)

            runs.append((forward, backward))
            (grad,) = torch.autograd.grad(out, input, gradient, retain_graph=True)
            error = (
                float((out - exact).detach().abs().max()),
                float((grad - exact_grad).abs().max() / exact_grad.abs().max()),
            )
            errors.append(", ".join(f"{e:.0e}" for e in error))
        repeats = [max(1, int(500 / max(clock(run, 1), 1e-3))) for run in runs[1]]
        times = [[clock(run[n], repeats[n]) for n in range(2) for run in runs] for _ in range(arguments.rounds)]
        ours, theirs, ours_back, theirs_back = (statistics.median(column) for column in zip(*times, strict=True))
        label = f"{B}x{C}x{H}x{W}, {K}, {bins}, {points}, {largest}"
        print(
            f"{label:42} | {ours:7.2f} {theirs:7.1f} {theirs / ours:6.1f}    "
            f"| {ours_back:7.2f} {theirs_back:7.1f} {theirs_back / ours_back:6.1f}    | {errors[0]} / {errors[1]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
