"""The attention of recurrent translation models: where in the source to look, from the decoder's state.

Reference: Bahdanau et al. 2015, A.1.2, arXiv:1409.0473 (additive); Luong et al. 2015, section 3.1, arXiv:1508.04025
(dot, general).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqkit import ops
from seqkit.errors import InputError
from seqkit.nn.linear import Linear


class RecurrentAttention(nn.Module):
    """A context and its weights for each decoder state.

    bahdanau:       e(t, s) = vᵀ tanh(W q(t) + U h(s))
    luong_dot:      e(t, s) = q(t)ᵀ h(s)
    luong_general:  e(t, s) = q(t)ᵀ W h(s)

    Raises:
        InputError: `luong_dot` with states of different sizes.
    """

    def __init__(self, kind: str, query_dim: int, source_dim: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "luong_dot":
            if query_dim != source_dim:
                raise InputError(f"seq2seq: both sizes must be equal for luong_dot, got {query_dim} and {source_dim}")
            return
        self.key = Linear(source_dim, query_dim, bias=False)
        if kind == "bahdanau":
            self.query = Linear(query_dim, query_dim)
            self.v = nn.Parameter(torch.empty(query_dim).uniform_(-(query_dim**-0.5), query_dim**-0.5))

    def keys(self, encoded: Float[Tensor, "B S D"]) -> Float[Tensor, "B S A"]:
        """What the states are compared with, computed once a sentence."""
        keys: Tensor = encoded if self.kind == "luong_dot" else self.key(encoded)
        return keys

    def forward(
        self,
        state: Float[Tensor, "B T Q"],
        keys: Float[Tensor, "B S A"],
        encoded: Float[Tensor, "B S D"],
        lengths: Int[Tensor, " B"],
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T S"]]:
        if self.kind == "bahdanau":
            return ops.additive_attention(self.query(state), keys, encoded, self.v, lengths=lengths)
        state, keys = state.to(encoded.dtype), keys.to(encoded.dtype)  # under autocast the cell and the encoder differ
        context, weights = ops.attention(
            state[:, None], keys[:, None], encoded[:, None], k_lengths=lengths, scale=1.0, return_weights=True
        )
        return context[:, 0], weights[:, 0]  # one head
