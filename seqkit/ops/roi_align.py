"""RoIAlign: the features of a box, whatever its size, as a small grid of means.

The kernels (csrc/roi_align) run on the CPU in float32 and float64, on CUDA in float32, float16 and bfloat16 with
float32 inside; the rest runs the reference, and 16-bit numbers on the CPU are computed in float32. A box's result
depends on its image and itself, to the last bit. The gradient of a pixel is summed in the order of the boxes, without
atomics: it is the same bits every time, with any number of threads.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_tensors

MOST_POINTS = 32768  # kMostPoints in csrc/roi_align/roi_align.h
WHERE = "ops.roi_align"


def _axis(
    low: Tensor, high: Tensor, n_bins: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Where each RoI starts along an axis, in pixels; the size of its bins; the sampling points in each."""
    offset = 0.5 if aligned else 0.0
    start = low * spatial_scale - offset
    size = high * spatial_scale - offset - start
    if not aligned:
        size = size.clamp(min=1.0)
    bins = size / n_bins
    points = torch.full_like(bins, sampling_ratio) if sampling_ratio > 0 else bins.ceil()
    return start, bins, points


def _weights(axis: tuple[Tensor, Tensor, Tensor], n_bins: int, length: int) -> Float[Tensor, "K P L"]:
    """What each pixel along an axis counts in each bin: a mean over the sampling points of linear interpolation."""
    start, bins, points = (x[:, None, None] for x in axis)
    most = int(points.max()) if points.numel() else 0
    of_bin = torch.arange(n_bins, dtype=bins.dtype, device=bins.device)[:, None]
    point = torch.arange(most, dtype=bins.dtype, device=bins.device)
    at = start + of_bin * bins + (point + 0.5) * bins / points  # K P N
    counts = (point < points) & (at >= -1.0) & (at <= length)
    weights = at.new_zeros(*at.shape[:2], length)
    if length == 0 or most == 0:
        return weights
    at = at.nan_to_num().clamp(0.0, length - 1.0)
    low = at.floor()
    share = (at - low) * counts / points
    rest = (1.0 - (at - low)) * counts / points
    low_pixel = low.long()
    weights.scatter_add_(2, low_pixel, rest.nan_to_num())
    weights.scatter_add_(2, (low_pixel + 1).clamp(max=length - 1), share.nan_to_num())
    return weights


def roi_align_reference(
    input: Float[Tensor, "B C H W"],
    boxes: Float[Tensor, "K 5"],
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Float[Tensor, "K C P Q"]:
    """`roi_align` in plain torch, with the gradient of `input`: a product with the weights of either axis."""
    boxes = boxes.detach()
    images, x1, y1, x2, y2 = boxes.unbind(1)
    along_y = _axis(y1, y2, output_size[0], spatial_scale, sampling_ratio, aligned)
    along_x = _axis(x1, x2, output_size[1], spatial_scale, sampling_ratio, aligned)
    wy = _weights(along_y, output_size[0], input.shape[2]).to(input.dtype)  # K P H
    wx = _weights(along_x, output_size[1], input.shape[3]).to(input.dtype)  # K Q W
    pooled = [y @ input[image] @ x.T for image, y, x in zip(images.long().unbind(), wy, wx, strict=True)]
    if not pooled:
        return input[:0].sum((2, 3), keepdim=True).expand(-1, -1, *output_size)
    return torch.stack(pooled)


class _RoiAlign(torch.autograd.Function):
    """The native kernels under autograd; the boxes have no gradient."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, boxes: Tensor, scale: float, bins: tuple[int, int], sampling_ratio: int, aligned: bool
    ) -> Tensor:
        ctx.save_for_backward(boxes)
        ctx.size, ctx.options = input.shape, (scale, sampling_ratio, aligned)
        out: Tensor = torch.ops.seqkit.roi_align(input, boxes, scale, *bins, sampling_ratio, aligned)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (boxes,) = ctx.saved_tensors
        scale, sampling_ratio, aligned = ctx.options
        B, _, H, W = ctx.size
        grad_input = torch.ops.seqkit.roi_align_backward(
            grad.contiguous(), boxes, scale, B, H, W, sampling_ratio, aligned
        )
        return grad_input, None, None, None, None, None


def _bins(output_size: Any) -> tuple[int, int]:
    if isinstance(output_size, int):
        sizes: tuple[Any, ...] = (output_size, output_size)
    else:
        sizes = tuple(output_size) if isinstance(output_size, Sequence) else ()
    if len(sizes) != 2 or not all(isinstance(n, int) and 1 <= n <= MOST_POINTS for n in sizes):
        raise InputError(
            f"{WHERE}: output_size must be one or two integers from 1 to {MOST_POINTS}, got {output_size!r}"
        )
    return sizes[0], sizes[1]


def _joined(boxes: Sequence[Any], input: Tensor) -> Tensor:
    """The boxes of all images with the index of their image, [K, 5]."""
    if len(boxes) != input.shape[0]:
        raise InputError(f"{WHERE}: boxes must hold a tensor for each of the {input.shape[0]} images, got {len(boxes)}")
    check_tensors(WHERE, {"input": input, **{f"boxes[{index}]": x for index, x in enumerate(boxes)}})
    for index, x in enumerate(boxes):
        if x.ndim != 2 or x.shape[1] != 4:
            raise InputError(f"{WHERE}: boxes[{index}] must have the shape [L, 4], got {list(x.shape)}")
        if x.dtype != boxes[0].dtype:
            raise InputError(f"{WHERE}: boxes must have one dtype, got {boxes[0].dtype} and {x.dtype}")
    if not boxes:
        return input.new_zeros(0, 5)
    # A 16-bit number cannot hold the index of every image.
    wide = [x.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else x for x in boxes]
    return torch.cat([torch.cat([x.new_full((x.shape[0], 1), index), x], 1) for index, x in enumerate(wide)])


def _check_values(
    boxes: Tensor, batch: int, bins: tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool
) -> None:
    """Raises RuntimeError, as the kernel does, for a box that has no features; on the CPU and outside of a trace."""
    if boxes.device.type != "cpu" or type(boxes) is not Tensor or torch.compiler.is_compiling():
        return

    def refuse(bad: Tensor, must: str) -> None:
        if bool(bad.any()):
            at = int(bad.nonzero()[0, 0])
            raise RuntimeError(f"{WHERE}: boxes must {must}, got {boxes[at].tolist()} at {at}")

    images, x1, y1, x2, y2 = boxes.unbind(1)
    refuse(~boxes.isfinite().all(1), "be finite")
    known = (images >= 0) & (images < batch) & (images == images.floor())
    refuse(~known, f"begin with the index of an image, from 0 to {batch - 1}")
    refuse((x2 < x1) | (y2 < y1), "have x1 <= x2 and y1 <= y2")
    for low, high, n_bins in ((y1, y2, bins[0]), (x1, x2, bins[1])):
        start, size, points = _axis(low, high, n_bins, spatial_scale, sampling_ratio, aligned)
        refuse(~(start.isfinite() & size.isfinite()), "be finite")
        refuse(points.double() * n_bins > MOST_POINTS, f"have at most {MOST_POINTS} sampling points along an axis")


def roi_align(
    input: Float[Tensor, "B C H W"],
    boxes: Float[Tensor, "K 5"] | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Float[Tensor, "K C P Q"]:
    """The mean features in the P x Q bins of every box.

    out[k, c, p, q] = mean over the sampling points (y, x) of bin (p, q) of box k of input[image(k), c] at (y, x), by
    bilinear interpolation between the four pixels around it, of which those without weight are not read. A point more
    than one pixel outside the map counts as zero.

    Reference: He et al. 2017, Mask R-CNN, section 3, arXiv:1703.06870; signature and results of torchvision.ops.

    Differs: a box that has no meaning raises. The gradient is deterministic on every device. The boxes of a 16-bit
    input may be float32.

    The result has the dtype of `input`, also under autocast, where it is computed in float32. `boxes` get no gradient.

    Args:
        boxes: (image, x1, y1, x2, y2) with the index of an image in `input`, or for each image a tensor [L, 4] of
            (x1, y1, x2, y2).
        output_size: P and Q, or one integer for both.
        spatial_scale: pixels of `input` per unit of a box.
        sampling_ratio: a bin has so many sampling points along an axis; if not positive, one for each pixel of its
            size, rounded up.
        aligned: whether a pixel's centre is at one half, as in Detectron2; else it is at zero, and a box is at least
            one pixel wide and high.

    Raises:
        InputError: shapes, dtypes or options do not fit. RuntimeError: on the CPU, a box is not finite, ends before it
            begins, has more than 32,768 sampling points along an axis, or an image that is none; on CUDA its features
            are zero.
    """
    if isinstance(boxes, list | tuple):
        check_tensors(WHERE, {"input": input})
        if input.ndim != 4:
            raise InputError(f"{WHERE}: input must have the shape [B, C, H, W], got {list(input.shape)}")
        boxes = _joined(boxes, input)
    check_tensors(WHERE, {"input": input, "boxes": boxes})
    assert isinstance(boxes, Tensor)
    if input.ndim != 4:
        raise InputError(f"{WHERE}: input must have the shape [B, C, H, W], got {list(input.shape)}")
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise InputError(f"{WHERE}: boxes must have the shape [K, 5], got {list(boxes.shape)}")
    for name, x in (("input", input), ("boxes", boxes)):
        if not x.is_floating_point():
            raise InputError(f"{WHERE}: {name} must be floating-point numbers, got {x.dtype}")
    bins = _bins(output_size)
    if not isinstance(spatial_scale, int | float) or not 0.0 < spatial_scale <= torch.finfo(torch.float32).max:
        raise InputError(f"{WHERE}: spatial_scale must be positive and finite, got {spatial_scale}")
    if not isinstance(sampling_ratio, int) or sampling_ratio > MOST_POINTS:
        raise InputError(f"{WHERE}: sampling_ratio must be an integer up to {MOST_POINTS}, got {sampling_ratio}")
    sampling_ratio = max(sampling_ratio, 0)

    on_cpu, autocast = input.device.type == "cpu", torch.is_autocast_enabled(input.device.type)
    real = torch.promote_types(input.dtype, torch.float32)  # of the coordinates
    if not autocast and boxes.dtype not in (input.dtype, real):
        raise InputError(f"{WHERE}: boxes must have the dtype of input, {input.dtype}, got {boxes.dtype}")
    options = (spatial_scale, sampling_ratio, aligned)
    boxes = boxes.detach().to(real).contiguous()
    if library.backend("roi_align", input.device) != "native" or (real == torch.float64 and not on_cpu):
        _check_values(boxes, input.shape[0], bins, *options)
        with torch.autocast(input.device.type, enabled=False):
            return roi_align_reference(input.to(real), boxes, bins, *options).to(input.dtype)
    given = input.to(real if on_cpu or autocast else input.dtype).contiguous()
    if torch.is_grad_enabled() and given.requires_grad:
        out: Tensor = _RoiAlign.apply(given, boxes, spatial_scale, bins, sampling_ratio, aligned)  # type: ignore[no-untyped-call]
    else:
        out = torch.ops.seqkit.roi_align.default(given, boxes, spatial_scale, *bins, sampling_ratio, aligned)
    return out.to(input.dtype)


def _fake_forward(
    input: Tensor,
    boxes: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    check_tensors("roi_align", {"input": input, "boxes": boxes})
    return input.new_empty(boxes.shape[0], input.shape[1], pooled_height, pooled_width)


def _fake_backward(
    grad: Tensor,
    boxes: Tensor,
    spatial_scale: float,
    batch: int,
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    check_tensors("roi_align_backward", {"grad": grad, "boxes": boxes})
    return grad.new_empty(batch, grad.shape[1], height, width)


if library.is_built("roi_align"):
    torch.library.register_fake("seqkit::roi_align", _fake_forward)
    torch.library.register_fake("seqkit::roi_align_backward", _fake_backward)
