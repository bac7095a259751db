"""Recurrent stacks: LSTM or GRU layers over padded batches, optionally in both directions.

While training the whole sequence goes through torch's recurrent kernels. At inference the same weights run through the
row-invariant ops, one step a position, so that a sentence's states do not depend on the batch around it. Hard gates,
which torch's kernels do not have, always go one step at a time.

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
from seqkit.nn.dropout import dropout
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


def hard_lstm_cell(gates: Float[Tensor, "R G"], state: Float[Tensor, "R H"]) -> CellState:
    """`ops.lstm_cell` whose gates are clamp(x / 5 + 1/2, 0, 1) in place of the sigmoid: Keras's default before 2.3.

    torch's tanh, unlike its sigmoid, rounds a number the same wherever it stands in a tensor, so that a row's bits do
    not depend on the batch (AVX-512, AVX2 and plain, torch 2.13).
    """
    i, f, g, o = gates.chunk(4, dim=-1)
    after = _hard_sigmoid(f) * state + _hard_sigmoid(i) * torch.tanh(g)
    return _hard_sigmoid(o) * torch.tanh(after), after


def _hard_sigmoid(x: Tensor) -> Tensor:
    return (0.2 * x + 0.5).clamp(0.0, 1.0)


class RecurrentStack(nn.Module):
    """Every position's state, and each layer's last state.

    Args:
        kind: `lstm` or `gru`.
        hidden_dim: the size of one direction's state.
        dropout: between layers.
        hard_gates: an LSTM's gates are piecewise linear (`hard_lstm_cell`).
    """

    def __init__(
        self, kind: str, input_dim: int, hidden_dim: int, *, n_layers: int = 1, bidirectional: bool = True,
        dropout: float = 0.0, hard_gates: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kind = kind
        self.n_directions = 2 if bidirectional else 1
        network = nn.LSTM if kind == "lstm" else nn.GRU
        self.network = network(input_dim, hidden_dim, n_layers, batch_first=True, bidirectional=bidirectional)
        self.dropout = dropout
        self.hard_gates = hard_gates
        self.packed = PackedWeights()

    def forward(
        self,
        x: Float[Tensor, "B S E"],
        lengths: Int[Tensor, " B"],
        initial: tuple[Float[Tensor, "layers B D"], ...] | None = None,
    ) -> tuple[Float[Tensor, "B S D"], tuple[Float[Tensor, "layers B D"], ...]]:
        """Outputs of the last layer (zero beyond a sentence) and each layer's last states, directions side by side.

        The states are (h,) for a GRU and (h, c) for an LSTM; D is hidden_dim times the number of directions.

        Args:
            initial: the states before the first position; zero where there are none.
        """
        if torch.is_grad_enabled() and not self.hard_gates:
            return self._whole_sequences(x, lengths, initial)
        return self._step_by_step(x, lengths, initial)

    def _whole_sequences(
        self, x: Tensor, lengths: Tensor, initial: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        self.packed.forget()  # an optimiser may write to the weights next
        self.network.dropout = self.dropout if self.training else 0.0
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        layers = self.network.num_layers
        first = None
        if initial is not None:
            split = [
                state.reshape(layers, x.shape[0], self.n_directions, -1).transpose(1, 2).flatten(0, 1).to(x.dtype)
                for state in initial
            ]
            first = tuple(split) if self.kind == "lstm" else split[0]
        on_gpu = x.device.type == "cuda"
        # torch has no float16 LSTM for sentences of one length on the CPU; those of several run in float32 anyway.
        with torch.autocast(x.device.type, enabled=on_gpu and torch.is_autocast_enabled(x.device.type)):
            outputs, last = self.network(packed, first)
        padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
        states = last if isinstance(last, tuple) else (last,)
        return padded, tuple(
            state.view(layers, self.n_directions, x.shape[0], -1).transpose(1, 2).flatten(2) for state in states
        )

    def _step_by_step(
        self, x: Tensor, lengths: Tensor, initial: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # B S
        last: list[list[Tensor]] = []
        for layer in range(self.network.num_layers):
            if layer:
                x = dropout(x, self.dropout, self.training)
            runs = []
            for reverse, first in enumerate(self._first_states(x, layer, initial)):
                runs.append(self._run(x, inside, layer, reverse, first))
            x = torch.cat([outputs for outputs, _ in runs], dim=-1)
            last.append([torch.cat(states, dim=-1) for states in zip(*(state for _, state in runs), strict=True)])
        return x, tuple(torch.stack(states) for states in zip(*last, strict=True))

    def _first_states(self, x: Tensor, layer: int, initial: tuple[Tensor, ...] | None) -> list[CellState]:
        """The states that a layer starts from, for each direction."""
        if initial is None:
            zeros = x.new_zeros(x.shape[0], self.network.hidden_size)
            return [(zeros, zeros) if self.kind == "lstm" else (zeros,)] * self.n_directions
        return list(zip(*(state[layer].chunk(self.n_directions, dim=-1) for state in initial), strict=True))

    def _run(
        self, x: Tensor, inside: Bool[Tensor, "B S"], layer: int, reverse: int, state: CellState
    ) -> tuple[Tensor, CellState]:
        suffix = f"_l{layer}" + ("_reverse" if reverse else "")
        network = self.network
        weight_input, weight_hidden = getattr(network, "weight_ih" + suffix), getattr(network, "weight_hh" + suffix)
        bias_input, bias_hidden = getattr(network, "bias_ih" + suffix), getattr(network, "bias_hh" + suffix)
        from_input = affine(x, weight_input, bias_input, self.packed)  # B S G
        outputs = x.new_zeros(x.shape[0], x.shape[1], network.hidden_size)
        positions = range(x.shape[1])
        for position in reversed(positions) if reverse else positions:
            from_hidden = affine(state[0], weight_hidden, bias_hidden, self.packed)
            if self.hard_gates:
                new = hard_lstm_cell(from_input[:, position] + from_hidden, state[1])
            else:
                new = cell(self.kind, from_input[:, position], from_hidden, state)
            counts = inside[:, position, None]
            state = tuple(torch.where(counts, after, before) for after, before in zip(new, state, strict=True))
            outputs[:, position] = torch.where(counts, state[0], 0.0)
        return outputs, state
