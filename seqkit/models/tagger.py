"""A tagger: a label for each word, or several. Word features, a sequence encoder, and a CRF or a softmax a column.

emissions_t = W h_t + b, with h_t the encoder's state at word t. The loss is the negative log-probability of the labels
that are known; a column where a sentence has none costs nothing.

Reference: Lample et al. 2016, arXiv:1603.01360; Ma and Hovy 2016, arXiv:1603.01354; Caruana 1997 (several tasks on one
encoder).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.config import option
from seqkit.errors import InputError
from seqkit.nn.dropout import locked_dropout
from seqkit.nn.label_chain import MISSING, LabelChain
from seqkit.nn.sequence_encoder import ENCODERS, SequenceEncoder
from seqkit.nn.word_features import WordFeatures, Words


@dataclass(frozen=True, kw_only=True)
class TaggerConfig:
    """The shape of a tagger. Ma and Hovy 2016: 100, 30 filters of width 3 on 30, an LSTM of 200, dropout 0.5, a CRF."""

    embedding_dim: int = option(100, "width of the word vectors; that of the file, where they come from one")
    train_vectors: bool = option(True, "the vectors change in training; else words without one are told by spelling")
    character_dim: int = option(25, "width of the characters' vectors")
    character_filters: int = option(30, "numbers that tell of a word's spelling; 0 for none")
    character_width: int = option(3, "characters that a filter sees")
    encoder: str = option("lstm", "what reads the sentence", choices=ENCODERS)
    hidden_dim: int = option(128, "units of a layer, in each direction")
    n_layers: int = option(1, "stacked layers")
    bidirectional: bool = option(True, "recurrent layers read both ways")
    peepholes: bool = option(False, "an LSTM whose gates see the cell state")
    n_heads: int = option(4, "of a Transformer")
    dropout: float = option(0.5, "on the words and the states, one mask for all words of a sentence")
    word_dropout: float = option(0.05, "share of words that are unknown while training")
    output: str = option("crf", "labels that know their neighbours, or each for itself", choices=("crf", "softmax"))

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "character_dim", "character_width", "hidden_dim", "n_layers", "n_heads"):
            if getattr(self, name) < 1:
                raise InputError(f"tagger: `{name}` must be at least 1, got {getattr(self, name)}")
        if self.character_filters < 0:
            raise InputError(f"tagger: `character_filters` must be at least 0, got {self.character_filters}")
        for name in ("dropout", "word_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"tagger: `{name}` must be in [0, 1), got {getattr(self, name)}")


class Tagger(nn.Module):
    """Labels of words, in as many columns as `n_labels` has numbers."""

    def __init__(
        self, config: TaggerConfig, *, vocab_size: int, n_trained: int, n_characters: int, n_labels: Sequence[int]
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
