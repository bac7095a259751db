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
    """Row parents[b, j] of each sentence b."""
    return x[torch.arange(x.shape[0], device=x.device)[:, None], parents]
