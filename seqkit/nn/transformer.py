"""The layers of the Transformer.

Reference: Vaswani et al. 2017, sections 3.1 and 3.3, arXiv:1706.03762 (post-norm); Xiong et al. 2020, figure 1b,
arXiv:2002.04745 (pre-norm).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqkit.errors import InputError
from seqkit.nn.attention import CrossAttention, SelfAttention
from seqkit.nn.dropout import dropout
from seqkit.nn.linear import Linear

Sublayer = Callable[[Tensor], Tensor]


class FeedForward(nn.Module):
    """Two affine maps with an activation between them, at every position alone (section 3.3)."""

    def __init__(self, model_dim: int, ffn_dim: int, activation: str = "relu", dropout: float = 0.0) -> None:
        super().__init__()
        self.inner = Linear(model_dim, ffn_dim, activation=activation)
        self.outer = Linear(ffn_dim, model_dim)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        return self.outer(dropout(self.inner(x), self.dropout, self.training))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual connection and layer normalisation.

    pre-norm:  x + f(norm(x))        post-norm:  norm(x + f(x))
    """

    def __init__(
        self, model_dim: int, n_heads: int, ffn_dim: int, *, activation: str = "relu", dropout: float = 0.0,
        attention_dropout: float = 0.0, activation_dropout: float = 0.0, pre_norm: bool = True, norm_eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention = SelfAttention(model_dim, n_heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(model_dim, eps=norm_eps)
        self.feed_forward = FeedForward(model_dim, ffn_dim, activation, activation_dropout)
        self.feed_forward_norm = nn.LayerNorm(model_dim, eps=norm_eps)
        self.pre_norm = pre_norm
        self.dropout = dropout

    def forward(
        self, x: Float[Tensor, "B S D"], lengths: Int[Tensor, " B"] | None = None, *, causal: bool = False
    ) -> Float[Tensor, "B S D"]:
        return self._residuals(x, lambda y: self.attention(y, lengths, causal))

    def step(
        self,
        x: Float[Tensor, "B K D"],
        cache: Float[Tensor, "B C capacity 2*D"],
        ancestry: Int[Tensor, "B K capacity"],
        position: int,
    ) -> Float[Tensor, "B K D"]:
        """The newest position of each hypothesis, causally; see `SelfAttention.step`."""
        return self._residuals(x, lambda y: self.attention.step(y, cache, ancestry, position))

    def _residuals(self, x: Tensor, attention: Sublayer) -> Tensor:
        if self.pre_norm:
            x = x + self._drop(attention(self.attention_norm(x)))
            return x + self._drop(self.feed_forward(self.feed_forward_norm(x)))
        x = self.attention_norm(x + self._drop(attention(x)))
        return self.feed_forward_norm(x + self._drop(self.feed_forward(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention over the source, and feed-forward."""

    def __init__(
        self, model_dim: int, n_heads: int, ffn_dim: int, *, activation: str = "relu", dropout: float = 0.0,
        attention_dropout: float = 0.0, activation_dropout: float = 0.0, pre_norm: bool = True, norm_eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention = SelfAttention(model_dim, n_heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(model_dim, eps=norm_eps)
        self.cross = CrossAttention(model_dim, n_heads, attention_dropout)
        self.cross_norm = nn.LayerNorm(model_dim, eps=norm_eps)
        self.feed_forward = FeedForward(model_dim, ffn_dim, activation, activation_dropout)
        self.feed_forward_norm = nn.LayerNorm(model_dim, eps=norm_eps)
        self.pre_norm = pre_norm
        self.dropout = dropout

    def forward(
        self, x: Float[Tensor, "B T D"], encoded: Float[Tensor, "B S D"], source_lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B T D"]:
        memory = self.cross.memory(encoded)
        return self._residuals(
            x, lambda y: self.attention(y, causal=True), lambda y: self.cross(y, memory, source_lengths)[0]
        )

    def step(
        self,
        x: Float[Tensor, "B K D"],
        cache: Float[Tensor, "B C capacity 2*D"],
        ancestry: Int[Tensor, "B K capacity"],
        position: int,
        memory: Float[Tensor, "B S 2*D"],
        source_lengths: Int[Tensor, " B"],
        return_weights: bool = False,
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K S"] | None]:
        """One position of K hypotheses for each of B sentences, and where they look if wanted.

        Args:
            cache: keys and values of C >= K beams up to `position`; this position is written into it.
            ancestry: which beam wrote each position of a hypothesis.
            memory: keys and values of the source, once a sentence for all of its hypotheses.
        """
        weights: Tensor | None = None

        def self_attention(y: Tensor) -> Tensor:
            return self.attention.step(y, cache, ancestry, position)

        def cross_attention(y: Tensor) -> Tensor:
            nonlocal weights
            context, weights = self.cross.step(y, memory, source_lengths, return_weights)
            return context

        return self._residuals(x, self_attention, cross_attention), weights

    def _residuals(self, x: Tensor, attention: Sublayer, cross: Sublayer) -> Tensor:
        for norm, sublayer in (
            (self.attention_norm, attention),
            (self.cross_norm, cross),
            (self.feed_forward_norm, self.feed_forward),
        ):
            if self.pre_norm:
                x = x + dropout(sublayer(norm(x)), self.dropout, self.training)
            else:
                x = norm(x + dropout(sublayer(x), self.dropout, self.training))
        return x


class SinusoidalPositions(nn.Module):
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(p / 10000^(2i/D)) (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, model_dim: int) -> None:
        super().__init__()
        self.model_dim = model_dim
        self.register_buffer("table", sinusoids(256, model_dim), persistent=False)
        self.table: Tensor

    def forward(self, start: int, stop: int) -> Float[Tensor, "T D"]:
        """The encodings of positions start to stop - 1."""
        if stop > self.table.shape[0]:
            self.table = sinusoids(2 * stop, self.model_dim).to(self.table)
        return self.table[start:stop]


class LearnedPositions(nn.Module):
    """One trained vector a position, up to a fixed number of them."""

    def __init__(self, max_positions: int, model_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_positions, model_dim))
        nn.init.normal_(self.weight, std=model_dim**-0.5)

    def forward(self, start: int, stop: int) -> Float[Tensor, "T D"]:
        """The vectors of positions start to stop - 1.

        Raises:
            InputError: the model has no vector for the last of them.
        """
        if stop > self.weight.shape[0]:
            raise InputError(f"transformer: a sequence must have at most {self.weight.shape[0]} positions, got {stop}")
        return self.weight[start:stop]


def sinusoids(length: int, model_dim: int) -> Float[Tensor, "T D"]:
    """The table of `SinusoidalPositions`, computed in float64 so that its entries do not depend on its length."""
    position = torch.arange(length, dtype=torch.float64)
    frequency = torch.exp(torch.arange(0, model_dim, 2, dtype=torch.float64) * (-math.log(10000.0) / model_dim))
    angle = position[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :model_dim].float()
