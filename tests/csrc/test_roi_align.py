"""The CUDA kernels of RoIAlign on the host: they equal float64, whatever the schedule."""

import math

import pytest
import torch
from torch import Tensor

from seqkit import ops
from seqkit.ops import library

OPS = torch.ops.seqkit_emulated
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def draw(B: int, C: int, H: int, W: int, K: int) -> tuple[Tensor, Tensor]:
    """A map, and boxes of which some reach beyond it."""
    generator = torch.Generator().manual_seed(B + C + H + W + K)
    size = torch.tensor([W, H])
    low = (torch.rand(K, 2, generator=generator) * 1.4 - 0.3) * size
    high = low + torch.rand(K, 2, generator=generator) ** 2 * 1.2 * size
    images = torch.randint(max(B, 1), (K, 1), generator=generator).float()
    return torch.randn(B, C, H, W, generator=generator), torch.cat([images, low, high], 1)


def run(
    input: Tensor, boxes: Tensor, gradient: Tensor, scale: float, ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """The kernels' features and gradient."""
    B, _, H, W = input.shape
    out = OPS.roi_align(input, boxes, scale, *gradient.shape[2:], ratio, aligned)
    return out, OPS.roi_align_backward(gradient, boxes, scale, B, H, W, ratio, aligned)


def reference(
    input: Tensor, boxes: Tensor, gradient: Tensor, scale: float, ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """The same in plain torch; the coordinates in float32, since a point's place may hang on the last bit."""
    leaf = input.detach().requires_grad_()
    out = ops.roi_align_reference(leaf, boxes, tuple(gradient.shape[2:]), scale, ratio, aligned)
    return out.detach(), torch.autograd.grad(out, leaf, gradient)[0]


@pytest.fixture
def poisoned() -> object:
    torch.use_deterministic_algorithms(True)  # fills what is allocated with NaN
    yield
    torch.use_deterministic_algorithms(False)


# Sizes of one; a map in several columns of tiles, more rows of bins than a tile; a map beyond shared memory.
CALLS = {
    "one": ((1, 1, 1, 1, 1), (1, 1), 1.0, -1, False),
    "small": ((2, 3, 5, 7, 5), (2, 3), 0.5, 2, True),
    "tiles": ((2, 5, 20, 70, 4), (11, 3), 1.0, -1, True),
    "large": ((1, 2, 100, 130, 2), (3, 4), 1.0, 2, False),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CALLS)
def test_roi_align_equals_float64(name: str, dtype: torch.dtype, schedule: str, poisoned: None) -> None:
    sizes, bins, scale, ratio, aligned = CALLS[name]
    input, boxes = draw(*sizes)
    boxes[:, 1:] /= scale
    gradient = torch.randn(sizes[4], sizes[1], *bins)
    input, gradient = input.to(dtype), gradient.to(dtype)
    got = run(input, boxes, gradient, scale, ratio, aligned)
    exact = reference(input.double(), boxes, gradient.double(), scale, ratio, aligned)
    peer = [x.to(dtype) for x in reference(input.float(), boxes, gradient.float(), scale, ratio, aligned)]
    for mine, truth, theirs in zip(got, exact, peer, strict=True):
        assert mine.dtype == dtype
        error, other = ((x.double() - truth).abs().max().item() for x in (mine, theirs))
        assert error <= 2 * other + 2e-6 * max(truth.abs().max().item(), 1.0)


def test_roi_align_is_that_of_the_cpu_on_the_border(schedule: str) -> None:
    """A point at the very end of the map counts, one a bit further does not; both devices place it alike."""
    input = torch.ones(1, 1, 4, 5)
    starts = torch.cat([torch.tensor([-1.0, -0.7, 4.9]).nextafter(torch.tensor(x)) for x in (-9.0, 9.0)])
    boxes = torch.stack([torch.zeros(6), starts, starts, starts + 0.3, starts + 0.1], 1)
    for scale in (1.0, 0.7, 1 / 3):
        for ratio in (1, 3):
            got = OPS.roi_align(input, boxes / torch.tensor([1.0, *[scale] * 4]), scale, 3, 7, ratio, True)
            wanted = ops.roi_align(input, boxes / torch.tensor([1.0, *[scale] * 4]), (3, 7), scale, ratio, True)
            torch.testing.assert_close(got, wanted)


def test_roi_align_gives_zeros_where_the_cpu_refuses(schedule: str, poisoned: None) -> None:
    input, _ = draw(2, 3, 4, 5, 1)
    good = [1.0, 0.5, 0.5, 3.0, 3.0]
    bad = [
        *([image, 0, 0, 2, 2] for image in (-1.0, 2.0, 0.5, 1e30, math.nan, math.inf)),
        *([0, 0, 0, end, 2] for end in (math.nan, math.inf, -1.0, 1e9, 3e38)),
        *([0, start, 0, 2, 2] for start in (math.nan, -math.inf)),
    ]
    boxes = torch.tensor([*bad, good])
    gradient = torch.randn(len(boxes), 3, 2, 2)
    out, grad = run(input, boxes, gradient, 2.0, -1, False)
    assert not out[:-1].any()
    alone = run(input, boxes[-1:], gradient[-1:], 2.0, -1, False)
    assert torch.equal(out[-1:], alone[0])
    assert torch.equal(grad, alone[1])
    assert not grad[0].any()


def test_roi_align_of_nothing_and_what_it_does_not_cover(poisoned: None) -> None:
    input, boxes = draw(2, 3, 4, 5, 6)
    for given, some in ((input, boxes[:0]), (input[:, :0], boxes), (input[:0], boxes[:0]), (input[:, :, :0], boxes)):
        gradient = torch.ones(len(some), given.shape[1], 2, 3)
        out, grad = run(given.contiguous(), some, gradient, 1.0, 2, True)
        assert torch.equal(out, torch.zeros_like(gradient))
        assert torch.equal(grad, torch.zeros_like(given))
    with pytest.raises(RuntimeError, match="input must have the dtype Float, Half or BFloat16"):
        OPS.roi_align(input.double(), boxes, 1.0, 2, 2, 2, True)
    with pytest.raises(RuntimeError, match="boxes must have the dtype Float"):
        OPS.roi_align(input.half(), boxes.half(), 1.0, 2, 2, 2, True)


def test_roi_align_reads_and_writes_under_the_box_alone(schedule: str) -> None:
    input, boxes = torch.full((1, 1, 6, 9), math.nan), torch.tensor([[0, 2.0, 2.0, 4.0, 4.0]])
    input[..., 2:4, 2:4] = 1.0
    gradient = torch.tensor([[[[1.0, math.nan], [1.0, 1.0]]]])
    out, grad = run(input, boxes, gradient, 1.0, -1, True)
    assert torch.equal(out, torch.ones(1, 1, 2, 2))
    assert math.isnan(grad[0, 0, 2, 3])
    assert grad.nan_to_num().sum() == 3.0


@pytest.mark.parametrize("name", ["tiles", "large"])
def test_roi_align_repeats_to_the_last_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, bins, *options = CALLS[name]
    input, boxes = draw(*sizes)
    gradient = torch.randn(sizes[4], sizes[1], *bins)
    runs = []
    for schedule in ("forward", "reverse", "random:1", "random:2"):
        monkeypatch.setenv("SEQKIT_SCHEDULE", schedule)
        runs.append(run(input, boxes, gradient, *options))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, runs[0], strict=True))


def test_roi_align_takes_what_the_face_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference and the kernel have the same arguments."""
    monkeypatch.setenv("SEQKIT_SCHEDULE", "forward")
    input, boxes = draw(2, 3, 5, 7, 5)
    with library.use_backend("reference"):
        wanted = ops.roi_align(input, boxes, (2, 3), 0.5, 2, True)
    torch.testing.assert_close(OPS.roi_align(input, boxes, 0.5, 2, 3, 2, True), wanted, rtol=1e-5, atol=1e-5)
