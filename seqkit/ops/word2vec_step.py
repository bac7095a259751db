"""A step of word2vec over a stretch of text: the rows of words move in place, one window after the other.

The kernels (csrc/word2vec_step) run on the CPU and on CUDA in float32; other floats, and on CUDA rows or windows that
do not fit (`covers`), run the reference, a loop over positions. On the CPU a step is deterministic. On CUDA it is not:
`concurrency` windows are under way at a time, and each meets the rows as the others have left them (Hogwild); no
addition to a row is lost.

There is no gradient: the step is its own optimiser, and touches a few rows of two large matrices, which autograd and an
optimiser would go over whole.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_range, check_tensors

WIDEST_ON_CUDA, LARGEST_WINDOW_ON_CUDA = 1024, 10_000  # as in csrc/word2vec_step/word2vec_step.h
MOST_WINDOW, MOST_CONCURRENCY = 1 << 10, 1 << 24


def covers(device: torch.device, *, dim: int, window: int) -> bool:
    """Whether a kernel takes rows of `dim` numbers and windows of `window` words on each side on the device."""
    return device.type == "cpu" or (dim <= WIDEST_ON_CUDA and 2 * window * max(dim, 64) <= LARGEST_WINDOW_ON_CUDA)


def word2vec_step_reference(
    inputs: Float[Tensor, "V D"],
    outputs: Float[Tensor, "V D"],
    ids: Int[Tensor, " L"],
    radii: Int[Tensor, " N"],
    negatives: Int[Tensor, "N n"],
    *,
    window: int,
    rate: float,
    begin: int = 0,
    negative_weight: float = 1.0,
    cbow: bool = False,
) -> tuple[Float[Tensor, " N"], Int[Tensor, " N"]]:
    """`word2vec_step` in plain torch: a loop over positions."""
    losses, pairs = inputs.new_zeros(len(radii)), torch.zeros_like(radii)
    words, reaches = ids.tolist(), radii.tolist()
    for position, radius in enumerate(reaches):
        t = begin + position
        if words[t] < 0:
            continue
        first = last = t
        while first > 0 and t - first < radius and words[first - 1] >= 0:
            first -= 1
        while last + 1 < len(words) and last - t < radius and words[last + 1] >= 0:
            last += 1
        around = torch.cat([ids[first:t], ids[t + 1 : last + 1]])
        if len(around) == 0:
            continue
        x = inputs[around]
        if cbow:
            x = x.mean(0, keepdim=True)
        named = torch.cat([ids[t : t + 1], negatives[position]])
        q = outputs[named]
        sign = torch.full_like(q[:, 0], -1.0)
        sign[0] = 1.0
        weight = torch.full_like(sign, negative_weight).masked_fill(named == ids[t], 0.0)
        weight[0] = 1.0
        right = sign * (x @ q.T)
        step = rate * weight * sign * torch.sigmoid(-right)
        losses[position] = -(weight * torch.nn.functional.logsigmoid(right)).sum()
        pairs[position] = len(x)
        inputs.index_add_(0, around, (step @ q).expand(len(around), -1))
        outputs.index_add_(0, named, step.T @ x)
    return losses, pairs


def word2vec_step(
    inputs: Float[Tensor, "V D"],
    outputs: Float[Tensor, "V D"],
    ids: Int[Tensor, " L"],
    radii: Int[Tensor, " N"],
    negatives: Int[Tensor, "N n"],
    *,
    window: int,
    rate: float,
    begin: int = 0,
    negative_weight: float = 1.0,
    cbow: bool = False,
    concurrency: int = 2048,
) -> tuple[Float[Tensor, " N"], Int[Tensor, " N"]]:
    """Moves `inputs` and `outputs` by the windows of positions begin .. begin + N - 1; their losses and pairs.

    For position t = begin + i with the word w = ids[t], each word c up to radii[i] positions away in its sentence, and
    the drawn words v = negatives[i], v ≠ w:

        loss = Σ_c [-log σ(inputs_c·outputs_w) - negative_weight Σ_v log σ(-inputs_c·outputs_v)],

    and all rows move by -rate times its gradient at the rows as they were before this window. With `cbow` the mean of
    the rows of the window takes the place of inputs_c, its sum over c of one term, and each of these rows moves by the
    whole step of the mean, as in word2vec.c.

    Reference: Mikolov et al. 2013, arXiv:1310.4546; Ji et al. 2016, arXiv:1604.04661 (negatives that a window shares).

    Args:
        ids: int32, the text; a negative number ends a sentence. Words beyond the positions stand in their windows too.
        radii: int32, from 0 (no window) to `window`.
        negatives: int32, the drawn words of each position; one that is drawn twice counts twice.
        window: the largest radius, up to 1,024.
        negative_weight: 5 / 7 lets seven drawn words count as five.
        concurrency: on CUDA, how many windows are under way at a time. A small vocabulary wants few: windows that meet
            the same rows add steps that know nothing of each other.

    Returns:
        The loss of each position and its number of pairs (with `cbow`, 1): zeros where there was no window.

    Raises:
        InputError: arguments do not fit together. RuntimeError: on the CPU, a word or a radius is out of range; on CUDA
            such a word ends its sentence or is not drawn, and a radius is cut.
    """
    _check(inputs, outputs, ids, radii, negatives)
    if not 1 <= window <= MOST_WINDOW:
        raise InputError(f"ops.word2vec_step: window must be from 1 to {MOST_WINDOW}, got {window}")
    if not 0 <= begin <= len(ids) - len(radii):
        most = len(ids) - len(radii)
        raise InputError(f"ops.word2vec_step: begin must be from 0 to {most}, the ids but the radii, got {begin}")
    largest = torch.finfo(torch.float32).max
    if not abs(rate) <= largest:
        raise InputError(f"ops.word2vec_step: rate must be finite in float32, got {rate}")
    if not 0 <= negative_weight <= largest:
        raise InputError(f"ops.word2vec_step: negative_weight must be 0 or more and finite, got {negative_weight}")
    if not 1 <= concurrency <= MOST_CONCURRENCY:
        raise InputError(f"ops.word2vec_step: concurrency must be from 1 to {MOST_CONCURRENCY}, got {concurrency}")
    fits = inputs.dtype == torch.float32 and covers(inputs.device, dim=inputs.shape[1], window=window)
    with torch.no_grad():
        if fits and library.backend("word2vec_step", inputs.device) == "native":
            losses, pairs = torch.ops.seqkit.word2vec_step.default(
                inputs, outputs, ids.contiguous(), radii.contiguous(), negatives.contiguous(), begin, window,
                rate, negative_weight, bool(cbow), concurrency,
            )  # fmt: skip
            return losses, pairs
        V = inputs.shape[0]
        check_range("ops.word2vec_step", "ids", ids, -(2**31), V - 1)
        check_range("ops.word2vec_step", "radii", radii, 0, window)
        check_range("ops.word2vec_step", "negatives", negatives, 0, V - 1)
        with torch.autocast(inputs.device.type, enabled=False):
            return word2vec_step_reference(
                inputs, outputs, ids, radii, negatives, window=window, rate=rate, begin=begin,
                negative_weight=negative_weight, cbow=cbow,
            )  # fmt: skip


def _check(inputs: Tensor, outputs: Tensor, ids: Tensor, radii: Tensor, negatives: Tensor) -> None:
    """Raises InputError for tensors that do not fit together."""
    rows, integers = {"inputs": inputs, "outputs": outputs}, {"ids": ids, "radii": radii, "negatives": negatives}
    check_tensors("ops.word2vec_step", {**rows, **integers})
    if inputs.ndim != 2 or inputs.numel() == 0:
        raise InputError(f"ops.word2vec_step: inputs must have a row and a number, got {list(inputs.shape)}")
    if ids.ndim != 1 or radii.ndim != 1:
        got = f"{list(ids.shape)} and {list(radii.shape)}"
        raise InputError(f"ops.word2vec_step: ids and radii must have one axis, got {got}")
    if negatives.ndim != 2 or len(negatives) != len(radii):
        wanted = f"[{len(radii)}, n]"
        raise InputError(f"ops.word2vec_step: negatives must have the shape {wanted}, got {list(negatives.shape)}")
    if outputs.shape != inputs.shape or outputs.dtype != inputs.dtype:
        other = f"{outputs.dtype} of shape {list(outputs.shape)}"
        raise InputError(f"ops.word2vec_step: outputs must be as inputs, {inputs.dtype}, got {other}")
    for name, x in rows.items():
        if not x.is_floating_point():
            raise InputError(f"ops.word2vec_step: {name} must be of floats, got {x.dtype}")
        if not x.is_contiguous():
            raise InputError(f"ops.word2vec_step: {name} must be contiguous to be moved in place, got other strides")
        if x.requires_grad and torch.is_grad_enabled():
            raise InputError(f"ops.word2vec_step: {name} must not require a gradient, since it moves by itself")
    for name, x in integers.items():
        if x.dtype != torch.int32:
            raise InputError(f"ops.word2vec_step: {name} must be int32, got {x.dtype}")


def _fake(
    inputs: Tensor,
    outputs: Tensor,
    ids: Tensor,
    radii: Tensor,
    negatives: Tensor,
    begin: int,
    window: int,
    rate: float,
    negative_weight: float,
    cbow: bool,
    concurrency: int,
) -> tuple[Tensor, Tensor]:
    rows = {"inputs": inputs, "outputs": outputs}
    check_tensors("word2vec_step", {**rows, "ids": ids, "radii": radii, "negatives": negatives})
    return inputs.new_empty(radii.shape[0]), radii.new_empty(radii.shape[0])


if library.is_built("word2vec_step"):
    torch.library.register_fake("seqkit::word2vec_step", _fake)
