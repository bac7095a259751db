"""seqkit: train and decode sequence models on one machine, with kernels that other PyTorch projects import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqkit.tasks.translator import Translator

__version__ = "0.1.0"


def load(folder: str | Path, *, device: str = "cpu") -> Translator:
    """What a run folder holds, ready to use: the model, its tokenizers and its config.

    Raises:
        InputError: the folder is not a run, or a file in it is damaged.
    """
    from seqkit.tasks.translator import Translator  # torch takes seconds to import

    return Translator.load(folder, device=device)
