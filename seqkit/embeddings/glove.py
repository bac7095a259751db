"""GloVe: word vectors whose products are the logarithms of the co-occurrence counts.

The work is done by csrc/embedding on threads of its own; this module checks, starts, watches and keeps the result. A
run is a sequence of buckets of pairs, each shuffled by its number, so that a checkpoint is the rows and the number of
buckets done: the counts are made again.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from seqkit.atomic import atomic_file
from seqkit.embeddings import native
from seqkit.embeddings.corpus import Corpus, Source
from seqkit.embeddings.vectors import WordVectors
from seqkit.embeddings.watch import watch
from seqkit.errors import InputError

# What may change between a run and the one that resumes it.
_FREE = ("threads", "memory", "deterministic")


@dataclass(frozen=True, kw_only=True)
class GloVeProgress:
    """How far a run is, in terms of the objective (a pair of words in both orders is two).

    `loss` is the true average of f(X) (miss)^2 over the terms of the epoch so far, each before its own step; NaN before
    the first.
    """

    terms: int
    total_terms: int
    loss: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class GloVe:
    """A trainer of word vectors on co-occurrence counts.

    J = sum over X_ij > 0 of f(X_ij) (w_i . w~_j + b_i + b~_j - log X_ij)^2, f(x) = min(1, (x / x_max)^alpha), by
    AdaGrad. X_ij adds up 1 / distance over all places where j stands at most `window` words left or right of i. The
    vector of a word is w + w~.

    Reference: Pennington et al. 2014, D14-1162.
    Differs: biases have a learning rate of 1, as in newer copies of the authors' program.

    Args:
        x_max: the count from which a pair has the whole weight; 10 suits a text of some ten million words better.
        eta: the learning rate of the vectors at the begin; 0.1 is better where the epochs are few.
        deterministic: every run on a kind of processor gives the same bytes for any number of threads, asked or not;
            the option is here because the other trainers have it.
        memory: bytes that vocabulary, corpus, counts and pairs may take, each a part, before they go to disk; None for
            half a gigabyte for the counts and no bound for the others. The vectors come on top.

    Raises:
        InputError: an option is out of its range.
    """

    dim: int = 100
    window: int = 10
    min_count: int = 5
    max_vocab: int | None = None
    x_max: float = 100.0
    alpha: float = 0.75
    epochs: int = 25
    eta: float = 0.05
    threads: int = 1
    seed: int = 1
    deterministic: bool = False
    memory: int | None = None

    def __post_init__(self) -> None:
        rules = [
            ("dim", 1, 1 << 14), ("window", 1, 1 << 10), ("min_count", 1, 1 << 62), ("epochs", 1, 1 << 20),
            ("threads", 1, 1 << 10), ("seed", 0, (1 << 31) - 1),
        ]  # fmt: skip
        for name, least, most in rules:
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError(f"GloVe: {name} must be from {least} to {most}, got {value}")
        for name, low, high in (("x_max", 1e-6, 1e12), ("alpha", 0.0, 10.0), ("eta", 1e-6, 1e3)):
            number: float = getattr(self, name)
            if not low <= number <= high:
                raise InputError(f"GloVe: {name} must be from {low:g} to {high:g}, got {number}")

    def train(
        self,
        source: Source,
        *,
        checkpoint: str | Path | None = None,
        resume: bool = False,
        every: float = 600.0,
        on_progress: Callable[[GloVeProgress], None] | None = None,
    ) -> WordVectors:
        """The vectors of the words of a text.

        Args:
            source: see `Corpus`.
            checkpoint: a file that the run is kept in, every so many seconds and when it is interrupted.
            resume: go on with `checkpoint` where it was left, on the same text with the same options.
            on_progress: called a few times a second, and at the end.

        Raises:
            InputError: what `Corpus` raises; there is no pair of words; a checkpoint is missing or of other options or
                another text.
            KeyboardInterrupt: passed on, after the checkpoint was written.
        """
        if resume and checkpoint is None:
            raise InputError("GloVe.train: checkpoint must be given to resume, got None")
        corpus = Corpus(
            source, min_count=self.min_count, max_vocab=self.max_vocab, memory=self.memory, threads=self.threads
        )
        run = Run(corpus, self)
        del corpus  # its ids are no longer needed
        if resume and checkpoint is not None:
            run.restore(checkpoint)
        run.train(checkpoint=checkpoint, every=every, on_progress=on_progress)
        return WordVectors(run.words, run.vectors())


class Run:
    """A native trainer on the counts of a corpus, which it does not keep."""

    def __init__(self, corpus: Corpus, trainer: GloVe) -> None:
        self.trainer, self.words, self.counts = trainer, corpus.words, corpus.counts
        options = native.GloVeOptions(
            dim=trainer.dim, window=trainer.window, epochs=trainer.epochs, seed=trainer.seed, threads=trainer.threads,
            memory=trainer.memory or 0, x_max=trainer.x_max, alpha=trainer.alpha, eta=trainer.eta,
        )  # fmt: skip
        handle = ctypes.c_void_p()
        native.call("glove_new", ctypes.byref(options), corpus.handle, _folder(), ctypes.byref(handle))
        self.handle: Any = handle
        self.terms = int(native.call("glove_terms", handle))
        if self.terms == 0:
            raise InputError("GloVe: text must have sentences of two known words or more, got none")

    def __del__(self) -> None:
        if handle := getattr(self, "handle", None):
            native.call("glove_free", handle)
            self.handle = None

    @property
    def on_disk(self) -> bool:
        """Whether the pairs lie on disk."""
        return bool(native.call("glove_on_disk", self.handle))

    def rows(self) -> NDArray[np.float32]:
        """The trainer's own rows [V, 4, width]: [w, b, 1], [w~, 1, b~], and the AdaGrad sums of both."""
        rows, width = ctypes.c_int64(), ctypes.c_int64()
        data = native.call("glove_rows", self.handle, ctypes.byref(rows), ctypes.byref(width))
        return np.ctypeslib.as_array(data, (rows.value, 4, width.value))

    def vectors(self) -> NDArray[np.float32]:
        """w + w~ of each word, [V, dim]."""
        rows, dim = self.rows(), self.trainer.dim
        found: NDArray[np.float32] = rows[:, 0, :dim] + rows[:, 1, :dim]
        return found

    def progress(self) -> native.Progress:
        found = native.Progress()
        native.call("glove_progress", self.handle, ctypes.byref(found))
        return found

    def train(
        self,
        *,
        checkpoint: str | Path | None = None,
        every: float = 600.0,
        on_progress: Callable[[GloVeProgress], None] | None = None,
    ) -> None:
        """Trains to the end, on a thread beside this one."""
        begin, total = time.monotonic(), self.terms * self.trainer.epochs

        def tell() -> None:
            if on_progress is not None:
                now = self.progress()
                loss = now.loss / now.pairs if now.pairs else float("nan")
                seconds = time.monotonic() - begin
                on_progress(GloVeProgress(terms=now.words, total_terms=total, loss=loss, seconds=seconds))

        watch(
            lambda: native.call("glove_run", self.handle),
            lambda: native.call("glove_stop", self.handle),
            finished=lambda: self.progress().words >= total,
            tell=tell,
            save=None if checkpoint is None else lambda: self.save(checkpoint),
            every=every,
        )

    def save(self, path: str | Path) -> None:
        """Writes the run's state."""
        now = self.progress()
        meta = {name: str(value) for name, value in asdict(self.trainer).items()}
        meta |= {"position": str(now.position), "terms": str(now.words), "epoch_terms": str(now.pairs)}
        vocabulary = np.frombuffer("\n".join(self.words).encode(), np.uint8)
        tensors: dict[str, NDArray[Any]] = {
            "rows": self.rows(), "counts": self.counts, "vocabulary": vocabulary, "loss": np.array([now.loss]),
        }  # fmt: skip
        with atomic_file(path) as temporary:
            save_file(tensors, temporary, meta)

    def restore(self, path: str | Path) -> None:
        """Goes on from a state of the same options and the same text.

        Raises:
            InputError: they differ, or the file is no such state.
        """
        try:
            with safe_open(str(path), "numpy") as file:
                meta = file.metadata() or {}
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            position, terms, epoch_terms = (int(meta[name]) for name in ("position", "terms", "epoch_terms"))
            words, counts = bytes(found["vocabulary"]).decode().split("\n"), found["counts"]
            rows, loss = found["rows"], float(found["loss"][0])
            theirs = {name: meta[name] for name in asdict(self.trainer)}
        except OSError as error:
            raise InputError(f"{path}: checkpoint must be a file that can be read, got {error}") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: checkpoint must be of a GloVe run, got another file ({error})") from error
        for name, value in asdict(self.trainer).items():
            if name not in _FREE and theirs[name] != str(value):
                raise InputError(f"{path}: {name} must be {value}, got {theirs[name]}")
        if words != self.words or not np.array_equal(counts, self.counts):
            raise InputError(f"{path}: checkpoint must be of the same text, got one of other words or counts")
        self.rows()[:] = rows
        now = native.Progress(position=position, words=terms, pairs=epoch_terms, loss=loss)
        native.call("glove_restore", self.handle, ctypes.byref(now))


def cooccurrences(
    corpus: Corpus, *, window: int = 10, memory: int | None = None, threads: int = 1
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """The pairs i <= j of a corpus that stand near each other, rising, and their counts.

    The count of (i, j), and of (j, i), adds up 1 / distance over all places where both stand at most `window` words
    apart; that of (i, i) has each place twice, once for each order.
    """
    size, room = ctypes.c_int64(), 1 << 20
    while True:
        i, j, count = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float64)
        native.call(
            "cooccurrence", corpus.handle, window, memory or 0, threads, _folder(), i.ctypes.data, j.ctypes.data,
            count.ctypes.data, room, ctypes.byref(size),
        )  # fmt: skip
        if size.value <= room:
            return i[: size.value].copy(), j[: size.value].copy(), count[: size.value].copy()
        room = size.value


def _folder() -> bytes:
    return os.fsencode(tempfile.gettempdir())
