"""The Transformer: an encoder and a decoder of attention layers.

Encoder: x = embed(source) sqrt(D) + PE, then N layers of self-attention and feed-forward.
Decoder: y = embed(target) sqrt(D) + PE, then N layers of causal self-attention, attention over the encoder's output,
and feed-forward; logits = y Eᵀ with the embedding matrix E when it is tied.

Decoding keeps the keys and values of earlier positions, so that a step costs one position. They stay where they were
written: which beam wrote a position of a hypothesis stands in its ancestry, and a search moves that table alone. The
source's keys and values are held once a sentence and the K hypotheses of a beam are the K queries on them.

Reference: Vaswani et al. 2017, section 3, arXiv:1706.03762. Pre-norm: Xiong et al. 2020, arXiv:2002.04745. Tied
embeddings: Press and Wolf 2017, arXiv:1608.05859.
Differs: dropout also inside attention and feed-forward where the config asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.config import option
from seqkit.decode.step import StepOutput
from seqkit.errors import InputError
from seqkit.models.encoder_decoder import Source
from seqkit.nn.beam_cache import BeamCache
from seqkit.nn.dropout import dropout
from seqkit.nn.linear import PackedWeights, affine
from seqkit.nn.transformer import DecoderLayer, EncoderLayer, LearnedPositions, SinusoidalPositions


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The shape of a Transformer. The paper's base model has 512, 2048, 8 heads, 6 and 6 layers and dropout 0.1."""

    model_dim: int = option(256, "width D of the model")
    ffn_dim: int = option(1024, "width of the feed-forward layers")
    n_heads: int = option(4, "attention heads")
    encoder_layers: int = option(3, "layers of the encoder")
    decoder_layers: int = option(3, "layers of the decoder")
    dropout: float = option(0.1, "dropout on embeddings and on each sublayer's output")
    attention_dropout: float = option(0.0, "dropout on attention weights")
    activation_dropout: float = option(0.0, "dropout inside the feed-forward layers")
    pre_norm: bool = option(True, "normalise before each sublayer (true) or after it as in the paper (false)")
    activation: str = option("relu", "of the feed-forward layers", choices=("relu", "gelu"))
    positions: str = option("sinusoidal", "position encodings", choices=("sinusoidal", "learned"))
    max_positions: int = option(512, "longest sequence where positions are learned")
    tied_embeddings: str = option(
        "all",
        "one matrix for source, target and output, for target and output, or none",
        choices=("all", "decoder", "none"),
    )
    scale_embeddings: bool = option(True, "multiply embeddings by sqrt(model_dim)")
    output_bias: bool = option(False, "a bias on the logits")
    norm_eps: float = option(1e-5, "epsilon of the layer normalisations")

    def __post_init__(self) -> None:
        for name in ("model_dim", "ffn_dim", "n_heads", "encoder_layers", "decoder_layers", "max_positions"):
            if getattr(self, name) < 1:
                raise InputError(f"transformer: `{name}` must be at least 1, got {getattr(self, name)}")
        if self.model_dim % self.n_heads:
            raise InputError(
                f"transformer: `model_dim` must be a multiple of `n_heads`, got {self.model_dim} and {self.n_heads}"
            )
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"transformer: `{name}` must be in [0, 1), got {getattr(self, name)}")


@dataclass
class TransformerState:
    """What a decoder step needs: the keys and values so far, and those of the source."""

    cache: BeamCache
    memory: list[Tensor]  # a layer: B S 2D, the same for the source
    source_lengths: Tensor  # B
    want_attention: bool


class Transformer(nn.Module):
    """An encoder-decoder Transformer over token ids. It is a `StepModel` for the decoders."""

    def __init__(self, config: TransformerConfig, *, source_vocab_size: int, target_vocab_size: int) -> None:
        super().__init__()
        if config.tied_embeddings == "all" and source_vocab_size != target_vocab_size:
            raise InputError(
                "transformer: both vocabularies must be the same for tied_embeddings = `all`, "
                f"got {source_vocab_size} and {target_vocab_size} tokens"
            )
        self.config = config
        width = config.model_dim
        self.target_embedding = nn.Parameter(torch.empty(target_vocab_size, width))
        self.source_embedding = (
            None if config.tied_embeddings == "all" else nn.Parameter(torch.empty(source_vocab_size, width))
        )
        self.output_weight = (
            nn.Parameter(torch.empty(target_vocab_size, width)) if config.tied_embeddings == "none" else None
        )
        self.output_bias = nn.Parameter(torch.zeros(target_vocab_size)) if config.output_bias else None
        for weight in (self.target_embedding, self.source_embedding, self.output_weight):
            if weight is not None:
                nn.init.normal_(weight, std=width**-0.5)
        self.source_positions = self._positions()
        self.target_positions = self._positions()
        layer = {
            "activation": config.activation,
            "dropout": config.dropout,
            "attention_dropout": config.attention_dropout,
            "activation_dropout": config.activation_dropout,
            "pre_norm": config.pre_norm,
            "norm_eps": config.norm_eps,
        }
        sizes = (width, config.n_heads, config.ffn_dim)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes, **layer) for _ in range(config.encoder_layers))  # type: ignore[arg-type]
        self.decoder = nn.ModuleList(DecoderLayer(*sizes, **layer) for _ in range(config.decoder_layers))  # type: ignore[arg-type]
        # Pre-norm leaves the last residual sum unnormalised, so each stack ends with a norm of its own.
        self.encoder_norm = nn.LayerNorm(width, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        self.decoder_norm = nn.LayerNorm(width, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        self.packed = PackedWeights()

    def _positions(self) -> nn.Module:
        config = self.config
        if config.positions == "learned":
            return LearnedPositions(config.max_positions, config.model_dim)
        return SinusoidalPositions(config.model_dim)

    def forward(
        self, source: Int[Tensor, "B S"], source_lengths: Int[Tensor, " B"], target: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T V"]:
        """Logits of the token after each target position, all positions at once (teacher forcing)."""
        encoded = self.encode(source, source_lengths)
        y = self._embed(target, self.target_embedding, self.target_positions, 0)
        for layer in self.decoder:
            y = layer(y, encoded, source_lengths)
        return self._logits(self.decoder_norm(y))

    def encode(self, source: Int[Tensor, "B S"], source_lengths: Int[Tensor, " B"]) -> Float[Tensor, "B S D"]:
        """The encoder's output."""
        embedding = self.target_embedding if self.source_embedding is None else self.source_embedding
        x = self._embed(source, embedding, self.source_positions, 0)
        for layer in self.encoder:
            x = layer(x, source_lengths)
        encoded: Tensor = self.encoder_norm(x)
        return encoded

    def start(self, inputs: Source) -> TransformerState:
        """The state before the first step: the source's keys and values, and an empty cache."""
        encoded = self.encode(inputs.tokens, inputs.lengths)
        return TransformerState(
            cache=BeamCache.empty(len(encoded), len(self.decoder), encoded),
            memory=[layer.cross.memory(encoded) for layer in self.decoder],  # type: ignore[union-attr, operator]
            source_lengths=inputs.lengths,
            want_attention=inputs.want_attention,
        )

    def step(self, tokens: Int[Tensor, "B K"], state: TransformerState) -> StepOutput:
        """Logits of the next token for K hypotheses a sentence, whose newest tokens are given."""
        cache = state.cache.open(tokens.shape[1])
        position = cache.length - 1
        y = self._embed(tokens[..., None], self.target_embedding, self.target_positions, position)[:, :, 0]  # B K D
        weights: Tensor | None = None
        for index, layer in enumerate(self.decoder):
            last = index == len(self.decoder) - 1
            y, weights = layer.step(  # type: ignore[operator]
                y, cache.layers[index], cache.ancestry, position, state.memory[index], state.source_lengths,
                return_weights=last and state.want_attention,
            )  # fmt: skip
        return StepOutput(self._logits(self.decoder_norm(y)), replace(state, cache=cache), weights)

    def reorder(self, state: TransformerState, parents: Int[Tensor, "B K2"]) -> TransformerState:
        """The state in which new hypothesis j of sentence b continues old hypothesis parents[b, j]."""
        return replace(state, cache=state.cache.reorder(parents))

    def keep(self, state: TransformerState, sentences: Int[Tensor, " B2"]) -> TransformerState:
        """The state of some of the sentences."""
        return replace(
            state,
            cache=state.cache.keep(sentences),
            memory=[memory.index_select(0, sentences) for memory in state.memory],
            source_lengths=state.source_lengths[sentences],
        )

    def _embed(self, tokens: Tensor, embedding: Tensor, positions: nn.Module, start: int) -> Tensor:
        x = F.embedding(tokens, embedding)
        if self.config.scale_embeddings:
            x = x * self.config.model_dim**0.5
        x = x + positions(start, start + tokens.shape[-1])
        return dropout(x, self.config.dropout, self.training)

    def _logits(self, y: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows V"]:
        weight = self.target_embedding if self.output_weight is None else self.output_weight
        return affine(y, weight, self.output_bias, self.packed)
