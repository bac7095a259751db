"""From text to numbers and back: vocabularies, tokenizers, corpora, batches.

Names are found on first use, so that reading a corpus or a vocabulary imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqkit.text.batch import Batch, TokenBatches, length_batches, length_mask
    from seqkit.text.corpus import LineCorpus, ParallelCorpus
    from seqkit.text.ngram import NgramModel
    from seqkit.text.tokenizer import (
        CharTokenizer,
        SentencePieceTokenizer,
        Tokenizer,
        WordTokenizer,
        load_tokenizer,
        train_tokenizer,
    )
    from seqkit.text.vocab import Vocab

_HOME = {
    "Batch": "batch",
    "TokenBatches": "batch",
    "length_mask": "batch",
    "length_batches": "batch",
    "LineCorpus": "corpus",
    "ParallelCorpus": "corpus",
    "NgramModel": "ngram",
    "CharTokenizer": "tokenizer",
    "SentencePieceTokenizer": "tokenizer",
    "Tokenizer": "tokenizer",
    "WordTokenizer": "tokenizer",
    "load_tokenizer": "tokenizer",
    "train_tokenizer": "tokenizer",
    "Vocab": "vocab",
}

__all__ = [
    "Batch",
    "CharTokenizer",
    "LineCorpus",
    "NgramModel",
    "ParallelCorpus",
    "SentencePieceTokenizer",
    "TokenBatches",
    "Tokenizer",
    "Vocab",
    "WordTokenizer",
    "length_batches",
    "length_mask",
    "load_tokenizer",
    "train_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
