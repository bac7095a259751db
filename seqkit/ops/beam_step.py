"""One step of a beam search for a whole batch, in one call: log-softmax, masks, ranking, and the split of the ranked
continuations into those that live on and those that have ended.

The state is a tuple of small tensors and every call returns a new one, so the search around it needs no loop over
sentences, no wait for the device, and a captured graph could replay it. Ended hypotheses go to a pool of fixed size
that keeps the best by normalised score; a pool entry names its step and its beam, and whoever kept the parents of each
step can walk back from there.

Order is total: higher first, then the lower beam, then the lower token. A row's result is a function of that row alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_tensors

KINDS = {"none": 0, "power": 1, "gnmt": 2}
NEVER = float("-inf")

# What the CUDA kernels take, as in csrc/beam_step/beam_step.h; more runs the references.
MOST_BEAMS_ON_CUDA, MOST_TOKENS_ON_CUDA, MOST_MODELS_ON_CUDA = 64, 2**23, 32

# The fields of a state that a step goes on from; the others are what the step before said.
READ = (
    "logp",
    "lengths",
    "finished_scores",
    "finished_logp",
    "finished_eos_logp",
    "finished_lengths",
    "finished_beams",
    "n_finished",
)


class BeamState(NamedTuple):
    """What a search knows after a step: K live hypotheses, the F best that have ended, and the 2K ranked candidates.

    An empty place has log-probability and score -inf. All live hypotheses of a sentence are equally long.
    """

    # Live, best first.
    logp: Float[Tensor, "B K"]  # of all tokens so far
    scores: Float[Tensor, "B K"]  # what it would score if it were closed here, without an end symbol
    parents: Int[Tensor, "B K"]  # the beam of the step before that it continues
    tokens: Int[Tensor, "B K"]  # its last token
    token_logp: Float[Tensor, "B K"]  # of that token
    lengths: Int[Tensor, " B"]  # tokens so far
    # Ended, best score first; equal scores in the order in which they ended.
    finished_scores: Float[Tensor, "B F"]
    finished_logp: Float[Tensor, "B F"]  # of all tokens and the end symbol
    finished_eos_logp: Float[Tensor, "B F"]  # of the end symbol
    finished_lengths: Int[Tensor, "B F"]  # tokens before the end symbol
    finished_beams: Int[Tensor, "B F"]  # the beam, live when it had that length, that it ended
    n_finished: Int[Tensor, " B"]  # how many have ended, kept or not
    # The candidates of this step, best first.
    candidate_logp: Float[Tensor, "B C"]
    candidate_scores: Float[Tensor, "B C"]
    candidate_parents: Int[Tensor, "B C"]
    candidate_tokens: Int[Tensor, "B C"]

    @classmethod
    def start(cls, batch_size: int, *, pool_size: int, device: torch.device | str = "cpu") -> BeamState:
        """Before the first step: one live hypothesis a sentence, of no tokens and log-probability 0."""

        def floats(width: int, value: float) -> Tensor:
            return torch.full((batch_size, width), value, dtype=torch.float32, device=device)

        def ints(*width: int, value: int = 0) -> Tensor:
            return torch.full((batch_size, *width), value, dtype=torch.int64, device=device)

        return cls(
            logp=floats(1, 0.0),
            scores=floats(1, 0.0),
            parents=ints(1),
            tokens=ints(1),
            token_logp=floats(1, 0.0),
            lengths=ints(),
            finished_scores=floats(pool_size, NEVER),
            finished_logp=floats(pool_size, NEVER),
            finished_eos_logp=floats(pool_size, NEVER),
            finished_lengths=ints(pool_size, value=-1),
            finished_beams=ints(pool_size, value=-1),
            n_finished=ints(),
            candidate_logp=floats(0, NEVER),
            candidate_scores=floats(0, NEVER),
            candidate_parents=ints(0),
            candidate_tokens=ints(0),
        )


def beam_step(
    logits: Float[Tensor, "B K V"],
    state: BeamState,
    *,
    eos: int,
    beam_size: int,
    length_penalty: str = "power",
    alpha: float = 0.7,
    count_eos: bool = True,
    min_length: int = 0,
    offset: Float[Tensor, "B K"] | None = None,
    forced: Int[Tensor, " B"] | None = None,
    banned: Int[Tensor, "B K M"] | None = None,
    penalised: Int[Tensor, "B N"] | None = None,
    penalty: float = 0.0,
    first_beam: int = 0,
) -> BeamState:
    """The state after one more token.

    With log p the log-softmax of a row and L the log-probability of its hypothesis, all continuations of a sentence are
    ranked by L + log p[v]; the 2 ``beam_size`` best are the candidates. An end symbol among the ``beam_size`` best ends
    its hypothesis, one further down is dropped; the ``beam_size`` best others live on. 2 ``beam_size`` are enough: each
    row has one end symbol. An ended hypothesis of w tokens scores L / penalty(w + count_eos) + offset:

        none: 1     power: max(|Y|, 1)^alpha     gnmt: ((5 + |Y|) / 6)^alpha

    Log-probabilities are those of the full softmax: masks remove continuations and do not renormalise. A NaN logit
    counts as -inf, +inf as the largest float. Not differentiable.

    Reference: Wu et al. 2016, section 7, eq. 14, arXiv:1609.08144.
    Differs: candidates are ranked by log-probability; only ended (and closed) hypotheses are normalised.

    Args:
        state: from `BeamState.start` or the step before; its pool is sorted.
        offset: added to the score of whatever continues the beam, such as a coverage term.
        forced: the one token allowed in a sentence, before any other mask; -1 allows all.
        banned: tokens not allowed in a row; -1 fills up.
        penalised: tokens ranked lower by `penalty` for each time they are listed, at an unchanged log-probability; -1
            fills up.
        min_length: the end symbol is not allowed before this many tokens.
        first_beam: the number of the first row, for a search in groups.

    Raises:
        InputError: a size or a name that cannot be. RuntimeError: on the CPU, a log-probability of the state is NaN or
            +inf, or its pool is not sorted.
    """
    if not isinstance(state, BeamState):
        raise InputError(f"beam_step: `state` must be a BeamState, got {type(state).__name__}")
    read = {name: getattr(state, name) for name in READ}
    options = {"offset": offset, "forced": forced, "banned": banned, "penalised": penalised}
    check_tensors("beam_step", {"logits": logits, **read}, options)
    if logits.ndim != 3:
        raise InputError(f"beam_step: `logits` must have the shape [B, K, V], got {list(logits.shape)}")
    B, K, V = logits.shape
    if not isinstance(count_eos, bool):
        raise InputError(f"beam_step: `count_eos` must be True or False, got {count_eos!r}")
    if not -(2**31) <= first_beam < 2**31:
        raise InputError(f"beam_step: `first_beam` must be the number of a beam, got {first_beam}")
    if not -(2**31) <= min_length < 2**31:
        raise InputError(f"beam_step: `min_length` must be a number of tokens, got {min_length}")
    if length_penalty not in KINDS:
        raise InputError(f"beam_step: `length_penalty` must be one of {', '.join(KINDS)}, got {length_penalty!r}")
    if beam_size < 1:
        raise InputError(f"beam_step: `beam_size` must be at least 1, got {beam_size}")
    if not 0 <= eos < V:
        raise InputError(f"beam_step: `eos` must be a token below {V}, got {eos}")
    if not 0.0 <= alpha < float("inf") or not 0.0 <= penalty < float("inf"):
        raise InputError(f"beam_step: `alpha` and `penalty` must be finite and at least 0, got {alpha} and {penalty}")
    if state.logp.shape != (B, K):
        raise InputError(f"beam_step: `state` must be of {B} sentences with {K} beams, got {tuple(state.logp.shape)}")
    if _runs_kernel(logits.device, beams=max(K, beam_size), vocabulary=V):
        outputs = torch.ops.seqkit.beam_step(
            (logits if _taken_as_they_are(logits) else logits.float()).contiguous(),
            state.logp.contiguous(),
            state.lengths,
            state.finished_scores,
            state.finished_logp,
            state.finished_eos_logp,
            state.finished_lengths,
            state.finished_beams,
            state.n_finished,
            offset if offset is None else offset.float().contiguous(),
            forced if forced is None else forced.contiguous(),
            banned if banned is None else banned.contiguous(),
            penalised if penalised is None else penalised.contiguous(),
            penalty,
            beam_size,
            eos,
            min_length,
            KINDS[length_penalty],
            alpha,
            count_eos,
            first_beam,
        )
        return BeamState(*outputs)
    if logits.device.type == "cpu" and not torch.compiler.is_compiling():  # as the kernel does
        if not bool((state.logp < math.inf).all()):
            raise RuntimeError("beam_step: logp must be below infinity and not NaN, got one that is")
        if not bool((state.finished_scores[:, :-1] >= state.finished_scores[:, 1:]).all()):
            raise RuntimeError("beam_step: finished_scores must be sorted, best first, got others")
    return beam_step_reference(
        logits,
        state,
        eos=eos,
        beam_size=beam_size,
        length_penalty=length_penalty,
        alpha=alpha,
        count_eos=count_eos,
        min_length=min_length,
        offset=offset,
        forced=forced,
        banned=banned,
        penalised=penalised,
        penalty=penalty,
        first_beam=first_beam,
    )


def _taken_as_they_are(*logits: Tensor) -> bool:
    """Whether the kernel reads these numbers: float32, and where they are on a GPU one 16-bit kind, which it widens."""
    dtypes = {model.dtype for model in logits}
    return dtypes == {torch.float32} or (logits[0].is_cuda and dtypes in ({torch.float16}, {torch.bfloat16}))


def _runs_kernel(device: torch.device, *, beams: int = 1, vocabulary: int, models: int = 1) -> bool:
    fits = beams <= MOST_BEAMS_ON_CUDA and vocabulary <= MOST_TOKENS_ON_CUDA and models <= MOST_MODELS_ON_CUDA
    return (device.type == "cpu" or fits) and library.backend("beam_step", device) == "native"


def length_divisor(lengths: Int[Tensor, "*shape"], *, length_penalty: str, alpha: float) -> Float[Tensor, "*shape"]:
    """What a log-probability is divided by at each length; through double precision, so that every caller agrees."""
    if length_penalty == "none":
        return torch.ones_like(lengths, dtype=torch.float32)
    if length_penalty == "power":
        return lengths.clamp(min=1).double().pow(alpha).float()
    return ((lengths.double() + 5.0) / 6.0).pow(alpha).float()


def beam_step_reference(
    logits: Float[Tensor, "B K V"],
    state: BeamState,
    *,
    eos: int,
    beam_size: int,
    length_penalty: str = "power",
    alpha: float = 0.7,
    count_eos: bool = True,
    min_length: int = 0,
    offset: Float[Tensor, "B K"] | None = None,
    forced: Int[Tensor, " B"] | None = None,
    banned: Int[Tensor, "B K M"] | None = None,
    penalised: Int[Tensor, "B N"] | None = None,
    penalty: float = 0.0,
    first_beam: int = 0,
) -> BeamState:
    """`beam_step` in plain torch, and the definition of what it must return."""
    B, K, V = logits.shape
    C, F = 2 * beam_size, state.finished_scores.shape[1]
    if B == 0 or V == 0:
        return _empty(state, beam_size)
    token_logp = _log_softmax(logits)
    total = state.logp[:, :, None] + token_logp
    total = total.masked_fill(_masked(state, V, eos, min_length, forced, banned, K), NEVER)
    ranking = total if penalised is None else total - penalty * _counts(penalised, V)[:, None, :]

    # The candidates, best first.
    best, cell = _first_largest(ranking.flatten(1), C)  # [B, C], index into K * V
    missing = best == NEVER
    parents = (cell // V).masked_fill(missing, 0)
    tokens = (cell % V).masked_fill(missing, eos)
    logp = total.flatten(1).gather(1, cell).masked_fill(missing, NEVER)
    step_logp = token_logp.flatten(1).gather(1, cell).masked_fill(missing, NEVER)

    # Their fates.
    is_eos = tokens == eos
    rank = torch.arange(C, device=logits.device)
    ends = is_eos & ~missing & (rank < beam_size)
    lives = ~is_eos & ~missing

    # Their scores.
    length = torch.where(is_eos, state.lengths[:, None] + int(count_eos), state.lengths[:, None] + 1)
    scores = logp / length_divisor(length, length_penalty=length_penalty, alpha=alpha)
    if offset is not None:
        scores = scores + offset.float().gather(1, parents)
    scores = scores.masked_fill(missing, NEVER)

    # The live come first in the order of their rank; then the pool takes what has ended.
    order = (~lives).to(torch.uint8).sort(dim=1, stable=True).indices[:, :beam_size]
    empty = ~lives.gather(1, order)
    pool_scores = torch.cat([state.finished_scores, scores.masked_fill(~ends, NEVER)], dim=1)
    kept_scores, kept = pool_scores.sort(dim=1, descending=True, stable=True)
    kept_scores, kept = kept_scores[:, :F], kept[:, :F]

    def pooled(old: Tensor, new: Tensor, absent: float | int) -> Tensor:
        return torch.cat([old, new.masked_fill(~ends, absent)], dim=1).gather(1, kept)

    return BeamState(
        logp=logp.gather(1, order).masked_fill(empty, NEVER),
        scores=scores.gather(1, order).masked_fill(empty, NEVER),
        parents=parents.gather(1, order).masked_fill(empty, 0) + first_beam,
        tokens=tokens.gather(1, order).masked_fill(empty, eos),
        token_logp=step_logp.gather(1, order).masked_fill(empty, NEVER),
        lengths=state.lengths + 1,
        finished_scores=kept_scores,
        finished_logp=pooled(state.finished_logp, logp, NEVER),
        finished_eos_logp=pooled(state.finished_eos_logp, step_logp, NEVER),
        finished_lengths=pooled(state.finished_lengths, state.lengths[:, None].expand(B, C), -1),
        finished_beams=pooled(state.finished_beams, parents + first_beam, -1),
        n_finished=state.n_finished + ends.sum(dim=1),
        candidate_logp=logp,
        candidate_scores=scores,
        candidate_parents=parents + first_beam,
        candidate_tokens=tokens,
    )


def _log_softmax(logits: Float[Tensor, "B K V"]) -> Float[Tensor, "B K V"]:
    largest = torch.finfo(torch.float32).max
    clean = logits.float().nan_to_num(nan=NEVER, posinf=largest, neginf=NEVER)
    # A row of -inf alone has no distribution: log_softmax gives NaN there, which becomes -inf.
    return clean.log_softmax(dim=-1).clamp(max=0.0).nan_to_num(nan=NEVER, neginf=NEVER)


def _masked(
    state: BeamState, V: int, eos: int, min_length: int, forced: Tensor | None, banned: Tensor | None, K: int
) -> Tensor:
    """True where a continuation is not allowed: bool [B, K or 1, V]."""
    token = torch.arange(V, device=state.lengths.device)
    masked = ((state.lengths < min_length)[:, None] & (token == eos))[:, None, :]
    if banned is not None and banned.shape[2]:
        # Whatever is no token goes to an extra column that is cut off.
        index = banned.masked_fill((banned < 0) | (banned >= V), V)
        hit = torch.zeros(banned.shape[0], K, V + 1, dtype=torch.bool, device=banned.device)
        masked = masked | hit.scatter(2, index, True)[:, :, :V]
    if forced is not None:
        others = (token != forced[:, None])[:, None, :]
        masked = torch.where((forced >= 0)[:, None, None], others, masked)
    return masked


def _counts(tokens: Int[Tensor, "B N"], V: int) -> Float[Tensor, "B V"]:
    """How often each token is listed."""
    index = tokens.masked_fill((tokens < 0) | (tokens >= V), V)
    zeros = torch.zeros(tokens.shape[0], V + 1, dtype=torch.float32, device=tokens.device)
    return zeros.scatter_add(1, index, torch.ones_like(index, dtype=torch.float32))[:, :V]


def _first_largest(values: Float[Tensor, "B X"], n: int) -> tuple[Float[Tensor, "B n"], Int[Tensor, "B n"]]:
    """The n largest in order, equal ones in the order of their index; -inf at index 0 fills up.

    `topk` alone leaves the choice among equals open. Its values are exact, though: the n-th largest parts the row into
    larger, equal and smaller ones, and integer keys that never tie choose among the equal. A stable sort of the row
    is the same and takes 10 times as long at X = 160,000.
    """
    B, X = values.shape
    taken = min(n, X)
    smallest = values.topk(taken, dim=1).values[:, -1:]
    backwards = torch.arange(X, 0, -1, device=values.device)  # larger for the earlier index
    keys = torch.where(values > smallest, backwards + X, torch.where(values == smallest, backwards, 0))
    index = keys.topk(taken, dim=1).indices.sort(dim=1).values
    ordered, place = values.gather(1, index).sort(dim=1, descending=True, stable=True)
    index = index.gather(1, place)
    if taken == n:
        return ordered, index
    fill = (B, n - taken)
    return torch.cat([ordered, ordered.new_full(fill, NEVER)], 1), torch.cat([index, index.new_zeros(fill)], 1)


def _empty(state: BeamState, beam_size: int) -> BeamState:
    """The state after a step of no sentences."""
    live, candidates = state.logp.new_zeros(0, beam_size), state.logp.new_zeros(0, 2 * beam_size)
    return state._replace(
        logp=live,
        scores=live,
        parents=live.long(),
        tokens=live.long(),
        token_logp=live,
        candidate_logp=candidates,
        candidate_scores=candidates,
        candidate_parents=candidates.long(),
        candidate_tokens=candidates.long(),
    )


def mean_log_softmax(logits: list[Float[Tensor, "B K V"]]) -> Float[Tensor, "B K V"]:
    """The log of the average of several models' softmaxes: an ensemble's log-probabilities.

    log (1/n) sum_i softmax(logits_i)[v]. Each row of the result is a function of that row of each model alone.

    Raises:
        InputError: no model, or models that differ in shape.
    """
    if not logits:
        raise InputError("mean_log_softmax: `logits` must be of one model at least, got none")
    check_tensors("mean_log_softmax", {f"logits[{n}]": model for n, model in enumerate(logits)})
    if logits[0].ndim != 3:
        raise InputError(f"mean_log_softmax: `logits` must have the shape [B, K, V], got {list(logits[0].shape)}")
    if any(model.shape != logits[0].shape for model in logits):
        shapes = ", ".join(str(tuple(model.shape)) for model in logits)
        raise InputError(f"mean_log_softmax: `logits` must have one shape, got {shapes}")
    if _runs_kernel(logits[0].device, vocabulary=logits[0].shape[2], models=len(logits)):
        if not _taken_as_they_are(*logits):
            logits = [model.float() for model in logits]
        rows = [model.contiguous().flatten(0, 1) for model in logits]
        mean: Tensor = torch.ops.seqkit.mean_log_softmax(rows)
        return mean.view(logits[0].shape)
    return mean_log_softmax_reference(logits)


def mean_log_softmax_reference(logits: list[Float[Tensor, "B K V"]]) -> Float[Tensor, "B K V"]:
    """`mean_log_softmax` in plain torch."""
    logp = torch.stack([_log_softmax(model) for model in logits])
    return logp.logsumexp(dim=0) - math.log(len(logits))


def _beam_step_fake(
    logits: Tensor, logp: Tensor, lengths: Tensor, finished_scores: Tensor, *others: Any
) -> tuple[Tensor, ...]:
    given = (logits, logp, lengths, finished_scores, *others)
    check_tensors("beam_step", {f"argument {n}": x for n, x in enumerate(given) if isinstance(x, Tensor)})
    B, (_, F), K = logits.shape[0], finished_scores.shape, others[-7]

    def floats(width: Any) -> Tensor:  # Any: a size may be symbolic
        return logp.new_empty(B, width)  # logits may be of 16 bits

    def ints(*width: Any) -> Tensor:
        return lengths.new_empty(B, *width)

    live = floats(K), floats(K), ints(K), ints(K), floats(K), ints()
    finished = floats(F), floats(F), floats(F), ints(F), ints(F), ints()
    return (*live, *finished, floats(2 * K), floats(2 * K), ints(2 * K), ints(2 * K))


def _mean_log_softmax_fake(logits: list[Tensor]) -> Tensor:
    check_tensors("mean_log_softmax", {f"logits[{n}]": model for n, model in enumerate(logits)})
    return torch.empty_like(logits[0], dtype=torch.float32)


if library.is_built("beam_step"):
    torch.library.register_fake("seqkit::beam_step", _beam_step_fake)
    torch.library.register_fake("seqkit::mean_log_softmax", _mean_log_softmax_fake)
