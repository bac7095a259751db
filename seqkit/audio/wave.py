"""Sound files as mono float32 samples at the rate that is asked for, whole or in blocks.

libsndfile (the package soundfile) decodes WAV, FLAC, Ogg, MP3 and more; channels are averaged. soxr changes the rate,
and goes on from block to block, so that an hour of sound needs the memory of one block. Both come with
`pip install 'seqkit[audio]'`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seqkit.atomic import atomic_file
from seqkit.errors import InputError


def audio_library(name: str) -> Any:
    """The module `soundfile` or `soxr`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"audio: {name} must be installed (pip install 'seqkit[audio]'), got none") from None


def read_audio(path: str | Path, *, rate: int) -> Float[Tensor, " N"]:
    """All samples of a file.

    Raises:
        InputError: the file cannot be decoded, or has a sample that is not a number.
    """
    return torch.cat([torch.zeros(0), *audio_blocks(path, rate=rate)])


def audio_blocks(path: str | Path, *, rate: int, seconds: float = 10.0) -> Iterator[Float[Tensor, " n"]]:
    """The samples of a file, a block of so many seconds at a time; together they are those of `read_audio`.

    Raises:
        InputError: as in `read_audio`; a file that is broken later on is told when its blocks up to there are out.
    """
    soundfile = audio_library("soundfile")
    with _told(path), soundfile.SoundFile(str(path)) as file:
        resample = None
        if file.samplerate != rate:
            resample = audio_library("soxr").ResampleStream(file.samplerate, rate, 1, dtype="float32").resample_chunk
        n = max(1, round(seconds * file.samplerate))
        while len(channels := file.read(n, dtype="float32", always_2d=True)):
            block = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
            if not np.isfinite(block).all():
                raise InputError(f"{path}: the samples must be numbers, got one that is not finite")
            if resample is not None:
                block = resample(np.ascontiguousarray(block))
            yield torch.from_numpy(np.array(block))
        if resample is not None:
            yield torch.from_numpy(np.array(resample(np.zeros(0, np.float32), last=True)))


def audio_seconds(path: str | Path) -> float:
    """How long a file lasts, by its header.

    Raises:
        InputError: the file cannot be decoded.
    """
    soundfile = audio_library("soundfile")
    with _told(path):
        info = soundfile.info(str(path))
        return float(info.frames / info.samplerate)


def write_wave(path: str | Path, samples: Float[Tensor, " N"], *, rate: int) -> None:
    """A WAV file of 16 bits, whole or not at all; samples beyond -1 and 1 are cut."""
    soundfile = audio_library("soundfile")
    with atomic_file(path) as temporary:
        soundfile.write(str(temporary), samples.clamp(-1.0, 1.0).numpy(), rate, format="WAV", subtype="PCM_16")


class _told:  # noqa: N801 - it reads as a statement
    """Turns what the file system and libsndfile say of a file into one sentence."""

    def __init__(self, path: str | Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        try:
            with open(self.path, "rb"):
                pass
        except OSError as error:
            raise InputError(f"{self.path}: audio must be a file that can be read, got: {error.strerror}") from None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, audio_library("soundfile").SoundFileError):
            reason = str(getattr(error, "error_string", error)).rstrip(".")
            raise InputError(f"{self.path}: audio must be a file that libsndfile decodes, got: {reason}") from None
