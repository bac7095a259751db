"""One step of the pointwise part of an LSTM or a GRU, for decoding: a state's bits do not depend on the batch.

The matrix products are the caller's (`ops.linear`). Whole sequences in training belong to torch.nn.LSTM and GRU.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_tensors


def lstm_cell_reference(
    gates: Float[Tensor, "R gates"], state: Float[Tensor, "R H"]
) -> tuple[Float[Tensor, "R H"], Float[Tensor, "R H"]]:
    """`lstm_cell` in plain torch, with gradients."""
    i, f, g, o = gates.chunk(4, dim=-1)
    next_state = torch.sigmoid(f) * state + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(next_state), next_state


def lstm_cell(
    gates: Float[Tensor, "R gates"], state: Float[Tensor, "R H"]
) -> tuple[Float[Tensor, "R H"], Float[Tensor, "R H"]]:
    """The hidden state h' and the cell state c' after one step.

    c' = σ(f) c + σ(i) tanh(g),  h' = σ(o) tanh(c'), with gates = [i, f, g, o] = W x + U h + b.

    Reference: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; the order of gates is torch's.

    Float32 on the CPU without gradient runs the kernel; all else runs `lstm_cell_reference`.

    Raises:
        InputError: gates are not four times as wide as the state, or on another device.
    """
    check_tensors("ops.lstm_cell", {"gates": gates, "state": state})
    if state.ndim != 2 or gates.shape != (state.shape[0], 4 * state.shape[1]):
        got = f"{list(gates.shape)} and {list(state.shape)}"
        raise InputError(f"ops.lstm_cell: gates and state must have the shapes [R, 4H] and [R, H], got {got}")
    if not library.runs_kernel("lstm_cell", gates, state):
        return lstm_cell_reference(gates, state)
    hidden, next_state = torch.ops.seqkit.lstm_cell(gates.contiguous(), state.contiguous())
    return hidden, next_state


def gru_cell_reference(
    from_input: Float[Tensor, "R gates"], from_hidden: Float[Tensor, "R gates"], hidden: Float[Tensor, "R H"]
) -> Float[Tensor, "R H"]:
    """`gru_cell` in plain torch, with gradients."""
    x_r, x_z, x_n = from_input.chunk(3, dim=-1)
    h_r, h_z, h_n = from_hidden.chunk(3, dim=-1)
    new = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
    return new + torch.sigmoid(x_z + h_z) * (hidden - new)


def gru_cell(
    from_input: Float[Tensor, "R gates"], from_hidden: Float[Tensor, "R gates"], hidden: Float[Tensor, "R H"]
) -> Float[Tensor, "R H"]:
    """The hidden state h' after one step.

    n = tanh(x_n + σ(x_r + h_r) h_n),  z = σ(x_z + h_z),  h' = (1 - z) n + z h,
    with from_input = [x_r, x_z, x_n] = W x + b and from_hidden = [h_r, h_z, h_n] = U h + b'.

    Reference: Cho et al. 2014, 2.3, arXiv:1406.1078. Differs: the reset gate follows the product with U, as in torch.

    Float32 on the CPU without gradient runs the kernel; all else runs `gru_cell_reference`.

    Raises:
        InputError: the gates are not three times as wide as the state, or on another device.
    """
    check_tensors("ops.gru_cell", {"from_input": from_input, "from_hidden": from_hidden, "hidden": hidden})
    shape = (hidden.shape[0], 3 * hidden.shape[1]) if hidden.ndim == 2 else None
    if from_input.shape != shape or from_hidden.shape != shape:
        got = f"{list(from_input.shape)}, {list(from_hidden.shape)} and {list(hidden.shape)}"
        raise InputError(
            f"ops.gru_cell: from_input, from_hidden and hidden must have the shapes [R, 3H] twice and [R, H], got {got}"
        )
    if not library.runs_kernel("gru_cell", from_input, from_hidden, hidden):
        return gru_cell_reference(from_input, from_hidden, hidden)
    after: Tensor = torch.ops.seqkit.gru_cell(from_input.contiguous(), from_hidden.contiguous(), hidden.contiguous())
    return after


def _fake_lstm_cell(gates: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    check_tensors("lstm_cell", {"state": state, "gates": gates})
    return state.new_empty(state.shape), state.new_empty(state.shape)


def _fake_gru_cell(from_input: Tensor, from_hidden: Tensor, hidden: Tensor) -> Tensor:
    check_tensors("gru_cell", {"hidden": hidden, "from_input": from_input, "from_hidden": from_hidden})
    return hidden.new_empty(hidden.shape)


if library.is_built("lstm_cell"):
    torch.library.register_fake("seqkit::lstm_cell", _fake_lstm_cell)
if library.is_built("gru_cell"):
    torch.library.register_fake("seqkit::gru_cell", _fake_gru_cell)
