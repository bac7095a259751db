"""Sampling and greedy decoding over any `StepModel`, for a batch of sentences at once.

A draw is a function of (seed, index of the sentence, number of the sample, step) alone: the uniform number comes from a
counter put through a mixing function, not from a generator that other sentences advance. So a sentence's samples do not
depend on the batch it stands in, on its place there or on the device. Probabilities are summed in double precision in a
fixed order, so that the last bits of a padded or a shorter batch do not reach the choice.

`torch.multinomial` draws depend on the whole batch. One `torch.Generator` a sentence costs a loop over sentences (1.7
us each on the CPU) and gives other numbers on another device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqkit.decode.beam import count_sentences, prefix_table, repeating_tokens, step_limits
from seqkit.decode.ensemble import Ensemble
from seqkit.decode.options import LengthOptions, SampleOptions
from seqkit.decode.scoring import device_of
from seqkit.decode.step import Hypothesis, StepModel
from seqkit.errors import InputError
from seqkit.ops.beam_step import mean_log_softmax

NEVER = float("-inf")


def greedy(
    models: StepModel | Sequence[StepModel],
    inputs: Any,
    options: LengthOptions | None = None,
    *,
    bos_id: int,
    eos_id: int,
    max_lengths: Int[Tensor, " B"] | None = None,
    prefix: Sequence[Sequence[int]] | None = None,
    suppress: Sequence[int] = (),
    batch_size: int | None = None,
) -> list[Hypothesis]:
    """The output of each sentence that takes the likeliest symbol at every step; the lower token of equal ones.

    The same tokens as a beam search with one beam, whose score also is the log-probability when it is not normalised.

    Raises:
        InputError: options that the sentences, the prefix or the model cannot meet.
    """
    lengths = options or LengthOptions()
    copied = {name: getattr(lengths, name) for name in LengthOptions.__dataclass_fields__}
    found = sample(
        models,
        inputs,
        SampleOptions(**copied, temperature=0.0),
        bos_id=bos_id,
        eos_id=eos_id,
        max_lengths=max_lengths,
        prefix=prefix,
        suppress=suppress,
        batch_size=batch_size,
    )
    return [samples[0] for samples in found]


@torch.inference_mode()
def sample(
    models: StepModel | Sequence[StepModel],
    inputs: Any,
    options: SampleOptions,
    *,
    bos_id: int,
    eos_id: int,
    max_lengths: Int[Tensor, " B"] | None = None,
    prefix: Sequence[Sequence[int]] | None = None,
    suppress: Sequence[int] = (),
    batch_size: int | None = None,
    indices: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """`options.n_samples` outputs of each sentence, in the order of their numbers.

    Log-probabilities are the model's own, before temperature and truncation; the score is the log-probability.

    Args:
        models, max_lengths, prefix, suppress, batch_size: as in `beam_search`.
        indices: what the draws of each sentence depend on beside the seed; its place in the batch where not given.

    Raises:
        InputError: options that the sentences, the prefix or the model cannot meet.
    """
    several = list(models) if isinstance(models, Sequence) else [models]
    model: StepModel = several[0] if len(several) == 1 else Ensemble(several)
    device = device_of(several[0], inputs)
    B, N = count_sentences(inputs, max_lengths, prefix, getattr(inputs, "lengths", None), batch_size), options.n_samples
    if B == 0:
        return []
    if indices is not None and len(indices) != B:
        raise InputError(f"decode: `indices` must be of {B} sentences, got {len(indices)}")
    limits = step_limits(B, options, max_lengths)
    forced = prefix_table(B, prefix, limits, eos_id=eos_id).to(device)
    banned = torch.tensor([*suppress], dtype=torch.int64, device=device)
    last = torch.tensor(limits, device=device)[:, None]  # B 1
    streams = sample_streams(options.seed, torch.tensor(indices or range(B), dtype=torch.int64, device=device), N)

    outputs = torch.zeros(B, N, max(limits), dtype=torch.int64, device=device)
    output_logp = torch.zeros(B, N, max(limits), device=device)
    n_symbols = torch.zeros(B, N, dtype=torch.int64, device=device)  # the end symbol included
    ended = torch.zeros(B, N, dtype=torch.bool, device=device)
    active = torch.arange(B, device=device)
    alive = torch.ones(B, N, dtype=torch.bool, device=device)
    logp = torch.zeros(B, N, device=device)
    tokens = torch.full((B, N), bos_id, device=device)
    state = model.reorder(model.start(inputs), torch.zeros_like(tokens))
    for step in range(max(limits)):
        output = model.step(tokens, state)
        state = output.state
        V = output.logits.shape[-1]
        if step == 0:
            _check_ids(V, {"bos_id": bos_id, "eos_id": eos_id, "prefix": int(forced.max()) if forced.numel() else 0})
        step_logp = mean_log_softmax([output.logits])  # B N V
        allowed = _allowed(
            step_logp,
            ban_eos=eos_id if step < options.min_length else None,
            banned=banned,
            repeating=repeating_tokens(outputs[active, :, :step], options.no_repeat_ngram)
            if options.no_repeat_ngram
            else None,
            forced=forced[active, step] if step < forced.shape[1] else None,
        )
        possible = allowed > NEVER
        if options.temperature == 0.0:
            tokens = first_best(logp[:, :, None] + allowed)
        else:
            uniform = uniforms(streams[active], step)
            tokens = draw(allowed, uniform, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
        alive = alive & possible.any(dim=2)  # a row that nothing can continue is closed where it stands
        chosen = step_logp.gather(2, tokens[:, :, None])[:, :, 0]
        logp = logp + torch.where(alive, chosen, 0.0)
        outputs[active, :, step] = tokens
        output_logp[active, :, step] = chosen
        n_symbols[active] += alive
        ended[active] |= alive & (tokens == eos_id)
        alive = alive & (tokens != eos_id) & (step + 1 < last[active])
        open_rows = [row for row, is_open in enumerate(alive.any(dim=1).tolist()) if is_open]
        if not open_rows:
            break
        if len(open_rows) < active.shape[0]:
            rows = torch.tensor(open_rows, device=device)
            state, active, alive = model.keep(state, rows), active[rows], alive[rows]
            tokens, logp = tokens[rows], logp[rows]
    return _hypotheses(outputs, output_logp, n_symbols, ended)


def _check_ids(V: int, ids: dict[str, int]) -> None:
    for name, token in ids.items():
        if not 0 <= token < V:
            raise InputError(f"decode: `{name}` must be of tokens below {V}, got {token}")


def _allowed(
    logp: Float[Tensor, "B N V"],
    *,
    ban_eos: int | None,
    banned: Int[Tensor, " M"],
    repeating: Int[Tensor, "B N R"] | None,
    forced: Int[Tensor, " B"] | None,
) -> Float[Tensor, "B N V"]:
    """The log-probabilities with -inf for what may not come; a forced token stands above every ban."""
    V = logp.shape[2]
    allowed = logp.clone()
    if ban_eos is not None:
        allowed[:, :, ban_eos] = NEVER
    allowed[:, :, banned] = NEVER
    if repeating is not None:
        hit = torch.zeros(*logp.shape[:2], V + 1, dtype=torch.bool, device=logp.device)
        hit.scatter_(2, repeating.masked_fill(repeating < 0, V), True)
        allowed = allowed.masked_fill(hit[:, :, :V], NEVER)
    if forced is None:
        return allowed
    only = torch.arange(V, device=logp.device) == forced[:, None]  # B V
    demanded = logp.masked_fill(~only[:, None, :], NEVER)
    return torch.where((forced >= 0)[:, None, None], demanded, allowed)


def first_best(values: Float[Tensor, "B N V"]) -> Int[Tensor, "B N"]:
    """The lowest token of the largest value."""
    V = values.shape[2]
    token = torch.arange(V, device=values.device)
    return torch.where(values == values.amax(dim=2, keepdim=True), token, V - 1).amin(dim=2)


def draw(
    logp: Float[Tensor, "B N V"], uniform: Float[Tensor, "B N"], *, temperature: float, top_k: int, top_p: float
) -> Int[Tensor, "B N"]:
    """The token whose share of [0, 1) holds the uniform number.

    Shares are proportional to exp(logp / temperature) of the tokens that remain: those among the `top_k` likeliest, and
    of these the fewest likeliest that hold `top_p` of the probability. They are laid out by falling probability, equal
    ones by token, or by token alone when nothing is cut.

    Reference: Holtzman et al. 2020, section 3.1, arXiv:1904.09751.
    """
    V = logp.shape[2]
    scaled = logp.double() / temperature
    order = None
    if 0 < top_k < V or top_p < 1.0:
        scaled, order = scaled.sort(dim=2, descending=True, stable=True)
        if 0 < top_k < V:
            scaled, order = scaled[:, :, :top_k], order[:, :, :top_k]
    best = scaled.amax(dim=2, keepdim=True).clamp(min=torch.finfo(torch.float64).min)  # -inf - -inf would be NaN
    upper = (scaled - best).exp().cumsum(dim=2)
    total = upper[:, :, -1:]
    if top_p < 1.0:
        # A token stays while those before it hold less than top_p.
        kept = (upper < top_p * total).sum(dim=2, keepdim=True).clamp(max=scaled.shape[2] - 1)
        total = upper.gather(2, kept)
    place = (upper <= uniform[:, :, None].double() * total).sum(dim=2, keepdim=True)
    last = (upper < total).sum(dim=2, keepdim=True)  # a product that rounds up to the total would go beyond
    place = torch.minimum(place, last)
    return (place if order is None else order.gather(2, place))[:, :, 0]


def sample_streams(seed: int, indices: Int[Tensor, " B"], n_samples: int) -> Int[Tensor, "B N"]:
    """A number for each sample of each sentence, from which `uniforms` draws."""
    number = torch.arange(n_samples, device=indices.device)
    start = _mix(indices.new_full((1,), seed % (1 << 62)))
    return _mix(_mix(start + indices)[:, None] + number)


def uniforms(streams: Int[Tensor, "B N"], step: int) -> Float[Tensor, "B N"]:
    """A number in [0, 1) for each stream at a step, in double precision."""
    return (_mix(streams + step) >> 11 & (1 << 53) - 1).double() / (1 << 53)


def _mix(value: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """A bijection of 64-bit integers whose output bits each depend on all input bits.

    Reference: Steele et al. 2014, figure 13 (SplitMix64), doi:10.1145/2660193.2660195.
    """
    value = value + -7046029254386353131  # 0x9e3779b97f4a7c15; sums and products wrap around
    value = (value ^ _shifted(value, 30)) * -4658895280553007687  # 0xbf58476d1ce4e5b9
    value = (value ^ _shifted(value, 27)) * -7723592293110705685  # 0x94d049bb133111eb
    return value ^ _shifted(value, 31)


def _shifted(value: Int[Tensor, "*shape"], bits: int) -> Int[Tensor, "*shape"]:
    """A right shift that fills with zeros."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _hypotheses(
    outputs: Int[Tensor, "B N T"],
    output_logp: Float[Tensor, "B N T"],
    n_symbols: Int[Tensor, "B N"],
    ended: Bool[Tensor, "B N"],
) -> list[list[Hypothesis]]:
    rows = zip(outputs.tolist(), output_logp.tolist(), n_symbols.tolist(), ended.tolist(), strict=True)
    return [
        [
            _hypothesis(tokens[: length - done], logp[:length], done)
            for tokens, logp, length, done in zip(*sentence, strict=True)
        ]
        for sentence in rows
    ]


def _hypothesis(tokens: list[int], token_logp: list[float], ended: bool) -> Hypothesis:
    total = sum(token_logp, 0.0)
    return Hypothesis(tokens=tokens, ended=ended, logprob=total, score=total, token_logprobs=token_logp)
