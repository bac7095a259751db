"""How hypotheses are scored: penalties, and the log-probabilities a model gives to outputs that are already there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqkit.decode.step import StepModel
from seqkit.errors import InputError
from seqkit.ops.beam_step import length_divisor, mean_log_softmax

LEAST_COVERAGE = 1e-10  # a source position that got nothing costs log of this, not infinitely much


def length_penalty(lengths: Int[Tensor, "*shape"], *, kind: str, alpha: float) -> Float[Tensor, "*shape"]:
    """What a log-probability is divided by: 1, max(|Y|, 1)^alpha or ((5 + |Y|) / 6)^alpha.

    Reference: Wu et al. 2016, section 7, eq. 14, arXiv:1609.08144 (gnmt).
    """
    return length_divisor(lengths, length_penalty=kind, alpha=alpha)


def coverage_penalty(
    attention_sum: Float[Tensor, "B K S"], source_lengths: Int[Tensor, " B"], *, beta: float
) -> Float[Tensor, "B K"]:
    """The term, at most 0, for source positions that got less than one word's attention.

    beta * sum_i log(min(sum_j p_ij, 1)) over source positions i, with p_ij the attention of target word j.

    Reference: Wu et al. 2016, section 7, eq. 14, arXiv:1609.08144.
    Differs: a position's sum is at least 1e-10, which keeps the logarithm finite.
    """
    S = attention_sum.shape[2]
    padding = torch.arange(S, device=attention_sum.device) >= source_lengths[:, None, None]  # B 1 S
    # In double precision, so that neither padding nor a batch's width reaches the 24 bits that are kept.
    logs = attention_sum.double().clamp(LEAST_COVERAGE, 1.0).log().masked_fill(padding, 0.0)
    return (beta * logs.sum(dim=2)).float()


@torch.inference_mode()
def force_decode(
    model: StepModel, inputs: Any, targets: Sequence[Sequence[int]], *, bos_id: int, eos_id: int | None
) -> list[list[float]]:
    """The log-probability of each given token, and of the end symbol after the last, a list a sentence.

    One step at a time through the model's own decoding path, which is what a search adds up: with the tokens of a
    `Hypothesis` that ended, this returns its `token_logprobs`. A model that can score all positions at once is faster.

    Args:
        eos_id: None leaves the end symbol out.

    Raises:
        InputError: a token is not in the model's vocabulary.
    """
    if not targets:
        return []
    lists = [[*target] if eos_id is None else [*target, eos_id] for target in targets]
    lengths = [len(tokens) for tokens in lists]
    longest = max(lengths)
    if longest == 0:
        return [[] for _ in lists]
    device = device_of(model, inputs)
    grid = torch.tensor([tokens + [bos_id] * (longest - len(tokens)) for tokens in lists], device=device)
    state = model.start(inputs)
    active = torch.arange(len(lists), device=device)
    logp = torch.zeros(len(lists), longest, device=device)
    previous = torch.full((len(lists), 1), bos_id, device=device)
    for step in range(longest):
        open_rows = [row for row, sentence in enumerate(active.tolist()) if lengths[sentence] > step]
        if len(open_rows) < active.shape[0]:
            rows = torch.tensor(open_rows, device=device)
            state, active, previous = model.keep(state, rows), active[rows], previous[rows]
        output = model.step(previous, state)
        state = output.state
        previous = grid[active, step : step + 1]
        _check_tokens(grid[active, step], output.logits.shape[-1])
        step_logp = mean_log_softmax([output.logits])
        logp[active, step] = step_logp[:, 0].gather(1, previous)[:, 0]
    return [row[:length] for row, length in zip(logp.tolist(), lengths, strict=True)]


def device_of(model: Any, inputs: Any) -> torch.device:
    """Where the model's parameters are, else where the inputs are."""
    if isinstance(model, torch.nn.Module):
        for parameter in model.parameters():
            return parameter.device
    return inputs.device if isinstance(inputs, Tensor) else torch.device("cpu")


def _check_tokens(tokens: Tensor, vocab_size: int) -> None:
    wrong = tokens[(tokens < 0) | (tokens >= vocab_size)]
    if wrong.numel():
        raise InputError(f"decode: tokens must be from 0 to {vocab_size - 1}, got {int(wrong[0])}")
