"""`ops.additive_attention` against its formula in plain torch: CPU time, error and memory, forward and backward.

    python benchmarks/additive_attention.py [--threads 1] [--rounds 15]

Both run in turns in one process on the same tensors, all S positions count. A time is the median over the rounds of the
process's CPU time; the ratio is torch's over ours, so above 1 we are faster. The error is the largest difference from
a float64 reference, of the context and of each gradient in the order query, keys, values, v.

The memory is how far forward and backward raise the largest resident size (VmHWM, on Linux) of a process of their own
above that of its inputs, beside the size of the inputs and of all that is returned. The ru_maxrss of a process would
begin at the size of the one that started it.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from seqkit import ops

# B, T, S, A, D
SHAPES = [(64, 50, 50, 1000, 1000), (64, 30, 25, 512, 512), (64, 1, 50, 512, 512), (8, 100, 100, 128, 256)]


def formula(query: Tensor, keys: Tensor, values: Tensor, v: Tensor) -> Tensor:
    """Stores the tanh tensor [B, T, S, A] once, and autograd its gradient."""
    weights = torch.softmax(torch.tanh(query[:, :, None] + keys[:, None]) @ v, dim=-1)
    return weights @ values


def fused(query: Tensor, keys: Tensor, values: Tensor, v: Tensor) -> Tensor:
    return ops.additive_attention(query, keys, values, v)[0]


SIDES: dict[str, Callable[..., Tensor]] = {"ours": fused, "torch": formula}


def inputs(B: int, T: int, S: int, A: int, D: int) -> tuple[list[Tensor], Tensor]:
    """The leaves and the gradient of the context."""
    torch.manual_seed(0)
    leaves = [torch.randn(B, T, A), torch.randn(B, S, A), torch.randn(B, S, D), torch.randn(A) * A**-0.5]
    return [leaf.requires_grad_() for leaf in leaves], torch.randn(B, T, D)


def clock(run: Callable[[], object], repeats: int) -> float:
    """CPU milliseconds a call."""
    begin = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - begin) / repeats * 1e3


def compare(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median CPU milliseconds of both, in turns."""
    repeats = max(1, int(20 / max(clock(peer, 1), 1e-3)))
    pairs = [(clock(ours, repeats), clock(peer, repeats)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def errors(leaves: list[Tensor], grad: Tensor, side: Callable[..., Tensor]) -> str:
    """The largest differences from float64, sentence by sentence, which keeps the reference's memory small."""
    worst = [0.0] * 5
    for b in range(min(4, grad.shape[0])):
        one = [leaf.detach()[b : b + 1] if leaf.ndim == 3 else leaf.detach() for leaf in leaves]
        results = []
        for f, dtype in ((side, torch.float32), (formula, torch.float64)):
            given = [x.to(dtype).requires_grad_() for x in one]
            out = f(*given)
            results.append((out, *torch.autograd.grad(out, given, grad[b : b + 1].to(dtype))))
        differences = ((x - y).abs().max().item() for x, y in zip(*results, strict=True))
        worst = [max(pair) for pair in zip(worst, differences, strict=True)]
    return " ".join(f"{error:.0e}" for error in worst)


def peak(shape: tuple[int, ...], side: str, threads: int) -> int:
    """MiB that one forward and backward add to a process, measured in a new one."""
    command = [sys.executable, __file__, "--measure", side, "--shape", *map(str, shape), "--threads", str(threads)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def largest_resident() -> int:
    """MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def measure(side: str, shape: list[int]) -> None:
    small, grad = inputs(1, 2, 3, 16, 16)
    torch.autograd.grad(SIDES[side](*small), small, grad)  # what is loaded and set up once
    leaves, grad = inputs(*shape)
    before = largest_resident()
    torch.autograd.grad(SIDES[side](*leaves), leaves, grad)
    print(largest_resident() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--measure", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        return measure(arguments.measure, arguments.shape)
    backend = ops.backend("additive_attention")
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), backend {backend}")
    for shape in SHAPES:
        B, T, S, A, D = shape
        leaves, grad = inputs(*shape)

        def forward(f: Callable[..., Tensor], leaves: list[Tensor] = leaves) -> Callable[[], object]:
            def run() -> object:
                with torch.inference_mode():
                    return f(*leaves)

            return run

        def both(f: Callable[..., Tensor], leaves: list[Tensor] = leaves, grad: Tensor = grad) -> Callable[[], object]:
            return lambda: torch.autograd.grad(f(*leaves), leaves, grad)

        one, two = (compare(kind(fused), kind(formula), arguments.rounds) for kind in (forward, both))
        sizes = sum(leaf.numel() for leaf in leaves) * 4 / 2**20
        returned = sizes + (B * T * (D + S)) * 4 / 2**20
        ours, peer = (peak(shape, side, arguments.threads) for side in SIDES)
        print(f"B{B} T{T} S{S} A{A} D{D}")
        print(f"  forward   {one[0]:8.2f} ms, torch {one[1]:8.2f}, ratio {one[1] / one[0]:5.2f}")
        print(f"  +backward {two[0]:8.2f} ms, torch {two[1]:8.2f}, ratio {two[1] / two[0]:5.2f}")
        print(f"  error     {errors(leaves, grad, fused)}, torch {errors(leaves, grad, formula)}")
        print(f"  memory    +{ours} MiB, torch +{peer}; inputs {sizes:.0f}, outputs and gradients {returned:.0f}")


if __name__ == "__main__":
    main()
