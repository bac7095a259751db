"""`ops.nms`, `ops.batched_nms` and `ops.box_iou` against torchvision's operators: CPU time, and whether they agree.

    python benchmarks/nms.py [--threads 1] [--rounds 15]

Boxes are detector-like: many around each of a few hundred objects, in an image of 1000 x 1000. Both run in turns in one
process on the same boxes. A time is the median over the rounds of the process's CPU time, the ratio is torchvision's
over ours. `equal` compares the indices; of boxes with equal scores torchvision's batched_nms leaves the order open, so
that there the sets are compared. It needs a torch whose torchvision can be imported.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from seqkit import ops


def clock(run: Callable[[], object], repeats: int) -> float:
    """CPU milliseconds a call."""
    begin = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - begin) / repeats * 1e3


def detector(N: int, objects: int) -> tuple[Tensor, Tensor]:
    """Boxes and scores."""
    center, size = torch.rand(objects, 2) * 1000, torch.rand(objects, 2) * 150 + 20
    found = torch.randint(objects, (N,))
    middle = center[found] + torch.randn(N, 2) * size[found] * 0.1
    sides = size[found] * (1 + torch.randn(N, 2) * 0.1).clamp(0.5, 1.5)
    return torch.cat([middle - sides / 2, middle + sides / 2], dim=1), torch.rand(N)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    try:
        import torchvision
        from torchvision.ops import batched_nms, box_iou, nms
    except (ImportError, RuntimeError) as error:
        raise SystemExit(f"nms.py: torchvision, the peer, cannot be imported: {error}") from None
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    boxes, scores = detector(10_000, 300)
    many, many_scores = detector(40_000, 2000)
    classes = torch.randint(80, (40_000,))
    races: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "nms 10,000": (lambda: ops.nms(boxes, scores, 0.5), lambda: nms(boxes, scores, 0.5)),
        "batched_nms 40,000 x 80": (
            lambda: ops.batched_nms(many, many_scores, classes, 0.5),
            lambda: batched_nms(many, many_scores, classes, 0.5),
        ),
        "box_iou 10,000 x 1,000": (lambda: ops.box_iou(boxes, boxes[:1000]), lambda: box_iou(boxes, boxes[:1000])),
    }
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {arguments.threads} thread(s)")
    print("                        |  ours ms  torchvision  ratio | equal")
    for name, (ours, theirs) in races.items():
        mine, peer = ours(), theirs()
        equal = (
            torch.equal(mine.sort().values, peer.sort().values)
            if name.startswith("batched")
            else torch.equal(mine, peer)
        )
        repeats = max(1, int(40 / max(clock(theirs, 2), 1e-3)))
        pairs = [(clock(ours, repeats), clock(theirs, repeats)) for _ in range(arguments.rounds)]
        a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{name:23} | {a:8.2f} {b:12.2f} {b / a:6.1f} | {equal}")


if __name__ == "__main__":
    main()
