"""Whole models, one family a file: a config dataclass and a module that can be read alone with the paper beside it."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "CTCConfig": "ctc",
    "CTCModel": "ctc",
    "Classifier": "classifier",
    "ClassifierConfig": "classifier",
    "PlainSeq2Seq": "plain_seq2seq",
    "PlainSeq2SeqConfig": "plain_seq2seq",
    "RNNLM": "rnn_lm",
    "RNNLMConfig": "rnn_lm",
    "Seq2Seq": "seq2seq",
    "Seq2SeqConfig": "seq2seq",
    "Source": "encoder_decoder",
    "Tagger": "tagger",
    "TaggerConfig": "tagger",
    "Transformer": "transformer",
    "TransformerConfig": "transformer",
    "TransformerLM": "transformer_lm",
    "TransformerLMConfig": "transformer_lm",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Imports a model when it is first asked for: torch takes seconds to load."""
    if name not in _HOME:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
