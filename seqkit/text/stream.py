"""A long text as batches for truncated back-propagation through time.

The text is cut into B streams of equal length that are read side by side, a window of T tokens at a time: what a batch
ends with, the next goes on from, so that a recurrent model can carry its state. Each epoch begins at another place of
the text, a function of (seed, epoch), and a position is two numbers.

Reference: Williams and Peng 1990; Mikolov et al. 2010.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from seqkit.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Window:
    """The next tokens of each stream."""

    tokens: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    """the token after each"""
    first: bool
    """whether the streams begin here"""

    def to(self, device: torch.device | str) -> Window:
        """The same window on another device."""
        return Window(tokens=self.tokens.to(device), targets=self.targets.to(device), first=self.first)


class StreamBatches:
    """Windows of `window` tokens of `n_streams` streams; they are a `seqkit.training.loop.Batches`.

    Args:
        ids: the whole text.

    Raises:
        InputError: the text is too short to give each stream two tokens.
    """

    def __init__(self, ids: NDArray[np.int64], *, n_streams: int, window: int, seed: int) -> None:
        if len(ids) < 2 * n_streams:
            raise InputError(f"data: the text must have at least 2 tokens for each of {n_streams} streams, "
                             f"got {len(ids)}; lower training.batch_tokens")  # fmt: skip
        self.ids, self.n_streams, self.window, self.seed = ids, n_streams, window, seed
        self.length = (len(ids) - 1) // n_streams  # of a stream
        self.epoch = self.position = 0

    def __len__(self) -> int:
        """Windows in an epoch."""
        return -(-self.length // self.window)

    def __iter__(self) -> Iterator[Window]:
        start = random.Random(self.seed * 1_000_003 + self.epoch).randrange(len(self.ids)) if self.epoch else 0
        size = self.n_streams * self.length + 1
        text = torch.from_numpy(np.roll(self.ids, -start)[:size])
        tokens, targets = (part.view(self.n_streams, self.length) for part in (text[:-1], text[1:]))
        while self.position < len(self):
            begin = self.position * self.window
            self.position += 1
            end = begin + self.window
            yield Window(
                tokens=tokens[:, begin:end].contiguous(), targets=targets[:, begin:end].contiguous(), first=begin == 0
            )
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
