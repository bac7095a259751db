"""The CUDA kernels of the boxes on the host: they give the CPU's indices and numbers."""

import math

import pytest
import torch
from torch import Tensor

from seqkit import ops

OPS = torch.ops.seqkit_emulated


def draw(N: int) -> Tensor:
    """Boxes around a few places, best first."""
    generator = torch.Generator().manual_seed(N)
    places = 60 * torch.rand(max(1, N // 6), 2, generator=generator)
    center = places[torch.randint(len(places), (N,), generator=generator)] + 3 * torch.randn(N, 2, generator=generator)
    size = 5 + 15 * torch.rand(N, 2, generator=generator)
    return torch.cat([center - size / 2, center + size / 2], dim=1)


@pytest.mark.parametrize("N", [0, 1, 33, 512, 513, 1300])  # a chunk is 512
def test_nms_mask_equals_the_cpus(N: int, schedule: str) -> None:
    boxes, classes = draw(N), torch.arange(N) % 3
    for threshold in (-1.0, 0.0, 0.45):
        assert torch.equal(OPS.nms_mask(boxes, None, threshold), torch.ops.seqkit.nms_mask(boxes, None, threshold))
    assert torch.equal(OPS.nms_mask(boxes, classes, 0.3), torch.ops.seqkit.nms_mask(boxes, classes, 0.3))


def test_nms_mask_of_one_place_keeps_one_and_a_nan_meets_nothing(schedule: str) -> None:
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(700, 1)
    boxes[600] = math.nan
    kept = OPS.nms_mask(boxes, None, 0.5)
    assert kept.nonzero().flatten().tolist() == [0, 600]


@pytest.mark.parametrize(("N", "M"), [(0, 3), (3, 0), (1, 1), (17, 300)])
def test_box_iou_equals_the_cpus(N: int, M: int, schedule: str) -> None:
    a, b = draw(N), draw(M)
    assert torch.equal(OPS.box_iou(a, b), ops.box_iou(a, b))


def soft_nms(boxes: Tensor, scores: Tensor, **options: float) -> tuple[Tensor, Tensor]:
    """The kernel, its outputs filled with NaN or the largest integer first."""
    rest = (int(options.get("decay", 1)), *(options.get(n, x) for n, x in SOFT.items()))
    torch.use_deterministic_algorithms(True)
    try:
        kept, lowered = OPS.soft_nms_padded(boxes, scores, *rest)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(kept < 0, torch.arange(len(kept)) >= (kept >= 0).sum())
    assert not lowered[kept < 0].any()
    return kept[kept >= 0], lowered[kept >= 0]


SOFT = {"sigma": 0.5, "iou_threshold": 0.3, "score_threshold": 0.001}


# A warp, a block and the shared memory have 32, 1024 and 4074 boxes.
@pytest.mark.parametrize("N", [0, 1, 2, 31, 33, 700, 1030])
def test_soft_nms_equals_the_cpus(N: int, schedule: str) -> None:
    boxes, scores = draw(N), torch.rand(N, generator=torch.Generator().manual_seed(N))
    few = {"score_threshold": 0.2} if N > 100 else {}
    for options in ({}, {"decay": 0}, {"sigma": 0.1, "score_threshold": 0.3}, {"decay": 0, "iou_threshold": 0.0}):
        options = {**SOFT, **few, **options}
        got = soft_nms(boxes, scores, **options)
        method = ("linear", "gaussian")[int(options.pop("decay", 1))]
        wanted = ops.soft_nms(boxes, scores, method=method, **options)
        assert torch.equal(got[0], wanted[0])
        assert torch.equal(got[1], wanted[1])


def test_soft_nms_of_more_boxes_than_shared_memory_has(schedule: str) -> None:
    boxes, scores = draw(4300), torch.rand(4300, generator=torch.Generator().manual_seed(0)).square()
    for N in (4074, 4075, 4300):
        got = soft_nms(boxes[:N], scores[:N], score_threshold=0.9)
        wanted = ops.soft_nms(boxes[:N], scores[:N], score_threshold=0.9)
        assert len(got[0]) > 30
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_soft_nms_takes_the_lower_of_equals_and_any_scores(schedule: str) -> None:
    corner = 100.0 * torch.arange(70)[:, None]
    boxes, scores = torch.cat([corner, corner, corner + 9, corner + 9], dim=1), torch.ones(70)
    assert soft_nms(boxes, scores)[0].tolist() == list(range(70))
    scores = torch.tensor([-0.0, 0.0, -3.0, -math.inf, math.inf, -1.0])
    kept, lowered = soft_nms(boxes[:6], scores, score_threshold=-math.inf)
    assert kept.tolist() == [4, 0, 1, 5, 2, 3]
    assert lowered.tolist() == [math.inf, 0.0, 0.0, -1.0, -3.0, -math.inf]
    assert soft_nms(boxes[:6], scores, score_threshold=-1.0)[0].tolist() == [4, 0, 1, 5]


def test_soft_nms_of_a_nan_box_lowers_nothing_and_a_nan_score_goes(schedule: str) -> None:
    boxes, scores = torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(5, 1), torch.tensor([0.5, 0.9, 0.8, 0.7, 0.6])
    boxes[1, 2], scores[3] = math.nan, math.nan
    kept, lowered = soft_nms(boxes, scores, decay=0)
    assert kept.tolist() == [1, 2]  # of equal boxes 1 - IoU is 0
    torch.testing.assert_close(lowered, scores[[1, 2]])


def test_soft_nms_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores = draw(200), torch.rand(200, generator=torch.Generator().manual_seed(1))
    runs = []
    for schedule in ("forward", "reverse", "random:1", "random:2"):
        monkeypatch.setenv("SEQKIT_SCHEDULE", schedule)
        runs.append(soft_nms(boxes, scores))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_soft_nms_takes_boxes_at_any_address() -> None:
    boxes, scores = draw(40), torch.rand(40, generator=torch.Generator().manual_seed(1))
    moved = torch.cat([torch.zeros(1), boxes.flatten()])[1:].view(40, 4)
    assert all(torch.equal(a, b) for a, b in zip(soft_nms(moved, scores), soft_nms(boxes, scores), strict=True))


def test_boxes_refuse_what_they_do_not_cover() -> None:
    with pytest.raises(RuntimeError, match="boxes must have the dtype Float"):
        OPS.nms_mask(draw(3).double(), None, 0.5)
    with pytest.raises(RuntimeError, match="boxes must have the dtype Float"):
        OPS.soft_nms_padded(draw(3).double(), torch.ones(3).double(), 1, 0.5, 0.3, 0.0)
    with pytest.raises(RuntimeError, match=r"scores must have the shape \[3\], got \[4\]"):
        OPS.soft_nms_padded(draw(3), torch.ones(4), 1, 0.5, 0.3, 0.0)
    with pytest.raises(RuntimeError, match="decay must be 0 or 1, got 2"):
        OPS.soft_nms_padded(draw(3), torch.ones(3), 2, 0.5, 0.3, 0.0)
    with pytest.raises(RuntimeError, match="aligned to 16 bytes"):
        OPS.nms_mask(draw(4).flatten()[1:13].view(3, 4), None, 0.5)
