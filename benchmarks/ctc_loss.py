"""`ops.ctc_loss` and `ops.ctc_loss_from_logits` against `torch.nn.functional.ctc_loss`: CPU time and error.

    python benchmarks/ctc_loss.py [--threads 1] [--rounds 15]

Both run in turns in one process on the same tensors; the peer of `from_logits` is log_softmax and torch's loss. A time
is the median over the rounds of the process's CPU time; the ratio is torch's over ours, so above 1 we are faster. The
errors are those of the losses (relative, the largest) and of the gradient (the largest) against torch in float64, for
random frames and for frames that are sure of themselves (logits times 20).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from seqkit import ops

SHAPES = [(500, 16, 1000, 60), (1500, 8, 32, 150), (100, 32, 5000, 20), (50, 64, 80, 12)]  # T, B, C, L

Loss = Callable[..., Tensor]


def by_torch(logits: Tensor, *rest: Tensor, **options: str) -> Tensor:
    return F.ctc_loss(logits.log_softmax(dim=-1), *rest, **options)  # type: ignore[arg-type]


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


def forward(f: Loss, frames: Tensor, rest: tuple[Tensor, ...]) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return f(frames, *rest)

    return run


def both(f: Loss, frames: Tensor, rest: tuple[Tensor, ...]) -> Callable[[], object]:
    return lambda: torch.autograd.grad(f(frames, *rest), frames)


def results(f: Loss, frames: Tensor, rest: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    leaf = frames.detach().to(dtype).requires_grad_()
    losses = f(leaf, *rest, reduction="none")
    return losses.detach().double(), torch.autograd.grad(losses.sum(), leaf)[0].double()


def errors(frames: Tensor, rest: tuple[Tensor, ...]) -> str:
    exact = results(F.ctc_loss, frames, rest, torch.float64)
    texts = []
    for f in (ops.ctc_loss, F.ctc_loss):
        losses, grad = results(f, frames, rest, torch.float32)
        relative = ((losses - exact[0]).abs() / exact[0]).max().item()
        texts.append(f"loss {relative:.0e}, gradient {(grad - exact[1]).abs().max().item():.0e}")
    return f"{texts[0]}; torch {texts[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), backend {ops.backend('ctc_loss')}")
    for T, B, C, L in SHAPES:
        logits = torch.randn(T, B, C).requires_grad_()
        log_probs = logits.detach().log_softmax(dim=-1).requires_grad_()
        targets = torch.randint(1, C, (B, L))
        rest = targets, torch.full((B,), T), torch.full((B,), L)
        print(f"T{T} B{B} C{C} L{L}")
        for name, kind, ours, peer, frames in [
            ("forward", forward, ops.ctc_loss, F.ctc_loss, log_probs),
            ("+backward", both, ops.ctc_loss, F.ctc_loss, log_probs),
            ("logits, +backward", both, ops.ctc_loss_from_logits, by_torch, logits),
        ]:
            mine, theirs = compare(kind(ours, frames, rest), kind(peer, frames, rest), arguments.rounds)
            print(f"  {name:18} {mine:8.2f} ms, torch {theirs:8.2f}, ratio {theirs / mine:5.2f}", flush=True)
        print(f"  error              {errors(log_probs, rest)}")
        print(f"  error, sure frames {errors((logits * 20).log_softmax(dim=-1), rest)}")


if __name__ == "__main__":
    main()
