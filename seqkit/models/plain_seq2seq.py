"""Recurrent encoder-decoder without attention: all that the decoder knows of the source is its first state.

The encoder is a stack of LSTM or GRU layers that reads the source from left to right. The decoder is a stack of the
same shape that starts from the encoder's last states, layer by layer: s(0) = h(S), s(t) = cell(y(t-1), s(t-1)). The
logits are W s(t) + b, with s of the last layer.

Reference: Sutskever et al. 2014, section 2, arXiv:1409.3215.
Differs: the source is not reversed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.config import option
from seqkit.decode.step import StepOutput
from seqkit.errors import InputError
from seqkit.models.encoder_decoder import Source
from seqkit.nn.dropout import dropout
from seqkit.nn.linear import Linear
from seqkit.nn.recurrent import RecurrentStack


@dataclass(frozen=True, kw_only=True)
class PlainSeq2SeqConfig:
    """The shape of an encoder-decoder without attention. Sutskever et al. use 4 layers of 1000 units."""

    cell: str = option("lstm", "recurrent cell", choices=("lstm", "gru"))
    embedding_dim: int = option(256, "width of the embeddings")
    hidden_dim: int = option(512, "units of a layer")
    n_layers: int = option(1, "layers of the encoder, and of the decoder")
    dropout: float = option(0.2, "dropout on embeddings, between layers and on the decoder's last states")
    gates: str = option(
        "sigmoid", "of an LSTM; `hard_sigmoid` is Keras's default before 2.3", choices=("sigmoid", "hard_sigmoid")
    )
    padded_source: int = option(0, "a shorter source is read on over zero vectors up to this many positions")

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "hidden_dim", "n_layers"):
            if getattr(self, name) < 1:
                raise InputError(f"plain_seq2seq: `{name}` must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"plain_seq2seq: `dropout` must be in [0, 1), got {self.dropout}")
        if self.gates != "sigmoid" and self.cell != "lstm":
            raise InputError(f"plain_seq2seq: `gates` must be sigmoid for a {self.cell}, got {self.gates}")
        if self.padded_source < 0:
            raise InputError(f"plain_seq2seq: `padded_source` must be at least 0, got {self.padded_source}")


class PlainSeq2Seq(nn.Module):
    """An encoder-decoder without attention over token ids. It is a `StepModel` for the decoders.

    Its state is one tensor [R, B, K, H]: of all layers the h, then of an LSTM all c.
    """

    def __init__(self, config: PlainSeq2SeqConfig, *, source_vocab_size: int, target_vocab_size: int) -> None:
        super().__init__()
        self.config = config
        E, H = config.embedding_dim, config.hidden_dim
        self.source_embedding = nn.Parameter(torch.empty(source_vocab_size, E).normal_(std=E**-0.5))
        self.target_embedding = nn.Parameter(torch.empty(target_vocab_size, E).normal_(std=E**-0.5))
        self.encoder, self.decoder = (
            RecurrentStack(
                config.cell, E, H, n_layers=config.n_layers, bidirectional=False, dropout=config.dropout,
                hard_gates=config.gates == "hard_sigmoid",
            )
            for _ in range(2)
        )  # fmt: skip
        self.output = Linear(H, target_vocab_size)

    def forward(
        self, source: Int[Tensor, "B S"], source_lengths: Int[Tensor, " B"], target: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T V"]:
        """Logits of the token after each target position (teacher forcing)."""
        state = self.start(Source(source, source_lengths))
        logits, _ = self._advance(target, state[:, :, 0])
        return logits

    def start(self, inputs: Source) -> Float[Tensor, "R B K H"]:
        """The state before the first step: the encoder's last."""
        x = self._embed(inputs.tokens, self.source_embedding)
        lengths, least = inputs.lengths, self.config.padded_source
        if least:
            beyond = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]  # B S
            x = F.pad(x.masked_fill(beyond[:, :, None], 0.0), (0, 0, 0, max(least - x.shape[1], 0)))
            lengths = lengths.clamp(min=least)
        _, last = self.encoder(x, lengths)
        return torch.cat(last)[:, :, None]

    def step(self, tokens: Int[Tensor, "B K"], state: Float[Tensor, "R B K H"]) -> StepOutput:
        """Logits of the next token for K hypotheses a sentence, whose newest tokens are given."""
        logits, after = self._advance(tokens.flatten()[:, None], state.flatten(1, 2))
        return StepOutput(logits.view(*tokens.shape, -1), after.view_as(state))

    def reorder(self, state: Float[Tensor, "R B K H"], parents: Int[Tensor, "B K2"]) -> Float[Tensor, "R B K2 H"]:
        """The state in which new hypothesis j of sentence b continues old hypothesis parents[b, j]."""
        return state.gather(2, parents[None, :, :, None].expand(len(state), *parents.shape, state.shape[3]))

    def keep(self, state: Float[Tensor, "R B K H"], sentences: Int[Tensor, " B2"]) -> Float[Tensor, "R B2 K H"]:
        """The state of some of the sentences."""
        return state.index_select(1, sentences)

    def _advance(
        self, tokens: Int[Tensor, "N T"], state: Float[Tensor, "R N H"]
    ) -> tuple[Float[Tensor, "N T V"], Float[Tensor, "R N H"]]:
        """The logits after each of T tokens, and the state after the last."""
        initial = state.chunk(2 if self.config.cell == "lstm" else 1)
        lengths = torch.full(tokens.shape[:1], tokens.shape[1], device=tokens.device)
        hidden, last = self.decoder(self._embed(tokens, self.target_embedding), lengths, initial)
        return self.output(dropout(hidden, self.config.dropout, self.training)), torch.cat(last)

    def _embed(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        return dropout(F.embedding(tokens, embedding), self.config.dropout, self.training)


class ImportedSeq2Seq(NamedTuple):
    """Another program's network in the terms of `PlainSeq2Seq`."""

    config: PlainSeq2SeqConfig
    state_dict: dict[str, Tensor]
    """rows of the vocabularies stand in the order of `seqkit.text.vocab`, the four specials first"""
    source_tokens: list[str]
    """ordinary tokens in the order of their ids, which begin at 4"""
    target_tokens: list[str]
    source_eos: bool
    """whether the network expects the end symbol after a source"""
    max_length: int
    """steps after which its owner stops"""
