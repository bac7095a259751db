"""A trained CTC model with its tokenizer: what is said in recordings.

A recording is read in blocks and heard in windows of 40 seconds that overlap by 8; of each overlap, either window
gives the half that is farther from its end. So an hour of sound needs the memory of a window and of the
log-probabilities. A recording of up to a window is heard as a whole, and each by itself: a result depends on no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqkit import ops
from seqkit.analysis.edit_distance import ErrorRate, error_rate
from seqkit.audio.features import build_features, normalized
from seqkit.audio.wave import audio_blocks
from seqkit.errors import InputError
from seqkit.models.ctc import BLANK, CTCModel
from seqkit.tasks.ctc_config import TranscriptionConfig
from seqkit.tasks.ctc_decoder import CTCDecoder
from seqkit.tasks.run_folder import check_device, load_weights, saved_tables, saved_weights
from seqkit.text.batch import length_batches
from seqkit.text.corpus import LineCorpus
from seqkit.text.tokenizer import Tokenizer, load_tokenizer

WINDOW, CONTEXT = 40.0, 4.0  # seconds
BATCH_FRAMES = 40_000  # frames that are heard at a time


class Recording(NamedTuple):
    """A sound file and what is said in it."""

    path: str
    text: str


class HeardWord(NamedTuple):
    """A word and the second in which it begins."""

    word: str
    start: float


@dataclass(frozen=True)
class Transcription:
    """What is said in a recording; the score is what the labels were chosen by, a log-probability."""

    text: str
    labels: list[int]
    words: list[HeardWord]
    score: float


@dataclass(frozen=True)
class TranscriptionScore:
    """How well recordings are transcribed."""

    loss: float
    """in nats a label"""
    labels: ErrorRate
    words: ErrorRate
    characters: ErrorRate


@dataclass
class _Window:
    """A part of a recording's frames, and which of them the result is kept of."""

    frames: Float[Tensor, "T D"]
    keep: slice
    log_probs: Tensor | None = None


@dataclass
class _Opened:
    """A recording that is being heard."""

    windows: list[_Window] = field(default_factory=list)
    error: InputError | None = None


class Transcriber:
    """A model with its tokenizer, whose symbol for padding stands for the blank."""

    def __init__(self, config: TranscriptionConfig, model: CTCModel, tokenizer: Tokenizer, folder: Path) -> None:
        self.config, self.model, self.tokenizer, self.folder = config, model, tokenizer, folder
        self.features = build_features(config.features)
        self.frame_seconds = self.features.hop_length / config.features.rate * config.model.subsampling

    @classmethod
    def new(cls, config: TranscriptionConfig, tokenizer: Tokenizer, folder: Path) -> Transcriber:
        """An untrained model."""
        model = CTCModel(config.model, input_dim=config.features.dim, n_labels=tokenizer.vocab_size)
        return cls(config, model, tokenizer, folder)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> Transcriber:
        """The model of a run folder.

        Raises:
            InputError: the folder is not one of a CTC model's run, or a file in it is damaged.
        """
        folder = Path(folder)
        check_device(device)
        config = TranscriptionConfig.from_tables(saved_tables(folder), where=str(folder / "config.toml"))
        transcriber = cls.new(config, load_tokenizer(folder / "tokenizer"), folder)
        load_weights(transcriber.model, saved_weights(folder), where=str(folder / "model.safetensors"))
        transcriber.model.to(device).eval()
        return transcriber

    def frames(self, samples: Float[Tensor, " N"]) -> Float[Tensor, "T D"]:
        """What the model hears of a whole recording."""
        features, counts = self.features(samples[None])
        return self._normalized(features[0, : int(counts[0])])

    def transcribe(
        self, paths: Iterable[str | Path], decoder: CTCDecoder | None = None
    ) -> Iterator[Transcription | InputError]:
        """What is said in each sound file, in order; an error in place of what cannot be read.

        Args:
            decoder: how labels are found; by default as the run's `[search]` says.
        """
        decoder = decoder or CTCDecoder(self.tokenizer, self.config.search)
        rate = self.config.features.rate
        for found in self.log_probs(audio_blocks(path, rate=rate) for path in paths):
            yield found if isinstance(found, InputError) else self.transcription(found, decoder)

    def transcription(self, log_probs: Float[Tensor, "T C"], decoder: CTCDecoder) -> Transcription:
        """The text of a recording's log-probabilities."""
        decoded = decoder.decode(log_probs)
        words = [HeardWord(word, time * self.frame_seconds) for word, time in decoder.words(decoded)]
        return Transcription(self.tokenizer.decode(decoded.labels), decoded.labels, words, decoded.score)

    def log_probs(self, recordings: Iterable[Iterable[Tensor]]) -> Iterator[Float[Tensor, "T C"] | InputError]:
        """Of each recording, given as blocks of samples, on the CPU; an error where its blocks raise one."""
        self.model.eval()
        opened: list[_Opened] = []
        waiting: list[_Window] = []
        for blocks in recordings:
            opened.append(_Opened())
            try:
                for window in self._windows(blocks):
                    opened[-1].windows.append(window)
                    waiting.append(window)
                    if sum(len(each.frames) for each in waiting) >= BATCH_FRAMES:
                        self._hear(waiting)
                        waiting = []
                        for done in opened[:-1]:
                            yield self._joined(done)
                        del opened[:-1]
            except InputError as error:
                opened[-1].error = error
        self._hear(waiting)
        for done in opened:
            yield self._joined(done)

    def evaluate(self, recordings: Sequence[Recording], decoder: CTCDecoder | None = None) -> TranscriptionScore:
        """How well recordings are transcribed.

        Raises:
            InputError: there is none, or a file cannot be read.
        """
        if not recordings:
            raise InputError("test set: the data must have at least one recording, got none")
        decoder = decoder or CTCDecoder(self.tokenizer, self.config.search)
        rate = self.config.features.rate
        nats, found, labels = 0.0, [], []
        blocks = (audio_blocks(recording.path, rate=rate) for recording in recordings)
        for heard, recording in zip(self.log_probs(blocks), recordings, strict=True):
            if isinstance(heard, InputError):
                raise heard
            labels.append(self.tokenizer.encode(recording.text))
            found.append(self.transcription(heard, decoder))
            target = torch.tensor([labels[-1]], dtype=torch.int64)
            nats += float(
                ops.ctc_loss(
                    heard[:, None], target, (len(heard),), (target.shape[1],), blank=BLANK, reduction="sum",
                    zero_infinity=True,
                )
            )  # fmt: skip
        texts = [recording.text for recording in recordings]
        return TranscriptionScore(
            loss=nats / max(1, sum(map(len, labels))),
            labels=error_rate([each.labels for each in found], labels),
            words=error_rate([each.text.split() for each in found], [text.split() for text in texts]),
            characters=error_rate([each.text for each in found], texts),
        )

    def _normalized(self, frames: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        if not self.config.features.normalize:
            return frames
        return normalized(frames[None], torch.tensor([len(frames)]))[0]

    def _windows(self, blocks: Iterable[Tensor]) -> Iterator[_Window]:
        """The frames of a recording in windows that overlap, as they become whole."""
        second = self.config.features.rate / self.features.hop_length
        context = 4 * round(CONTEXT * second / 4)  # a multiple of any subsampling, so that frames meet frames
        window = 4 * round(WINDOW * second / 4)
        stream = self.features.stream()
        rest = torch.zeros(0, self.features.dim)
        begin = 0  # of what is kept
        for block in blocks:
            rest = torch.cat([rest, stream.push(block)])
            while len(rest) > window:
                yield _Window(self._normalized(rest[:window]), slice(begin, window - context))
                rest, begin = rest[window - 2 * context :], context
        yield _Window(self._normalized(rest), slice(begin, len(rest)))

    @torch.no_grad()
    def _hear(self, windows: list[_Window]) -> None:
        """Fills in the log-probabilities of windows."""
        device, factor = self.model.output.weight.device, self.config.model.subsampling
        heard = [window for window in windows if len(window.frames)]
        if heard:
            for places in length_batches([len(window.frames) for window in heard], batch_tokens=BATCH_FRAMES):
                group = [heard[place] for place in places]
                frames = torch.nn.utils.rnn.pad_sequence([window.frames for window in group], batch_first=True)
                lengths = torch.tensor([len(window.frames) for window in group])
                log_probs, counts = self.model(frames.to(device), lengths.to(device))
                for window, row, count in zip(group, log_probs.cpu(), counts.tolist(), strict=True):
                    end = min(count, -(-window.keep.stop // factor))
                    window.log_probs = row[window.keep.start // factor : end].clone()
        for window in windows:
            window.frames = window.frames[:0]

    def _joined(self, opened: _Opened) -> Float[Tensor, "T C"] | InputError:
        if opened.error is not None:
            return opened.error
        parts = [window.log_probs for window in opened.windows if window.log_probs is not None]
        return torch.cat([torch.zeros(0, self.tokenizer.vocab_size), *parts])


def read_manifest(paths: Sequence[str]) -> list[Recording]:
    """The recordings of files with a sound file, a tab and what is said a line; a relative path starts at that file.

    Raises:
        InputError: a file cannot be read, or a line has no path or no tab; names the line.
    """
    found = []
    for path in paths:
        folder = Path(path).parent
        for where, line in LineCorpus([path]).located():
            name, tab, text = line.partition("\t")
            if not tab or not name.strip():
                raise InputError(f"{where}: line must have a sound file, a tab and what is said, got {line[:60]!r}")
            found.append(Recording(str(folder / name.strip()), text.strip()))
    return found
