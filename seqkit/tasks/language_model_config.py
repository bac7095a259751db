"""What a language model's run is made from, as the TOML tables of its config say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seqkit.config import option
from seqkit.decode.options import SampleOptions
from seqkit.errors import InputError
from seqkit.models.rnn_lm import RNNLM, RNNLMConfig
from seqkit.models.transformer_lm import TransformerLM, TransformerLMConfig
from seqkit.tasks.run_folder import TokenizerConfig, read_tables, write_tables
from seqkit.training.loop import TrainingConfig

TASK = "language-model"
MODELS: dict[str, tuple[type, type]] = {
    "rnn": (RNNLMConfig, RNNLM),
    "transformer": (TransformerLMConfig, TransformerLM),
}
Model = RNNLM | TransformerLM


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Where the text is. A path may hold $VARIABLES; a relative one starts at the config file."""

    train: list[str] = field(metadata={"help": "files of text; .gz and .xz are read too"})
    valid: list[str] = field(metadata={"help": "the same, for validation"})
    lines: bool = option(False, "each line is a text of its own; else a file is one text and its lines go on")
    window: int = option(128, "tokens through which a gradient goes back; of lines, the most tokens of one")
    context: int = option(128, "tokens that stand before each token that is scored, at least (where the text has them)")

    def __post_init__(self) -> None:
        if self.window < 2 or self.context < 1:
            raise InputError(
                f"data: `window` must be at least 2 and `context` at least 1, got {self.window} and {self.context}"
            )


@dataclass(frozen=True, kw_only=True)
class LMValidationConfig:
    """How the model is looked at while it trains."""

    samples: int = option(0, "texts drawn at each validation, for people to read")
    sample_length: int = option(100, "tokens of such a text, at most")

    def __post_init__(self) -> None:
        if self.samples < 0 or self.sample_length < 1:
            raise InputError(
                "validation: `samples` must be at least 0 and `sample_length` at least 1, "
                f"got {self.samples} and {self.sample_length}"
            )


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """Everything a language model's run is made from: one table a part."""

    data: TextConfig
    tokenizer: TokenizerConfig
    model: Any
    training: TrainingConfig
    validation: LMValidationConfig
    sampling: SampleOptions

    @classmethod
    def from_tables(cls, tables: dict[str, Any], *, where: str) -> LanguageModelConfig:
        """The config of TOML tables.

        Raises:
            InputError: an unknown table or key, a wrong value, or no `model.kind`.
        """
        parts: dict[str, type] = {
            "data": TextConfig, "tokenizer": TokenizerConfig, "training": TrainingConfig,
            "validation": LMValidationConfig, "sampling": SampleOptions,
        }  # fmt: skip
        values = read_tables(tables, task=TASK, parts=parts, models=MODELS, where=where)
        training: TrainingConfig = values["training"]
        if training.metric != "loss":
            raise InputError(f"{where} [training]: `metric` must be loss for a language model, got {training.metric}")
        if training.label_smoothing and "label_smoothing" in tables.get("training", {}):
            raise InputError(
                f"{where} [training]: `label_smoothing` must be 0 for a language model, got {training.label_smoothing}"
            )
        if not values["data"].lines and training.batch_tokens < values["data"].window:
            raise InputError(
                f"{where} [training]: `batch_tokens` must be at least data.window ({values['data'].window}), "
                f"got {training.batch_tokens}"
            )
        return cls(**values)

    def to_tables(self) -> dict[str, Any]:
        """TOML tables with every default written out."""
        names = ("data", "tokenizer", "model", "training", "validation", "sampling")
        tables = write_tables(self, task=TASK, names=names, models=MODELS)
        tables["training"]["label_smoothing"] = 0.0
        return tables


def build_model(config: Any, vocab_size: int) -> Model:
    """The untrained model of a config."""
    for config_class, model_class in MODELS.values():
        if isinstance(config, config_class):
            model: Model = model_class(config, vocab_size=vocab_size)
            return model
    raise TypeError(f"no model family has the config {type(config).__name__}")
