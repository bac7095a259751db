"""The protocol between a model and the ways to decode it.

A model that can start, take one step, reorder its beams and keep some of its sentences can be searched and sampled;
nothing in this package asks what the model is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@dataclass
class StepOutput:
    """What a model says after one more token: `K` is whatever number of rows a sentence had in the call."""

    logits: Float[Tensor, "B K V"]  # unnormalised, of the next token
    state: Any
    attention: Float[Tensor, "B K S"] | None = None  # over the source, zero on its padding; None where there is none


@runtime_checkable
class StepModel(Protocol):
    """A model that is asked one token at a time.

    The state is the model's own: decoding only hands it back. For results that do not depend on the batch, row (b, k)
    of every output must be a function of sentence b and the tokens of its beam k alone.
    """

    def start(self, inputs: Any) -> Any:
        """The state before the first token: B sentences, encoded once, with one row each (K = 1)."""
        ...

    def step(self, tokens: Int[Tensor, "B K"], state: Any) -> StepOutput:
        """Appends one token to each row and predicts the next."""
        ...

    def reorder(self, state: Any, parents: Int[Tensor, "B K2"]) -> Any:
        """The state in which new row j of sentence b continues old row ``parents[b, j]``; K2 may differ from K."""
        ...

    def keep(self, state: Any, sentences: Int[Tensor, " B2"]) -> Any:
        """The state of these sentences alone, in this order."""
        ...


@dataclass
class Hypothesis:
    """One output of a search or a sample."""

    tokens: list[int]  # without the begin and the end symbol
    ended: bool  # with the end symbol, not cut at the maximum length
    logprob: float  # of the tokens, and of the end symbol where it ended
    score: float  # what it was ranked by: normalised by length, with the coverage term
    token_logprobs: list[float]  # one a token, and one more for the end symbol where it ended
    attention: Float[Tensor, "T S"] | None = None  # one row a token, on the CPU
