"""`ops.lstm_cell` and `ops.gru_cell` equal torch's cells; a row's bits depend on that row alone."""

import pytest
import torch
from torch import nn

from seqkit import ops
from seqkit.errors import InputError
from seqkit.ops import library

needs_native = pytest.mark.skipif(not library.is_built("lstm_cell"), reason="the native library is not built")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width", [1, 5, 16, 33])
def test_lstm_cell_equals_torch(width: int) -> None:
    x, h, c = draw(7, 4), draw(7, width, seed=1), draw(7, width, seed=2)
    cell = nn.LSTMCell(4, width)
    with torch.no_grad():
        wanted = cell(x, (h, c))
        gates = x @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh
        torch.testing.assert_close(ops.lstm_cell(gates, c), wanted)
        torch.testing.assert_close(ops.lstm_cell_reference(gates, c), wanted)


@pytest.mark.parametrize("width", [1, 5, 16, 33])
def test_gru_cell_equals_torch(width: int) -> None:
    x, h = draw(7, 4), draw(7, width, seed=1)
    cell = nn.GRUCell(4, width)
    with torch.no_grad():
        wanted = cell(x, h)
        gates = x @ cell.weight_ih.T + cell.bias_ih, h @ cell.weight_hh.T + cell.bias_hh
        torch.testing.assert_close(ops.gru_cell(*gates, h), wanted)
        torch.testing.assert_close(ops.gru_cell_reference(*gates, h), wanted)


@needs_native
@pytest.mark.parametrize("width", [3, 20, 32])
def test_cells_do_not_depend_on_the_batch(width: int) -> None:
    gates, c = draw(300, 4 * width), draw(300, width, seed=1)
    x, h = draw(300, 3 * width, seed=2), draw(300, 3 * width, seed=3)
    lstm, gru = ops.lstm_cell(gates, c), ops.gru_cell(x, h, c)
    for row in (0, 1, 150, 299):
        one = slice(row, row + 1)
        assert torch.equal(ops.lstm_cell(gates[one], c[one])[0], lstm[0][one])
        assert torch.equal(ops.lstm_cell(gates[one], c[one])[1], lstm[1][one])
        assert torch.equal(ops.gru_cell(x[one], h[one], c[one]), gru[one])


@needs_native
def test_cells_do_not_depend_on_where_in_a_row_a_unit_stands() -> None:
    gates, c = draw(1, 4).expand(1, 4).contiguous(), draw(1, 1, seed=1)
    wide = gates.view(4, 1).expand(4, 21).reshape(1, 84).contiguous()
    hidden = ops.lstm_cell(wide, c.expand(1, 21).contiguous())[0]
    assert torch.equal(hidden, ops.lstm_cell(gates, c)[0].expand(1, 21))


def test_cells_survive_extreme_gates() -> None:
    gates, c = torch.full((1, 4), -1e30), torch.ones(1, 1)
    assert ops.lstm_cell(gates, c)[1].item() == pytest.approx(0.0, abs=1e-30)
    assert ops.lstm_cell(-gates, c)[1].item() == 2.0
    assert ops.gru_cell(torch.full((1, 3), 1e30), torch.zeros(1, 3), c).item() == 1.0


def test_cells_have_gradients() -> None:
    double = {"dtype": torch.float64, "requires_grad": True}
    gates, c = torch.randn(2, 12, **double), torch.randn(2, 3, **double)
    assert torch.autograd.gradcheck(ops.lstm_cell, (gates, c))
    x, h = torch.randn(2, 9, **double), torch.randn(2, 9, **double)
    assert torch.autograd.gradcheck(ops.gru_cell, (x, h, c))


def test_cells_take_no_rows_and_refuse_other_shapes() -> None:
    assert ops.lstm_cell(torch.zeros(0, 8), torch.zeros(0, 2))[0].shape == (0, 2)
    lstm_cell = getattr(ops.lstm_cell, "__wrapped__", ops.lstm_cell)  # past the shape types, which users do not run
    gru_cell = getattr(ops.gru_cell, "__wrapped__", ops.gru_cell)
    with pytest.raises(InputError, match=r"must have the shapes \[R, 4H\] and \[R, H\]"):
        lstm_cell(torch.zeros(2, 7), torch.zeros(2, 2))
    with pytest.raises(InputError, match=r"must have the shapes \[R, 3H\] twice"):
        gru_cell(torch.zeros(2, 6), torch.zeros(1, 6), torch.zeros(2, 2))
    with pytest.raises(InputError, match="state must be a tensor, got NoneType"):
        lstm_cell(torch.zeros(2, 8), None)
    with pytest.raises(InputError, match="hidden must be on the device of the others, cpu, got meta"):
        gru_cell(torch.zeros(2, 6), torch.zeros(2, 6), torch.zeros(2, 2, device="meta"))


@needs_native
def test_cell_kernels_pass_opcheck_and_refuse_other_shapes() -> None:
    gates, c = draw(3, 20), draw(3, 5, seed=1)
    torch.library.opcheck(torch.ops.seqkit.lstm_cell.default, (gates, c))
    torch.library.opcheck(torch.ops.seqkit.gru_cell.default, (draw(3, 15), draw(3, 15), c))
    with pytest.raises(RuntimeError, match="gates must have the shape"):
        torch.ops.seqkit.lstm_cell(gates[:, :19].contiguous(), c)
    with pytest.raises(RuntimeError, match="from_hidden must have the shape"):
        torch.ops.seqkit.gru_cell(draw(3, 15), draw(2, 15), c)
    with pytest.raises(InputError, match="gates must be on the device of the others, cpu, got meta"):
        torch.ops.seqkit.lstm_cell(gates.to("meta"), c)
    with pytest.raises(InputError, match="from_hidden must be on the device of the others, cpu, got meta"):
        torch.ops.seqkit.gru_cell(draw(3, 15), draw(3, 15).to("meta"), c)


@needs_native
@pytest.mark.compile
def test_cells_compile() -> None:
    gates, c = draw(3, 20), draw(3, 5, seed=1)
    compiled = torch.compile(ops.lstm_cell, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(gates, c), ops.lstm_cell(gates, c))
