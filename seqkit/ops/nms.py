"""Boxes: non-maximum suppression, also by class and with lowered scores, and intersection over union.

Signatures and results are torchvision's: boxes are (x1, y1, x2, y2), and the indices that stay come by falling score,
of equal scores the lower first. The kernels (csrc/nms) decide with the same operations in the same precision, float32
and float64 on the CPU and float32 on CUDA; 16-bit boxes are compared in float32, integer ones in float64. On the CPU a
box or a score that is NaN is an error; on CUDA, where looking would wait for the device, a NaN box meets nothing, and
`soft_nms` leaves out a box whose score is NaN.
"""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_tensors, indices

DECAYS = ("linear", "gaussian")


def box_iou_reference(a: Float[Tensor, "N 4"], b: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """`box_iou` in plain torch, with gradients."""
    area_a, area_b = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b))
    sides = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])  # N M 2
    sides = sides.clamp(min=0)
    inter = sides[..., 0] * sides[..., 1]
    return inter / (area_a[:, None] + area_b - inter)


def box_iou(a: Shaped[Tensor, "N 4"], b: Shaped[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """The intersection over union of each box of `a` with each of `b`; NaN for two boxes of no area.

    Raises:
        InputError: they are not boxes.
    """
    check_tensors("ops.box_iou", {"a": a, "b": b})
    for name, x in (("a", a), ("b", b)):
        _check_boxes("box_iou", name, x)
    real = torch.promote_types(_real(a), _real(b))
    a, b = a.to(real).contiguous(), b.to(real).contiguous()
    wants = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
    if wants or not _runs_kernel("box_iou", a):
        return box_iou_reference(a, b)
    iou: Tensor = torch.ops.seqkit.box_iou.default(a, b)
    return iou


def nms_reference(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, " N"],
    iou_threshold: float,
    idxs: Int[Tensor, " N"] | None = None,
) -> Int[Tensor, " kept"]:
    """`nms`, or with classes `batched_nms`, in plain torch: box after box, the best first."""
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    gone = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for i in range(len(boxes)):
        if not gone[i]:
            near = box_iou_reference(boxes[i : i + 1], boxes)[0].double() > iou_threshold
            if idxs is not None:
                near &= idxs[order] == idxs[order[i]]
            gone[i + 1 :] |= near[i + 1 :]
    return order[~gone]


def nms(boxes: Shaped[Tensor, "N 4"], scores: Shaped[Tensor, " N"], iou_threshold: float) -> Int[Tensor, " kept"]:
    """The indices of the boxes that stay, best first: a box goes if its IoU with a better one that stays is too large.

    Not differentiable. On CUDA the number of results is read once, at the end.

    Reference: the greedy suppression of Girshick et al. 2014, 2.2, arXiv:1311.2524; `torchvision.ops.nms`.

    Args:
        iou_threshold: a box goes above it.

    Raises:
        InputError: shapes do not fit. RuntimeError: on the CPU, a box or a score is NaN.
    """
    check_tensors("ops.nms", {"boxes": boxes, "scores": scores})
    return _suppress("nms", boxes, scores, None, iou_threshold)


def batched_nms(
    boxes: Shaped[Tensor, "N 4"], scores: Shaped[Tensor, " N"], idxs: Int[Tensor, " N"], iou_threshold: float
) -> Int[Tensor, " kept"]:
    """`nms` within each class: boxes of different `idxs` do not touch one another.

    The classes are kept apart as such and not by moving their boxes, which rounds them and needs finite ones.

    Args:
        idxs: the class, or the image, of each box; any integers.
    """
    check_tensors("ops.batched_nms", {"boxes": boxes, "scores": scores, "idxs": idxs})
    classes = indices("ops.batched_nms", "idxs", idxs)
    if classes.shape != boxes.shape[:1]:
        wanted = list(boxes.shape[:1])
        raise InputError(f"ops.batched_nms: idxs must have the shape {wanted}, got {list(classes.shape)}")
    return _suppress("batched_nms", boxes, scores, classes, iou_threshold)


def soft_nms_reference(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, " N"],
    *,
    method: str = "gaussian",
    sigma: float = 0.5,
    iou_threshold: float = 0.3,
    score_threshold: float = 0.001,
) -> tuple[Int[Tensor, " kept"], Float[Tensor, " kept"]]:
    """`soft_nms` in plain torch."""
    left, index = scores.clone(), torch.arange(len(scores), device=scores.device)
    kept, lowered = [], []
    while len(index) and bool(left.max() >= score_threshold):
        best = int(left.argmax())
        kept.append(index[best])
        lowered.append(left[best])
        iou = box_iou_reference(boxes[index[best]][None], boxes[index])[0]
        if method == "gaussian":
            factor = torch.where(iou > 0, torch.exp(-iou.double().square() / sigma).to(iou.dtype), 1.0)
        else:
            factor = torch.where(iou > iou_threshold, 1 - iou, 1.0)
        left = left * factor
        stays = left >= score_threshold
        stays[best] = False
        left, index = left[stays], index[stays]
    empty = index.new_empty(0), scores.new_empty(0)
    return (torch.stack(kept), torch.stack(lowered)) if kept else empty


def soft_nms(
    boxes: Shaped[Tensor, "N 4"],
    scores: Shaped[Tensor, " N"],
    *,
    method: str = "gaussian",
    sigma: float = 0.5,
    iou_threshold: float = 0.3,
    score_threshold: float = 0.001,
) -> tuple[Int[Tensor, " kept"], Float[Tensor, " kept"]]:
    """The boxes in the order of the choice, and their scores as they then are: a near box is lowered, not removed.

    The best box is chosen, each other one's score is multiplied by exp(-IoU² / sigma) (`gaussian`), or by 1 - IoU where
    that is above `iou_threshold` (`linear`), and so on; a box below `score_threshold` goes. Not differentiable. On CUDA
    the number of results is read once, at the end.

    Reference: Bodla et al. 2017, section 3, arXiv:1704.04503.

    Raises:
        InputError: arguments do not fit. RuntimeError: on the CPU, a box or a score is NaN.
    """
    check_tensors("ops.soft_nms", {"boxes": boxes, "scores": scores})
    if method not in DECAYS:
        raise InputError(f"ops.soft_nms: method must be one of {', '.join(DECAYS)}, got {method!r}")
    limits = {"sigma": sigma, "iou_threshold": iou_threshold, "score_threshold": score_threshold}
    boxes, scores = _prepared("soft_nms", boxes, scores, **limits)
    if not 0 < sigma < float("inf"):
        raise InputError(f"ops.soft_nms: sigma must be positive and finite, got {sigma}")
    if not _runs_kernel("soft_nms", boxes):
        _check_numbers("soft_nms", boxes=boxes, scores=scores)
        return soft_nms_reference(
            boxes,
            scores,
            method=method,
            sigma=sigma,
            iou_threshold=iou_threshold,
            score_threshold=score_threshold,
        )
    given = boxes, scores, DECAYS.index(method), sigma, iou_threshold, score_threshold
    if boxes.device.type == "cpu":
        kept, lowered = torch.ops.seqkit.soft_nms.default(*given)
        return kept, lowered
    kept, lowered = torch.ops.seqkit.soft_nms_padded.default(*given)
    stays = (kept >= 0).nonzero()[:, 0]
    return kept[stays], lowered[stays]


def _suppress(
    where: str, boxes: Tensor, scores: Tensor, classes: Tensor | None, iou_threshold: float
) -> Int[Tensor, " kept"]:
    boxes, scores = _prepared(where, boxes, scores, iou_threshold=iou_threshold)
    if not _runs_kernel("nms", boxes):
        _check_numbers(where, boxes=boxes, scores=scores)
        return nms_reference(boxes, scores, iou_threshold, classes)
    if boxes.device.type == "cpu":
        kept: Tensor = torch.ops.seqkit.nms.default(boxes, scores, classes, iou_threshold)
        return kept
    order = scores.argsort(descending=True, stable=True)
    stays = torch.ops.seqkit.nms_mask.default(boxes[order], None if classes is None else classes[order], iou_threshold)
    return order[stays]


def _check_boxes(where: str, name: str, x: Tensor) -> None:
    if x.ndim != 2 or x.shape[1] != 4:
        raise InputError(f"ops.{where}: {name} must have the shape [N, 4], got {list(x.shape)}")
    if x.is_complex() or x.dtype == torch.bool:
        raise InputError(f"ops.{where}: {name} must be real numbers, got {x.dtype}")


def _real(x: Tensor) -> torch.dtype:
    """The precision in which boxes are compared."""
    return torch.promote_types(x.dtype, torch.float32) if x.is_floating_point() else torch.float64


def _prepared(where: str, boxes: Tensor, scores: Tensor, **numbers: object) -> tuple[Tensor, Tensor]:
    """Boxes and scores in one precision, contiguous and without their history; the numbers must not be NaN."""
    for name, number in numbers.items():
        if not isinstance(number, int | float) or number != number:
            raise InputError(f"ops.{where}: {name} must be a number, got {number!r}")
    _check_boxes(where, "boxes", boxes)
    if scores.shape != boxes.shape[:1]:
        raise InputError(f"ops.{where}: scores must have the shape {list(boxes.shape[:1])}, got {list(scores.shape)}")
    if scores.is_complex() or scores.dtype == torch.bool:
        raise InputError(f"ops.{where}: scores must be real numbers, got {scores.dtype}")
    real = torch.promote_types(_real(boxes), _real(scores))
    return boxes.detach().to(real).contiguous(), scores.detach().to(real).contiguous()


def _check_numbers(where: str, **given: Tensor) -> None:
    """Raises RuntimeError for NaN, as the kernels do; on the CPU and outside of a trace, as `check_range`."""
    for name, x in given.items():
        if x.device.type == "cpu" and not torch.compiler.is_compiling() and bool(x.isnan().any()):
            raise RuntimeError(f"ops.{where}: {name} must not hold NaN, got one")


def _runs_kernel(op: str, boxes: Tensor) -> bool:
    covered = boxes.device.type == "cpu" or boxes.dtype == torch.float32
    return covered and library.backend(op, boxes.device) == "native"


def _fake_nms(boxes: Tensor, scores: Tensor, classes: Tensor | None, threshold: float) -> Tensor:
    check_tensors("nms", {"boxes": boxes, "scores": scores}, {"idxs": classes})
    kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(kept, dtype=torch.int64)


def _fake_soft_nms(
    boxes: Tensor, scores: Tensor, decay: int, sigma: float, threshold: float, least_score: float
) -> tuple[Tensor, Tensor]:
    check_tensors("soft_nms", {"boxes": boxes, "scores": scores})
    kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(kept, dtype=torch.int64), boxes.new_empty(kept)


def _fake_soft_nms_padded(
    boxes: Tensor, scores: Tensor, decay: int, sigma: float, threshold: float, least_score: float
) -> tuple[Tensor, Tensor]:
    check_tensors("soft_nms", {"boxes": boxes, "scores": scores})
    return boxes.new_empty(boxes.shape[0], dtype=torch.int64), boxes.new_empty(boxes.shape[0])


def _fake_box_iou(a: Tensor, b: Tensor) -> Tensor:
    check_tensors("box_iou", {"boxes1": a, "boxes2": b})
    return a.new_empty(a.shape[0], b.shape[0])


def _fake_nms_mask(boxes: Tensor, classes: Tensor | None, threshold: float) -> Tensor:
    check_tensors("nms", {"boxes": boxes}, {"idxs": classes})
    return boxes.new_empty(boxes.shape[0], dtype=torch.bool)


if library.is_built("nms"):
    torch.library.register_fake("seqkit::nms", _fake_nms)
    torch.library.register_fake("seqkit::box_iou", _fake_box_iou)
    torch.library.register_fake("seqkit::nms_mask", _fake_nms_mask)
if library.is_built("soft_nms"):
    torch.library.register_fake("seqkit::soft_nms", _fake_soft_nms)
    torch.library.register_fake("seqkit::soft_nms_padded", _fake_soft_nms_padded)
