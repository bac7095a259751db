"""A product of two float32 matrices at float32's accuracy, by the bfloat16 tiles of AMX where the processor has them.

Each number is cut into three bfloat16 and the six products that matter are summed in float32 (csrc/matmul): the error
is no larger than sgemm's. Small products, processors without AMX, other dtypes and devices run torch's own, and so does
a product with a number at or beyond 2^56, an infinity or a NaN. What lies below 2^-126 of a number is lost, so that
numbers below 2^-102 lose bits.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_tensors


def matmul(a: Float[Tensor, "M K"], b: Float[Tensor, "K N"]) -> Float[Tensor, "M N"]:
    """The product a b, without gradient where the kernel runs; either may be the transpose of a dense matrix.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
    """
    check_tensors("ops.matmul", {"a": a, "b": b})
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise InputError(
            f"ops.matmul: a and b must have the shapes [M, K] and [K, N], got {list(a.shape)} and {list(b.shape)}"
        )
    if a.dtype != b.dtype:
        raise InputError(f"ops.matmul: a and b must have one dtype, got {a.dtype} and {b.dtype}")
    if a.device.type != "cpu" or not library.runs_kernel("matmul", a, b):
        return a @ b
    product: Tensor = torch.ops.seqkit.matmul.default(a, b)
    return product


def _fake(a: Tensor, b: Tensor) -> Tensor:
    check_tensors("matmul", {"a": a, "b": b})
    return a.new_empty(a.shape[0], b.shape[1])


if library.is_built("matmul"):
    torch.library.register_fake("seqkit::matmul", _fake)
