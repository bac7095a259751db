import pytest
import torch
from torch.nn import functional as F

from seqkit.nn.losses import cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_value_and_gradient_are_torchs(smoothing: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 11, requires_grad=True)
    target = torch.randint(1, 11, (3, 5))
    target[1, 2:] = 0
    ours = cross_entropy(logits, target, pad_id=0, label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(2.5 * ours, logits)
    theirs = F.cross_entropy(
        logits.flatten(0, 1), target.flatten(), ignore_index=0, reduction="sum", label_smoothing=smoothing
    )
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient, torch.autograd.grad(2.5 * theirs, logits)[0])
    assert gradient[1, 2:].abs().max() == 0


def test_only_padding_costs_nothing() -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(2, 3, dtype=torch.long), pad_id=0, label_smoothing=0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_half_precision_logits_are_summed_in_single() -> None:
    logits = torch.randn(2, 3, 7)
    target = torch.randint(1, 7, (2, 3))
    half = cross_entropy(logits.bfloat16(), target, pad_id=0)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, cross_entropy(logits.bfloat16().float(), target, pad_id=0))
