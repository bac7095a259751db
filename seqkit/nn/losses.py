"""Losses of sequence models, as sums, so that accumulated batches weigh every token alike."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from seqkit import ops
from seqkit.ops import library


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


ROWS = 256  # logits that are held at a time: with 10,000 tokens they stay in a core's cache


def linear_cross_entropy(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    target: Int[Tensor, " N"],
    *,
    pad_id: int,
) -> Float[Tensor, ""]:
    """The summed cross-entropy in nats of the targets under softmax(W h + b), padding left out.

    The logits of some rows at a time become their own gradient in place, and the gradients of h, W and b are added up
    at once: [N, V] never exists. Backward only scales them: it can be called once, and gives no second derivative.
    Under autocast to bfloat16 its products are of bfloat16, where the device is fast at them; the softmax and what is
    added up stay in the weight's dtype.

    Differs: torch's `linear` and `cross_entropy` hold [N, V] three times.
    """
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, target, pad_id)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, pad_id: int) -> Tensor:
        device = weight.device.type
        rounded = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
        products = torch.bfloat16 if rounded and (library.HAS_AMX or device != "cpu") else weight.dtype
        with torch.autocast(device, enabled=False):
            total, gradients = _losses(
                hidden, weight, bias, target, pad_id, products, wanted=any(ctx.needs_input_grad[:3])
            )
        ctx.gradients = gradients
        ctx.dtype = hidden.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("linear_cross_entropy: backward must be called once, got a second call; its gradients "
                               "are given away")  # fmt: skip
        scaled = ctx.gradients
        ctx.gradients = None  # so that they become the parameters' gradients without a copy
        if grad.device.type != "cpu" or grad.item() != 1.0:
            scaled = tuple(None if each is None else each.mul_(grad) for each in scaled)
        rows = None if scaled[0] is None else scaled[0].to(ctx.dtype)
        return rows, scaled[1], scaled[2], None, None


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _losses(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, pad_id: int, products: torch.dtype, *,
    wanted: bool,
) -> tuple[Tensor, Gradients]:  # fmt: skip
    """The loss, and the wanted gradients of hidden, weight and bias; `products` is the dtype of what is multiplied."""
    counted = (target != pad_id).nonzero()[:, 0]
    whole = len(counted) == len(target)
    rows, targets = (hidden, target) if whole else (hidden[counted], target[counted])
    rows, matrix = rows.to(products), weight.to(products)
    grad_rows = torch.empty_like(rows) if wanted else None
    grad_weight = torch.empty_like(weight) if wanted and len(rows) else torch.zeros_like(weight) if wanted else None
    grad_bias = torch.zeros_like(bias) if wanted and bias is not None else None
    total = weight.new_zeros(())
    for begin in range(0, len(rows), ROWS):
        some, these = rows[begin : begin + ROWS], targets[begin : begin + ROWS, None]
        logits = F.linear(some, matrix, None if bias is None else bias.to(products)).to(weight.dtype)
        logits -= logits.amax(dim=1, keepdim=True)
        chosen = logits.gather(1, these)
        shares = logits.exp_()
        normalizer = shares.sum(dim=1, keepdim=True)
        total += (normalizer.log() - chosen).sum()
        if grad_rows is None or grad_weight is None:
            continue
        gradient = shares.div_(normalizer)
        gradient.scatter_add_(1, these, gradient.new_full(these.shape, -1.0))
        if grad_bias is not None:
            grad_bias += gradient.sum(0)
        gradient = gradient.to(products)
        torch.mm(gradient, matrix, out=grad_rows[begin : begin + ROWS])
        if products != weight.dtype:
            of_weight = gradient.t() @ some
            grad_weight = grad_weight.copy_(of_weight) if begin == 0 else grad_weight.add_(of_weight)
        elif begin == 0:
            torch.mm(gradient.t(), some, out=grad_weight)
        else:
            grad_weight.addmm_(gradient.t(), some)
    if grad_rows is not None and not whole:
        grad_rows = torch.zeros_like(hidden, dtype=products).index_copy_(0, counted, grad_rows)
    return total, (grad_rows, grad_weight, grad_bias)


def ctc_losses(
    logits: Float[Tensor, "B T C"],
    lengths: Int[Tensor, " B"],
    targets: Int[Tensor, "B S"],
    target_lengths: Int[Tensor, " B"],
    *,
    blank: int,
) -> Float[Tensor, " B"]:
    """-log p(target) of each, the sum over all alignments; 0 of a target that does not fit into its frames.

    Reference: Graves et al. 2006, section 4.1.
    """
    return ops.ctc_loss_from_logits(
        logits.float().transpose(0, 1), targets, lengths, target_lengths, blank=blank, reduction="none",
        zero_infinity=True,
    )  # fmt: skip
