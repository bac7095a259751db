"""One recurrent layer over whole sequences, in one direction, from a given state: RNN, GRU or LSTM on `seqkit.ops`.

The equations stand beside the code in `seqkit.ops.rnn`; what is added here are the parameters and the ways to drop them
out while training.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqkit import ops
from seqkit.errors import InputError
from seqkit.nn.dropout import dropout
from seqkit.ops.rnn import RecurrentWeights

GATES = {"rnn": 1, "gru": 3, "lstm": 4}


class RecurrentLayer(nn.Module):
    """Every step's hidden state, and the state after the last.

    Args:
        kind: `rnn`, `gru` or `lstm`.
        peepholes: an LSTM whose gates see the cell state (Gers and Schmidhuber 2000).
        layer_norm: over the products and the cell state (Ba et al. 2016, arXiv:1607.06450).
        zoneout: the probability that a unit keeps its old value (Krueger et al. 2017, arXiv:1606.01305).
        weight_dropout: of the matrix from hidden state to hidden state, one mask a call (Merity et al. 2018, section
            2, arXiv:1708.02182).
        reverse: from the last step to the first.
    """

    def __init__(
        self, kind: str, input_dim: int, hidden_dim: int, *, peepholes: bool = False, layer_norm: bool = False,
        zoneout: float = 0.0, weight_dropout: float = 0.0, reverse: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if kind not in GATES:
            raise InputError(f"RecurrentLayer: kind must be one of {', '.join(GATES)}, got {kind!r}")
        if peepholes and kind != "lstm":
            raise InputError(f"RecurrentLayer: peepholes must be an LSTM's, got a {kind}")
        self.kind, self.hidden_dim, self.n_states = kind, hidden_dim, 2 if kind == "lstm" else 1
        self.layer_norm, self.zoneout, self.weight_dropout, self.reverse = layer_norm, zoneout, weight_dropout, reverse
        units, bound = GATES[kind] * hidden_dim, hidden_dim**-0.5

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))

        self.weight_input = drawn(units, input_dim)
        self.weight_hidden = drawn(units, hidden_dim)
        self.bias_input = nn.Parameter(torch.zeros(units))
        # Only a GRU needs the second: its reset gate stands between the two.
        self.bias_hidden = nn.Parameter(torch.zeros(units)) if kind == "gru" else None
        self.peepholes = drawn(3, hidden_dim) if peepholes else None
        self.gain_input = nn.Parameter(torch.ones(units)) if layer_norm else None
        self.gain_hidden = nn.Parameter(torch.ones(units)) if layer_norm else None
        self.gain_state = nn.Parameter(torch.ones(hidden_dim)) if layer_norm and kind == "lstm" else None
        self.bias_state = nn.Parameter(torch.zeros(hidden_dim)) if layer_norm and kind == "lstm" else None
        if kind == "lstm":  # the forget gate starts open (Jozefowicz et al. 2015, section 2.2)
            self.bias_input.data[hidden_dim : 2 * hidden_dim] = 1.0

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        state: Float[Tensor, "n_states B H"] | None = None,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "n_states B H"]]:
        """The states of a GRU or RNN are h alone, those of an LSTM h and c; None is zero."""
        weights = RecurrentWeights(
            self.weight_input, dropout(self.weight_hidden, self.weight_dropout, self.training), self.bias_input,
            self.bias_hidden, self.peepholes, self.gain_input, self.gain_hidden, self.gain_state, self.bias_state,
        )  # fmt: skip
        options = {
            "lengths": lengths, "layer_norm": self.layer_norm, "zoneout": self.zoneout, "training": self.training,
            "reverse": self.reverse,
        }  # fmt: skip
        if self.kind == "lstm":
            first = None if state is None else (state[0], state[1])
            outputs, last = ops.lstm(x, first, weights, **options)  # type: ignore[arg-type]
            return outputs, torch.stack(last)
        run = ops.gru if self.kind == "gru" else ops.rnn
        outputs, hidden = run(x, None if state is None else state[0], weights, **options)  # type: ignore[arg-type]
        return outputs, hidden[None]
