import pytest
import torch
from torch import nn

from seqkit.nn.recurrent import RecurrentCell, RecurrentEncoder


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_cell_is_torchs(kind: str) -> None:
    torch.manual_seed(0)
    ours = RecurrentCell(kind, 5, 7)
    theirs = nn.LSTMCell(5, 7) if kind == "lstm" else nn.GRUCell(5, 7)
    with torch.no_grad():
        theirs.weight_ih.copy_(ours.weight_input)
        theirs.weight_hh.copy_(ours.weight_hidden)
        theirs.bias_ih.copy_(ours.bias_input)
        theirs.bias_hh.copy_(ours.bias_hidden)
    x, h, c = torch.randn(3, 5), torch.randn(3, 7), torch.randn(3, 7)
    expected = theirs(x, (h, c)) if kind == "lstm" else (theirs(x, h),)
    for state in (ours(x, (h, c) if kind == "lstm" else (h,)), _without_grad(ours, x, h, c)):
        for mine, its in zip(state, expected, strict=True):
            torch.testing.assert_close(mine, its, rtol=2e-5, atol=2e-6)


def _without_grad(cell: RecurrentCell, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return cell(x, (h, c) if cell.kind == "lstm" else (h,))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_step_by_step_equals_whole_sequences(kind: str, bidirectional: bool, n_layers: int) -> None:
    torch.manual_seed(0)
    encoder = RecurrentEncoder(kind, 6, 9, n_layers=n_layers, bidirectional=bidirectional, dropout=0.5).eval()
    x, lengths = torch.randn(4, 7, 6), torch.tensor([7, 1, 4, 6])
    outputs, states = encoder(x, lengths)
    with torch.no_grad():
        stepped, stepped_states = encoder(x, lengths)
    torch.testing.assert_close(stepped, outputs, rtol=2e-5, atol=2e-6)
    assert len(states) == len(stepped_states) == (2 if kind == "lstm" else 1)
    for mine, its in zip(stepped_states, states, strict=True):
        assert its.shape == (n_layers, 4, 9 * (1 + bidirectional))
        torch.testing.assert_close(mine, its, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_sentence_has_the_same_bits_alone_and_padded(kind: str) -> None:
    torch.manual_seed(0)
    encoder = RecurrentEncoder(kind, 6, 9)
    x, lengths = torch.randn(5, 8, 6), torch.tensor([8, 3, 5, 1, 7])
    with torch.no_grad():
        outputs, states = encoder(x, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone, alone_states = encoder(x[row : row + 1, :length], lengths[row : row + 1])
            assert torch.equal(alone[0], outputs[row, :length])
            assert all(torch.equal(a[:, 0], b[:, row]) for a, b in zip(alone_states, states, strict=True))
