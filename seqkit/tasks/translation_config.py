"""What a translation run is made from, as the TOML tables of its config say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seqkit.config import option
from seqkit.decode.options import BeamOptions
from seqkit.errors import InputError
from seqkit.models.plain_seq2seq import PlainSeq2Seq, PlainSeq2SeqConfig
from seqkit.models.seq2seq import Seq2Seq, Seq2SeqConfig
from seqkit.models.transformer import Transformer, TransformerConfig
from seqkit.tasks.run_folder import TokenizerConfig, read_tables, write_tables
from seqkit.text.tokenizer import Tokenizer
from seqkit.training.loop import TrainingConfig

TASK = "translation"
MODELS: dict[str, tuple[type, type]] = {
    "transformer": (TransformerConfig, Transformer),
    "seq2seq": (Seq2SeqConfig, Seq2Seq),
    "plain_seq2seq": (PlainSeq2SeqConfig, PlainSeq2Seq),
}
Model = Transformer | Seq2Seq | PlainSeq2Seq


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the sentence pairs are. A path may hold $VARIABLES; a relative one starts at the config file."""

    train: list[str] = field(metadata={"help": "source and target file, or one .tsv; .gz and .xz are read too"})
    valid: list[str] = field(metadata={"help": "the same, for validation"})
    max_length: int = option(200, "training pairs with more tokens on a side are left out")


@dataclass(frozen=True, kw_only=True)
class PairTokenizerConfig(TokenizerConfig):
    """How both sides become tokens."""

    shared: bool = option(True, "one vocabulary for both sides")
    source_bos: bool = option(False, "begin source sentences with the begin symbol")
    source_eos: bool = option(True, "end source sentences with the end symbol, so that none is empty")
    sampling: float = option(0.0, "subword sampling of the training data: alpha of Kudo 2018 (0.1 to 0.5); 0 for none")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.sampling <= 1.0:
            raise InputError(f"tokenizer: `sampling` must be from 0 to 1, got {self.sampling}")
        if self.sampling and self.kind not in ("unigram", "bpe"):
            raise InputError(f"tokenizer: `sampling` must be 0 for {self.kind} tokens, got {self.sampling}")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """How the model is measured while it trains."""

    bleu: bool = option(True, "translate the validation set and record its BLEU")
    beam_size: int = option(1, "beam of that translation")

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise InputError(f"validation: `beam_size` must be at least 1, got {self.beam_size}")


@dataclass(frozen=True, kw_only=True)
class TranslationConfig:
    """Everything a translation run is made from: one table a part."""

    data: DataConfig
    tokenizer: PairTokenizerConfig
    model: Any
    training: TrainingConfig
    validation: ValidationConfig
    search: BeamOptions

    @classmethod
    def from_tables(cls, tables: dict[str, Any], *, where: str) -> TranslationConfig:
        """The config of TOML tables.

        Raises:
            InputError: an unknown table or key, a wrong value, or no `model.kind`.
        """
        parts: dict[str, type] = {
            "data": DataConfig, "tokenizer": PairTokenizerConfig, "training": TrainingConfig,
            "validation": ValidationConfig, "search": BeamOptions,
        }  # fmt: skip
        values = read_tables(tables, task=TASK, parts=parts, models=MODELS, where=where)
        if values["training"].metric not in ("loss", "bleu"):
            raise InputError(
                f"{where} [training]: `metric` must be loss or bleu for a translator, got {values['training'].metric}"
            )
        if tables.get("training", {}).get("metric") == "bleu" and not values["validation"].bleu:
            raise InputError(f"{where} [validation]: `bleu` must be true where training.metric is bleu, got false")
        return cls(**values)

    def to_tables(self) -> dict[str, Any]:
        """TOML tables with every default written out."""
        names = ("data", "tokenizer", "model", "training", "validation", "search")
        return write_tables(self, task=TASK, names=names, models=MODELS)


def build_model(config: Any, source: Tokenizer, target: Tokenizer) -> Model:
    """The untrained model of a config for these vocabularies."""
    for config_class, model_class in MODELS.values():
        if isinstance(config, config_class):
            model: Model = model_class(config, source_vocab_size=source.vocab_size, target_vocab_size=target.vocab_size)
            return model
    raise TypeError(f"no model family has the config {type(config).__name__}")
