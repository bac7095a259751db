"""Several models decoded as one: the average of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from seqkit.decode.step import StepModel, StepOutput
from seqkit.errors import InputError
from seqkit.ops.beam_step import mean_log_softmax


class Ensemble:
    """A `StepModel` whose probabilities are the mean of its models'; its attention is the mean of those that have one.

    All models read the same inputs and share one output vocabulary.
    """

    def __init__(self, models: Sequence[StepModel]) -> None:
        if not models:
            raise InputError("decode: an ensemble must be of one model at least, got none")
        self.models = list(models)

    def start(self, inputs: Any) -> list[Any]:
        """The models' own states."""
        return [model.start(inputs) for model in self.models]

    def step(self, tokens: Int[Tensor, "B K"], state: list[Any]) -> StepOutput:
        """One step of each model."""
        outputs = [model.step(tokens, own) for model, own in zip(self.models, state, strict=True)]
        attentions = [output.attention for output in outputs if output.attention is not None]
        return StepOutput(
            logits=mean_log_softmax([output.logits for output in outputs]),
            state=[output.state for output in outputs],
            attention=sum(attentions[1:], attentions[0]) / len(attentions) if attentions else None,
        )

    def reorder(self, state: list[Any], parents: Int[Tensor, "B K2"]) -> list[Any]:
        """Each model's state, reordered."""
        return [model.reorder(own, parents) for model, own in zip(self.models, state, strict=True)]

    def keep(self, state: list[Any], sentences: Int[Tensor, " B2"]) -> list[Any]:
        """Each model's state of these sentences."""
        return [model.keep(own, sentences) for model, own in zip(self.models, state, strict=True)]
