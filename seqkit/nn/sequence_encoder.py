"""Encoders of whole sequences, one vector a position: stacked recurrent layers in one direction or both, a Transformer.

Reference: Schuster and Paliwal 1997 (bidirectional); Vaswani et al. 2017, section 3.1, arXiv:1706.03762.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqkit.errors import InputError
from seqkit.nn.dropout import dropout, locked_dropout
from seqkit.nn.recurrent_layer import GATES, RecurrentLayer
from seqkit.nn.transformer import EncoderLayer, sinusoids

ENCODERS = ("none", *GATES, "transformer")


class SequenceEncoder(nn.Module):
    """The state at each position, which has seen the whole sentence; zero beyond its length.

    Args:
        kind: `rnn`, `gru`, `lstm` or `transformer`; `none` gives the inputs back.
        hidden_dim: units of one direction; the width of a Transformer.
        bidirectional: recurrent layers read both ways, and the two states stand side by side.
        dropout: between layers, one mask for all positions of a sentence; inside a Transformer, each element alone.
        peepholes: of an LSTM, whose gates then see the cell state.
        n_heads: of a Transformer, whose feed-forward layers are four times as wide as it is.
    """

    def __init__(
        self, kind: str, input_dim: int, hidden_dim: int, *, n_layers: int = 1, bidirectional: bool = True,
        dropout: float = 0.0, peepholes: bool = False, n_heads: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        if kind not in ENCODERS:
            raise InputError(f"SequenceEncoder: kind must be one of {', '.join(ENCODERS)}, got {kind!r}")
        if kind == "transformer" and (hidden_dim % n_heads or hidden_dim % 2):
            raise InputError(
                f"SequenceEncoder: hidden_dim must be even and a multiple of n_heads, got {hidden_dim} and {n_heads}"
            )
        self.kind, self.dropout = kind, dropout
        self.n_directions = 2 if bidirectional and kind in GATES else 1
        self.output_dim = input_dim if kind == "none" else hidden_dim * self.n_directions
        self.project: nn.Linear | None = None
        self.norm: nn.LayerNorm | None = None
        self.layers = nn.ModuleList()
        if kind in GATES:
            for layer in range(n_layers):
                width = input_dim if layer == 0 else self.output_dim
                self.layers.extend(
                    RecurrentLayer(kind, width, hidden_dim, peepholes=peepholes, reverse=bool(direction))
                    for direction in range(self.n_directions)
                )
        elif kind == "transformer":
            self.project = nn.Linear(input_dim, hidden_dim)
            self.layers.extend(
                EncoderLayer(hidden_dim, n_heads, 4 * hidden_dim, dropout=dropout) for _ in range(n_layers)
            )
            self.norm = nn.LayerNorm(hidden_dim)

    def forward(self, x: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B T H"]:
        counts = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # B T
        if self.project is not None and self.norm is not None:
            x = self.project(x)
            x = dropout(x + sinusoids(x.shape[1], x.shape[2]).to(x), self.dropout, self.training)
            for layer in self.layers:
                x = layer(x, lengths)
            x = self.norm(x)
        elif self.layers:
            both = self.n_directions
            for place in range(0, len(self.layers), both):
                if place:
                    x = locked_dropout(x, self.dropout, self.training)
                layers = cast(list[RecurrentLayer], list(self.layers[place : place + both]))
                x = torch.cat([layer(x, lengths=lengths)[0] for layer in layers], dim=-1)
        return x.masked_fill(~counts[:, :, None], 0.0)
