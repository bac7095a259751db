"""`ops.linear` against torch's linear on a decoder's shapes: CPU time and error.

    python benchmarks/linear.py [--threads 1] [--rounds 15]

Both run in turns in one process; ours with weights packed once, as a model keeps them. A time is the median over the
rounds of the process's CPU time; the ratio is torch's over ours, so above 1 we are faster. The error is the largest
difference from float64. What torch does not give at any speed: rows whose bits do not depend on M.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from seqkit import ops

# M rows, N outputs, K inputs
SHAPES = [
    (1, 512, 512),
    (5, 512, 512),
    (20, 512, 512),
    (20, 2048, 512),
    (5, 32000, 512),
    (320, 512, 512),
    (512, 512, 512),
    (4096, 512, 512),
    (4096, 512, 2048),
]


def clock(run: Callable[[], object], repeats: int) -> float:
    """CPU microseconds a call."""
    begin = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - begin) / repeats * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), backend {ops.backend('linear')}")
    print("   M     N     K |   ours µs    torch µs  ratio  GFLOP/s | error ours / torch")
    for M, N, K in SHAPES:
        x, weight, bias = torch.randn(M, K), torch.randn(N, K), torch.randn(N)
        packed = ops.pack_linear_weight(weight)
        runs: tuple[Callable[[], torch.Tensor], ...] = (
            partial(ops.linear, x, weight, bias, packed=packed),
            partial(F.linear, x, weight, bias),
        )
        repeats = max(1, int(2e8 / (M * N * K)))
        with torch.inference_mode():
            pairs = [tuple(clock(run, repeats) for run in runs) for _ in range(arguments.rounds)]
            exact = F.linear(x.double(), weight.double(), bias.double())
            errors = [f"{(run() - exact).abs().max():.1e}" for run in runs]
        ours, torchs = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        speed = 2e-3 * M * N * K / ours
        print(
            f"{M:4} {N:5} {K:5} | {ours:9.1f} {torchs:11.1f} {torchs / ours:6.2f} {speed:8.0f} | {' / '.join(errors)}"
        )


if __name__ == "__main__":
    main()
