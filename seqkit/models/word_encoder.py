"""What the models of words have in common, taggers and classifiers: word features under a sequence encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seqkit.config import option
from seqkit.errors import InputError
from seqkit.nn.sequence_encoder import ENCODERS, SequenceEncoder
from seqkit.nn.word_features import WordFeatures


@dataclass(frozen=True, kw_only=True)
class WordEncoderConfig:
    """The shape of word features and of the encoder over them."""

    where: ClassVar[str] = "word_encoder"  # the model's name in an error

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
    dropout: float = option(0.5, "on the words and on what the encoder gives")
    word_dropout: float = option(0.05, "share of words that are unknown while training")

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "character_dim", "character_width", "hidden_dim", "n_layers", "n_heads"):
            if getattr(self, name) < 1:
                raise InputError(f"{self.where}: `{name}` must be at least 1, got {getattr(self, name)}")
        if self.character_filters < 0:
            raise InputError(f"{self.where}: `character_filters` must be at least 0, got {self.character_filters}")
        for name in ("dropout", "word_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{self.where}: `{name}` must be in [0, 1), got {getattr(self, name)}")


def features_and_encoder(
    config: WordEncoderConfig, *, vocab_size: int, n_trained: int, n_characters: int
) -> tuple[WordFeatures, SequenceEncoder]:
    """The untrained layers of a config; see `WordFeatures` for the sizes."""
    features = WordFeatures(
        vocab_size, config.embedding_dim, n_trained=n_trained, n_characters=n_characters,
        character_dim=config.character_dim, character_filters=config.character_filters,
        character_width=config.character_width, dropout=config.dropout, word_dropout=config.word_dropout,
        train_vectors=config.train_vectors,
    )  # fmt: skip
    encoder = SequenceEncoder(
        config.encoder, features.output_dim, config.hidden_dim, n_layers=config.n_layers,
        bidirectional=config.bidirectional, dropout=config.dropout, peepholes=config.peepholes, n_heads=config.n_heads,
    )  # fmt: skip
    return features, encoder
