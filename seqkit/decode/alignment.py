"""Forced alignment: when a CTC model says each token of a known text, and how surely.

`ops.viterbi_align` finds the most probable way of the text through the frames; a token's span is the run of frames that
carry its label there. CTC models are late and short: a run is often one or two frames long, near the end of the sound,
and the blanks around it belong to no token. So the begin of a span is a better mark than its length.

The confidence of a token is the mean probability of its label over the frames of its span, as in torchaudio's
`merge_tokens`; that of a word is the least of its tokens'. A probability says how the model sees the frame, not how
often it is right: on a model that is too sure of itself, so are these.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqkit.errors import InputError
from seqkit.ops import viterbi_align


class Span(NamedTuple):
    """A token, or a word, and when it is said."""

    text: str
    begin: float  # in frames, or in seconds where `frame_seconds` is given
    end: float  # of its last frame, so that a span of one frame is not empty
    confidence: float  # 0 to 1


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """The spans of a text's tokens in their order."""

    tokens: tuple[Span, ...]
    logp: float  # of the one alignment, not of the text, whose other alignments count too

    def words(self, space: str = " ") -> tuple[Span, ...]:
        """The spans of the words, which stand between tokens that are `space`."""
        return join_words(self.tokens, space)


def align(
    log_probs: Float[Tensor, "B T C"],
    targets: Int[Tensor, "B S"],
    lengths: Int[Tensor, " B"] | None = None,
    target_lengths: Int[Tensor, " B"] | None = None,
    *,
    labels: Sequence[str],
    blank: int = 0,
    frame_seconds: float = 1.0,
) -> list[Alignment | None]:
    """When each label of each target is said; None for a target that does not fit into its frames.

    Reference: Graves et al. 2006, section 3.2; Kürzinger et al. 2020, arXiv:2007.09127.

    Args:
        log_probs: outputs of a log-softmax.
        lengths: frames of each sentence, from 0 to T; all by default.
        target_lengths: labels of each target, from 0 to S; all by default.
        labels: the text of each class.
        frame_seconds: how long a frame is; by default spans are in frames.

    Raises:
        InputError: shapes do not fit, or an option is out of range. RuntimeError, on the CPU: a length or a label is.
    """
    where = "align"
    if log_probs.ndim != 3 or targets.ndim != 2 or log_probs.shape[0] != targets.shape[0]:
        raise InputError(
            f"{where}: log_probs must have the shape [B, T, C] and targets [B, S], "
            f"got {list(log_probs.shape)} and {list(targets.shape)}"
        )
    check_labels(where, labels, log_probs.shape[2], frame_seconds)
    B, T, _ = log_probs.shape
    frames = torch.full((B,), T) if lengths is None else lengths
    counts = torch.full((B,), targets.shape[1]) if target_lengths is None else target_lengths
    path, logp = viterbi_align(
        log_probs, targets, frames.to(log_probs.device), counts.to(log_probs.device), blank=blank
    )
    spans = path_spans(log_probs, path, labels, blank=blank, frame_seconds=frame_seconds)
    return [
        Alignment(tokens=tokens, logp=score) if score > -math.inf else None
        for tokens, score in zip(spans, logp.tolist(), strict=True)
    ]


def path_spans(
    log_probs: Float[Tensor, "B T C"],
    path: Int[Tensor, "B T"],
    labels: Sequence[str],
    *,
    blank: int,
    frame_seconds: float = 1.0,
) -> list[tuple[Span, ...]]:
    """The runs of equal labels in each path, without the blanks and what is -1."""
    B, T = path.shape
    here = torch.arange(T, device=path.device)
    before = torch.nn.functional.pad(path, (1, 0), value=-1)[:, :T]
    new = torch.where(path != before, here, T)
    next_new = new.flip(1).cummin(dim=1).values.flip(1)[:, 1:]
    after = torch.nn.functional.pad(next_new, (0, 1), value=T)  # where the next run begins
    said = (path >= 0) & (path != blank)
    probs = log_probs.detach().gather(2, path.clamp(min=0)[:, :, None])[:, :, 0].exp()  # B T
    summed = torch.nn.functional.pad(probs.double().cumsum(dim=1), (1, 0))
    rows, begins = (said & (new == here)).nonzero(as_tuple=True)
    ends = after[rows, begins]
    means = (summed[rows, ends] - summed[rows, begins]) / (ends - begins)
    found: list[list[Span]] = [[] for _ in range(B)]
    columns = (rows, path[rows, begins], begins * frame_seconds, ends * frame_seconds, means.clamp(max=1.0))
    for row, label, begin, end, mean in zip(*(column.tolist() for column in columns), strict=True):
        found[row].append(Span(labels[label], begin, end, mean))
    return [tuple(spans) for spans in found]


def join_words(tokens: Iterable[Span], space: str = " ") -> tuple[Span, ...]:
    """The words that the tokens spell: what stands between tokens that are `space`, as sure as their least sure one."""
    words = []
    for is_space, run in itertools.groupby(tokens, lambda token: token.text == space):
        if not is_space:
            letters = list(run)
            words.append(
                Span(
                    text="".join(letter.text for letter in letters),
                    begin=letters[0].begin,
                    end=letters[-1].end,
                    confidence=min(letter.confidence for letter in letters),
                )
            )
    return tuple(words)


def check_labels(where: str, labels: Sequence[str], n_classes: int, frame_seconds: float) -> None:
    """Whether there is a label for each class, and frames have a length."""
    if len(labels) != n_classes:
        raise InputError(f"{where}: labels must be one for each of {n_classes} classes, got {len(labels)}")
    if not 0 < frame_seconds < math.inf:
        raise InputError(f"{where}: frame_seconds must be above 0 and finite, got {frame_seconds}")
