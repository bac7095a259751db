"""Multi-head attention as the Transformer uses it, for training on whole sequences and for decoding step by step.

Reference: Vaswani et al. 2017, section 3.2.2, arXiv:1706.03762.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from seqkit import ops
from seqkit.nn.linear import Linear


def split_heads(x: Float[Tensor, "B T D"], n_heads: int) -> Float[Tensor, "B H T Dh"]:
    """The H heads of every position, as a view."""
    return x.view(*x.shape[:2], n_heads, -1).transpose(1, 2)


def merge_heads(x: Float[Tensor, "B H T Dh"]) -> Float[Tensor, "B T D"]:
    """The heads of every position side by side again."""
    return x.transpose(1, 2).flatten(2)


def mean_over_heads(weights: Float[Tensor, "B H T S"]) -> Float[Tensor, "B T S"]:
    """The heads added one after the other: `mean` adds them in an order that depends on the size of the batch."""
    return sum(weights.unbind(1)[1:], weights[:, 0]) / weights.shape[1]


class SelfAttention(nn.Module):
    """Attention of a sequence over itself: one projection gives queries, keys and values."""

    def __init__(self, model_dim: int, n_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.qkv = Linear(model_dim, 3 * model_dim)
        self.output = Linear(model_dim, model_dim)

    def forward(
        self, x: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"] | None = None, causal: bool = False
    ) -> Float[Tensor, "B T D"]:
        query, key, value = (split_heads(part, self.n_heads) for part in self.qkv(x).chunk(3, dim=-1))
        context = ops.attention(
            query, key, value, k_lengths=lengths, causal=causal, dropout_p=self.dropout if self.training else 0.0
        )
        return self.output(merge_heads(context))

    def step(
        self,
        x: Float[Tensor, "B K D"],
        cache: Float[Tensor, "B C capacity 2*D"],
        ancestry: Int[Tensor, "B K capacity"],
        position: int,
    ) -> Float[Tensor, "B K D"]:
        """Attention of each hypothesis' newest position over its own past; writes its key and value into the cache.

        Args:
            cache: keys and values side by side, C >= K; beam c's of a position stay where they were written.
            ancestry: which beam wrote each position of a hypothesis, this one included (`ops.decode_attention`).
        """
        n_beams, width = x.shape[1:]
        projected = self.qkv(x)  # B K 3D
        cache[:, :n_beams, position] = projected[..., width:]
        key, value = cache.view(*cache.shape[:3], 2, self.n_heads, -1).unbind(3)  # B C capacity H Dh
        query = projected[..., :width].view(*x.shape[:2], self.n_heads, -1)
        return self.output(ops.decode_attention(query, key, value, ancestry, position).flatten(2))


class CrossAttention(nn.Module):
    """Attention of the decoder over the encoder's output."""

    def __init__(self, model_dim: int, n_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.query = Linear(model_dim, model_dim)
        self.key_value = Linear(model_dim, 2 * model_dim)
        self.output = Linear(model_dim, model_dim)

    def memory(self, encoded: Float[Tensor, "B S D"]) -> Float[Tensor, "B S 2*D"]:
        """The keys and values of a source side by side, computed once a sentence."""
        return self.key_value(encoded)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        memory: Float[Tensor, "B S 2*D"],
        source_lengths: Int[Tensor, " B"],
        return_weights: bool = False,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T S"] | None]:
        """The attended source for every target position."""
        query = split_heads(self.query(x), self.n_heads)
        key, value = (split_heads(part, self.n_heads) for part in memory.chunk(2, dim=-1))
        attended = ops.attention(
            query,
            key,
            value,
            k_lengths=source_lengths,
            dropout_p=self.dropout if self.training else 0.0,
            return_weights=return_weights,
        )
        context, weights = attended if isinstance(attended, tuple) else (attended, None)
        return self.output(merge_heads(context)), None if weights is None else mean_over_heads(weights)

    def step(
        self,
        x: Float[Tensor, "B K D"],
        memory: Float[Tensor, "B S 2*D"],
        source_lengths: Int[Tensor, " B"],
        return_weights: bool = False,
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K S"] | None]:
        """The attended source for K hypotheses of each sentence, which share its keys and values."""
        query = self.query(x).view(*x.shape[:2], self.n_heads, -1)  # B K H Dh
        key, value = (split_heads(part, self.n_heads) for part in memory.chunk(2, dim=-1))
        attended = ops.cross_attention_decode(query, key, value, source_lengths, return_weights=return_weights)
        context, weights = attended if isinstance(attended, tuple) else (attended, None)
        return self.output(context.flatten(2)), None if weights is None else mean_over_heads(weights.transpose(1, 2))
