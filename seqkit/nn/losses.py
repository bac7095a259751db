"""Losses of sequence models, as sums with the number of terms, so that accumulated batches weigh every token alike."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(
    logits: Float[Tensor, "B T V"], target: Int[Tensor, "B T"], *, pad_id: int, label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """The summed cross-entropy of the targets in nats, padding left out.

    With smoothing e the target distribution is (1 - e) on the true token plus e spread evenly over the V tokens.

    Reference: Szegedy et al. 2016, section 7, arXiv:1512.00567.
    """
    return F.cross_entropy(
        logits.flatten(0, 1), target.flatten(), ignore_index=pad_id, reduction="sum", label_smoothing=label_smoothing
    )
