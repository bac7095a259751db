"""What a run of the task `ctc` is made from, as the TOML tables of its config say."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seqkit.audio.augment import AugmentConfig
from seqkit.audio.features import FeatureConfig
from seqkit.config import option, resolve_path
from seqkit.errors import InputError
from seqkit.models.ctc import CTCConfig, CTCModel
from seqkit.tasks.ctc_decoder import CTCSearchOptions
from seqkit.tasks.run_folder import Families, TokenizerConfig, read_tables, write_tables
from seqkit.training.loop import TrainingConfig

TASK = "ctc"
MODELS: Families = {"ctc": (CTCConfig, CTCModel)}
PARTS: dict[str, type]


@dataclass(frozen=True, kw_only=True)
class RecordingsConfig:
    """Where the recordings are. A path may hold $VARIABLES; a relative one starts at the config file."""

    train: list[str] = field(
        metadata={"help": "files of a sound file, a tab and what is said a line; sound files start at that file"}
    )
    valid: list[str] = field(metadata={"help": "the same, for validation"})
    longest: float = option(30.0, "seconds of a recording that is trained on, at most")

    def __post_init__(self) -> None:
        if not self.longest > 0:
            raise InputError(f"data: `longest` must be above 0, got {self.longest}")


@dataclass(frozen=True, kw_only=True)
class TranscriptionConfig:
    """Everything a CTC model's run is made from: one table a part."""

    data: RecordingsConfig
    features: FeatureConfig
    augment: AugmentConfig
    tokenizer: TokenizerConfig
    model: CTCConfig
    training: TrainingConfig
    search: CTCSearchOptions

    @classmethod
    def from_tables(cls, tables: dict[str, Any], *, where: str) -> TranscriptionConfig:
        """The config of TOML tables.

        Raises:
            InputError: an unknown table or key, or a wrong value.
        """
        tables = {"model": {}, **tables}
        if isinstance(tables["model"], dict):
            tables["model"] = {"kind": "ctc", **tables["model"]}
        values = read_tables(tables, task=TASK, parts=PARTS, models=MODELS, where=where)
        training: TrainingConfig = values["training"]
        if training.metric not in ("loss", "error_rate"):
            raise InputError(
                f"{where} [training]: `metric` must be loss or error_rate for a CTC model, got {training.metric}"
            )
        given = tables.get("training", {})
        if training.label_smoothing and "label_smoothing" in given:
            raise InputError(
                f"{where} [training]: `label_smoothing` must be 0 for a CTC model, got {training.label_smoothing}"
            )
        values["training"] = replace(training, label_smoothing=0.0)
        return cls(**values)

    def to_tables(self) -> dict[str, Any]:
        """TOML tables with every default written out."""
        return write_tables(self, task=TASK, names=(*PARTS, "model"), models=MODELS)

    def with_paths(self, base: Path) -> TranscriptionConfig:
        """The config with its paths made absolute, from the folder that relative ones start at."""

        def absolute(paths: list[str]) -> list[str]:
            return [os.path.abspath(resolve_path(path, base)) for path in paths]

        lm = self.search.lm
        return replace(
            self,
            data=replace(self.data, train=absolute(self.data.train), valid=absolute(self.data.valid)),
            augment=replace(self.augment, noise=absolute(self.augment.noise)),
            search=replace(self.search, lm=absolute([lm])[0] if lm else ""),
        )


PARTS = {
    "data": RecordingsConfig,
    "features": FeatureConfig,
    "augment": AugmentConfig,
    "tokenizer": TokenizerConfig,
    "training": TrainingConfig,
    "search": CTCSearchOptions,
}
