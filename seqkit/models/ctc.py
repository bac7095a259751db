"""A CTC model: labels of frames without an alignment. Subsampling in time, a sequence encoder, an affine map, softmax.

    x_t = relu(W [f_{2t-1}; f_{2t}; f_{2t+1}] + b)        once a factor of two
    p(c | t) = softmax(V h_t + a)_c                       h the encoder's states; class 0 is the blank

The frames may be of anything that is read in order: sound, or the columns of a line of handwriting. The subsampling is
a convolution of width 3 and stride 2, written as an affine map of three frames, so that at inference a recording's
result depends on no other in its batch.

Reference: Graves et al. 2006 (CTC); Graves and Jaitly 2014 (a deep bidirectional LSTM); the subsampling of Dong et al.
2018, section 3.3 (Speech-Transformer), there over time and frequency.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.config import option
from seqkit.errors import InputError
from seqkit.nn.dropout import locked_dropout
from seqkit.nn.linear import Linear
from seqkit.nn.losses import ctc_losses
from seqkit.nn.sequence_encoder import ENCODERS, SequenceEncoder

BLANK = 0


@dataclass(frozen=True, kw_only=True)
class CTCConfig:
    """The shape of a CTC model."""

    subsampling: int = option(2, "frames that become one before the encoder: 1, 2 or 4")
    subsampling_dim: int = option(128, "width of those frames")
    encoder: str = option("lstm", "what reads them", choices=ENCODERS)
    hidden_dim: int = option(128, "units of a layer, in each direction")
    n_layers: int = option(2, "stacked layers")
    bidirectional: bool = option(True, "recurrent layers read both ways")
    n_heads: int = option(4, "of a Transformer")
    dropout: float = option(0.2, "between layers and on what the encoder gives")

    def __post_init__(self) -> None:
        if self.subsampling not in (1, 2, 4):
            raise InputError(f"ctc: `subsampling` must be 1, 2 or 4, got {self.subsampling}")
        for name in ("subsampling_dim", "hidden_dim", "n_layers", "n_heads"):
            if getattr(self, name) < 1:
                raise InputError(f"ctc: `{name}` must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"ctc: `dropout` must be in [0, 1), got {self.dropout}")


class HalfRate(nn.Module):
    """Every second frame with its two neighbours, through an affine map and a rectifier; beyond the ends are zeros."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.affine = Linear(3 * input_dim, output_dim, activation="relu")

    def forward(
        self, x: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B half H"], Int[Tensor, " B"]]:
        """x must be zero beyond its length, and so is what comes out."""
        half = (x.shape[1] + 1) // 2
        padded = F.pad(x, (0, 0, 1, 1 + x.shape[1] % 2))
        windows = torch.cat([padded[:, at : at + 2 * half : 2] for at in range(3)], dim=2)  # B half 3*D
        halved = (lengths + 1) // 2
        counts = torch.arange(half, device=x.device) < halved[:, None]
        return self.affine(windows).masked_fill(~counts[:, :, None], 0.0), halved


class CTCModel(nn.Module):
    """Log-probabilities of the labels and the blank at each frame that is left.

    Args:
        input_dim: numbers of a frame.
        n_labels: with the blank, which is label 0.
    """

    def __init__(self, config: CTCConfig, *, input_dim: int, n_labels: int) -> None:
        super().__init__()
        self.config = config
        self.halvings = nn.ModuleList()
        for _ in range(config.subsampling.bit_length() - 1):
            self.halvings.append(HalfRate(input_dim, config.subsampling_dim))
            input_dim = config.subsampling_dim
        self.encoder = SequenceEncoder(
            config.encoder, input_dim, config.hidden_dim, n_layers=config.n_layers,
            bidirectional=config.bidirectional, dropout=config.dropout, n_heads=config.n_heads,
        )  # fmt: skip
        self.output = Linear(self.encoder.output_dim, n_labels)

    def n_frames(self, frames: Int[Tensor, "*B"]) -> Int[Tensor, "*B"]:
        """How many frames are left of so many."""
        for _ in self.halvings:
            frames = (frames + 1) // 2
        return frames

    def logits(
        self, features: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B frames C"], Int[Tensor, " B"]]:
        """What the softmax is taken of, and how many frames of each are left; what stands beyond them is undefined."""
        counts = torch.arange(features.shape[1], device=features.device) < lengths[:, None]
        x = features.masked_fill(~counts[:, :, None], 0.0)
        for halving in self.halvings:
            x, lengths = halving(x, lengths)
        states = locked_dropout(self.encoder(x, lengths), self.config.dropout, self.training)
        return self.output(states), lengths

    def forward(
        self, features: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B frames C"], Int[Tensor, " B"]]:
        """Log-probabilities, and how many frames of each are left."""
        logits, lengths = self.logits(features, lengths)
        return logits.float().log_softmax(-1), lengths

    def loss(
        self, features: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"], targets: Int[Tensor, "B S"],
        target_lengths: Int[Tensor, " B"],
    ) -> Float[Tensor, " B"]:  # fmt: skip
        """-log p(target) of each, the sum over all alignments; 0 of a target that does not fit into its frames."""
        logits, lengths = self.logits(features, lengths)
        return ctc_losses(logits, lengths, targets, target_lengths, blank=BLANK)


def best_path(
    log_probs: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"]
) -> tuple[list[list[int]], list[list[int]], Float[Tensor, " B"]]:
    """The labels of each sentence's most probable alignment, the frame in which each begins, and its log-probability.

    Repeats are merged, then blanks dropped. It is quick, and right where the model is sure; `ops.ctc_beam_search` sums
    over alignments.

    Reference: Graves et al. 2006, section 3.2, best path decoding.
    """
    best, path = log_probs.max(-1)
    counts = torch.arange(path.shape[1], device=path.device) < lengths[:, None]
    begins = counts & (path != BLANK) & (path != F.pad(path, (1, 0), value=BLANK)[:, :-1])
    labels = [row[there].tolist() for row, there in zip(path, begins, strict=True)]
    times = [there.nonzero()[:, 0].tolist() for there in begins]
    return labels, times, best.double().masked_fill(~counts, 0.0).sum(1).float()
