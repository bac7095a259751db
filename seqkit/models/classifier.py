"""A classifier of sentences: word features, a sequence encoder, one vector of all states, a softmax.

p(class) = softmax(W pool(h_1 … h_T) + b). Without an encoder and with the mean it is the average of the word vectors.

Reference: Conneau et al. 2017, section 3.2, arXiv:1705.02364 (a bidirectional LSTM under the maximum).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqkit.config import option
from seqkit.errors import InputError
from seqkit.nn.dropout import dropout
from seqkit.nn.sequence_encoder import ENCODERS, SequenceEncoder
from seqkit.nn.word_features import WordFeatures, Words

POOLS = ("max", "mean", "max-mean")


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The shape of a classifier."""

    embedding_dim: int = option(100, "width of the word vectors; that of the file, where they come from one")
    train_vectors: bool = option(True, "the vectors change in training; else words without one are told by spelling")
    character_dim: int = option(25, "width of the characters' vectors")
    character_filters: int = option(0, "numbers that tell of a word's spelling; 0 for none")
    character_width: int = option(3, "characters that a filter sees")
    encoder: str = option("lstm", "what reads the sentence", choices=ENCODERS)
    hidden_dim: int = option(128, "units of a layer, in each direction")
    n_layers: int = option(1, "stacked layers")
    bidirectional: bool = option(True, "recurrent layers read both ways")
    peepholes: bool = option(False, "an LSTM whose gates see the cell state")
    n_heads: int = option(4, "of a Transformer")
    pool: str = option("max-mean", "what is kept of the states of all words", choices=POOLS)
    dropout: float = option(0.5, "on the words and on what is kept")
    word_dropout: float = option(0.05, "share of words that are unknown while training")

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "character_dim", "character_width", "hidden_dim", "n_layers", "n_heads"):
            if getattr(self, name) < 1:
                raise InputError(f"classifier: `{name}` must be at least 1, got {getattr(self, name)}")
        if self.character_filters < 0:
            raise InputError(f"classifier: `character_filters` must be at least 0, got {self.character_filters}")
        for name in ("dropout", "word_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"classifier: `{name}` must be in [0, 1), got {getattr(self, name)}")


class Classifier(nn.Module):
    """The class of a sentence, which may have no word."""

    def __init__(
        self, config: ClassifierConfig, *, vocab_size: int, n_trained: int, n_characters: int, n_classes: int
    ) -> None:
        super().__init__()
        self.config = config
        self.features = WordFeatures(
            vocab_size, config.embedding_dim, n_trained=n_trained, n_characters=n_characters,
            character_dim=config.character_dim, character_filters=config.character_filters,
            character_width=config.character_width, dropout=config.dropout, word_dropout=config.word_dropout,
            train_vectors=config.train_vectors,
        )  # fmt: skip
        self.encoder = SequenceEncoder(
            config.encoder, self.features.output_dim, config.hidden_dim, n_layers=config.n_layers,
            bidirectional=config.bidirectional, dropout=config.dropout, peepholes=config.peepholes,
            n_heads=config.n_heads,
        )  # fmt: skip
        n_kept = 2 if config.pool == "max-mean" else 1
        self.out = nn.Linear(n_kept * self.encoder.output_dim, n_classes)

    def forward(self, words: Words) -> Float[Tensor, "B C"]:
        """The logits of the classes."""
        states = self.encoder(self.features(words), words.lengths)
        if not states.shape[1]:  # no text has a word: the maximum of nothing is zero, as the mean is
            states = states.new_zeros(len(states), 1, states.shape[2])
        counts = torch.arange(states.shape[1], device=states.device) < words.lengths[:, None]
        kept = []
        if "max" in self.config.pool:
            highest = states.masked_fill(~counts[:, :, None], -torch.inf).amax(1)
            kept.append(highest.masked_fill(words.lengths[:, None] == 0, 0.0))
        if "mean" in self.config.pool:
            kept.append(states.sum(1) / words.lengths.clamp(min=1)[:, None])  # beyond a sentence, states are zero
        return self.out(dropout(torch.cat(kept, dim=-1), self.config.dropout, self.training))
