"""`ops.arguments`: what is no tensor, stands on another device or is no index is refused in one sentence."""

import pytest
import torch

from seqkit.errors import InputError
from seqkit.ops.arguments import check_range, check_tensors, indices


def test_check_tensors_names_what_is_wrong() -> None:
    x, elsewhere = torch.zeros(1), torch.zeros(1, device="meta")
    check_tensors("ops.f", {"x": x, "y": x}, {"z": None, "w": x})
    for given, optional, message in (
        ({"x": None}, {}, "ops.f: x must be a tensor, got NoneType"),
        ({"x": x, "y": [1.0]}, {}, "ops.f: y must be a tensor, got list"),
        ({"x": x, "y": elsewhere}, {}, "ops.f: y must be on the device of the others, cpu, got meta"),
        ({"x": x}, {"z": 1.0}, "ops.f: z must be a tensor or None, got float"),
        ({"x": elsewhere}, {"z": x}, "ops.f: z must be on the device of the others, meta, got cpu"),
    ):
        with pytest.raises(InputError, match=message):
            check_tensors("ops.f", given, optional)


def test_indices_are_contiguous_int64_or_refused() -> None:
    x = torch.arange(6)
    assert indices("ops.f", "x", x) is x
    assert indices("ops.f", "x", x[::2]).is_contiguous()
    for dtype in (torch.uint8, torch.int32):
        assert torch.equal(indices("ops.f", "x", x.to(dtype)), x)
    for dtype in (torch.bool, torch.float32, torch.bfloat16, torch.complex64):
        with pytest.raises(InputError, match=f"ops.f: x must be integers, got {dtype}"):
            indices("ops.f", "x", x.to(dtype))


def test_check_range_reads_the_values_of_the_cpu_alone() -> None:
    check_range("ops.f", "x", torch.tensor([0, 3]), 0, 3)
    check_range("ops.f", "x", torch.zeros(0, dtype=torch.int64), 0, 3)
    check_range("ops.f", "x", torch.zeros(2, dtype=torch.int64, device="meta"), 1, 3)
    for wrong in (-1, 4, 2**62, -(2**63)):
        with pytest.raises(RuntimeError, match=f"ops.f: x must be from 0 to 3, got {wrong}"):
            check_range("ops.f", "x", torch.tensor([1, wrong]), 0, 3)
