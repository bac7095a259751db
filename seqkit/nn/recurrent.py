"""Recurrent encoders: stacked, optionally bidirectional LSTM or GRU over padded batches.

While training the whole sequence goes through torch's recurrent kernels. At inference the same weights run through the
row-invariant ops, one step a position, so that a sentence's states do not depend on the batch around it.

Reference: Hochreiter and Schmidhuber 1997 (LSTM, with the forget gate of Gers et al. 2000); Cho et al. 2014,
arXiv:1406.1078 (GRU, in the variant that applies the reset gate after the product, as cuDNN does); Schuster and Paliwal
1997 (bidirectional).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqkit import ops
from seqkit.nn.linear import PackedWeights, affine

GATES = {"lstm": 4, "gru": 3}
CellState = tuple[Tensor, ...]  # LSTM: (h, c); GRU: (h,); each R hidden


class RecurrentCell(nn.Module):
    """One step of an LSTM or a GRU for R rows.

    LSTM: c = f c' + i g, h = o tanh(c).   GRU: h = (1 - z) n + z h'.
    """

    def __init__(self, kind: str, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.kind = kind
        self.hidden_dim = hidden_dim
        self.weight_input = nn.Parameter(torch.empty(GATES[kind] * hidden_dim, input_dim))
        self.weight_hidden = nn.Parameter(torch.empty(GATES[kind] * hidden_dim, hidden_dim))
        self.bias_input = nn.Parameter(torch.empty(GATES[kind] * hidden_dim))
        self.bias_hidden = nn.Parameter(torch.empty(GATES[kind] * hidden_dim))
        self.packed = PackedWeights()
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_dim**-0.5), hidden_dim**-0.5)

    def forward(self, x: Float[Tensor, "R E"], state: CellState) -> CellState:
        from_input = affine(x, self.weight_input, self.bias_input, self.packed)
        from_hidden = affine(state[0], self.weight_hidden, self.bias_hidden, self.packed)
        return cell(self.kind, from_input, from_hidden, state)


def cell(kind: str, from_input: Float[Tensor, "R G"], from_hidden: Float[Tensor, "R G"], state: CellState) -> CellState:
    """The gates of one step, from the projected input and the projected previous state (G = 4 or 3 hidden sizes)."""
    if kind == "lstm":
        return ops.lstm_cell(from_input + from_hidden, state[1])
    return (ops.gru_cell(from_input, from_hidden, state[0]),)


class RecurrentEncoder(nn.Module):
    """Every position's state, and each layer's last state.

    Args:
        kind: `lstm` or `gru`.
        hidden_dim: the size of one direction's state.
        dropout: between layers.
    """

    def __init__(
        self, kind: str, input_dim: int, hidden_dim: int, *, n_layers: int = 1, bidirectional: bool = True,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kind = kind
        self.n_directions = 2 if bidirectional else 1
        network = nn.LSTM if kind == "lstm" else nn.GRU
        self.network = network(input_dim, hidden_dim, n_layers, batch_first=True, bidirectional=bidirectional)
        self.dropout = dropout
        self.packed = PackedWeights()

    def forward(
        self, x: Float[Tensor, "B S E"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B S D"], tuple[Float[Tensor, "layers B D"], ...]]:
        """Outputs of the last layer (zero beyond a sentence) and each layer's last states, directions side by side.

        The states are (h,) for a GRU and (h, c) for an LSTM; D is hidden_dim times the number of directions.
        """
        if torch.is_grad_enabled():
            return self._whole_sequences(x, lengths)
        return self._step_by_step(x, lengths)

    def _whole_sequences(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        self.network.dropout = self.dropout if self.training else 0.0
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, last = self.network(packed)
        padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
        states = last if isinstance(last, tuple) else (last,)
        layers = self.network.num_layers
        return padded, tuple(
            state.view(layers, self.n_directions, x.shape[0], -1).transpose(1, 2).flatten(2) for state in states
        )

    def _step_by_step(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # B S
        last: list[list[Tensor]] = []
        for layer in range(self.network.num_layers):
            runs = [self._run(x, inside, layer, reverse) for reverse in range(self.n_directions)]
            x = torch.cat([outputs for outputs, _ in runs], dim=-1)
            last.append([torch.cat(states, dim=-1) for states in zip(*(state for _, state in runs), strict=True)])
        return x, tuple(torch.stack(states) for states in zip(*last, strict=True))

    def _run(self, x: Tensor, inside: Bool[Tensor, "B S"], layer: int, reverse: int) -> tuple[Tensor, CellState]:
        suffix = f"_l{layer}" + ("_reverse" if reverse else "")
        network = self.network
        weight_input, weight_hidden = getattr(network, "weight_ih" + suffix), getattr(network, "weight_hh" + suffix)
        bias_input, bias_hidden = getattr(network, "bias_ih" + suffix), getattr(network, "bias_hh" + suffix)
        from_input = affine(x, weight_input, bias_input, self.packed)  # B S G
        zeros = x.new_zeros(x.shape[0], network.hidden_size)
        state: CellState = (zeros, zeros) if self.kind == "lstm" else (zeros,)
        outputs = x.new_zeros(x.shape[0], x.shape[1], network.hidden_size)
        positions = range(x.shape[1])
        for position in reversed(positions) if reverse else positions:
            from_hidden = affine(state[0], weight_hidden, bias_hidden, self.packed)
            new = cell(self.kind, from_input[:, position], from_hidden, state)
            counts = inside[:, position, None]
            state = tuple(torch.where(counts, after, before) for after, before in zip(new, state, strict=True))
            outputs[:, position] = torch.where(counts, state[0], 0.0)
        return outputs, state
