"""What every operator asks of its arguments, whatever runs it: tensors, on one device, and indices that are integers.

A kernel looks at the values of indices itself. The references do not, and torch would take -1 for the last one or a
length beyond the end for the whole; so a face that runs its reference on the CPU calls `check_range` first.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from seqkit.errors import InputError


def check_tensors(where: str, given: Mapping[str, object], optional: Mapping[str, object] | None = None) -> None:
    """Raises InputError unless all are tensors on the device of the first; the optional ones may be None."""
    device = None
    for name, x in given.items():
        if not isinstance(x, Tensor):
            raise InputError(f"{where}: {name} must be a tensor, got {type(x).__name__}")
        if device is None:
            device = x.device
        elif x.device != device:
            raise InputError(f"{where}: {name} must be on the device of the others, {device}, got {x.device}")
    for name, x in (optional or {}).items():
        if x is None:
            continue
        if not isinstance(x, Tensor):
            raise InputError(f"{where}: {name} must be a tensor or None, got {type(x).__name__}")
        if x.device != device:
            raise InputError(f"{where}: {name} must be on the device of the others, {device}, got {x.device}")


def indices(where: str, name: str, x: Tensor) -> Tensor:
    """The integers as contiguous int64; the tensor itself where it is that.

    Raises:
        InputError: they are of no integer type.
    """
    if x.dtype != torch.int64:
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise InputError(f"{where}: {name} must be integers, got {x.dtype}")
        x = x.to(torch.int64)
    return x.contiguous()


def check_range(where: str, name: str, x: Tensor, lowest: int, highest: int) -> None:
    """Raises RuntimeError, as a kernel does, for an index outside lowest .. highest.

    Only on the CPU and outside of a trace: a GPU would have to be waited for, and a traced tensor has no values.
    """
    if x.device.type != "cpu" or type(x) is not Tensor or torch.compiler.is_compiling() or x.numel() == 0:
        return
    smallest, largest = int(x.min()), int(x.max())
    if smallest < lowest or largest > highest:
        got = smallest if smallest < lowest else largest
        raise RuntimeError(f"{where}: {name} must be from {lowest} to {highest}, got {got}")
