"""The recurrent language model: p(w_t | w_1 … w_{t-1}) = softmax(W h_t + b), with h_t the state of stacked layers.

x_t = embed(w_{t-1}); layer l reads the states of layer l - 1. The output matrix W is the embedding where it is tied.
While training, dropout takes the same mask at every step of a sequence (variational), on the embeddings and on each
layer's output; whole words of the embedding and the hidden-to-hidden matrices can be dropped too.

Reference: Mikolov et al. 2010; variational and word dropout: Gal and Ghahramani 2016, arXiv:1512.05287; weight dropout
and the recipe: Merity et al. 2018, arXiv:1708.02182; tied embeddings: Press and Wolf 2017, arXiv:1608.05859; adaptive
softmax: Grave et al. 2017, arXiv:1609.04309 (torch's).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.config import option
from seqkit.decode.step import StepOutput
from seqkit.errors import InputError
from seqkit.nn.dropout import dropout, locked_dropout
from seqkit.nn.losses import linear_cross_entropy
from seqkit.nn.recurrent_layer import GATES, RecurrentLayer


@dataclass(frozen=True, kw_only=True)
class RNNLMConfig:
    """The shape of a recurrent language model. Zaremba et al. 2014, medium: 650, 650, 2 layers, dropout 0.5."""

    cell: str = option("lstm", "recurrent cell", choices=tuple(GATES))
    embedding_dim: int = option(256, "width of the embeddings")
    hidden_dim: int = option(512, "units of a layer; the last layer has embedding_dim where the embeddings are tied")
    n_layers: int = option(2, "stacked layers")
    dropout: float = option(0.2, "dropout on embeddings and layers, one mask for all steps of a sequence")
    word_dropout: float = option(0.0, "share of the vocabulary whose embeddings are dropped in a batch")
    weight_dropout: float = option(0.0, "dropout of the hidden-to-hidden matrices")
    zoneout: float = option(0.0, "probability that a unit keeps its old value")
    peepholes: bool = option(False, "an LSTM whose gates see the cell state")
    layer_norm: bool = option(False, "layer normalisation inside the cells")
    tied: bool = option(False, "the output matrix is the embedding")
    cutoffs: list[int] = option([], "adaptive softmax: tokens up to each cut are a group")  # noqa: RUF009

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "hidden_dim", "n_layers"):
            if getattr(self, name) < 1:
                raise InputError(f"rnn_lm: `{name}` must be at least 1, got {getattr(self, name)}")
        for name in ("dropout", "word_dropout", "weight_dropout", "zoneout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"rnn_lm: `{name}` must be in [0, 1), got {getattr(self, name)}")
        if self.tied and self.cutoffs:
            raise InputError("rnn_lm: `tied` must be false with an adaptive softmax (`cutoffs`), got both")


class RNNLM(nn.Module):
    """A recurrent language model over token ids. It is a `StepModel` for the decoders; its inputs are B numbers."""

    def __init__(self, config: RNNLMConfig, *, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.embedding = nn.Parameter(torch.empty(vocab_size, config.embedding_dim).normal_(std=0.1))
        widths = [config.embedding_dim, *[config.hidden_dim] * config.n_layers]
        if config.tied:
            widths[-1] = config.embedding_dim
        self.layers = nn.ModuleList(
            RecurrentLayer(
                config.cell, before, after, peepholes=config.peepholes, layer_norm=config.layer_norm,
                zoneout=config.zoneout, weight_dropout=config.weight_dropout,
            )
            for before, after in itertools.pairwise(widths)
        )  # fmt: skip
        self.widths = widths[1:]
        self.adaptive: nn.AdaptiveLogSoftmaxWithLoss | None = None
        self.output_weight: nn.Parameter | None = None
        self.output_bias: nn.Parameter | None = None
        if config.cutoffs:
            if (
                sorted({*config.cutoffs}) != config.cutoffs
                or not 0 < config.cutoffs[0] <= config.cutoffs[-1] < vocab_size
            ):
                raise InputError(
                    f"rnn_lm: `cutoffs` must rise and be below the {vocab_size} tokens, got {config.cutoffs}"
                )
            self.adaptive = nn.AdaptiveLogSoftmaxWithLoss(widths[-1], vocab_size, config.cutoffs)
        else:
            self.output_bias = nn.Parameter(torch.zeros(vocab_size))
            if not config.tied:
                self.output_weight = nn.Parameter(torch.empty(vocab_size, widths[-1]).normal_(std=widths[-1] ** -0.5))

    def initial_state(self, batch_size: int) -> Float[Tensor, "R B W"]:
        """The zero state: the R states of all layers, as wide as the widest layer."""
        n_states = sum(layer.n_states for layer in self._layers())
        return self.embedding.new_zeros(n_states, batch_size, max(self.widths))

    def forward(
        self, tokens: Int[Tensor, "B T"], state: Float[Tensor, "R B W"] | None = None
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "R B W"]]:
        """The last layer's state after each token, and the state to go on from (not detached)."""
        config = self.config
        embedding: Tensor = self.embedding
        if self.training and config.word_dropout:
            embedding = embedding * dropout(embedding.new_ones(len(embedding), 1), config.word_dropout, True)
        x = locked_dropout(F.embedding(tokens, embedding), config.dropout, self.training)
        last = []
        place = 0
        for layer, width in zip(self._layers(), self.widths, strict=True):
            first = None if state is None else state[place : place + layer.n_states, :, :width].contiguous()
            x, after = layer(x, first)
            x = locked_dropout(x, config.dropout, self.training)
            last.append(F.pad(after, (0, max(self.widths) - width)))
            place += layer.n_states
        return x, torch.cat(last)

    def loss(self, hidden: Float[Tensor, "B T H"], targets: Int[Tensor, "B T"], *, pad_id: int) -> Float[Tensor, ""]:
        """The summed cross-entropy in nats of the targets, padding left out."""
        rows, wanted = hidden.flatten(0, 1), targets.flatten()
        if self.adaptive is not None:
            counts = wanted != pad_id
            return -self.adaptive(rows[counts], wanted[counts]).output.sum()
        return linear_cross_entropy(rows, self._output(), self.output_bias, wanted, pad_id=pad_id)

    def logits(self, hidden: Float[Tensor, "*rows H"]) -> Float[Tensor, "*rows V"]:
        """Unnormalised log-probabilities of the next token; normalised ones where the softmax is adaptive."""
        if self.adaptive is not None:
            found: Tensor = self.adaptive.log_prob(hidden.flatten(0, -2))
            return found.view(*hidden.shape[:-1], -1)
        return F.linear(hidden, self._output(), self.output_bias)

    def start(self, inputs: Int[Tensor, " B"]) -> Float[Tensor, "R B K W"]:
        """The state before the first token."""
        return self.initial_state(len(inputs))[:, :, None]

    def step(self, tokens: Int[Tensor, "B K"], state: Float[Tensor, "R B K W"]) -> StepOutput:
        """Logits of the token after each row's newest one."""
        hidden, after = self(tokens.flatten()[:, None], state.flatten(1, 2))
        logits = self.logits(hidden[:, 0])
        return StepOutput(logits.view(*tokens.shape, -1), after.view_as(state))

    def reorder(self, state: Float[Tensor, "R B K W"], parents: Int[Tensor, "B K2"]) -> Float[Tensor, "R B K2 W"]:
        """The state in which new row j of sentence b continues old row parents[b, j]."""
        return state.gather(2, parents[None, :, :, None].expand(len(state), *parents.shape, state.shape[3]))

    def keep(self, state: Float[Tensor, "R B K W"], sentences: Int[Tensor, " B2"]) -> Float[Tensor, "R B2 K W"]:
        """The state of some of the sentences."""
        return state.index_select(1, sentences)

    def _layers(self) -> list[RecurrentLayer]:
        return cast(list[RecurrentLayer], list(self.layers))

    def _output(self) -> Tensor:
        return self.embedding if self.output_weight is None else self.output_weight
