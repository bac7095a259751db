"""Forced alignment: the most probable way of a label sequence through the frames of a CTC model, for a whole batch.

The kernels (csrc/ctc) keep a byte for each state and frame. A sentence's alignment does not depend on padding, batch or
threads, and ties have one answer.

The kernels of the CPU take float32 and float64; 16-bit tensors are converted to float32. Those of CUDA take float32,
float16 and bfloat16; float64 runs the reference there.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_tensors, indices
from seqkit.ops.ctc_loss import check_problem


def viterbi_align_reference(
    log_probs: Float[Tensor, "B T C"],
    targets: Int[Tensor, "B S"],
    input_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
    *,
    blank: int = 0,
) -> tuple[Int[Tensor, "B T"], Float[Tensor, " B"]]:
    """`viterbi_align` in plain torch."""
    B, T, _ = log_probs.shape
    S = targets.shape[1]
    device = log_probs.device
    states = torch.full((B, 2 * S + 1), blank, dtype=torch.int64, device=device)
    states[:, 1::2] = targets.masked_fill(torch.arange(S, device=device) >= target_lengths[:, None], blank)
    may_skip = torch.zeros(B, 2 * S + 1, dtype=torch.bool, device=device)
    may_skip[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]

    best = torch.full((B, 2 * S + 1), -torch.inf, dtype=log_probs.dtype, device=device)
    best[:, 0] = 0.0
    moves = torch.zeros(B, T, 2 * S + 1, dtype=torch.int64, device=device)  # how many states a path moved up
    for t in range(T):
        score, moved = best, moves[:, t]
        for by in (1, 2):
            other = torch.full_like(best, -torch.inf)
            other[:, by:] = best[:, : 2 * S + 1 - by]
            if by == 2:
                other = other.masked_fill(~may_skip, -torch.inf)
            moved.masked_fill_(other > score, by)
            score = torch.where(other > score, other, score)
        emission = log_probs[:, t].gather(1, states)
        best = torch.where((t < input_lengths)[:, None], score + emission, best)

    state = 2 * target_lengths[:, None]
    before = (state - 1).clamp(min=0)
    on_label = (target_lengths[:, None] > 0) & (best.gather(1, before) > best.gather(1, state))
    state = torch.where(on_label, before, state)
    scores = best.gather(1, state)[:, 0]
    labels = torch.full((B, T), -1, dtype=torch.int64, device=device)
    for t in reversed(range(T)):
        counts = (t < input_lengths) & (scores != -torch.inf)
        labels[:, t] = torch.where(counts, states.gather(1, state)[:, 0], -1)
        state = torch.where(counts[:, None], state - moves[:, t].gather(1, state), state)
    return labels, scores


def viterbi_align(
    log_probs: Float[Tensor, "B T C"],
    targets: Int[Tensor, "B S"],
    input_lengths: Int[Tensor, " B"],
    target_lengths: Int[Tensor, " B"],
    *,
    blank: int = 0,
) -> tuple[Int[Tensor, "B T"], Float[Tensor, " B"]]:
    """The label of each frame, blanks included, in the most probable alignment of each target; and its log-probability.

    Merging repeats and dropping blanks gives the target back; equal labels in a row have a blank between them, so that
    a new run of frames is always a new label. Of equally probable ways to a state, the one that stays in it wins, then
    the one that moves up by one, then the one that skips a blank; of equally probable ends, the blank.

    Beyond a sentence's length the labels are -1. A target that does not fit into its frames, or is impossible, has the
    score -infinity and labels of -1. An empty target is all blank. The scores have no gradient.

    Reference: Graves et al. 2006, section 3.2, with the target given; `torchaudio.functional.forced_align`.

    Args:
        input_lengths: frames of each sentence, from 0 to T.
        target_lengths: labels of each sentence, from 0 to S.

    Raises:
        InputError: shapes do not fit, blank is no class. RuntimeError, on the CPU: a length or a label is out of range.
    """
    given = {"log_probs": log_probs, "targets": targets}
    check_tensors("ops.viterbi_align", {**given, "input_lengths": input_lengths, "target_lengths": target_lengths})
    if log_probs.ndim != 3:
        raise InputError(f"ops.viterbi_align: log_probs must have three axes, got {log_probs.ndim}")
    B, _, C = log_probs.shape
    if not log_probs.is_floating_point():
        raise InputError(f"ops.viterbi_align: log_probs must be of floats, got {log_probs.dtype}")
    if not isinstance(blank, int) or not 0 <= blank < C:
        raise InputError(f"ops.viterbi_align: blank must be an integer from 0 to {C - 1}, got {blank!r}")
    if targets.ndim != 2 or targets.shape[0] != B:
        raise InputError(f"ops.viterbi_align: targets must have the shape [{B}, S], got {list(targets.shape)}")
    for name, lengths in (("input_lengths", input_lengths), ("target_lengths", target_lengths)):
        if lengths.shape != (B,):
            raise InputError(f"ops.viterbi_align: {name} must have the shape [{B}], got {list(lengths.shape)}")
    device = log_probs.device
    whole = [
        indices("ops.viterbi_align", name, x)
        for name, x in (("targets", targets), ("input_lengths", input_lengths), ("target_lengths", target_lengths))
    ]
    frames, on_cpu = log_probs.detach(), device.type == "cpu"
    native = library.backend("viterbi_align", device) == "native" and (on_cpu or frames.dtype != torch.float64)
    if on_cpu or not native:
        frames = frames.to(torch.promote_types(frames.dtype, torch.float32))
    if not native:
        check_problem("ops.viterbi_align", whole[0], whole[1], whole[2], log_probs.shape[1], C, blank)
        return viterbi_align_reference(frames, *whole, blank=blank)
    batch_first = frames.is_contiguous() or not frames.transpose(0, 1).is_contiguous()
    frames = frames.contiguous() if batch_first else frames.transpose(0, 1)
    labels, scores = torch.ops.seqkit.viterbi_align(frames, *whole, blank, batch_first)
    return labels, scores


def _fake(
    frames: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int, batch_first: bool
) -> tuple[Tensor, Tensor]:
    given = {"frames": frames, "targets": targets}
    check_tensors("viterbi_align", {**given, "input_lengths": input_lengths, "target_lengths": target_lengths})
    B, T = frames.shape[:2] if batch_first else (frames.shape[1], frames.shape[0])
    real = torch.promote_types(frames.dtype, torch.float32)
    return frames.new_empty((B, T), dtype=torch.int64), frames.new_empty(B, dtype=real)


if library.is_built("viterbi_align"):
    torch.library.register_fake("seqkit::viterbi_align", _fake)
