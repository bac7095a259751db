"""Tasks: each puts data, a model family, the training loop and the decoders together for one kind of problem."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from seqkit.config import nearest
from seqkit.errors import InputError


class Task(NamedTuple):
    """Where a task's two entry points are."""

    trainer: str  # module:function that trains a run folder from TOML tables
    model: str  # module:class that `load`s a run folder


# By the name that a config's `task` gives; a config without one is a translation's.
TASKS = {
    "translation": Task("translation:train_translation", "translator:Translator"),
    "language-model": Task("language_modelling:train_language_model", "language_model:LanguageModel"),
    "tagging": Task("tagging:train_tagger", "word_tagger:WordTagger"),
    "classification": Task("classification:train_classifier", "text_classifier:TextClassifier"),
    "ctc": Task("ctc:train_ctc", "transcriber:Transcriber"),
}


def task_of(tables: dict[str, Any], *, where: str) -> Task:
    """The task of a config.

    Raises:
        InputError: there is none of that name.
    """
    name = tables.get("task", "translation")
    if name not in TASKS:
        allowed = ", ".join(TASKS)
        raise InputError(f"{where}: `task` must be one of {allowed}, got {name!r}{nearest(str(name), TASKS)}")
    return TASKS[name]


def entry(name: str) -> Any:
    """What a `module:name` of a task names; torch is loaded only now."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
