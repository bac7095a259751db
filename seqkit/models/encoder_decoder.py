"""What the encoder-decoder families share: their source, and how decoding state follows the hypotheses of a beam."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Source(NamedTuple):
    """A padded batch of source sentences, and whether the decoder is to say where it looks."""

    tokens: Int[Tensor, "B S"]
    lengths: Int[Tensor, " B"]
    want_attention: bool = False


def take_beams(x: Float[Tensor, "B K *rest"], parents: Int[Tensor, "B K2"]) -> Float[Tensor, "B K2 *rest"]:
    """Row parents[b, j] of each sentence b.

    As `index_select` over all rows, which copies a row at a time: indexing with two tensors took five times as long.
    """
    n_sentences, n_beams = x.shape[:2]
    rows = parents + n_beams * torch.arange(n_sentences, device=x.device)[:, None]
    return x.flatten(0, 1).index_select(0, rows.flatten()).view(*parents.shape, *x.shape[2:])
