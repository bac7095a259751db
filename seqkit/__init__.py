"""seqkit: train and decode sequence models on one machine, with kernels that other PyTorch projects import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def load(folder: str | Path, *, device: str = "cpu") -> Any:
    """What a run folder holds, ready to use: the model, its tokenizers and its config.

    A `Translator`, a `LanguageModel`, a `WordTagger`, a `TextClassifier` or a `Transcriber`, as the run's task is.

    Raises:
        InputError: the folder is not a run, or a file in it is damaged.
    """
    from seqkit.tasks import entry, task_of  # torch takes seconds to import
    from seqkit.tasks.run_folder import saved_tables

    where = Path(folder)
    return entry(task_of(saved_tables(where), where=str(where / "config.toml")).model).load(where, device=device)
