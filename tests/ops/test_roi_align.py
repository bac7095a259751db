"""`ops.roi_align`: its definition in plain Python, gradients, boxes at and beyond the border, refused boxes."""

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

needs_native = pytest.mark.skipif(not library.is_built("roi_align"), reason="the native library is not built")
BACKENDS = ["reference", pytest.param("native", marks=needs_native)]
FLOATS = [torch.float32, torch.float64]


def draw(
    B: int, C: int, H: int, W: int, K: int, *, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """A map, and boxes of which some reach beyond it."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([W, H])
    input = torch.randn(B, C, H, W, generator=generator, dtype=torch.float64)
    low = (torch.rand(K, 2, generator=generator) * 1.4 - 0.3) * size
    high = low + torch.rand(K, 2, generator=generator) ** 2 * 1.2 * size
    images = torch.randint(max(B, 1), (K, 1), generator=generator)
    return input.to(dtype), torch.cat([images, low, high], 1).to(dtype)


def by_definition(
    input: Tensor, box: list[float], bins: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    """One box, point by point: [C, P, Q]."""
    _, C, H, W = input.shape
    plane = input[int(box[0])]
    offset = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (x * scale - offset for x in box[1:])
    height, width = (size if aligned else max(size, 1.0) for size in (y2 - y1, x2 - x1))
    ny, nx = (ratio if ratio > 0 else math.ceil(size / n) for size, n in zip((height, width), bins, strict=True))
    out = torch.zeros(C, *bins, dtype=input.dtype)

    def pixels(at: float, length: int) -> list[tuple[int, float]]:
        if at < -1 or at > length:
            return []
        at = min(max(at, 0.0), length - 1)
        low = min(int(at), length - 1)
        return [(low, low + 1 - at), (min(low + 1, length - 1), at - low)]

    for p in range(bins[0]):
        for q in range(bins[1]):
            for i in range(ny):
                for j in range(nx):
                    y = y1 + p * height / bins[0] + (i + 0.5) * height / bins[0] / ny
                    x = x1 + q * width / bins[1] + (j + 0.5) * width / bins[1] / nx
                    for row, wy in pixels(y, H):
                        for column, wx in pixels(x, W):
                            out[:, p, q] += wy * wx * plane[:, row, column] / (ny * nx)
    return out


CALLS: list[tuple[tuple[int, int], float, int, bool]] = [
    ((2, 3), 1.0, -1, False),
    ((3, 2), 0.5, 2, True),
    ((1, 1), 1.0, 0, True),
    ((4, 20), 2.0, 1, False),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 5)])
def test_roi_align_equals_its_definition(
    size: tuple[int, int], call: tuple[tuple[int, int], float, int, bool], dtype: torch.dtype, backend: str
) -> None:
    bins, scale, ratio, aligned = call
    input, boxes = draw(2, 3, *size, 6)
    boxes[:, 1:] /= scale
    boxes[0, 3:] = boxes[0, 1:3]  # of no size
    wanted = torch.stack([by_definition(input, box.tolist(), bins, scale, ratio, aligned) for box in boxes])
    with library.use_backend(backend):
        got = ops.roi_align(input.to(dtype), boxes.to(dtype), bins, scale, ratio, aligned)
    assert got.dtype == dtype
    tolerance = 3e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance)


def test_roi_align_of_whole_pixels_is_the_pixels() -> None:
    input = torch.arange(24.0).view(1, 1, 4, 6)
    out = ops.roi_align(input, torch.tensor([[0.0, 1.0, 1.0, 5.0, 4.0]]), (3, 4), aligned=True)
    assert torch.equal(out[0], input[0, :, 1:4, 1:5])


@needs_native
@pytest.mark.parametrize("ratio", [-1, 2])
def test_roi_align_gradcheck(ratio: int) -> None:
    input, boxes = draw(2, 2, 5, 4, 3)
    leaf = input.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.roi_align(x, boxes, (2, 3), 1.0, ratio, True), (leaf,))


# Windows of one vector and two, bins wider than any window, more bins than lanes, a map narrower than a vector.
@needs_native
@pytest.mark.parametrize("ratio", [-1, 1, 2, 5])
@pytest.mark.parametrize(
    ("size", "bins"),
    [
        ((9, 20, 33), (7, 7)),
        ((5, 3, 2), (7, 7)),
        ((2, 3, 200), (2, 3)),
        ((1, 30, 90), (5, 40)),
        ((17, 64, 64), (14, 14)),
    ],
)
def test_roi_align_float32_equals_float64(size: tuple[int, int, int], bins: tuple[int, int], ratio: int) -> None:
    input, boxes = draw(2, *size, 20, dtype=torch.float32)
    gradient = torch.randn(20, size[0], *bins)

    def run(input: Tensor) -> tuple[Tensor, ...]:
        leaf = input.detach().requires_grad_()
        out = ops.roi_align(leaf, boxes.to(leaf.dtype), bins, 1.0, ratio, True)
        return out.detach(), *torch.autograd.grad(out, leaf, gradient.to(leaf.dtype))

    got, exact = run(input), run(input.double())
    with library.use_backend("reference"):
        plain = run(input)
    for mine, truth, theirs in zip(got, exact, plain, strict=True):
        error, peer = ((x.double() - truth).abs().max().item() for x in (mine, theirs))
        assert error <= 2 * peer + 2e-6 * max(truth.abs().max().item(), 1.0)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [-1, 2])
def test_roi_align_equals_torchvision(ratio: int, aligned: bool) -> None:
    try:
        torchvision: Any = pytest.importorskip("torchvision")
    except RuntimeError as error:  # one that does not fit the torch beside it
        pytest.skip(f"torchvision does not load: {error}")
    input, boxes = draw(3, 5, 20, 30, 40, dtype=torch.float32)
    results = []
    for pool in (ops.roi_align, torchvision.ops.roi_align):
        leaf = input.detach().requires_grad_()
        out = pool(leaf, boxes, (7, 5), 0.7, ratio, aligned)
        results.append((out.detach(), *torch.autograd.grad(out.square().sum(), leaf)))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-5)


@needs_native
def test_roi_align_of_a_box_does_not_see_the_others_the_batch_or_threads() -> None:
    input, boxes = draw(3, 19, 25, 40, 12, dtype=torch.float32)
    gradient = torch.randn(12, 19, 7, 7)

    def run(input: Tensor, boxes: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        leaf = input.detach().requires_grad_()
        out = ops.roi_align(leaf, boxes, 7, 1.0, 2, True)
        return out.detach(), *torch.autograd.grad(out, leaf, gradient)

    whole = run(input, boxes, gradient)
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert all(torch.equal(a, b) for a, b in zip(run(input, boxes, gradient), whole, strict=True))
    torch.set_num_threads(threads)
    for k in range(12):
        image = int(boxes[k, 0])
        alone = boxes[k : k + 1].clone()
        alone[0, 0] = 0
        assert torch.equal(run(input[image : image + 1], alone, gradient[k : k + 1])[0][0], whole[0][k])
    for image in range(3):
        mine = boxes[:, 0] == image
        own = boxes[mine] * torch.tensor([0.0, 1, 1, 1, 1])
        assert torch.equal(run(input[image : image + 1], own, gradient[mine])[1][0], whole[1][image])


@pytest.mark.parametrize("backend", BACKENDS)
def test_roi_align_takes_a_list_of_boxes(backend: str) -> None:
    input, boxes = draw(3, 2, 6, 7, 5)
    boxes[:, 0] = torch.tensor([0, 0, 2, 2, 2])
    with library.use_backend(backend):
        wanted = ops.roi_align(input, boxes, 2)
        lists = [boxes[:2, 1:], boxes[:0, 1:], boxes[2:, 1:]]
        assert torch.equal(ops.roi_align(input, lists, (2, 2)), wanted)
        assert ops.roi_align(input[:0], [], 2).shape == (0, 2, 2, 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_roi_align_of_nothing(dtype: torch.dtype, backend: str) -> None:
    input, boxes = draw(2, 3, 4, 5, 6, dtype=dtype)
    with library.use_backend(backend):
        for given, some in ((input, boxes[:0]), (input[:, :0], boxes), (input[:0], boxes[:0])):
            leaf = given.detach().requires_grad_()
            out = ops.roi_align(leaf, some, (2, 3))
            assert out.shape == (len(some), given.shape[1], 2, 3)
            (grad,) = torch.autograd.grad(out.sum(), leaf)
            assert torch.equal(grad, torch.zeros_like(given))
        for given in (input[:, :, :0], input[..., :0], input[:, :, :0, :0]):
            assert torch.equal(ops.roi_align(given, boxes, (2, 3)), torch.zeros(6, 3, 2, 3, dtype=dtype))
        many = torch.empty(2**50, 3, 0, 4, dtype=dtype)  # a loop over them would not end
        assert torch.equal(ops.roi_align(many, boxes, (2, 3)), torch.zeros(6, 3, 2, 3, dtype=dtype))


@needs_native
@pytest.mark.parametrize("dtype", FLOATS)
def test_roi_align_reads_and_writes_under_the_box_alone(dtype: torch.dtype) -> None:
    """What stands elsewhere may be NaN; so may the gradient of one bin."""
    input, boxes = torch.ones(1, 1, 6, 9, dtype=dtype), torch.tensor([[0, 2.0, 2.0, 4.0, 4.0]], dtype=dtype)
    input[0, 0, :2] = input[0, 0, 4:] = input[..., :2] = input[..., 4:] = math.nan
    assert torch.equal(ops.roi_align(input, boxes, 2, aligned=True), torch.ones(1, 1, 2, 2, dtype=dtype))
    outside = torch.tensor([[0, -9.0, -9, -5, -5], [0, 90, 0, 95, 3], [0, 0, -9, 3, -5]], dtype=dtype)
    assert not ops.roi_align(input, outside, 2).any()
    leaf = input.requires_grad_()
    for bin_ in range(4):
        gradient = torch.ones(4, dtype=dtype)
        gradient[bin_] = math.nan
        out = ops.roi_align(leaf, boxes, 2, aligned=True)
        (grad,) = torch.autograd.grad(out, leaf, gradient.view(1, 1, 2, 2))
        wanted = torch.zeros(6, 9, dtype=dtype)
        wanted[2:4, 2:4] = gradient.view(2, 2)
        torch.testing.assert_close(grad[0, 0], wanted, equal_nan=True)


@needs_native
@pytest.mark.parametrize("dtype", FLOATS)
def test_roi_align_leaves_nothing_unwritten(dtype: torch.dtype) -> None:
    torch.use_deterministic_algorithms(True)  # fills what is allocated with NaN
    try:
        input, boxes = draw(3, 9, 6, 5, 7, dtype=dtype)
        boxes[:, 0] = 1
        leaf = input.requires_grad_()
        out = ops.roi_align(leaf, boxes, (3, 18))
        (grad,) = torch.autograd.grad(out.sum(), leaf)
    finally:
        torch.use_deterministic_algorithms(False)
    assert out.isfinite().all()
    assert grad.isfinite().all()
    assert not grad[0].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_roi_align_under_autocast_and_in_half_precision(backend: str) -> None:
    input, boxes = draw(2, 3, 6, 7, 5, dtype=torch.float32)
    with library.use_backend(backend):
        for dtype in (torch.bfloat16, torch.float16):
            leaf = input.to(dtype).requires_grad_()
            wanted = ops.roi_align(leaf.detach().float(), boxes, 2, aligned=True)
            out = ops.roi_align(leaf, boxes, 2, aligned=True)
            assert torch.equal(out, wanted.to(dtype))
            (grad,) = torch.autograd.grad(out.sum(), leaf)
            assert grad.dtype == dtype
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(ops.roi_align(input, boxes.double(), 2, aligned=True), ops.roi_align(
                input, boxes, 2, aligned=True))  # fmt: skip
            assert ops.roi_align(input.bfloat16(), boxes, 2).dtype == torch.bfloat16
        with pytest.raises(InputError, match="boxes must have the dtype of input"):
            ops.roi_align(input, boxes.double(), 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        ([2.0, 0, 0, 1, 1], r"begin with the index of an image, from 0 to 1, got \[2"),
        ([-1.0, 0, 0, 1, 1], "begin with the index of an image"),
        ([0.5, 0, 0, 1, 1], "begin with the index of an image"),
        ([1e30, 0, 0, 1, 1], "begin with the index of an image"),
        ([math.nan, 0, 0, 1, 1], "be finite"),
        ([0, 0, 0, math.nan, 1], "be finite"),
        ([0, -math.inf, 0, 1, 1], "be finite"),
        ([0, 0, 0, 3e38, 1], "be finite"),
        ([0, 2, 0, 1, 1], "have x1 <= x2 and y1 <= y2"),
        ([0, 0, 2, 1, 1], "have x1 <= x2 and y1 <= y2"),
        ([0, 0, 0, 1e9, 1], "have at most 32768 sampling points along an axis"),
        ([0, 0, 0, 1, 1e5], "have at most 32768 sampling points along an axis"),
    ],
)
def test_roi_align_refuses_a_box(box: list[float], sentence: str, backend: str) -> None:
    for dtype in FLOATS:
        input = torch.randn(2, 1, 4, 4, dtype=dtype)
        given = torch.tensor([[0, 0, 0, 1, 1], box], dtype=dtype)
        if box[3] == 3e38 and dtype == torch.float64:
            continue  # which is finite there
        with library.use_backend(backend), pytest.raises(RuntimeError, match=sentence):
            ops.roi_align(input, given, 2, 2.0)


def test_roi_align_refuses_what_does_not_fit() -> None:
    pool = getattr(ops.roi_align, "__wrapped__", ops.roi_align)
    input, boxes = draw(2, 3, 4, 5, 6)
    with pytest.raises(InputError, match=r"input must have the shape \[B, C, H, W\], got \[3, 4, 5\]"):
        pool(input[0], boxes, 2)
    with pytest.raises(InputError, match=r"boxes must have the shape \[K, 5\], got \[6, 4\]"):
        pool(input, boxes[:, 1:], 2)
    with pytest.raises(InputError, match="boxes must hold a tensor for each of the 2 images, got 1"):
        pool(input, [boxes[:, 1:]], 2)
    with pytest.raises(InputError, match=r"boxes\[1\] must have the shape \[L, 4\], got \[6, 5\]"):
        pool(input, [boxes[:, 1:], boxes], 2)
    with pytest.raises(InputError, match=r"boxes\[1\] must be a tensor, got NoneType"):
        pool(input, [boxes[:, 1:], None], 2)
    with pytest.raises(InputError, match="boxes must be floating-point numbers"):
        pool(input, boxes.long(), 2)
    for size in (0, -1, 2**15 + 1, (2,), (2, 0), (2, 2, 2), 2.0, None):
        with pytest.raises(InputError, match="output_size must be one or two integers from 1 to 32768"):
            pool(input, boxes, size)
    for scale in (0.0, -1.0, math.nan, math.inf, 1e39):
        with pytest.raises(InputError, match="spatial_scale must be positive and finite"):
            pool(input, boxes, 2, scale)
    with pytest.raises(InputError, match="sampling_ratio must be an integer up to 32768, got 32769"):
        pool(input, boxes, 2, 1.0, 32769)
    with pytest.raises(InputError, match="sampling_ratio must be an integer"):
        pool(input, boxes, 2, 1.0, 1.5)


@needs_native
def test_roi_align_opcheck() -> None:
    input, boxes = draw(2, 3, 6, 7, 5, dtype=torch.float32)
    torch.library.opcheck(torch.ops.seqkit.roi_align.default, (input, boxes, 0.5, 2, 3, 2, True))
    gradient = torch.randn(5, 3, 2, 3)
    torch.library.opcheck(torch.ops.seqkit.roi_align_backward.default, (gradient, boxes, 0.5, 2, 6, 7, 2, True))


@needs_native
@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracer does it
@pytest.mark.parametrize("dynamic", [False, True])
def test_roi_align_compiles_forward_and_backward(dynamic: bool) -> None:
    input, boxes = draw(2, 3, 6, 7, 5, dtype=torch.float32)
    leaf = input.requires_grad_()

    def loss(input: Tensor, boxes: Tensor) -> Tensor:
        return ops.roi_align(input, boxes, (2, 3), 1.0, 2, True).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for count in (5, 3):
        wanted = torch.autograd.grad(loss(leaf, boxes[:count]), leaf)
        torch.testing.assert_close(torch.autograd.grad(compiled(leaf, boxes[:count]), leaf), wanted)


@needs_native
@pytest.mark.compile
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
def test_roi_align_is_exported_with_any_number_of_boxes() -> None:
    class Head(torch.nn.Module):
        def forward(self, input: Tensor, boxes: Tensor) -> Tensor:
            return ops.roi_align(input, boxes, 2, 0.5, 2, True)

    input, boxes = draw(2, 3, 6, 7, 5, dtype=torch.float32)
    program = torch.export.export(Head(), (input, boxes), dynamic_shapes=({}, {0: torch.export.Dim("K", max=1000)}))
    for count in (5, 3, 1):
        given = boxes[:count]
        assert torch.equal(program.module()(input, given), ops.roi_align(input, given, 2, 0.5, 2, True))


@needs_native
@pytest.mark.parametrize("level", ["0", "1"])
def test_roi_align_at_lower_machine_levels(level: str) -> None:
    code = """
import sys
sys.path.insert(0, "tests/ops")
from test_roi_align import test_roi_align_float32_equals_float64 as check
for size, bins in (((9, 20, 33), (7, 7)), ((2, 3, 200), (2, 3)), ((1, 30, 90), (5, 40))):
    for ratio in (-1, 2):
        check(size, bins, ratio)
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
