"""A tagger: a label for each word, or several. Word features, a sequence encoder, and a CRF or a softmax a column.

emissions_t = W h_t + b, with h_t the encoder's state at word t. The loss is the negative log-probability of the labels
that are known; a column where a sentence has none costs nothing.

Reference: Lample et al. 2016, arXiv:1603.01360; Ma and Hovy 2016, arXiv:1603.01354; Caruana 1997 (several tasks on one
encoder).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.config import option
from seqkit.models.word_encoder import WordEncoderConfig, features_and_encoder
from seqkit.nn.dropout import locked_dropout
from seqkit.nn.label_chain import MISSING, LabelChain
from seqkit.nn.word_features import Words


@dataclass(frozen=True, kw_only=True)
class TaggerConfig(WordEncoderConfig):
    """The shape of a tagger. Ma and Hovy 2016: 100, 30 filters of width 3 on 30, an LSTM of 200, dropout 0.5, a CRF."""

    where: ClassVar[str] = "tagger"

    character_filters: int = option(30, "numbers that tell of a word's spelling; 0 for none")
    output: str = option("crf", "labels that know their neighbours, or each for itself", choices=("crf", "softmax"))


class Tagger(nn.Module):
    """Labels of words, in as many columns as `n_labels` has numbers."""

    def __init__(
        self, config: TaggerConfig, *, vocab_size: int, n_trained: int, n_characters: int, n_labels: Sequence[int]
    ) -> None:
        super().__init__()
        self.config = config
        self.features, self.encoder = features_and_encoder(
            config, vocab_size=vocab_size, n_trained=n_trained, n_characters=n_characters
        )
        self.heads = nn.ModuleList(nn.Linear(self.encoder.output_dim, n) for n in n_labels)
        self.chains = nn.ModuleList(LabelChain(n) for n in n_labels if config.output == "crf")

    def forward(self, words: Words) -> list[Float[Tensor, "B T _"]]:
        """The emissions of each column."""
        states = self.encoder(self.features(words), words.lengths)
        states = locked_dropout(states, self.config.dropout, self.training)
        return [head(states) for head in self.heads]

    def loss(
        self, emissions: Sequence[Float[Tensor, "B T _"]], labels: Sequence[Int[Tensor, "B T"]],
        lengths: Int[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], int]:  # fmt: skip
        """The summed negative log-likelihood in nats of the labels that are not `MISSING`, and how many they are.

        Beyond a sentence's length, labels must be `MISSING`.
        """
        total, count = emissions[0].new_zeros(()), 0
        for column, (scores, wanted) in enumerate(zip(emissions, labels, strict=True)):
            known = int((wanted != MISSING).sum())
            if not known:
                continue
            if self.chains:
                total = total - self._chain(column).log_likelihood(scores.float(), wanted, lengths).sum()
            else:
                rows = scores.float().flatten(0, 1)
                total = total + F.cross_entropy(rows, wanted.flatten(), ignore_index=MISSING, reduction="sum")
            count += known
        return total, count

    def decode(
        self, emissions: Sequence[Float[Tensor, "B T _"]], lengths: Int[Tensor, " B"]
    ) -> list[Int[Tensor, "B T"]]:
        """The best labels of each column: of whole sentences with a CRF, of each word without."""
        if self.chains:
            return [self._chain(column).decode(scores.float(), lengths) for column, scores in enumerate(emissions)]
        return [scores.argmax(2) for scores in emissions]

    def probabilities(
        self, emissions: Sequence[Float[Tensor, "B T _"]], lengths: Int[Tensor, " B"]
    ) -> list[Float[Tensor, "B T _"]]:
        """Of each label at each word."""
        if self.chains:
            return [
                self._chain(column).probabilities(scores.float(), lengths) for column, scores in enumerate(emissions)
            ]
        return [scores.float().softmax(2) for scores in emissions]

    def _chain(self, column: int) -> LabelChain:
        chain = self.chains[column]
        assert isinstance(chain, LabelChain)
        return chain
