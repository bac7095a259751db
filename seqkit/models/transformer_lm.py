"""The Transformer language model: a stack of causal self-attention and feed-forward layers.

x = embed(w) sqrt(D) + PE, then N layers; logits = x Eᵀ with the embedding E where it is tied. A context is one window:
nothing is carried from one to the next.

Reference: Vaswani et al. 2017, arXiv:1706.03762; as a language model: Radford et al. 2018; pre-norm: Xiong et al. 2020,
arXiv:2002.04745.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.config import option
from seqkit.decode.step import StepOutput
from seqkit.errors import InputError
from seqkit.nn.beam_cache import BeamCache
from seqkit.nn.dropout import dropout
from seqkit.nn.losses import linear_cross_entropy
from seqkit.nn.transformer import EncoderLayer, SinusoidalPositions


@dataclass(frozen=True, kw_only=True)
class TransformerLMConfig:
    """The shape of a Transformer language model."""

    model_dim: int = option(256, "width D of the model")
    ffn_dim: int = option(1024, "width of the feed-forward layers")
    n_heads: int = option(4, "attention heads")
    n_layers: int = option(4, "layers")
    dropout: float = option(0.1, "dropout on embeddings and on each sublayer's output")
    attention_dropout: float = option(0.0, "dropout on attention weights")
    activation_dropout: float = option(0.0, "dropout inside the feed-forward layers")
    activation: str = option("gelu", "of the feed-forward layers", choices=("relu", "gelu"))
    tied: bool = option(True, "the output matrix is the embedding")

    def __post_init__(self) -> None:
        for name in ("model_dim", "ffn_dim", "n_heads", "n_layers"):
            if getattr(self, name) < 1:
                raise InputError(f"transformer_lm: `{name}` must be at least 1, got {getattr(self, name)}")
        if self.model_dim % self.n_heads:
            raise InputError(
                f"transformer_lm: `model_dim` must be a multiple of `n_heads`, got {self.model_dim} and {self.n_heads}"
            )
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"transformer_lm: `{name}` must be in [0, 1), got {getattr(self, name)}")


class TransformerLM(nn.Module):
    """A causal Transformer over token ids. It is a `StepModel` for the decoders; its inputs are B numbers."""

    def __init__(self, config: TransformerLMConfig, *, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        width = config.model_dim
        self.embedding = nn.Parameter(torch.empty(vocab_size, width).normal_(std=width**-0.5))
        self.output_weight = (
            None if config.tied else nn.Parameter(torch.empty(vocab_size, width).normal_(std=width**-0.5))
        )
        self.positions = SinusoidalPositions(width)
        self.layers = nn.ModuleList(
            EncoderLayer(
                width, config.n_heads, config.ffn_dim, activation=config.activation, dropout=config.dropout,
                attention_dropout=config.attention_dropout, activation_dropout=config.activation_dropout,
            )
            for _ in range(config.n_layers)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)

    def initial_state(self, batch_size: int) -> None:
        """Nothing: a window is all that the model sees."""

    def forward(self, tokens: Int[Tensor, "B T"], state: None = None) -> tuple[Float[Tensor, "B T D"], None]:
        """The last layer's output at each token."""
        x = self._embed(tokens, 0)
        for layer in self.layers:
            x = layer(x, causal=True)
        return self.norm(x), None

    def loss(self, hidden: Float[Tensor, "B T D"], targets: Int[Tensor, "B T"], *, pad_id: int) -> Float[Tensor, ""]:
        """The summed cross-entropy in nats of the targets, padding left out."""
        return linear_cross_entropy(hidden.flatten(0, 1), self._output(), None, targets.flatten(), pad_id=pad_id)

    def logits(self, hidden: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows V"]:
        """Unnormalised log-probabilities of the next token."""
        return F.linear(hidden, self._output())

    def start(self, inputs: Int[Tensor, " B"]) -> BeamCache:
        """An empty cache of keys and values."""
        return BeamCache.empty(len(inputs), len(self.layers), self.embedding)

    def step(self, tokens: Int[Tensor, "B K"], state: BeamCache) -> StepOutput:
        """Logits of the token after each row's newest one."""
        cache = state.open(tokens.shape[1])
        position = cache.length - 1
        x = self._embed(tokens[..., None], position)[:, :, 0]  # B K D
        for layer, kept in zip(self.layers, cache.layers, strict=True):
            x = layer.step(x, kept, cache.ancestry, position)  # type: ignore[operator]
        return StepOutput(self.logits(self.norm(x)), cache)

    def reorder(self, state: BeamCache, parents: Int[Tensor, "B K2"]) -> BeamCache:
        """The state in which new row j of sentence b continues old row parents[b, j]."""
        return state if state.length == 0 else state.reorder(parents)

    def keep(self, state: BeamCache, sentences: Int[Tensor, " B2"]) -> BeamCache:
        """The state of some of the sentences."""
        return state.keep(sentences)

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        x = F.embedding(tokens, self.embedding) * self.config.model_dim**0.5
        return dropout(x + self.positions(start, start + tokens.shape[-1]), self.config.dropout, self.training)

    def _output(self) -> Tensor:
        return self.embedding if self.output_weight is None else self.output_weight
