"""A classifier of sentences: word features, a sequence encoder, one vector of all states, a softmax.

p(class) = softmax(W pool(h_1 … h_T) + b). Without an encoder and with the mean it is the average of the word vectors.

Reference: Conneau et al. 2017, section 3.2, arXiv:1705.02364 (a bidirectional LSTM under the maximum).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqkit.config import option
from seqkit.models.word_encoder import WordEncoderConfig, features_and_encoder
from seqkit.nn.dropout import dropout
from seqkit.nn.word_features import Words

POOLS = ("max", "mean", "max-mean")


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(WordEncoderConfig):
    """The shape of a classifier."""

    where: ClassVar[str] = "classifier"

    pool: str = option("max-mean", "what is kept of the states of all words", choices=POOLS)


class Classifier(nn.Module):
    """The class of a sentence, which may have no word."""

    def __init__(
        self, config: ClassifierConfig, *, vocab_size: int, n_trained: int, n_characters: int, n_classes: int
    ) -> None:
        super().__init__()
        self.config = config
        self.features, self.encoder = features_and_encoder(
            config, vocab_size=vocab_size, n_trained=n_trained, n_characters=n_characters
        )
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
