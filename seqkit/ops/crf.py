"""A linear-chain conditional random field over tag sequences: how likely the right tags are, and which are the best.

The kernels (csrc/crf) run on the CPU in float32 and float64, on CUDA in float32 for up to 50,000 positions and tags;
the rest runs the references, and 16-bit numbers are computed in float32. The likelihood's gradient, observed minus
expected counts, comes in the same pass over a sentence as the likelihood, so that autograd keeps nothing of the
recursion. A sentence's results are the same bits whatever else is in the batch.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_range, check_tensors, indices

MOST_ON_CUDA = 50_000  # kMostCrfCuda in csrc/crf/crf.h


def crf_log_likelihood_reference(
    emissions: Float[Tensor, "B T C"],
    tags: Int[Tensor, "B T"],
    transitions: Float[Tensor, "C C"],
    *,
    start: Float[Tensor, " C"] | None = None,
    end: Float[Tensor, " C"] | None = None,
    lengths: Int[Tensor, " B"] | None = None,
) -> Float[Tensor, " B"]:
    """`crf_log_likelihood` in plain torch, with gradients: a loop over positions."""
    B, T, C = emissions.shape
    zeros = emissions.new_zeros(C)
    start, end = zeros if start is None else start, zeros if end is None else end
    lengths = torch.full((B,), T, device=emissions.device) if lengths is None else lengths
    counts = torch.arange(T, device=emissions.device) < lengths[:, None]  # B T
    emissions = emissions.masked_fill(~counts[:, :, None], 0.0)
    tags = tags.masked_fill(~counts, 0)
    observed = emissions.gather(2, tags[:, :, None])[:, :, 0].sum(1)
    steps = transitions[tags[:, :-1], tags[:, 1:]].masked_fill(~counts[:, 1:], 0.0)
    last = tags.gather(1, lengths[:, None] - 1)[:, 0]
    score = observed + steps.sum(1) + start[tags[:, 0]] + end[last]
    alpha = start + emissions[:, 0]  # B C
    for t in range(1, T):
        after = torch.logsumexp(alpha[:, :, None] + transitions, dim=1) + emissions[:, t]
        alpha = torch.where(counts[:, t, None], after, alpha)
    return score - torch.logsumexp(alpha + end, dim=1)


class _CrfLogLikelihood(torch.autograd.Function):
    """The kernel under autograd: what it saves are the gradients, one a sentence."""

    @staticmethod
    def forward(
        ctx: Any, emissions: Tensor, tags: Tensor, transitions: Tensor, start: Tensor, end: Tensor, lengths: Tensor
    ) -> Tensor:
        log_likelihood, *grads = torch.ops.seqkit.crf_log_likelihood(
            emissions, tags, transitions, start, end, lengths, True
        )
        ctx.save_for_backward(*grads)
        return log_likelihood

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        emissions, transitions, start, end = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            emissions * grad[:, None, None] if wanted[0] else None,
            None,
            (transitions * grad[:, None, None]).sum(0) if wanted[2] else None,
            (start * grad[:, None]).sum(0) if wanted[3] else None,
            (end * grad[:, None]).sum(0) if wanted[4] else None,
            None,
        )


def _check(
    where: str, emissions: Tensor, transitions: Tensor, start: Tensor | None, end: Tensor | None, lengths: Tensor | None
) -> None:
    """Raises InputError for arguments that do not fit together."""
    given = {"emissions": emissions, "transitions": transitions}
    check_tensors(f"ops.{where}", given, {"start": start, "end": end, "lengths": lengths})
    if emissions.ndim != 3:
        raise InputError(f"ops.{where}: emissions must have the shape [B, T, C], got {list(emissions.shape)}")
    B, T, C = emissions.shape
    if T == 0 or C == 0:
        got = list(emissions.shape)
        raise InputError(f"ops.{where}: emissions must have a position and a tag, got the shape {got}")
    numbers = {"transitions": (transitions, (C, C)), "start": (start, (C,)), "end": (end, (C,))}
    for name, (x, shape) in {**numbers, "lengths": (lengths, (B,))}.items():
        if x is not None and x.shape != shape:
            raise InputError(f"ops.{where}: {name} must have the shape {list(shape)}, got {list(x.shape)}")
    for name, x in (("emissions", emissions), *((name, x) for name, (x, _) in numbers.items())):
        if x is not None and not x.is_floating_point():
            raise InputError(f"ops.{where}: {name} must be of floats, got {x.dtype}")


def _runs_kernel(where: str, emissions: Tensor) -> bool:
    on_cpu, (_, T, C) = emissions.device.type == "cpu", emissions.shape
    covered = on_cpu or (emissions.dtype != torch.float64 and T + 2 * C <= MOST_ON_CUDA)
    return covered and library.backend(where, emissions.device) == "native"


def _prepared(
    where: str, emissions: Tensor, transitions: Tensor, start: Tensor | None, end: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What the kernels take: float32 or float64, contiguous, nothing missing."""
    B, T, C = emissions.shape
    real = torch.promote_types(emissions.dtype, torch.float32)
    # Not one tensor of zeros for both: dynamo refuses an autograd function that is given the same tensor twice.
    ends = (emissions.new_zeros(C) if x is None else x for x in (start, end))
    numbers = [x.to(real).contiguous() for x in (emissions, transitions, *ends)]
    if lengths is None:
        counts = torch.full((B,), T, device=emissions.device)
    else:
        counts = indices(f"ops.{where}", "lengths", lengths)
    return numbers[0], numbers[1], numbers[2], numbers[3], counts


def crf_log_likelihood(
    emissions: Float[Tensor, "B T C"],
    tags: Int[Tensor, "B T"],
    transitions: Float[Tensor, "C C"],
    *,
    start: Float[Tensor, " C"] | None = None,
    end: Float[Tensor, " C"] | None = None,
    lengths: Int[Tensor, " B"] | None = None,
) -> Float[Tensor, " B"]:
    """The log-probability of each sentence's tags; the loss of a tagger is minus its mean.

    log p(y) = score(y) - log Σ_y' exp(score(y')),
    score(y) = start[y_0] + Σ_t emissions[t, y_t] + Σ_t transitions[y_{t-1}, y_t] + end[y_last].

    Reference: Lafferty et al. 2001; Collobert et al. 2011, 3.4.2, arXiv:1103.0398.

    Args:
        tags: int64, 0 to C - 1 up to a sentence's length; what stands beyond is not read.
        transitions: from the row's tag to the column's; -inf forbids, as it does in `start` and `end`.
        lengths: int64, the positions of a sentence that count, from 1 to T; all by default.

    Raises:
        InputError: shapes do not fit. RuntimeError: on the CPU, a tag or a length is out of range; on CUDA it is cut.
    """
    _check("crf_log_likelihood", emissions, transitions, start, end, lengths)
    check_tensors("ops.crf_log_likelihood", {"emissions": emissions, "tags": tags})
    if tags.shape != emissions.shape[:2]:
        wanted = list(emissions.shape[:2])
        raise InputError(f"ops.crf_log_likelihood: tags must have the shape {wanted}, got {list(tags.shape)}")
    given = _prepared("crf_log_likelihood", emissions, transitions, start, end, lengths)
    labels = indices("ops.crf_log_likelihood", "tags", tags)
    if not _runs_kernel("crf_log_likelihood", emissions):
        numbers, counts = given[:4], given[4]
        check_range("ops.crf_log_likelihood", "lengths", counts, 1, emissions.shape[1])
        counted = torch.arange(emissions.shape[1], device=tags.device) < counts[:, None]
        check_range("ops.crf_log_likelihood", "tags", labels.masked_fill(~counted, 0), 0, emissions.shape[2] - 1)
        with torch.autocast(emissions.device.type, enabled=False):  # a sum of exponentials wants float32
            return crf_log_likelihood_reference(
                numbers[0], labels, numbers[1], start=numbers[2], end=numbers[3], lengths=counts
            )
    if torch.is_grad_enabled() and any(x.requires_grad for x in given[:4]):
        result: Tensor = _CrfLogLikelihood.apply(given[0], labels, *given[1:])  # type: ignore[no-untyped-call]
        return result
    result = torch.ops.seqkit.crf_log_likelihood.default(given[0], labels, *given[1:], False)[0]
    return result


def crf_decode_reference(
    emissions: Float[Tensor, "B T C"],
    transitions: Float[Tensor, "C C"],
    *,
    start: Float[Tensor, " C"] | None = None,
    end: Float[Tensor, " C"] | None = None,
    lengths: Int[Tensor, " B"] | None = None,
    n_best: int = 1,
) -> tuple[Int[Tensor, "B N T"], Float[Tensor, "B N"]]:
    """`crf_decode` in plain torch, in float64: Viterbi with a list of the best at every tag."""
    B, T, _ = emissions.shape
    given = _prepared("crf_decode", emissions, transitions, start, end, lengths)
    doubles = [x.double() for x in given[:4]]
    all_tags = torch.full((B, n_best, T), -1, dtype=torch.int64, device=emissions.device)
    all_scores = torch.full((B, n_best), -torch.inf, dtype=given[0].dtype, device=emissions.device)

    def best_of(scores: Tensor) -> tuple[Tensor, Tensor]:
        """The n best of the last axis, the earlier of equals first; -inf fills up."""
        ordered, places = scores.sort(dim=-1, descending=True, stable=True)
        short = max(n_best - scores.shape[-1], 0)
        padding = torch.nn.functional.pad
        return padding(ordered[..., :n_best], (0, short), value=-torch.inf), padding(places[..., :n_best], (0, short))

    for b in range(B):
        n = int(given[4][b])
        here, came_from = best_of((doubles[2] + doubles[0][b, 0])[:, None])  # C N
        back = [came_from]
        for t in range(1, n):
            offers = here[:, :, None] + doubles[1][:, None, :] + doubles[0][b, t]  # from, rank, to
            here, came_from = best_of(offers.flatten(0, 1).T)
            back.append(came_from)
        scores, places = best_of((here + doubles[3][:, None]).flatten())
        all_scores[b] = scores.to(all_scores.dtype)
        for path in range(n_best):
            place = int(places[path])
            for t in range(n - 1, -1, -1) if scores[path] > -torch.inf else ():
                all_tags[b, path, t] = place // n_best
                place = int(back[t][place // n_best, place % n_best])
    return all_tags, all_scores


def crf_decode(
    emissions: Float[Tensor, "B T C"],
    transitions: Float[Tensor, "C C"],
    *,
    start: Float[Tensor, " C"] | None = None,
    end: Float[Tensor, " C"] | None = None,
    lengths: Int[Tensor, " B"] | None = None,
    n_best: int = 1,
) -> tuple[Int[Tensor, "B N T"], Float[Tensor, "B N"]]:
    """The `n_best` tag sequences of each sentence and their scores, best first (Viterbi).

    The score is that of `crf_log_likelihood`, not normalised. Of equal scores the one with the lower tag comes first,
    compared from the last position back. Beyond a sentence's length, and where a sentence has fewer sequences that are
    not forbidden, tags are -1; such a sequence scores -inf. Not differentiable.

    Reference: Viterbi 1967; Seshadri and Sundberg 1994 (list decoding).

    Args:
        transitions, start, end, lengths: as in `crf_log_likelihood`.
        n_best: from 1 to 1,024.

    Raises:
        InputError: shapes do not fit. RuntimeError: on the CPU, a length is out of range; on CUDA it is cut.
    """
    _check("crf_decode", emissions, transitions, start, end, lengths)
    if not isinstance(n_best, int) or not 1 <= n_best <= 1024:
        raise InputError(f"ops.crf_decode: n_best must be from 1 to 1024, got {n_best}")
    given = tuple(x.detach() for x in _prepared("crf_decode", emissions, transitions, start, end, lengths))
    if not _runs_kernel("crf_decode", emissions):
        check_range("ops.crf_decode", "lengths", given[4], 1, emissions.shape[1])
        return crf_decode_reference(given[0], given[1], start=given[2], end=given[3], lengths=given[4], n_best=n_best)
    tags, scores = torch.ops.seqkit.crf_decode.default(*given, n_best)
    return tags, scores


def _fake_log_likelihood(
    emissions: Tensor, tags: Tensor, transitions: Tensor, start: Tensor, end: Tensor, lengths: Tensor, gradient: bool
) -> tuple[Tensor, ...]:
    numbers = {"emissions": emissions, "tags": tags, "transitions": transitions, "start": start, "end": end}
    check_tensors("crf_log_likelihood", {**numbers, "lengths": lengths})
    B, T, C = emissions.shape
    shapes: tuple[tuple[Any, ...], ...] = ((B, T, C), (B, C, C), (B, C), (B, C)) if gradient else ((0,),) * 4
    return emissions.new_empty(B), *(emissions.new_empty(shape) for shape in shapes)


def _fake_decode(
    emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor, lengths: Tensor, n_best: int
) -> tuple[Tensor, Tensor]:
    numbers = {"emissions": emissions, "transitions": transitions, "start": start, "end": end}
    check_tensors("crf_decode", {**numbers, "lengths": lengths})
    B, T, _ = emissions.shape
    return emissions.new_empty(B, n_best, T, dtype=torch.int64), emissions.new_empty(B, n_best)


if library.is_built("crf_log_likelihood"):
    torch.library.register_fake("seqkit::crf_log_likelihood", _fake_log_likelihood)
    torch.library.register_fake("seqkit::crf_decode", _fake_decode)
