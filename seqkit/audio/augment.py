"""Recordings varied while training: another speed, noise at a chosen level, and masked features.

Each takes its chance from a numpy generator, so that an epoch of varied recordings is a function of its seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seqkit.audio.wave import audio_library
from seqkit.config import option
from seqkit.errors import InputError

SILENCE = 1e-10  # the power below which a recording counts as silent


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How a recording is varied each time that training meets it. Nothing is by default."""

    speed: float = option(0.0, "the speed is drawn from 1 - x to 1 + x")
    noise: list[str] = field(
        default_factory=list,
        metadata={"help": "sound files that noise is cut from; without one it is drawn, between white and brown"},
    )
    noise_probability: float = option(0.0, "share of the recordings that get noise")
    lowest_snr: float = option(5.0, "decibels between the signal and the noise, at least")
    highest_snr: float = option(30.0, "and at most")
    frequency_masks: int = option(0, "runs of feature numbers that are set to zero")
    frequency_width: int = option(8, "numbers of such a run, at most")
    time_masks: int = option(0, "runs of frames that are set to zero")
    time_width: int = option(20, "frames of such a run, at most")
    time_share: float = option(0.2, "of a recording's frames that one run may take")

    def __post_init__(self) -> None:
        if not 0.0 <= self.speed < 1.0:
            raise InputError(f"augment: `speed` must be in [0, 1), got {self.speed}")
        for name in ("noise_probability", "time_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"augment: `{name}` must be from 0 to 1, got {getattr(self, name)}")
        for name in ("frequency_masks", "frequency_width", "time_masks", "time_width"):
            if getattr(self, name) < 0:
                raise InputError(f"augment: `{name}` must be at least 0, got {getattr(self, name)}")
        if not -math.inf < self.lowest_snr <= self.highest_snr < math.inf:
            raise InputError(
                f"augment: `lowest_snr` must be at most `highest_snr`, got {self.lowest_snr} and {self.highest_snr}"
            )


def varied(
    samples: Float[Tensor, " N"], config: AugmentConfig, noises: Sequence[Tensor], random: np.random.Generator
) -> Float[Tensor, " n"]:
    """The recording at another speed and with noise, as the config says; `noises` are those of its files."""
    if config.speed:
        samples = change_speed(samples, random.uniform(1.0 - config.speed, 1.0 + config.speed))
    if random.random() < config.noise_probability:
        snr = random.uniform(config.lowest_snr, config.highest_snr)
        if noises:
            noise = noises[int(random.integers(len(noises)))]
        else:
            noise = coloured_noise(len(samples), random.uniform(0.0, 2.0), random)
        samples = add_noise(samples, noise, snr, random)
    return samples


def change_speed(samples: Float[Tensor, " N"], factor: float) -> Float[Tensor, " n"]:
    """The recording played `factor` times as fast, pitch and all: resampled by soxr to N / factor samples.

    Reference: Ko et al. 2015, Audio augmentation for speech recognition, section 2.2.
    """
    if not len(samples):
        return samples
    found = audio_library("soxr").resample(samples.numpy(), factor, 1.0)
    return torch.from_numpy(np.array(found, np.float32))


def add_noise(
    samples: Float[Tensor, " N"], noise: Float[Tensor, " M"], snr: float, random: np.random.Generator
) -> Float[Tensor, " N"]:
    """The recording plus noise of 10^(-snr / 10) times its power; snr in decibels.

    The noise is taken from a random place on and begins again where it ends. A silent recording, or silent noise,
    changes nothing.
    """
    power, noise_power = float(samples.double().square().mean()), float(noise.double().square().mean())
    if not len(samples) or not len(noise) or power < SILENCE or noise_power < SILENCE:
        return samples
    begin = int(random.integers(len(noise)))
    cut = noise[(begin + torch.arange(len(samples))) % len(noise)]
    cut_power = float(cut.double().square().mean())
    if cut_power < SILENCE:
        return samples
    return samples + cut * math.sqrt(power / cut_power * 10.0 ** (-snr / 10.0))


def coloured_noise(n: int, exponent: float, random: np.random.Generator) -> Float[Tensor, " n"]:
    """Gaussian noise whose power falls with frequency as 1 / f^exponent: 0 white, 1 pink, 2 brown; power 1."""
    if n < 2:
        return torch.zeros(n)
    frequencies = np.arange(n // 2 + 1)
    spectrum = random.normal(size=(2, len(frequencies))) * np.maximum(frequencies, 1) ** (-exponent / 2)
    noise = np.fft.irfft(spectrum[0] + 1j * spectrum[1], n)
    return torch.from_numpy((noise / noise.std()).astype(np.float32))


def masked(features: Float[Tensor, "T D"], config: AugmentConfig, random: np.random.Generator) -> Float[Tensor, "T D"]:
    """SpecAugment: runs of numbers, and runs of frames, are zero, which is the mean of normalized features.

    A run's width is drawn from 0 to the config's most, then its place.

    Reference: Park et al. 2019, section 2, arXiv:1904.08779. Differs: no time warping, which brought them least.
    """
    features = features.clone()
    T, D = features.shape
    for _ in range(config.frequency_masks):
        width = int(random.integers(min(config.frequency_width, D) + 1))
        begin = int(random.integers(D - width + 1))
        features[:, begin : begin + width] = 0.0
    for _ in range(config.time_masks):
        width = int(random.integers(min(config.time_width, int(config.time_share * T)) + 1))
        begin = int(random.integers(T - width + 1))
        features[begin : begin + width] = 0.0
    return features
