import pytest
import torch

from seqkit.nn.dropout import dropout, locked_dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_the_share_of_zeros_and_the_mean_are_right(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 401)
    y = dropout(x, p, training=True)
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.003)
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)
    assert y.unique().numel() == 2


def test_neighbours_are_independent() -> None:
    """Four elements share a 64-bit draw; their masks must not."""
    torch.manual_seed(0)
    kept = (dropout(torch.ones(4096, 64), 0.5, training=True) != 0).double() - 0.5
    correlations = [(kept[:, :-lag] * kept[:, lag:]).mean().item() * 4 for lag in (1, 2, 3, 4)]
    assert max(map(abs, correlations)) < 0.01


def test_the_gradient_has_the_mask_and_the_scale() -> None:
    x = torch.ones(33, requires_grad=True)
    y = dropout(x, 0.25, training=True)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())  # type: ignore[arg-type]


def test_nothing_is_dropped_outside_training_or_at_zero() -> None:
    x = torch.randn(5)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


def test_the_same_seed_gives_the_same_mask() -> None:
    torch.manual_seed(7)
    first = dropout(torch.ones(101), 0.3, training=True)
    torch.manual_seed(7)
    assert torch.equal(first, dropout(torch.ones(101), 0.3, training=True))


def test_locked_dropout_has_one_mask_for_all_steps() -> None:
    torch.manual_seed(0)
    x = torch.ones(4, 5, 64)
    dropped = locked_dropout(x, 0.25, True)
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert {*dropped.unique().tolist()} == {0.0, dropped.max().item()}
    assert 0.15 < (dropped == 0).float().mean() < 0.35
    assert not torch.equal(dropped[0], dropped[1])
    assert locked_dropout(x, 0.25, False) is x
