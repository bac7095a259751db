"""Recurrent encoder-decoder with attention.

The encoder is a (bidirectional) LSTM or GRU. The decoder starts from tanh(W h) of the encoder's last state. At step t:

- Bahdanau: the context c(t) is attended from s(t-1); s(t) = cell([y(t-1); c(t)], s(t-1));
  r(t) = tanh(W [s(t); c(t); y(t-1)]).
- Luong: s(t) = cell(y(t-1), s(t-1)); the context is attended from s(t); r(t) = tanh(W [s(t); c(t)]).

Input feeding gives r(t-1) to the cell as well. The logits are E r(t) with an output matrix E, tied or not.

Reference: Bahdanau et al. 2015, section 3 and A.2, arXiv:1409.0473; Luong et al. 2015, sections 3.1 and 3.3,
arXiv:1508.04025.
Differs: the deep output of Bahdanau et al. is a tanh layer, not maxout. Without attention the equations are others:
`plain_seq2seq`.
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
from seqkit.models.encoder_decoder import Source, take_beams
from seqkit.nn.dropout import dropout
from seqkit.nn.linear import Linear, PackedWeights, affine
from seqkit.nn.recurrent import CellState, RecurrentCell, RecurrentStack
from seqkit.nn.recurrent_attention import RecurrentAttention


@dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig:
    """The shape of a recurrent encoder-decoder. Bahdanau et al. use GRUs of 1000 units and embeddings of 620."""

    cell: str = option("lstm", "recurrent cell", choices=("lstm", "gru"))
    embedding_dim: int = option(256, "width of the embeddings and of the attentional vector r")
    hidden_dim: int = option(512, "size of the decoder's state, and of both directions of the encoder together")
    encoder_layers: int = option(1, "layers of the encoder")
    decoder_layers: int = option(1, "layers of the decoder")
    bidirectional: bool = option(True, "read the source in both directions")
    attention: str = option(
        "bahdanau", "how the source is scored; without attention see kind = plain_seq2seq",
        choices=("bahdanau", "luong_dot", "luong_general"),
    )  # fmt: skip
    input_feeding: bool = option(False, "give the previous attentional vector to the cell")
    dropout: float = option(0.2, "dropout on embeddings, between layers and on the attentional vector")
    tied_embeddings: str = option(
        "decoder",
        "one matrix for source, target and output, for target and output, or none",
        choices=("all", "decoder", "none"),
    )

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "hidden_dim", "encoder_layers", "decoder_layers"):
            if getattr(self, name) < 1:
                raise InputError(f"seq2seq: `{name}` must be at least 1, got {getattr(self, name)}")
        if self.bidirectional and self.hidden_dim % 2:
            raise InputError(f"seq2seq: `hidden_dim` must be even for two directions, got {self.hidden_dim}")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"seq2seq: `dropout` must be in [0, 1), got {self.dropout}")


@dataclass
class Seq2SeqState:
    """What a decoder step needs: the source as the attention sees it, and the recurrent state."""

    encoded: Tensor  # B S D
    keys: Tensor  # B S A
    source_lengths: Tensor  # B
    cells: list[CellState]  # a layer: tensors B K hidden
    attentional: Tensor  # B K E, the previous r


class Seq2Seq(nn.Module):
    """A recurrent encoder-decoder over token ids. It is a `StepModel` for the decoders."""

    def __init__(self, config: Seq2SeqConfig, *, source_vocab_size: int, target_vocab_size: int) -> None:
        super().__init__()
        if config.tied_embeddings == "all" and source_vocab_size != target_vocab_size:
            raise InputError(
                "seq2seq: both vocabularies must be the same for tied_embeddings = `all`, "
                f"got {source_vocab_size} and {target_vocab_size} tokens"
            )
        self.config = config
        embedding_dim, hidden_dim = config.embedding_dim, config.hidden_dim
        self.target_embedding = nn.Parameter(torch.empty(target_vocab_size, embedding_dim))
        self.source_embedding = (
            None if config.tied_embeddings == "all" else nn.Parameter(torch.empty(source_vocab_size, embedding_dim))
        )
        self.output_weight = (
            nn.Parameter(torch.empty(target_vocab_size, embedding_dim)) if config.tied_embeddings == "none" else None
        )
        self.output_bias = nn.Parameter(torch.zeros(target_vocab_size))
        for weight in (self.target_embedding, self.source_embedding, self.output_weight):
            if weight is not None:
                nn.init.normal_(weight, std=embedding_dim**-0.5)

        direction_dim = hidden_dim // 2 if config.bidirectional else hidden_dim
        self.encoder = RecurrentStack(
            config.cell, embedding_dim, direction_dim, n_layers=config.encoder_layers,
            bidirectional=config.bidirectional, dropout=config.dropout,
        )  # fmt: skip
        self.n_states = 2 if config.cell == "lstm" else 1
        self.bridge = Linear(hidden_dim, config.decoder_layers * self.n_states * hidden_dim, activation="tanh")
        self.attends_first = config.attention == "bahdanau"
        input_dim = (
            embedding_dim + (hidden_dim if self.attends_first else 0) + (embedding_dim if config.input_feeding else 0)
        )
        self.cells = nn.ModuleList(
            RecurrentCell(config.cell, hidden_dim if layer else input_dim, hidden_dim)
            for layer in range(config.decoder_layers)
        )
        self.attention = RecurrentAttention(config.attention, hidden_dim, hidden_dim)
        readout_dim = 2 * hidden_dim + (embedding_dim if self.attends_first else 0)
        self.readout = Linear(readout_dim, embedding_dim, activation="tanh")
        self.packed = PackedWeights()

    def forward(
        self, source: Int[Tensor, "B S"], source_lengths: Int[Tensor, " B"], target: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T V"]:
        """Logits of the token after each target position (teacher forcing)."""
        state = self.start(Source(source, source_lengths))
        embedded = self._embed(target, self.target_embedding)  # B T E
        attentional = []
        for position in range(target.shape[1]):
            state, _ = self._advance(embedded[:, position, None], state)
            attentional.append(state.attentional)
        return self._logits(torch.cat(attentional, dim=1))

    def start(self, inputs: Source) -> Seq2SeqState:
        """The state before the first step: the encoded source and the decoder's initial state."""
        embedding = self.target_embedding if self.source_embedding is None else self.source_embedding
        encoded, last = self.encoder(self._embed(inputs.tokens, embedding), inputs.lengths)
        initial = self.bridge(last[0][-1])  # B (layers states hidden), from h of the last encoder layer
        pieces = iter(initial[:, None].chunk(self.config.decoder_layers * self.n_states, dim=-1))
        return Seq2SeqState(
            encoded=encoded,
            keys=self.attention.keys(encoded),
            source_lengths=inputs.lengths,
            cells=[tuple(next(pieces) for _ in range(self.n_states)) for _ in self.cells],
            attentional=encoded.new_zeros(encoded.shape[0], 1, self.config.embedding_dim),
        )

    def step(self, tokens: Int[Tensor, "B K"], state: Seq2SeqState) -> StepOutput:
        """Logits of the next token for K hypotheses a sentence, whose newest tokens are given."""
        state, weights = self._advance(self._embed(tokens, self.target_embedding), state)
        return StepOutput(self._logits(state.attentional), state, weights)

    def reorder(self, state: Seq2SeqState, parents: Int[Tensor, "B K2"]) -> Seq2SeqState:
        """The state in which new hypothesis j of sentence b continues old hypothesis parents[b, j]."""
        return replace(
            state,
            cells=[tuple(take_beams(part, parents) for part in cell) for cell in state.cells],
            attentional=take_beams(state.attentional, parents),
        )

    def keep(self, state: Seq2SeqState, sentences: Int[Tensor, " B2"]) -> Seq2SeqState:
        """The state of some of the sentences."""
        return Seq2SeqState(
            encoded=state.encoded[sentences],
            keys=state.keys[sentences],
            source_lengths=state.source_lengths[sentences],
            cells=[tuple(part[sentences] for part in cell) for cell in state.cells],
            attentional=state.attentional[sentences],
        )

    def _advance(
        self, embedded: Float[Tensor, "B K E"], state: Seq2SeqState
    ) -> tuple[Seq2SeqState, Float[Tensor, "B K S"]]:
        inputs = [embedded]
        if self.attends_first:
            context, weights = self._attend(state.cells[-1][0], state)
            inputs.append(context)
        if self.config.input_feeding:
            inputs.append(state.attentional)
        x = torch.cat(inputs, dim=-1)
        beams = x.shape[:2]
        cells = []
        for layer, (cell, before) in enumerate(zip(self.cells, state.cells, strict=True)):
            if layer:
                x = dropout(x, self.config.dropout, self.training)
            after = cell(x.flatten(0, 1), tuple(part.flatten(0, 1) for part in before))
            cells.append(tuple(part.unflatten(0, beams) for part in after))
            x = cells[-1][0]
        if self.attends_first:
            read = self.readout(torch.cat((x, context, embedded), dim=-1))
        else:
            context, weights = self._attend(x, state)
            read = self.readout(torch.cat((x, context), dim=-1))
        return replace(state, cells=cells, attentional=dropout(read, self.config.dropout, self.training)), weights

    def _attend(self, query: Tensor, state: Seq2SeqState) -> tuple[Tensor, Tensor]:
        context, weights = self.attention(query, state.keys, state.encoded, state.source_lengths)
        return context, weights

    def _embed(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        return dropout(F.embedding(tokens, embedding), self.config.dropout, self.training)

    def _logits(self, attentional: Float[Tensor, "*rows E"]) -> Float[Tensor, "*rows V"]:
        weight = self.target_embedding if self.output_weight is None else self.output_weight
        return affine(attentional, weight, self.output_bias, self.packed)
