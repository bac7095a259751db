"""Decoding: from any model that predicts one symbol at a time to its best, or its sampled, outputs; and CTC's frames.

Knows no model and no file: it sees a `StepModel` and integer tokens, or the log-probabilities of frames. Names load
late, so that the options can be read without importing torch. No name is also a module's: importing the module would
put it in the name's place.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqkit.decode.alignment import Alignment as Alignment
    from seqkit.decode.alignment import Span as Span
    from seqkit.decode.alignment import align as align
    from seqkit.decode.backtrack import SearchNode as SearchNode
    from seqkit.decode.backtrack import SearchTree as SearchTree
    from seqkit.decode.beam import beam_search as beam_search
    from seqkit.decode.beam import beam_search_trees as beam_search_trees
    from seqkit.decode.ctc_prefix import CTCDecoder as CTCDecoder
    from seqkit.decode.ctc_prefix import CTCHypothesis as CTCHypothesis
    from seqkit.decode.ensemble import Ensemble as Ensemble
    from seqkit.decode.options import BeamOptions as BeamOptions
    from seqkit.decode.options import SampleOptions as SampleOptions
    from seqkit.decode.sampling import greedy as greedy
    from seqkit.decode.sampling import sample as sample
    from seqkit.decode.scoring import force_decode as force_decode
    from seqkit.decode.step import Hypothesis as Hypothesis
    from seqkit.decode.step import StepModel as StepModel
    from seqkit.decode.step import StepOutput as StepOutput

_HOME = {
    "Alignment": "alignment",
    "BeamOptions": "options",
    "CTCDecoder": "ctc_prefix",
    "CTCHypothesis": "ctc_prefix",
    "Ensemble": "ensemble",
    "Hypothesis": "step",
    "SampleOptions": "options",
    "SearchNode": "backtrack",
    "SearchTree": "backtrack",
    "Span": "alignment",
    "StepModel": "step",
    "StepOutput": "step",
    "align": "alignment",
    "beam_search": "beam",
    "beam_search_trees": "beam",
    "force_decode": "scoring",
    "greedy": "sampling",
    "sample": "sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
