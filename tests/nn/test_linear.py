import copy

import pytest
import torch
from torch.nn import functional as F

from seqkit.nn.linear import ACTIVATIONS, Linear


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_inference_equals_training_up_to_rounding(activation: str) -> None:
    torch.manual_seed(0)
    layer = Linear(37, 45, activation=activation)
    x = torch.randn(3, 5, 37)
    expected = ACTIVATIONS[activation](F.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(layer(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected, rtol=2e-5, atol=2e-6)


def test_a_row_has_the_same_bits_in_any_batch() -> None:
    torch.manual_seed(0)
    layer = Linear(130, 77)
    x = torch.randn(64, 130)
    with torch.no_grad():
        together = layer(x)
        assert all(torch.equal(layer(x[row : row + 1])[0], together[row]) for row in range(64))
        assert torch.equal(layer(x[:7]), together[:7])


@pytest.mark.parametrize("fused", [True, False])
def test_a_trained_weight_is_packed_again(fused: bool) -> None:
    layer = Linear(8, 8)
    x = torch.randn(2, 8)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=fused)
    for _ in range(3):
        layer(x).sum().backward()
        optimizer.step()
        with torch.no_grad():
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_a_changed_weight_is_packed_again() -> None:
    layer = Linear(8, 8)
    x = torch.randn(2, 8)
    with torch.no_grad():
        layer(x)
        layer.weight.mul_(2.0)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
        layer.weight = torch.nn.Parameter(torch.randn(8, 8))
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
        twin = copy.deepcopy(layer)
        twin.weight.zero_()
        assert torch.equal(twin(x), twin.bias.expand(2, 8))
