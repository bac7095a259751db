"""A run of word2vec on a GPU: the text lies there as ids, and `ops.word2vec_step` moves the rows of its words.

The text is cut at the ends of sentences into stretches. A stretch seeds its generator with the run's seed and its own
number, draws on the device which words stay (sub-sampling), how far each window reaches and the negatives of each, and
is one step of the operator at one learning rate. So the state between two stretches is the matrices and a number, as
the native trainer's is between two chunks. The objective is the native trainer's, with as many negatives of the same
weight; csrc/embedding/word2vec.h says how many.

This module imports torch, and is imported when a run asks for it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from seqkit import ops
from seqkit.embeddings import native
from seqkit.embeddings.corpus import Corpus
from seqkit.errors import InputError
from seqkit.ops.word2vec_step import covers

if TYPE_CHECKING:
    from seqkit.embeddings.word2vec import Checkpoint

STRETCH = 1 << 18  # ids
BLOCK = 8  # outputs of a window: the word and its negatives fill up whole blocks, as in csrc/embedding/word2vec.cpp
# Windows at a time: too many for a vocabulary, and steps that know nothing of each other add up beyond the optimum.
# Tried as a card at its worst would have it, each group of windows at once from the rows before it, on 2 million words,
# 23,423 of them different, 3 epochs: 585 windows end with a loss of 2.500, 2,048 with 2.537, one at a time with 2.478;
# 4,096 diverge.
WORDS_OF_WINDOW, MOST_WINDOWS = 40, 2048


def find_card(device: str, *, dim: int, window: int) -> torch.device:
    """The device of that name.

    Raises:
        InputError: torch sees no such card, or nothing there can train these vectors.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = torch.device(device)
    if cards <= (found.index or 0):
        seen = f"{cards} of them" if cards else "none"
        raise InputError(
            f"Word2Vec: device {device} must be a card that torch sees, got {seen}; cpu trains without one"
        )
    if ops.backend("word2vec_step", found) != "native":
        raise InputError(f"Word2Vec: the kernel for {device} must be built and chosen, got none; cpu trains without it")
    if not covers(found, dim=dim, window=window):
        raise InputError(f"Word2Vec: dim and window must be smaller on {device}, got {dim} and {window}")
    return found


def stretches(ids: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """Where stretches of about `size` ids begin, and where the last one ends; sentences stay whole where they can."""
    ends = np.flatnonzero(ids < 0) + 1
    cuts = [0]
    while cuts[-1] < len(ids):
        last = np.searchsorted(ends, cuts[-1] + size, side="right") - 1
        whole = int(ends[last]) if last >= 0 else 0
        cuts.append(whole if whole > cuts[-1] else min(cuts[-1] + size, len(ids)))
    return np.array(cuts, np.int64)


class DeviceRun:
    """A trainer on a corpus, on a device of torch."""

    def __init__(self, corpus: Corpus, options: native.Options, device: torch.device) -> None:
        self.corpus, self.options, self.device, self._on = corpus, options, device.type, device
        ids = corpus.ids()
        self._cuts = stretches(ids, STRETCH)
        self._words_before = np.concatenate(
            [[0], np.cumsum(np.add.reduceat(ids >= 0, self._cuts[:-1], dtype=np.int64))]
        )
        self._ids = torch.from_numpy(ids).to(device)
        counts = torch.from_numpy(corpus.counts).double()
        ratio = options.sample * counts.sum() / counts
        self._keep = (ratio.sqrt() + ratio if options.sample > 0 else torch.ones_like(ratio)).float().to(device)
        share = counts.pow(0.75).cumsum(0)
        self._drawn_below = (share / share[-1]).to(device)
        self._negatives = (options.negative + BLOCK) // BLOCK * BLOCK - 1
        self._concurrency = min(max(len(corpus) // WORDS_OF_WINDOW, 1), MOST_WINDOWS)
        generator = torch.Generator(device).manual_seed(options.seed)
        unit = torch.rand(len(corpus), options.dim, generator=generator, device=device)
        self._inputs, self._outputs = unit.sub_(0.5).div_(options.dim), torch.zeros_like(unit)  # as in word2vec.c
        self._losses = torch.zeros((), dtype=torch.float64, device=device)
        self._pairs = torch.zeros((), dtype=torch.int64, device=device)
        self._position, self._stopped = 0, False

    def run(self) -> None:
        """Trains until all epochs are done or `stop` is called."""
        self._stopped = False
        end = int(self.options.epochs) * (len(self._cuts) - 1)
        with torch.no_grad():
            while self._position < end and not self._stopped:
                self._train_stretch()
                self._position += 1
        self._losses.item()  # waits, so that whoever saves finds the rows at rest

    def stop(self) -> None:
        self._stopped = True

    def progress(self) -> native.Progress:
        words = self._words_at(self._position)
        return native.Progress(position=self._position, words=words, pairs=int(self._pairs), loss=float(self._losses))

    def matrix(self, which: int) -> NDArray[np.float32]:
        """A copy of the rows of the input (0) or the output (1)."""
        rows: NDArray[np.float32] = (self._inputs, self._outputs)[which].to("cpu", copy=True).numpy()
        return rows

    def buckets(self) -> NDArray[np.int32]:
        """Of no n-grams."""
        return np.empty(0, np.int32)

    def restore(self, state: Checkpoint, where: str) -> None:
        """Goes on from a state of the same options and the same text.

        Raises:
            InputError: they differ.
        """
        state.check(self, where)
        self._inputs.copy_(torch.from_numpy(state.input))
        self._outputs.copy_(torch.from_numpy(state.output))
        self._position = state.progress().position
        self._losses.fill_(state.loss)
        self._pairs.fill_(state.progress().pairs)

    def _words_at(self, position: int) -> int:
        """Words of the text, over all epochs, before a stretch."""
        epoch, stretch = divmod(position, len(self._cuts) - 1)
        return epoch * self.corpus.n_words + int(self._words_before[stretch])

    def _train_stretch(self) -> None:
        options, device = self.options, self._on
        stretch = self._position % (len(self._cuts) - 1)
        seed = hashlib.blake2b(f"{options.seed} {self._position}".encode(), digest_size=7).digest()
        random = torch.Generator(device).manual_seed(int.from_bytes(seed, "little"))
        ids = self._ids[int(self._cuts[stretch]) : int(self._cuts[stretch + 1])]
        lucky = torch.rand(len(ids), generator=random, device=device) < self._keep[ids.clamp(min=0)]
        ids = ids[lucky | (ids < 0)]
        radii = torch.randint(1, options.window + 1, ids.shape, generator=random, device=device, dtype=torch.int32)
        places = torch.rand(len(ids), self._negatives, generator=random, device=device, dtype=torch.float64)
        negatives = torch.searchsorted(self._drawn_below, places, right=True, out_int32=True)
        middle = (self._words_at(self._position) + self._words_at(self._position + 1)) / 2
        done = middle / (options.epochs * self.corpus.n_words)
        losses, pairs = ops.word2vec_step(
            self._inputs, self._outputs, ids, radii, negatives.clamp_(max=len(self.corpus) - 1), window=options.window,
            rate=options.alpha - (options.alpha - options.min_alpha) * done,
            negative_weight=options.negative / self._negatives, cbow=options.architecture == 1,
            concurrency=self._concurrency,
        )  # fmt: skip
        self._losses += losses.sum(dtype=torch.float64)
        self._pairs += pairs.sum()
