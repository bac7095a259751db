"""The product on AMX's tiles; where the processor has none these hold for torch's own product."""

import pytest
import torch
from torch import Tensor

from seqkit import ops
from seqkit.errors import InputError

# Around the strips of 32 and the tiles of 16, and beyond one chain of 24 * 32 steps.
SHAPES = [(64, 1024, 64), (65, 1025, 97), (200, 650, 131), (95, 2000, 161), (300, 64, 300)]


def operands(M: int, K: int, N: int, form: str) -> tuple[Tensor, Tensor]:
    """Random matrices; `form` says which of them (a, b) are transposes."""
    torch.manual_seed(0)
    a = torch.randn(K, M).t() if "a" in form else torch.randn(M, K)
    b = torch.randn(N, K).t() if "b" in form else torch.randn(K, N)
    return a, b


def rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


@pytest.mark.parametrize("form", ["", "a", "b", "ab"])
@pytest.mark.parametrize("shape", SHAPES)
def test_matmul_is_as_near_as_float32(shape: tuple[int, int, int], form: str) -> None:
    a, b = operands(*shape, form)
    exact = a.double() @ b.double()
    assert rms(ops.matmul(a, b) - exact) <= 1.2 * rms(a @ b - exact)


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**40])
def test_matmul_keeps_its_accuracy_over_the_range(scale: float) -> None:
    a, b = operands(128, 700, 128, "")
    exact = (a * scale).double() @ b.double()
    assert rms(ops.matmul(a * scale, b) - exact) <= 1.2 * rms((a * scale) @ b - exact)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 2.0**57, 2.0**127, torch.finfo(torch.float32).max])
def test_matmul_gives_float32s_results_of_what_cannot_be_split(value: float) -> None:
    a, b = operands(100, 700, 100, "")
    a[99, 699] = value
    torch.testing.assert_close(ops.matmul(a, b), a @ b, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(ops.matmul(b.t(), a.t()), b.t() @ a.t(), rtol=0, atol=0, equal_nan=True)


def test_matmul_takes_subnormal_numbers_for_less() -> None:
    a, b = operands(100, 700, 100, "")
    a *= 2.0**-130
    exact = a.double() @ b.double()
    # What is lost of a number is below 2^-126.
    assert (ops.matmul(a, b) - exact).abs().max().item() <= 700 * 2.0**-124


def test_matmul_of_integers_is_exact() -> None:
    a, b = operands(128, 700, 128, "")
    a, b = (a * 30).round(), (b * 30).round()
    torch.testing.assert_close(ops.matmul(a, b).double(), a.double() @ b.double(), rtol=0, atol=0)


def test_matmul_of_one_large_product_is_float32s() -> None:
    """One number of 24 bits in each sum: nothing but the cut of the numbers can lose bits."""
    a, b = torch.zeros(128, 128), torch.zeros(128, 600)
    a.fill_diagonal_(1 + 2.0**-23)
    torch.manual_seed(0)
    b.uniform_(1, 2)
    exact = a.double() @ b.double()
    assert ((ops.matmul(a, b) - exact) / exact).abs().max().item() <= 2.0**-23


def test_matmul_row_does_not_depend_on_the_others() -> None:
    a, b = operands(300, 700, 200, "")
    torch.testing.assert_close(ops.matmul(a[64:192], b), ops.matmul(a, b)[64:192], rtol=0, atol=0)


def test_matmul_takes_empty_small_and_double() -> None:
    for a, b in ((torch.ones(0, 3), torch.ones(3, 2)), (torch.ones(2, 0), torch.ones(0, 2))):
        torch.testing.assert_close(ops.matmul(a, b), a @ b)
    a, b = operands(3, 5, 2, "")
    torch.testing.assert_close(ops.matmul(a.double(), b.double()), a.double() @ b.double())
    wide = torch.randn(128, 2000)[:, ::2]
    torch.testing.assert_close(ops.matmul(wide, wide.t()), wide @ wide.t())


def test_matmul_with_gradient_runs_torchs() -> None:
    a, b = operands(100, 700, 100, "")
    a.requires_grad_()
    ops.matmul(a, b).sum().backward()
    torch.testing.assert_close(a.grad, b.sum(1).expand(100, 700))


def test_matmul_leaves_no_output_unwritten() -> None:
    a, b = operands(*SHAPES[1], "")
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        assert ops.matmul(a, b).isfinite().all()
    finally:
        torch.use_deterministic_algorithms(was)


def test_matmul_refuses() -> None:
    a, b = operands(3, 4, 5, "")
    with pytest.raises(InputError, match="must have one dtype"):
        ops.matmul(a, b.double())
    with pytest.raises((InputError, TypeError), match=r"shapes|type"):
        ops.matmul(a, a)


def test_matmul_opcheck() -> None:
    torch.library.opcheck(torch.ops.seqkit.matmul.default, operands(64, 1024, 64, "b"))
