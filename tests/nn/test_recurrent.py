import pytest
import torch
from torch import nn

from seqkit.nn.recurrent import RecurrentCell, RecurrentStack, hard_lstm_cell


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
    encoder = RecurrentStack(kind, 6, 9, n_layers=n_layers, bidirectional=bidirectional, dropout=0.5).eval()
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
    encoder = RecurrentStack(kind, 6, 9)
    x, lengths = torch.randn(5, 8, 6), torch.tensor([8, 3, 5, 1, 7])
    with torch.no_grad():
        outputs, states = encoder(x, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone, alone_states = encoder(x[row : row + 1, :length], lengths[row : row + 1])
            assert torch.equal(alone[0], outputs[row, :length])
            assert all(torch.equal(a[:, 0], b[:, row]) for a, b in zip(alone_states, states, strict=True))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_stack_goes_on_from_a_state(kind: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    stack = RecurrentStack(kind, 6, 5, n_layers=2, bidirectional=bidirectional).eval()
    x, lengths = torch.randn(3, 4, 6), torch.tensor([4, 1, 2])
    shape = (2, 3, 5 * stack.n_directions)
    initial = tuple(torch.randn(shape) for _ in range(2 if kind == "lstm" else 1))
    outputs, last = stack(x, lengths, initial)
    with torch.no_grad():
        stepped, stepped_last = stack(x, lengths, initial)
    torch.testing.assert_close(stepped, outputs, rtol=2e-5, atol=2e-6)
    for mine, its in zip(stepped_last, last, strict=True):
        torch.testing.assert_close(mine, its, rtol=2e-5, atol=2e-6)
    if not bidirectional:
        _, half = stack(x[:, :2], torch.tensor([2, 2, 2]), initial)
        rest, _ = stack(x[:, 2:], torch.tensor([2, 2, 2]), half)
        whole, _ = stack(x, torch.tensor([4, 4, 4]), initial)
        torch.testing.assert_close(rest, whole[:, 2:], rtol=2e-5, atol=2e-6)


def test_hard_gates_are_kerass() -> None:
    torch.manual_seed(0)
    gates, state = 4.0 * torch.randn(5, 28), torch.randn(5, 7)
    i, f, g, o = gates.double().chunk(4, dim=-1)
    i, f, o = (torch.clamp(0.2 * gate + 0.5, 0.0, 1.0) for gate in (i, f, o))
    assert bool((i == 0.0).any())
    assert bool((i == 1.0).any())
    expected = f * state.double() + i * torch.tanh(g)
    hidden, after = hard_lstm_cell(gates, state)
    torch.testing.assert_close(after.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(hidden.double(), o * torch.tanh(expected), rtol=1e-6, atol=1e-6)


def test_hard_gates_round_a_row_the_same_anywhere() -> None:
    """13 numbers a row, so that a row's end falls on every lane of a vector."""
    torch.manual_seed(0)
    gates, state = torch.randn(200, 52), 2.0 * torch.randn(200, 13)
    hidden, after = hard_lstm_cell(gates, state)
    for row in range(200):
        alone, alone_after = hard_lstm_cell(gates[row : row + 1], state[row : row + 1])
        assert torch.equal(alone[0], hidden[row])
        assert torch.equal(alone_after[0], after[row])


def test_hard_gates_have_a_gradient() -> None:
    torch.manual_seed(0)
    gates, state = torch.randn(2, 12, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(hard_lstm_cell, (gates.requires_grad_(), state.requires_grad_()))


def test_hard_gates_have_the_same_bits_alone_and_padded() -> None:
    torch.manual_seed(0)
    stack = RecurrentStack("lstm", 6, 9, n_layers=2, bidirectional=False, hard_gates=True)
    x, lengths = torch.randn(5, 8, 6), torch.tensor([8, 3, 5, 1, 7])
    with torch.no_grad():
        outputs, states = stack(x, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone, alone_states = stack(x[row : row + 1, :length], lengths[row : row + 1])
            assert torch.equal(alone[0], outputs[row, :length])
            assert all(torch.equal(a[:, 0], b[:, row]) for a, b in zip(alone_states, states, strict=True))
    trained, _ = stack(x, lengths)
    torch.testing.assert_close(trained, outputs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("hard_gates", [False, True])
def test_inference_sees_what_a_fused_optimiser_wrote(hard_gates: bool) -> None:
    torch.manual_seed(0)
    stack = RecurrentStack("lstm", 6, 5, bidirectional=False, hard_gates=hard_gates)
    optimizer = torch.optim.Adam(stack.parameters(), 0.1, fused=True)
    x, lengths = torch.randn(3, 4, 6), torch.tensor([4, 1, 2])
    with torch.no_grad():
        stack(x, lengths)
    stack(x, lengths)[0].sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with torch.no_grad():
        stepped, _ = stack(x, lengths)
    torch.testing.assert_close(stepped, stack(x, lengths)[0], rtol=2e-5, atol=2e-6)
