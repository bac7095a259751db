"""CTC: the loss of a label sequence over all its alignments with the frames, a drop-in for torch's `ctc_loss`.

The kernels (csrc/ctc) keep a probability as a mantissa and an exponent of its own, not as a logarithm: no target is too
unlikely, a state costs no exponential, and gradients are exact to a float's last places where those of a float32
log-space recursion are not. The forward pass leaves T (L + 1) occupancies a sentence, and the backward pass reads the
frames once and writes the gradient once. A sentence's loss and gradient do not depend on padding, batch or threads.

The kernels of the CPU take float32 and float64; 16-bit tensors are converted to float32. Those of CUDA take float32,
float16 and bfloat16; float64 runs the reference there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_range, check_tensors, indices

Lengths = Int[Tensor, " B"] | Int[Tensor, ""] | Sequence[int]
REDUCTIONS = ("none", "mean", "sum")


def ctc_loss_reference(
    log_probs: Float[Tensor, "T B C"],
    targets: Int[Tensor, "B S"],
    input_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
    *,
    blank: int = 0,
    zero_infinity: bool = False,
) -> Float[Tensor, " B"]:
    """The loss of each sentence in plain torch, with the gradient that torch's `ctc_loss` has."""
    T, B, _ = log_probs.shape
    S = targets.shape[1]
    device = log_probs.device
    counts = torch.arange(T, device=device)[:, None] < input_lengths  # T B
    log_probs = log_probs.masked_fill(~counts[:, :, None], 0.0)  # what stands in the padding may be NaN
    states = torch.full((B, 2 * S + 1), blank, dtype=torch.int64, device=device)
    states[:, 1::2] = targets.masked_fill(torch.arange(S, device=device) >= target_lengths[:, None], blank)
    may_skip = torch.zeros(B, 2 * S + 1, dtype=torch.bool, device=device)
    may_skip[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]

    nothing = torch.finfo(log_probs.dtype).min / 4  # of log 0: finite, so that its gradient is 0 and not NaN
    emissions = log_probs.gather(2, states.expand(T, B, 2 * S + 1)).clamp(min=nothing)
    start = torch.full((B, 2), nothing, dtype=log_probs.dtype, device=device)  # in front of the first state
    alpha = torch.full((B, 2 * S + 1), nothing, dtype=log_probs.dtype, device=device)
    alpha[:, 0] = 0.0
    for t in range(T):
        padded = torch.cat([start, alpha], dim=1)
        skipping = padded[:, :-2].masked_fill(~may_skip, nothing)
        total = torch.logsumexp(torch.stack([alpha, padded[:, 1:-1], skipping]), dim=0)
        alpha = torch.where(counts[t, :, None], (total + emissions[t]).clamp(min=nothing), alpha)
    padded = torch.cat([start, alpha], dim=1)
    ends = padded.gather(1, 2 * target_lengths[:, None] + torch.tensor([1, 2], device=device))
    logp = torch.where(target_lengths == 0, ends[:, 1], torch.logsumexp(ends, dim=1))

    # The gradient of torch's loss is exp(log_probs) - occupancy, as behind a log-softmax: the mass of the counted
    # frames adds that first part and no value. Of an infinite loss it is NaN.
    mass = (log_probs.exp() * counts[:, :, None]).sum(dim=(0, 2))
    infinite = logp <= nothing / 2
    loss = -logp.masked_fill(infinite, 0.0) + (mass - mass.detach()).masked_fill(infinite, 0.0)
    if zero_infinity:
        return loss
    return torch.where(infinite, -torch.log(0.0 * torch.where(infinite, mass, 1.0)), loss)


class _CTCLoss(torch.autograd.Function):
    """The native kernels under autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        frames: Tensor,
        targets: Tensor,
        input_lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
        batch_first: bool,
        logits: bool,
        zero_infinity: bool,
    ) -> Tensor:
        losses, normalizers, occupancy = torch.ops.seqkit.ctc_loss(
            frames, targets, input_lengths, target_lengths, blank, batch_first, logits, True
        )
        ctx.save_for_backward(
            frames, targets, input_lengths, target_lengths, losses, normalizers if logits else None, occupancy
        )
        ctx.options = blank, batch_first, zero_infinity
        return _finite(losses) if zero_infinity else losses.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_losses: Tensor) -> tuple[Tensor | None, ...]:
        *given, losses, normalizers, occupancy = ctx.saved_tensors
        grad = torch.ops.seqkit.ctc_loss_backward(
            grad_losses.contiguous(), *given, *ctx.options, losses, normalizers, occupancy
        )
        return grad, *[None] * 7


def _finite(losses: Tensor) -> Tensor:
    return losses.masked_fill(losses == torch.inf, 0.0)


def ctc_loss(
    log_probs: Float[Tensor, "T B C"] | Float[Tensor, "T C"],
    targets: Int[Tensor, "B S"] | Int[Tensor, " N"],
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Float[Tensor, " B"] | Float[Tensor, ""]:
    """-log of the probability of each target, the sum over all its alignments with the frames.

    An alignment gives each frame a label or the blank; repeats are merged, then blanks dropped, so that equal labels in
    a row need a blank between them. A target that does not fit into its frames has the loss infinity.

    Reference: Graves et al. 2006, section 4.1; `torch.nn.functional.ctc_loss`, whose gradient of `log_probs` this is:
        exp(log_probs) - occupancy, right for the outputs of a log-softmax; NaN of an infinite loss.
    Differs: a label that is the blank or no class is refused (torch reads beyond its memory), no frames at all are
        allowed, 16-bit log-probabilities give a loss in float32, and the gradient of a log-probability of -infinity is
        0 where torch's is NaN.

    Args:
        log_probs: of the outputs of a log-softmax; without the axis B for one sentence.
        targets: padded, or of all sentences one after the other (on CUDA their lengths should then be integers: a
            tensor of lengths is waited for).
        input_lengths: frames of each sentence, from 0 to T.
        target_lengths: labels of each sentence, from 0 (all its frames are blank) to S.
        reduction: "none"; "mean" divides each loss by its target's length, at least 1, and averages; "sum".
        zero_infinity: infinite losses and their gradients become 0.

    Raises:
        InputError: shapes do not fit, blank is no class, the reduction is unknown. RuntimeError, on the CPU: a length
            or a label is out of range.
    """
    return _loss(
        "ctc_loss", log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity, logits=False
    )


def ctc_loss_from_logits(
    logits: Float[Tensor, "T B C"] | Float[Tensor, "T C"],
    targets: Int[Tensor, "B S"] | Int[Tensor, " N"],
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Float[Tensor, " B"] | Float[Tensor, ""]:
    """`ctc_loss` of the log-softmax of `logits`, which is never stored: the gradient is softmax - occupancy.

    Everything else, the errors too, is as in `ctc_loss`.
    """
    return _loss(
        "ctc_loss_from_logits",
        logits,
        targets,
        input_lengths,
        target_lengths,
        blank,
        reduction,
        zero_infinity,
        logits=True,
    )


def _loss(
    name: str,
    frames: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int,
    reduction: str,
    zero_infinity: bool,
    *,
    logits: bool,
) -> Tensor:
    where = f"ops.{name}"
    name_of_frames = "logits" if logits else "log_probs"
    check_tensors(where, {name_of_frames: frames, "targets": targets})
    if not frames.is_floating_point():
        raise InputError(f"{where}: {name_of_frames} must be of floats, got {frames.dtype}")
    if not isinstance(zero_infinity, bool):
        raise InputError(f"{where}: zero_infinity must be True or False, got {zero_infinity!r}")
    if reduction not in REDUCTIONS:
        raise InputError(f"{where}: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if frames.ndim not in (2, 3):
        raise InputError(f"{where}: {name_of_frames} must have two or three axes, got {frames.ndim}")
    single = frames.ndim == 2
    if single:
        frames = frames[:, None]
    _, B, C = frames.shape
    if not isinstance(blank, int) or not 0 <= blank < C:
        raise InputError(f"{where}: blank must be an integer from 0 to {C - 1}, got {blank!r}")
    device = frames.device
    counts = [
        _lengths(where, which, given, B, device)
        for which, given in (("input_lengths", input_lengths), ("target_lengths", target_lengths))
    ]
    targets = indices(where, "targets", targets)
    if targets.ndim == 1:
        targets = _padded(where, targets, target_lengths, counts[1])
    if targets.ndim != 2 or targets.shape[0] != B:
        raise InputError(f"{where}: targets must have the shape [{B}, S] or one axis, got {list(targets.shape)}")

    on_cpu = device.type == "cpu"
    if library.backend("ctc_loss", device) != "native" or (frames.dtype == torch.float64 and not on_cpu):
        check_problem(where, targets, counts[0], counts[1], frames.shape[0], C, blank)
        with torch.autocast(device.type, enabled=False):
            frames = frames.to(torch.promote_types(frames.dtype, torch.float32))
            if logits:  # what stands in the padding may be NaN
                padding = torch.arange(frames.shape[0], device=device)[:, None] >= counts[0]
                frames = frames.masked_fill(padding[:, :, None], 0.0).log_softmax(dim=-1)
            losses = ctc_loss_reference(frames, targets, *counts, blank=blank, zero_infinity=zero_infinity)
    else:
        if on_cpu:
            frames = frames.to(torch.promote_types(frames.dtype, torch.float32))
        batch_first = not frames.is_contiguous() and frames.transpose(0, 1).is_contiguous()
        given = (frames.transpose(0, 1) if batch_first else frames.contiguous(), targets.contiguous(), *counts)
        if torch.is_grad_enabled() and frames.requires_grad:
            losses = _CTCLoss.apply(*given, blank, batch_first, logits, zero_infinity)  # type: ignore[no-untyped-call]
        else:
            losses, _, _ = torch.ops.seqkit.ctc_loss(*given, blank, batch_first, logits, False)
            losses = _finite(losses) if zero_infinity else losses
    if reduction == "mean":
        return (losses / counts[1].clamp(min=1)).mean()
    if reduction == "sum":
        return losses.sum()
    return losses[0] if single else losses


def _lengths(where: str, name: str, given: Tensor | Sequence[int], B: int, device: torch.device) -> Tensor:
    """One int64 a sentence, on the device."""
    if not isinstance(given, Tensor):
        if not isinstance(given, list | tuple) or not all(isinstance(n, int) for n in given):
            raise InputError(f"{where}: {name} must be a tensor or a sequence of integers, got {given!r}")
        given = torch.tensor(given, dtype=torch.int64)
    lengths = indices(where, name, given.to(device))
    lengths = lengths[None] if lengths.ndim == 0 else lengths
    if lengths.shape != (B,):
        raise InputError(f"{where}: {name} must have the shape [{B}], got {list(lengths.shape)}")
    return lengths


def check_problem(
    where: str, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, T: int, C: int, blank: int
) -> None:
    """Raises RuntimeError, as the kernels do, for a length or a label that is out of range; on the CPU alone."""
    S = targets.shape[1]
    check_range(where, "input_lengths", input_lengths, 0, T)
    check_range(where, "target_lengths", target_lengths, 0, S)
    if targets.device.type != "cpu" or torch.compiler.is_compiling() or type(targets) is not Tensor:
        return
    read = targets[torch.arange(S) < target_lengths[:, None]]
    wrong = read[(read < 0) | (read >= C) | (read == blank)]
    if wrong.numel():
        got = int(wrong[0])
        raise RuntimeError(f"{where}: targets must be from 0 to {C - 1} and not the blank {blank}, got {got}")


def _padded(where: str, targets: Tensor, given: Tensor | Sequence[int], lengths: Tensor) -> Tensor:
    """Targets one after the other as rows."""
    sizes = [int(n) for n in (given.flatten().tolist() if isinstance(given, Tensor) else given)]
    if targets.shape[0] != sum(sizes) or any(n < 0 for n in sizes):
        raise InputError(f"{where}: targets must have as many labels as target_lengths add up to, {sum(sizes)}, "
                         f"got {targets.shape[0]}")  # fmt: skip
    if len(sizes) == 1:
        return targets[None]
    S = max(sizes, default=0)
    counts = torch.arange(S, device=targets.device) < lengths[:, None]
    return targets.new_zeros(len(sizes), S).masked_scatter(counts, targets)


def _fake_forward(
    frames: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    batch_first: bool,
    logits: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    given = {"frames": frames, "targets": targets}
    check_tensors("ctc_loss", {**given, "input_lengths": input_lengths, "target_lengths": target_lengths})
    B, T = frames.shape[:2] if batch_first else (frames.shape[1], frames.shape[0])
    real = torch.promote_types(frames.dtype, torch.float32)
    slots = torch.sym_min(targets.shape[1], T) + 1  # type: ignore[no-untyped-call]
    return (
        frames.new_empty(B, dtype=real),
        frames.new_empty((B, T) if logits else (0,), dtype=real),
        frames.new_empty((B, T, slots) if with_gradient else (0,), dtype=real),
    )


def _fake_backward(grad_losses: Tensor, frames: Tensor, *rest: object) -> Tensor:
    given = (grad_losses, frames, *rest)
    check_tensors("ctc_loss_backward", {f"argument {n}": x for n, x in enumerate(given) if isinstance(x, Tensor)})
    return frames.new_empty(frames.shape)


if library.is_built("ctc_loss"):
    torch.library.register_fake("seqkit::ctc_loss", _fake_forward)
    torch.library.register_fake("seqkit::ctc_loss_backward", _fake_backward)
