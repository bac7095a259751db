"""The keys and values of what a beam search has written so far, which stay where they were written.

A search that changes its hypotheses does not copy them: which beam wrote a position of a hypothesis stands in a table
of integers, the ancestry, which `ops.decode_attention` follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from seqkit import ops

FIRST_CAPACITY = 16


@dataclass
class BeamCache:
    """The caches of all layers and their one ancestry; `length` positions are filled."""

    layers: list[Float[Tensor, "B C capacity D2"]]  # D keys beside D values, of each beam that ever wrote
    ancestry: Int[Tensor, "B K capacity"]  # which of the C beams wrote a position of a hypothesis
    length: int

    @staticmethod
    def empty(n_sentences: int, n_layers: int, like: Float[Tensor, "*any D"]) -> BeamCache:
        """For keys and values as wide, and on the same device, as the last axis of `like`."""
        shape = (n_sentences, 1, FIRST_CAPACITY)
        layers = [like.new_zeros(*shape, 2 * like.shape[-1]) for _ in range(n_layers)]
        return BeamCache(layers, like.new_zeros(shape, dtype=torch.int64), 0)

    def open(self, n_beams: int) -> BeamCache:
        """The cache with room for one more position of this many beams, which is counted as filled.

        It shares its memory with this one, so that two steps from one cache write the same place.
        """
        layers, ancestry, position = self.layers, self.ancestry, self.length
        more = max(n_beams - layers[0].shape[1], 0)
        longer = position if position == ancestry.shape[2] else 0  # twice the capacity
        if more or longer:
            layers = [F.pad(layer, (0, 0, 0, longer, 0, more)) for layer in layers]
            ancestry = F.pad(ancestry, (0, longer))
        ancestry[:, :, position] = torch.arange(n_beams, device=ancestry.device)
        return BeamCache(layers, ancestry, position + 1)

    def reorder(self, parents: Int[Tensor, "B K2"]) -> BeamCache:
        """The cache in which hypothesis j of sentence b goes on from hypothesis parents[b, j]."""
        return BeamCache(self.layers, ops.extend_ancestry(self.ancestry, parents, self.length - 1), self.length)

    def keep(self, sentences: Int[Tensor, " B2"]) -> BeamCache:
        """The cache of these sentences; only what is filled is copied, the rest is written before it is read."""
        layers = []
        for layer in self.layers:
            kept = layer.new_empty(len(sentences), *layer.shape[1:])
            kept[:, :, : self.length] = layer[:, :, : self.length].index_select(0, sentences)
            layers.append(kept)
        return BeamCache(layers, self.ancestry[sentences], self.length)
