"""A linear-chain CRF as a layer: the scores between neighbouring labels, over `seqkit.ops.crf`.

Where labels are missing, the log-probability is that of all sequences that agree with the known ones: log Z(given) -
log Z. Two calls of the kernel give it, since log Z(given) = score(y) - log p(y | given) for any y that agrees.

Reference: Lafferty et al. 2001; partly missing labels: Tsuboi et al. 2008, section 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit import ops

MISSING = -1  # in place of a label
FORBIDDEN = -1e4  # a log-score: exp of it is zero in float32, and sums with it stay finite


class LabelChain(nn.Module):
    """The scores between neighbouring labels, and of the first and the last."""

    def __init__(self, n_labels: int) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.zeros(n_labels, n_labels))
        self.start = nn.Parameter(torch.zeros(n_labels))
        self.end = nn.Parameter(torch.zeros(n_labels))

    def log_likelihood(
        self, emissions: Float[Tensor, "B T C"], labels: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, " B"]:
        """The log-probability of the labels that are not `MISSING`."""
        missing = labels == MISSING
        filled = labels.masked_fill(missing, 0)
        found = self._log_likelihood(emissions, filled, lengths)
        counts = torch.arange(labels.shape[1], device=labels.device) < lengths[:, None]
        if not bool((missing & counts).any()):
            return found
        others = torch.ones_like(emissions, dtype=torch.bool).scatter_(2, filled[:, :, None], False)
        given = emissions.masked_fill(others & ~missing[:, :, None], FORBIDDEN)
        return found - self._log_likelihood(given, filled, lengths)

    def decode(self, emissions: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"]) -> Int[Tensor, "B T"]:
        tags, _ = ops.crf_decode(emissions, self.transitions, start=self.start, end=self.end, lengths=lengths)
        return tags[:, 0]

    @torch.enable_grad()
    def probabilities(self, emissions: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B T C"]:
        """Of each label at each word, whatever the others are: what the likelihood's gradient holds."""
        leaf = emissions.detach().requires_grad_()
        labels = torch.zeros(emissions.shape[:2], dtype=torch.int64, device=emissions.device)
        (gradient,) = torch.autograd.grad(self._log_likelihood(leaf, labels, lengths).sum(), leaf)
        observed = F.one_hot(labels, emissions.shape[2]).to(gradient)
        return (observed - gradient).clamp(0.0, 1.0)

    def _log_likelihood(self, emissions: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
        return ops.crf_log_likelihood(
            emissions, labels, self.transitions, start=self.start, end=self.end, lengths=lengths
        )
