"""word2vec: skip-gram and CBOW, with negative sampling, hierarchical softmax or full softmax.

The work is done by csrc/embedding on threads of its own; this module checks, starts, watches and keeps the result. A
run is a sequence of chunks of half a megabyte of text, each seeded by its number, so that a checkpoint is the matrices
and the number of chunks done. `device_run` does the same work on a GPU.
"""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

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

if TYPE_CHECKING:
    from seqkit.embeddings.device_run import DeviceRun

ARCHITECTURES = ("skipgram", "cbow")
OBJECTIVES = ("negative", "hierarchical", "softmax")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is; `loss` is the true average over all pairs so far, NaN before the first."""

    words: int
    total_words: int
    loss: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Word2Vec:
    """A trainer of word vectors.

    The objective of a word w and a word c of its window is -log p(w | c), with p by negative sampling (log sigmoid of
    the scores of w and of `negative` drawn words), by the path of w in the Huffman tree (`hierarchical`), or by softmax
    over the whole vocabulary (`softmax`: slow, on one thread, to teach and to compare with). CBOW takes the mean of
    the window for c.

    Reference: Mikolov et al. 2013, arXiv:1301.3781 and arXiv:1310.4546; Ji et al. 2016, arXiv:1604.04661.
    Differs: the words of a window share their negatives; see csrc/embedding/word2vec.h.

    Args:
        sample: the share of a text above which a word is sub-sampled; 0 for never.
        alpha: the learning rate at the begin, which falls in a line to `min_alpha`; None for 0.05, CBOW 0.075,
            hierarchical softmax 0.025: the best of some on 17 million words.
        deterministic: the same bytes for any number of threads, at a quarter of the speed. Otherwise threads write
            into the same rows as they go, and only one thread gives the same bytes twice.
        memory: bytes that vocabulary and corpus may take before they go to disk.
        device: "cpu", or "cuda" for negative sampling on a GPU (`device_run`), whose results depend on timing.

    Raises:
        InputError: an option is out of its range, or not there on a GPU.
    """

    dim: int = 100
    window: int = 5
    negative: int = 5
    architecture: str = "skipgram"
    hierarchical: bool = False
    softmax: bool = False
    min_count: int = 5
    max_vocab: int | None = None
    sample: float = 1e-4
    epochs: int = 5
    alpha: float | None = None
    min_alpha: float = 1e-4
    threads: int = 1
    seed: int = 1
    deterministic: bool = False
    memory: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        rules = [
            ("dim", 1, 1 << 14), ("window", 1, 1 << 10), ("negative", 1, 1 << 10), ("min_count", 1, 1 << 62),
            ("epochs", 1, 1 << 20), ("threads", 1, 1 << 10), ("seed", 0, (1 << 62)),
        ]  # fmt: skip
        for name, least, most in rules:
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError(f"Word2Vec: {name} must be from {least} to {most}, got {value}")
        if self.architecture not in ARCHITECTURES:
            raise InputError(f"Word2Vec: architecture must be one of {ARCHITECTURES}, got {self.architecture!r}")
        if self.hierarchical and self.softmax:
            raise InputError("Word2Vec: hierarchical and softmax must not both be asked for, got both")
        if not 0 <= self.min_alpha <= self.rate < 1e3:
            raise InputError(f"Word2Vec: alpha must be at least min_alpha {self.min_alpha}, got {self.rate}")
        if not 0 <= self.sample <= 1:
            raise InputError(f"Word2Vec: sample must be from 0 to 1, got {self.sample}")
        if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", self.device):
            raise InputError(f"Word2Vec: device must be cpu or cuda, got {self.device!r}")
        if self.device != "cpu":
            for name in ("hierarchical", "softmax", "deterministic"):
                if getattr(self, name):
                    raise InputError(f"Word2Vec: {name} must not be asked for on {self.device}, got it")

    @property
    def rate(self) -> float:
        """The learning rate at the begin."""
        if self.alpha is not None:
            return self.alpha
        if self.hierarchical or self.softmax:
            return 0.05 if self.architecture == "cbow" else 0.025
        return 0.075 if self.architecture == "cbow" else 0.05

    def train(
        self,
        source: Source,
        *,
        checkpoint: str | Path | None = None,
        resume: bool = False,
        grow_from: str | Path | None = None,
        every: float = 600.0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> WordVectors:
        """The vectors of the words of a text.

        Args:
            source: see `Corpus`.
            checkpoint: a file that the run is kept in, every so many seconds and when it is interrupted.
            resume: go on with `checkpoint` where it was left, on the same text with the same options.
            grow_from: the checkpoint of a run on another text: its words and rows are kept, new words join them.
            on_progress: called a few times a second, and at the end.

        Raises:
            InputError: what `Corpus` raises; a checkpoint is missing or of other options or another text.
            KeyboardInterrupt: passed on, after the checkpoint was written.
        """
        card = None
        if self.device != "cpu":
            from seqkit.embeddings.device_run import DeviceRun, find_card  # which import torch

            if grow_from is not None:
                raise InputError(f"Word2Vec.train: grow_from must be None on {self.device}, got {grow_from}")
            card = find_card(self.device, dim=self.dim, window=self.window)  # asked before the text is read
        older = Checkpoint.load(grow_from) if grow_from is not None else None
        known = dict(zip(older.words, map(int, older.counts), strict=True)) if older else None
        corpus = Corpus(
            source, min_count=self.min_count, max_vocab=self.max_vocab, memory=self.memory, threads=self.threads,
            known=known,
        )  # fmt: skip
        run: Run | DeviceRun
        if card is None:
            run = Run(corpus, self._options())
            if older is not None:
                run.adopt(older)
        else:
            run = DeviceRun(corpus, self._options(), card)
        if resume:
            if checkpoint is None:
                raise InputError("Word2Vec.train: checkpoint must be given to resume, got None")
            run.restore(Checkpoint.load(checkpoint), str(checkpoint))
        train(run, checkpoint=checkpoint, every=every, on_progress=on_progress)
        return self._vectors(run)

    def _options(self) -> native.Options:
        objective = 1 if self.hierarchical else 2 if self.softmax else 0
        return native.Options(
            dim=self.dim, window=self.window, negative=self.negative,
            architecture=ARCHITECTURES.index(self.architecture), objective=objective, epochs=self.epochs,
            seed=self.seed, threads=self.threads, deterministic=int(self.deterministic), sample=self.sample,
            alpha=self.rate, min_alpha=self.min_alpha,
        )  # fmt: skip

    def _vectors(self, run: TrainingRun) -> WordVectors:
        return WordVectors(run.corpus.words, run.matrix(0)[: len(run.corpus), : self.dim].copy())


@runtime_checkable
class TrainingRun(Protocol):
    """What trains on a corpus, here or on a GPU: it goes on from its state, and its state can be kept."""

    corpus: Corpus
    options: native.Options
    device: str  # the kind: cpu, cuda

    def run(self) -> None:
        """Trains until all epochs are done or `stop` is called."""

    def stop(self) -> None: ...
    def progress(self) -> native.Progress: ...
    def matrix(self, which: int) -> NDArray[np.float32]:
        """The rows of the input (0) or the output (1)."""

    def buckets(self) -> NDArray[np.int32]: ...


def train(
    run: TrainingRun,
    *,
    checkpoint: str | Path | None = None,
    every: float = 600.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Trains to the end, on a thread beside this one."""
    begin, total = time.monotonic(), run.corpus.n_words * int(run.options.epochs)

    def tell() -> None:
        if on_progress is not None:
            now = run.progress()
            loss = now.loss / now.pairs if now.pairs else float("nan")
            seconds = time.monotonic() - begin
            on_progress(Progress(words=now.words, total_words=total, loss=loss, seconds=seconds))

    watch(
        run.run,
        run.stop,
        finished=lambda: run.progress().words >= total,
        tell=tell,
        save=None if checkpoint is None else lambda: save(run, checkpoint),
        every=every,
    )


def save(run: TrainingRun, path: str | Path) -> None:
    """Writes the run's state."""
    now = run.progress()
    options = {name: str(getattr(run.options, name)) for name in native.OPTIONS}
    meta = {"position": now.position, "words": now.words, "pairs": now.pairs, "device": run.device}
    text = "\n".join(run.corpus.words).encode()
    tensors: dict[str, NDArray[Any]] = {
        "input": run.matrix(0), "output": run.matrix(1), "counts": run.corpus.counts, "buckets": run.buckets(),
        "vocabulary": np.frombuffer(text, np.uint8), "loss": np.array([now.loss]),
    }  # fmt: skip
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, {**options, **{name: str(value) for name, value in meta.items()}})


class Run:
    """A native trainer on a corpus."""

    device = "cpu"

    def __init__(self, corpus: Corpus, options: native.Options) -> None:
        self.corpus, self.options = corpus, options
        handle = ctypes.c_void_p()
        native.call("word2vec_new", ctypes.byref(options), corpus.handle, ctypes.byref(handle))
        self.handle: Any = handle

    def __del__(self) -> None:
        if handle := getattr(self, "handle", None):
            native.call("word2vec_free", handle)
            self.handle = None

    def matrix(self, which: int) -> NDArray[np.float32]:
        """The trainer's own rows, padded: 0 the input (words, then n-grams), 1 the output."""
        rows, width = ctypes.c_int64(), ctypes.c_int64()
        data = native.call("word2vec_matrix", self.handle, which, ctypes.byref(rows), ctypes.byref(width))
        return np.ctypeslib.as_array(data, (rows.value, width.value))

    def buckets(self) -> NDArray[np.int32]:
        """The n-gram bucket of each input row after the words'."""
        size = ctypes.c_int64()
        data = native.call("word2vec_buckets", self.handle, ctypes.byref(size))
        return np.ctypeslib.as_array(data, (size.value,)).copy() if size.value else np.empty(0, np.int32)

    def progress(self) -> native.Progress:
        found = native.Progress()
        native.call("word2vec_progress", self.handle, ctypes.byref(found))
        return found

    def run(self) -> None:
        native.call("word2vec_run", self.handle)

    def stop(self) -> None:
        native.call("word2vec_stop", self.handle)

    def restore(self, state: Checkpoint, where: str) -> None:
        """Goes on from a state of the same options and the same text.

        Raises:
            InputError: they differ.
        """
        state.check(self, where)
        self.matrix(0)[:] = state.input
        self.matrix(1)[:] = state.output
        native.call("word2vec_restore", self.handle, ctypes.byref(state.progress()))

    def adopt(self, state: Checkpoint) -> None:
        """Takes over the rows of an older vocabulary, whose words have the first ids here, and of its n-grams."""
        size, width = len(state.words), self.matrix(0).shape[1]
        if state.input.shape[1] != width or state.meta["dim"] != str(self.options.dim):
            raise InputError(f"grow_from: dim must be {self.options.dim}, got {state.meta['dim']}")
        self.matrix(0)[:size] = state.input[:size]
        if self.options.objective != 1 and state.meta["objective"] != "1":  # a tree's inner nodes are other ones
            self.matrix(1)[:size] = state.output[:size]
        _, mine, theirs = np.intersect1d(self.buckets(), state.buckets, return_indices=True)
        self.matrix(0)[len(self.corpus) + mine] = state.input[size + theirs]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What `save` wrote."""

    meta: dict[str, str]
    words: list[str]
    counts: NDArray[np.int64]
    buckets: NDArray[np.int32]
    input: NDArray[np.float32]
    output: NDArray[np.float32]
    loss: float

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        try:
            with safe_open(str(path), "numpy") as file:
                meta = file.metadata() or {}
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            text = bytes(found.pop("vocabulary")).decode()
            loss = float(found.pop("loss")[0])
            return cls(meta=meta, words=text.split("\n"), loss=loss, **found)
        except OSError as error:
            raise InputError(f"{path}: checkpoint must be a file that can be read, got {error}") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            names = ", ".join(field.name for field in fields(cls))
            raise InputError(f"{path}: checkpoint must hold {names}, got another file ({error})") from error

    def progress(self) -> native.Progress:
        position, words, pairs = (int(self.meta[name]) for name in ("position", "words", "pairs"))
        return native.Progress(position=position, words=words, pairs=pairs, loss=self.loss)

    def check(self, run: TrainingRun, where: str) -> None:
        """Raises InputError unless the run has the same options, the same text and the same kind of device."""
        for name in native.OPTIONS:
            if name != "threads" and self.meta[name] != str(getattr(run.options, name)):
                raise InputError(f"{where}: {name} must be {getattr(run.options, name)}, got {self.meta[name]}")
        if (device := self.meta.get("device", "cpu")) != run.device:
            raise InputError(f"{where}: device must be {run.device}, got {device}")
        if self.words != run.corpus.words or not np.array_equal(self.counts, run.corpus.counts):
            raise InputError(f"{where}: checkpoint must be of the same text, got one of other words or counts")
