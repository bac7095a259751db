"""`ops.nms`, `batched_nms`, `soft_nms` and `box_iou`: the definition box by box, and torchvision's indices."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seqkit import ops
from seqkit.errors import InputError
from seqkit.ops import library

needs_native = pytest.mark.skipif(not library.is_built("nms"), reason="the native library is not built")
BACKENDS = ["reference", pytest.param("native", marks=needs_native)]


def draw(N: int, *, seed: int = 0, dtype: torch.dtype = torch.float32, whole: bool = False) -> tuple[Tensor, Tensor]:
    """Boxes around a few places, as a detector gives them, and scores; `whole` makes numbers that tie often."""
    generator = torch.Generator().manual_seed(seed)
    places = 100 * torch.rand(max(1, N // 6), 2, generator=generator)
    center = places[torch.randint(len(places), (N,), generator=generator)] + 3 * torch.randn(N, 2, generator=generator)
    size = 5 + 15 * torch.rand(N, 2, generator=generator)
    boxes, scores = torch.cat([center - size / 2, center + size / 2], dim=1), torch.rand(N, generator=generator)
    if whole:
        boxes, scores = boxes.div(4).round() * 4, scores.mul(5).round() / 5
    return boxes.to(dtype), scores.to(dtype)


def iou_by_hand(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union else math.nan


def nms_by_hand(boxes: Tensor, scores: Tensor, threshold: float, classes: list[int] | None = None) -> list[int]:
    rows, kept = boxes.tolist(), []
    for i in sorted(range(len(rows)), key=lambda i: (-scores[i].item(), i)):
        same = [k for k in kept if classes is None or classes[k] == classes[i]]
        # The IoU is rounded to the boxes' precision and compared in double.
        ious = [torch.tensor(iou_by_hand(rows[k], rows[i]), dtype=boxes.dtype).item() for k in same]
        if not any(iou > threshold for iou in ious):
            kept.append(i)
    return kept


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("N", [0, 1, 2, 17, 200])
def test_nms_is_the_definition(N: int, dtype: torch.dtype, backend: str) -> None:
    for seed in range(5):
        # Coordinates are multiples of 4: float32 and Python divide the same whole numbers.
        boxes, scores = draw(N, seed=seed, dtype=dtype, whole=True)
        classes = torch.randint(3, (N,), generator=torch.Generator().manual_seed(seed))
        with library.use_backend(backend):
            for threshold in (0.0, 0.3, 0.7, 1.0):
                assert ops.nms(boxes, scores, threshold).tolist() == nms_by_hand(boxes, scores, threshold)
            kept = ops.batched_nms(boxes, scores, classes - 1, 0.3)
        assert kept.tolist() == nms_by_hand(boxes, scores, 0.3, classes.tolist())


@needs_native
@pytest.mark.parametrize("threshold", [-1.0, 0.1, 0.5])  # below 0 even boxes that do not meet are too near
def test_nms_native_equals_the_reference(threshold: float) -> None:
    boxes, scores = draw(500)
    assert torch.equal(ops.nms(boxes, scores, threshold), ops.nms_reference(boxes, scores, threshold))
    classes = torch.randint(-(2**62), 2**62, (5,))[torch.arange(500) % 5]
    wanted = ops.nms_reference(boxes, scores, threshold, classes)
    assert torch.equal(ops.batched_nms(boxes, scores, classes, threshold), wanted)


@needs_native
def test_nms_compares_a_float_with_a_double_threshold() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 3.0]])
    iou = ops.box_iou(boxes[:1], boxes[1:]).item()  # the float nearest 0.3, which is above 0.3
    scores = torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, iou).tolist() == [0, 1]
    assert ops.nms(boxes, scores, math.nextafter(iou, 0.0)).tolist() == [0]


def test_nms_gives_torchvisions_indices() -> None:
    try:
        from torchvision.ops import nms as torchvision_nms
    except (ImportError, RuntimeError) as error:  # a torchvision for another torch raises the second
        pytest.skip(f"torchvision cannot be imported: {error}")
    for seed in range(1000):
        boxes, scores = draw(seed % 90, seed=seed, whole=seed % 3 == 0)
        threshold = (seed % 10) / 10
        assert torch.equal(ops.nms(boxes, scores, threshold), torchvision_nms(boxes, scores, threshold))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_box_iou_is_the_definition(dtype: torch.dtype, backend: str) -> None:
    a, b = draw(7, dtype=dtype, whole=True)[0], draw(21, seed=1, dtype=dtype, whole=True)[0]
    a[0, 2:] = a[0, :2]  # no area
    b[0] = a[0]
    with library.use_backend(backend):
        iou = ops.box_iou(a, b)
    wanted = torch.tensor([[iou_by_hand(x, y) for y in b.tolist()] for x in a.tolist()], dtype=dtype)
    torch.testing.assert_close(iou, wanted, equal_nan=True, rtol=1e-6, atol=0)
    assert iou[0, 0].isnan()
    assert ops.box_iou(a[:0], b).shape == (0, 21)
    assert ops.box_iou(a, b[:0]).shape == (7, 0)


def test_box_iou_has_gradients_and_takes_other_numbers() -> None:
    a, b = (draw(n, dtype=torch.float64)[0].requires_grad_() for n in (3, 4))
    assert torch.autograd.gradcheck(ops.box_iou, (a, b))
    whole = torch.tensor([[0, 0, 4, 4], [2, 2, 6, 6]])
    assert ops.box_iou(whole, whole).dtype == torch.float64
    assert ops.box_iou(whole, whole)[0, 1].item() == pytest.approx(4 / 28)
    assert ops.box_iou(a.detach().bfloat16(), b.detach().bfloat16()).dtype == torch.float32


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"method": "linear"}, {"sigma": 0.1, "score_threshold": 0.2}])
def test_soft_nms_equals_the_reference(options: dict[str, Any], dtype: torch.dtype) -> None:
    boxes, scores = draw(150, dtype=dtype)
    kept, lowered = ops.soft_nms(boxes, scores, **options)
    wanted, wanted_scores = ops.soft_nms_reference(boxes, scores, **options)
    assert torch.equal(kept, wanted)
    torch.testing.assert_close(lowered, wanted_scores, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_soft_nms_by_hand(backend: str) -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [50.0, 50.0, 60.0, 60.0]])
    scores = torch.tensor([0.9, 0.8, 0.3])
    with library.use_backend(backend):
        kept, lowered = ops.soft_nms(boxes, scores)
        assert kept.tolist() == [0, 1, 2]
        assert lowered.tolist() == pytest.approx([0.9, 0.8 * math.exp(-0.25 / 0.5), 0.3])
        kept, lowered = ops.soft_nms(boxes, scores, method="linear", score_threshold=0.35)
        assert kept.tolist() == [0, 1]
        assert lowered.tolist() == pytest.approx([0.9, 0.4])
        assert ops.soft_nms(boxes[:0], scores[:0])[0].shape == (0,)


@needs_native
def test_boxes_that_are_not_numbers_raise() -> None:
    boxes, scores = draw(5)
    broken, unknown = boxes.clone(), scores.clone()
    broken[3, 1], unknown[2] = math.nan, math.nan
    for run in (
        lambda b, s: ops.nms(b, s, 0.5),
        lambda b, s: ops.batched_nms(b, s, torch.zeros(5, dtype=torch.int64), 0.5),
        ops.soft_nms,
    ):
        with pytest.raises(RuntimeError, match="boxes must not hold NaN, got one at 13"):
            run(broken, scores)
        with pytest.raises(RuntimeError, match="scores must not hold NaN, got one at 2"):
            run(boxes, unknown)
    with pytest.raises(InputError, match="iou_threshold must be a number, got nan"):
        ops.nms(boxes, scores, math.nan)


def test_boxes_that_do_not_fit_raise() -> None:
    nms, batched, soft, iou = (
        getattr(f, "__wrapped__", f) for f in (ops.nms, ops.batched_nms, ops.soft_nms, ops.box_iou)
    )
    boxes, scores = draw(5)
    with pytest.raises(InputError, match=r"boxes must have the shape \[N, 4\], got \[5, 3\]"):
        nms(boxes[:, :3], scores, 0.5)
    with pytest.raises(InputError, match=r"scores must have the shape \[5\], got \[4\]"):
        nms(boxes, scores[:4], 0.5)
    with pytest.raises(InputError, match=r"idxs must have the shape \[5\], got \[2\]"):
        batched(boxes, scores, torch.zeros(2, dtype=torch.int64), 0.5)
    with pytest.raises(InputError, match="idxs must be integers"):
        batched(boxes, scores, scores, 0.5)
    with pytest.raises(InputError, match="method must be one of linear, gaussian, got 'cubic'"):
        soft(boxes, scores, method="cubic")
    with pytest.raises(InputError, match="sigma must be positive and finite, got 0"):
        soft(boxes, scores, sigma=0)
    with pytest.raises(InputError, match=r"b must have the shape \[N, 4\], got \[4\]"):
        iou(boxes, boxes[0])


@needs_native
def test_boxes_threads_do_not_matter() -> None:
    a, b = draw(300)[0], draw(2000, seed=1)[0]
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(ops.box_iou(a, b))
    torch.set_num_threads(threads)
    assert torch.equal(*results)


@needs_native
def test_boxes_opcheck() -> None:
    boxes, scores = draw(9)
    classes = torch.arange(9) % 2
    torch.library.opcheck(torch.ops.seqkit.nms.default, (boxes, scores, classes, 0.5))
    torch.library.opcheck(torch.ops.seqkit.nms_mask.default, (boxes, None, 0.5))
    torch.library.opcheck(torch.ops.seqkit.soft_nms.default, (boxes, scores, 1, 0.5, 0.3, 0.01))
    torch.library.opcheck(torch.ops.seqkit.soft_nms_padded.default, (boxes, scores, 1, 0.5, 0.3, 0.01))
    torch.library.opcheck(torch.ops.seqkit.box_iou.default, (boxes, boxes[:3]))


@needs_native
def test_nms_mask_is_nms_of_sorted_boxes() -> None:
    boxes, scores = draw(200)
    order = scores.argsort(descending=True, stable=True)
    mask = torch.ops.seqkit.nms_mask(boxes[order], None, 0.4)
    assert torch.equal(order[mask], ops.nms(boxes, scores, 0.4))


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("N", [0, 1, 60])
def test_soft_nms_padded_is_soft_nms_with_a_place_for_each_box(N: int, dtype: torch.dtype) -> None:
    boxes, scores = draw(N, dtype=dtype)
    kept, lowered = torch.ops.seqkit.soft_nms_padded(boxes, scores, 1, 0.5, 0.3, 0.2)
    wanted, wanted_scores = ops.soft_nms(boxes, scores, score_threshold=0.2)
    stays = len(wanted)
    assert torch.equal(kept[:stays], wanted)
    assert torch.equal(lowered[:stays], wanted_scores)
    assert kept[stays:].tolist() == [-1] * (N - stays)
    assert lowered[stays:].tolist() == [0.0] * (N - stays)


class Detector(torch.nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        kept = ops.batched_nms(boxes, scores, classes, 0.5)
        return boxes[kept], ops.box_iou(boxes, boxes[:1])


@needs_native
@pytest.mark.compile
def test_boxes_export_with_any_number() -> None:
    boxes, scores = draw(20)
    n = torch.export.Dim("n", min=0, max=50_000)
    exported = torch.export.export(
        Detector(), (boxes, scores, torch.arange(20) % 3), dynamic_shapes=({0: n}, {0: n}, {0: n})
    ).module()
    for count in (0, 1, 2, 500, 50_000):
        boxes, scores = draw(count, seed=count)
        classes = torch.arange(count) % 80
        got, iou = exported(boxes, scores, classes)
        assert torch.equal(got, boxes[ops.batched_nms(boxes, scores, classes, 0.5)])
        assert iou.shape == (count, min(count, 1))


@needs_native
@pytest.mark.parametrize("level", ["0", "1"])
def test_boxes_at_lower_machine_levels(level: str) -> None:
    code = """
import torch
from seqkit import ops
torch.manual_seed(0)
corner = 100 * torch.rand(400, 2)
boxes, scores = torch.cat([corner, corner + 5 + 20 * torch.rand(400, 2)], 1), torch.rand(400)
assert torch.equal(ops.nms(boxes, scores, 0.4), ops.nms_reference(boxes, scores, 0.4))
assert torch.equal(ops.box_iou(boxes[:5], boxes), ops.box_iou_reference(boxes[:5], boxes))
print("same")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "SEQKIT_ISA": level},
    )
    assert done.stdout.strip() == "same", done.stderr
