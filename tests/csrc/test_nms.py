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


def test_boxes_refuse_what_they_do_not_cover() -> None:
    with pytest.raises(RuntimeError, match="boxes must have the dtype Float"):
        OPS.nms_mask(draw(3).double(), None, 0.5)
    with pytest.raises(RuntimeError, match="aligned to 16 bytes"):
        OPS.nms_mask(draw(4).flatten()[1:13].view(3, 4), None, 0.5)
