"""Losses of sequence models, as sums, so that accumulated batches weigh every token alike."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def cross_entropy(
    logits: Float[Tensor, "B T V"], target: Int[Tensor, "B T"], *, pad_id: int, label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """The summed cross-entropy of the targets in nats, padding left out.

    With smoothing e the target distribution is (1 - e) on the true token plus e / V on every token, so that the
    loss of a position is -(1 - e) logp[target] - e mean(logp).

    Reference: Szegedy et al. 2016, section 7, arXiv:1512.00567.
    Differs: forward and backward are written out, which passes fewer times over [B T, V] than
    `torch.nn.functional.cross_entropy` does with smoothing.
    """
    flat = logits.flatten(0, 1).float()
    loss: Tensor = _SmoothedCrossEntropy.apply(flat, target.flatten(), pad_id, label_smoothing)  # type: ignore[no-untyped-call]
    return loss


class _SmoothedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, pad_id: int, smoothing: float) -> Tensor:
        logp = logits.log_softmax(dim=-1)  # N V
        loss = -(1 - smoothing) * logp.gather(-1, target[:, None])[:, 0]
        if smoothing:
            loss -= smoothing * logp.mean(dim=-1)
        counts = target != pad_id
        ctx.save_for_backward(logp, target, counts)
        ctx.smoothing = smoothing
        return loss.where(counts, 0.0).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        logp, target, counts = ctx.saved_tensors
        smoothing = ctx.smoothing
        gradient = logp.exp()  # N V
        if smoothing:
            gradient -= smoothing / logp.shape[-1]
        gradient[torch.arange(len(target), device=target.device), target] -= 1 - smoothing
        gradient *= (grad * counts)[:, None]
        return gradient, None, None, None
