"""Dropout with a cheap mask.

On the CPU drawing torch's mask, one 32-bit number for every element, is a tenth of a Transformer's training step. Here
every 64-bit draw serves four elements, 16 bits each: a drop probability is a multiple of 2^-16, and the scale is exact.

Reference: Srivastava et al. 2014.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def dropout(x: Float[Tensor, "*shape"], p: float, training: bool) -> Float[Tensor, "*shape"]:
    """Each element is zero with probability `p`, else divided by 1 - p; `x` itself when not training."""
    if not training or p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    dropped = round(p * 65536)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 32768
    return x * (kept * torch.tensor(65536 / (65536 - dropped), dtype=x.dtype))


def locked_dropout(x: Float[Tensor, "B T D"], p: float, training: bool) -> Float[Tensor, "B T D"]:
    """Dropout with one mask for all steps of a sequence (Gal and Ghahramani 2016, arXiv:1512.05287)."""
    if not training or p == 0.0:
        return x
    return x * dropout(x.new_ones(x.shape[0], 1, x.shape[2]), p, training)
