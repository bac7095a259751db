import pytest
import torch
from torch import Tensor, nn

from seqkit.errors import InputError
from seqkit.nn.recurrent_layer import GATES, RecurrentLayer


def as_torch(layer: RecurrentLayer) -> nn.Module:
    """torch's layer of the same weights."""
    kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[layer.kind]
    peer = kind(layer.weight_input.shape[1], layer.hidden_dim, batch_first=True)
    hidden = layer.bias_hidden if layer.bias_hidden is not None else torch.zeros_like(layer.bias_input)
    with torch.no_grad():
        for name, weight in (
            ("weight_ih_l0", layer.weight_input), ("weight_hh_l0", layer.weight_hidden),
            ("bias_ih_l0", layer.bias_input), ("bias_hh_l0", hidden),
        ):  # fmt: skip
            getattr(peer, name).copy_(weight)
    return peer


@pytest.mark.parametrize("kind", GATES)
def test_a_plain_layer_is_torchs(kind: str) -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(kind, 3, 5)
    layer.bias_input.data.normal_()
    if layer.bias_hidden is not None:
        layer.bias_hidden.data.normal_()
    x, state = torch.randn(2, 7, 3), torch.randn(layer.n_states, 2, 5)
    outputs, last = layer(x, state)
    first = (state[:1], state[1:]) if kind == "lstm" else state
    expected, expected_last = as_torch(layer)(x, first)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(last, torch.cat(expected_last) if kind == "lstm" else expected_last)


@pytest.mark.parametrize("kind", GATES)
def test_a_sequence_goes_on_from_its_state(kind: str) -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(kind, 3, 4, layer_norm=True, peepholes=kind == "lstm")
    x = torch.randn(2, 6, 3)
    whole, last = layer(x)
    first, state = layer(x[:, :2])
    second, after = layer(x[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(after, last)


def test_weight_dropout_is_of_training_alone() -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer("lstm", 3, 16, weight_dropout=0.5)
    x = torch.randn(2, 6, 3)

    def twice() -> bool:
        a, b = (layer(x)[0] for _ in range(2))
        assert torch.equal(a[:, 0], b[:, 0])  # the first step has no hidden state to drop
        return torch.equal(a, b)

    assert not twice()
    layer.eval()
    assert twice()


def test_the_forget_gate_starts_open() -> None:
    bias: Tensor = RecurrentLayer("lstm", 2, 3).bias_input
    assert bias.tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 6


def test_wrong_kinds_are_refused() -> None:
    with pytest.raises(InputError, match="kind must be one of rnn, gru, lstm, got 'lstn'"):
        RecurrentLayer("lstn", 2, 3)
    with pytest.raises(InputError, match="peepholes must be an LSTM's, got a gru"):
        RecurrentLayer("gru", 2, 3, peepholes=True)
