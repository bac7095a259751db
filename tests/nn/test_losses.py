import pytest
import torch
from torch.nn import functional as F

from seqkit.nn.losses import cross_entropy, linear_cross_entropy
from seqkit.ops import library


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


@pytest.mark.parametrize("rows", [0, 1, 7, 600])
@pytest.mark.parametrize("with_bias", [False, True])
def test_linear_cross_entropy_is_torchs(rows: int, with_bias: bool) -> None:
    torch.manual_seed(0)
    hidden, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((rows, 4), (9, 4), (9,)))
    target = torch.randint(0, 9, (rows,))
    target[::3] = 0  # padding
    given = [x.requires_grad_() for x in (hidden, weight, bias)[: 2 + with_bias]]
    loss = linear_cross_entropy(hidden, weight, bias if with_bias else None, target, pad_id=0)
    logits = F.linear(hidden, weight, bias if with_bias else None)
    expected = F.cross_entropy(logits, target, ignore_index=0, reduction="sum")
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(2 * loss, given)
    for mine, theirs in zip(found, torch.autograd.grad(2 * expected, given), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_linear_cross_entropy_gives_its_gradients_once() -> None:
    hidden = torch.randn(5, 3, requires_grad=True)
    loss = linear_cross_entropy(hidden, torch.randn(4, 3), None, torch.tensor([1, 0, 3, 2, 2]), pad_id=0)
    loss.backward(retain_graph=True)
    assert hidden.grad is not None
    with pytest.raises(RuntimeError, match="backward must be called once"):
        loss.backward()


@pytest.mark.parametrize("rows", [5, 600])
@pytest.mark.parametrize("has_amx", [False, True])
def test_linear_cross_entropy_under_autocast(has_amx: bool, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In full precision, but for products in bfloat16 where the CPU is fast at them."""
    monkeypatch.setattr(library, "HAS_AMX", has_amx)
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(rows, 8).bfloat16(), torch.randn(9, 8), torch.randn(9)
    target = torch.randint(0, 9, (rows,))
    given = [x.requires_grad_() for x in (hidden, weight, bias)]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = linear_cross_entropy(*given, target, pad_id=0)
    found = [mixed, *torch.autograd.grad(mixed, given)]
    exact = linear_cross_entropy(hidden.float(), weight, bias, target, pad_id=0)
    assert mixed.dtype == torch.float32
    allowed = 1e-2 if has_amx else 1e-6
    for mine, wanted in zip(found, (exact, *torch.autograd.grad(exact, given)), strict=True):
        assert mine.dtype == wanted.dtype
        rounding = 4e-3 if mine.dtype == torch.bfloat16 else 0.0
        assert (mine.float() - wanted.float()).norm() <= (allowed + rounding) * wanted.float().norm()
        assert has_amx or mine.dtype == torch.bfloat16 or mine.equal(wanted)
