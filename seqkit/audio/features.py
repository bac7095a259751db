"""What a network hears: log-mel energies and MFCCs of short frames, of whole recordings or chunk by chunk.

A frame is a window of samples; frame t begins at sample t * hop, and only whole frames count, so that a recording that
goes on changes nothing of the frames before. Every frame is a function of its own samples, to the last bit: sums over
frequencies are taken term by term, since a matrix product rounds by the number of its rows. What `stream` gives
chunk by chunk is therefore what a recording gives as a whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqkit.config import option
from seqkit.errors import InputError

MEL_SCALES = ("slaney", "htk")
FLOOR = 1e-10  # of an energy, so that silence has a logarithm


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How sound becomes vectors."""

    kind: str = option("log-mel", "logarithms of mel energies, or their cosine transform", choices=("log-mel", "mfcc"))
    rate: int = option(16000, "samples a second; recordings of another rate are converted")
    window: float = option(0.025, "seconds of a frame")
    hop: float = option(0.01, "seconds from a frame to the next")
    n_mels: int = option(80, "mel bands")
    n_coefficients: int = option(13, "MFCCs that are kept, the zeroth among them")
    mel_scale: str = option("slaney", "which mel formula; see `mel_filters`", choices=MEL_SCALES)
    lowest: float = option(0.0, "Hz where the first band begins")
    highest: float = option(0.0, "Hz where the last band ends; 0 for half the rate")
    preemphasis: float = option(0.0, "share of the sample before that is taken off each sample")
    normalize: bool = option(True, "each number has mean 0 and deviation 1 over a recording")

    def __post_init__(self) -> None:
        for name in ("rate", "n_mels", "n_coefficients"):
            if getattr(self, name) < 1:
                raise InputError(f"features: `{name}` must be at least 1, got {getattr(self, name)}")
        for name in ("window", "hop"):
            if not 1 <= getattr(self, name) * self.rate < math.inf:
                raise InputError(f"features: `{name}` must be at least one sample long, got {getattr(self, name)}")
        if not 0.0 <= self.preemphasis < 1.0:
            raise InputError(f"features: `preemphasis` must be in [0, 1), got {self.preemphasis}")
        if self.kind == "mfcc" and self.n_coefficients > self.n_mels:
            raise InputError(
                f"features: `n_coefficients` must be at most n_mels ({self.n_mels}), got {self.n_coefficients}"
            )

    @property
    def dim(self) -> int:
        """Numbers of a frame."""
        return self.n_mels if self.kind == "log-mel" else self.n_coefficients


def build_features(config: FeatureConfig) -> LogMel | MFCC:
    """The features of a config, without their normalization."""
    mel = LogMel(
        rate=config.rate, window=config.window, hop=config.hop, n_mels=config.n_mels, mel_scale=config.mel_scale,
        lowest=config.lowest, highest=config.highest or config.rate / 2, preemphasis=config.preemphasis,
    )  # fmt: skip
    return mel if config.kind == "log-mel" else MFCC(mel, config.n_coefficients)


class LogMel(nn.Module):
    """log sum_f filter[m, f] |DFT(w * frame)[f]|^2, with w the Hann window (periodic), natural logarithm.

    The transform is as long as the next power of two.

    Args:
        window, hop: seconds.
        lowest, highest: Hz; see `mel_filters`.
        preemphasis: a in y[n] = x[n] - a x[n - 1], with x[-1] = 0.

    Raises:
        InputError: the band lies beyond half the rate, or has too many filters for the length of the window.
    """

    def __init__(
        self, *, rate: int = 16000, window: float = 0.025, hop: float = 0.01, n_mels: int = 80,
        mel_scale: str = "slaney", lowest: float = 0.0, highest: float | None = None, preemphasis: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.window_length, self.hop_length = round(window * rate), round(hop * rate)
        self.n_fft = 1 << (self.window_length - 1).bit_length()
        self.preemphasis, self.dim = preemphasis, n_mels
        filters = mel_filters(self.n_fft, rate, n_mels, scale=mel_scale, lowest=lowest, highest=highest or rate / 2)
        first = (filters > 0).to(torch.uint8).argmax(1)
        width = int((filters > 0).sum(1).max())
        places = (first[:, None] + torch.arange(width)).clamp(max=filters.shape[1] - 1)  # M W
        here = torch.arange(width) < (filters > 0).sum(1)[:, None]
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("weights", (filters.gather(1, places) * here).float(), persistent=False)
        self.register_buffer("hann", torch.hann_window(self.window_length), persistent=False)
        self.places: Tensor
        self.weights: Tensor
        self.hann: Tensor

    def n_frames(self, samples: Int[Tensor, "*B"]) -> Int[Tensor, "*B"]:
        """The whole frames in so many samples."""
        return torch.where(samples < self.window_length, 0, (samples - self.window_length) // self.hop_length + 1)

    def forward(
        self, samples: Float[Tensor, "B N"], lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B T M"], Int[Tensor, " B"]]:
        """The features of padded recordings, zero beyond their frames, and how many frames each has."""
        counts = self.n_frames(_lengths(samples, lengths))
        energies = self._energies(samples, samples.new_zeros(len(samples), 1))
        beyond = torch.arange(energies.shape[1], device=samples.device) >= counts[:, None]
        return energies.masked_fill(beyond[:, :, None], 0.0), counts

    def stream(self) -> FeatureStream:
        """Features of one recording as it arrives."""
        return FeatureStream(self)

    def _energies(self, samples: Float[Tensor, "B N"], before: Float[Tensor, "B 1"]) -> Float[Tensor, "B T M"]:
        """Of the whole frames; `before` is the sample in front of the first."""
        if samples.shape[1] < self.window_length:
            return samples.new_zeros(len(samples), 0, self.dim)
        if self.preemphasis:
            samples = samples - self.preemphasis * torch.cat([before, samples[:, :-1]], dim=1)
        frames = samples.unfold(1, self.window_length, self.hop_length)  # B T W
        spectrum = torch.fft.rfft(frames * self.hann, n=self.n_fft)  # B T F
        power = spectrum.real.square() + spectrum.imag.square()
        energies = weighted_sums(power, self.places, self.weights)
        return energies.clamp(min=FLOOR).double().log().float()  # float64: its rounding is below what float32 sees


class MFCC(nn.Module):
    """The first coefficients of the cosine transform of log-mel energies.

    c_k = s_k sum_m cos(pi k (m + 1/2) / M) logmel_m, with s_0 = sqrt(1 / M) and else sqrt(2 / M): orthonormal, type II.

    Reference: Davis and Mermelstein 1980. Differs: no liftering.
    """

    def __init__(self, mel: LogMel, n_coefficients: int = 13) -> None:
        super().__init__()
        if not 1 <= n_coefficients <= mel.dim:
            raise InputError(f"MFCC: n_coefficients must be from 1 to {mel.dim}, got {n_coefficients}")
        self.mel, self.dim = mel, n_coefficients
        m, k = torch.arange(mel.dim, dtype=torch.float64), torch.arange(n_coefficients, dtype=torch.float64)[:, None]
        scale = torch.where(k == 0, 1.0, 2.0).div(mel.dim).sqrt()
        self.register_buffer(
            "weights", (scale * torch.cos(math.pi * k * (m + 0.5) / mel.dim)).float(), persistent=False
        )
        self.register_buffer("places", torch.arange(mel.dim).expand(n_coefficients, mel.dim), persistent=False)
        self.places: Tensor
        self.weights: Tensor

    @property
    def hop_length(self) -> int:
        """Samples from a frame to the next."""
        return self.mel.hop_length

    def n_frames(self, samples: Int[Tensor, "*B"]) -> Int[Tensor, "*B"]:
        """The whole frames in so many samples."""
        return self.mel.n_frames(samples)

    def forward(
        self, samples: Float[Tensor, "B N"], lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B T K"], Int[Tensor, " B"]]:
        """As of `LogMel`."""
        energies, counts = self.mel(samples, lengths)
        return self.transform(energies), counts

    def transform(self, energies: Float[Tensor, "*T M"]) -> Float[Tensor, "*T K"]:
        """The coefficients of log-mel energies."""
        return weighted_sums(energies, self.places, self.weights)

    def stream(self) -> FeatureStream:
        """Features of one recording as it arrives."""
        return FeatureStream(self.mel, self)


class FeatureStream:
    """The features of one recording, chunk by chunk; it keeps less than a window of samples."""

    def __init__(self, mel: LogMel, coefficients: MFCC | None = None) -> None:
        self.mel, self.coefficients = mel, coefficients
        self.rest = torch.zeros(1, 0)
        self.before = torch.zeros(1, 1)
        self.skip = 0  # samples to drop from what comes, where the hop is longer than the window

    def push(self, samples: Float[Tensor, " n"]) -> Float[Tensor, "t D"]:
        """The frames that are whole now and were not before."""
        self.rest = torch.cat([self.rest, samples[None]], dim=1)
        self._drop(self.skip)
        energies = self.mel._energies(self.rest, self.before)
        self._drop(self.skip + energies.shape[1] * self.mel.hop_length)
        return energies[0] if self.coefficients is None else self.coefficients.transform(energies[0])

    def _drop(self, n: int) -> None:
        dropped = min(n, self.rest.shape[1])
        self.skip = n - dropped
        if dropped:
            self.before, self.rest = self.rest[:, dropped - 1 : dropped].clone(), self.rest[:, dropped:].clone()


def normalized(features: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B T D"]:
    """Each number less its mean over the recording's frames and over its deviation; zero beyond the length.

    A number that does not change becomes 0.
    """
    counts = (torch.arange(features.shape[1], device=features.device) < lengths[:, None])[:, :, None]
    n = lengths.clamp(min=1)[:, None, None]
    centred = (features - (features * counts).sum(1, keepdim=True) / n) * counts
    deviation = (centred.square().sum(1, keepdim=True) / n).sqrt()
    return centred / deviation.clamp(min=1e-5)


def mel_filters(
    n_fft: int, rate: int, n_mels: int, *, scale: str = "slaney", lowest: float = 0.0, highest: float | None = None
) -> Float[Tensor, "M F"]:
    """Triangles over the F = n_fft / 2 + 1 frequencies, evenly spaced in mel, each from its neighbours' peaks; float64.

    slaney: mel = 3 f / 200 up to 1,000 Hz, then 15 + 27 ln(f / 1000) / ln 6.4; a triangle has the area of 1 Hz.
    htk: mel = 2595 log10(1 + f / 700); a triangle has the height 1.

    Reference: Slaney 1998 (Auditory Toolbox), librosa's default; Young et al. 2006 (The HTK Book), section 5.4,
        torchaudio's default.

    Raises:
        InputError: the scale is unknown, the band is empty or beyond half the rate, or a filter meets no frequency.
    """
    highest = rate / 2 if highest is None else highest
    if scale not in MEL_SCALES:
        raise InputError(f"features: mel_scale must be one of {', '.join(MEL_SCALES)}, got {scale!r}")
    if not 0.0 <= lowest < highest <= rate / 2:
        raise InputError(
            f"features: `lowest` and `highest` must rise from 0 to {rate / 2:g}, half the rate, got {lowest:g} and "
            f"{highest:g}"
        )
    ends = [_mel(x, scale) for x in (lowest, highest)]
    mels = torch.linspace(ends[0], ends[1], n_mels + 2, dtype=torch.float64)
    peaks = torch.tensor([_hertz(x, scale) for x in mels.tolist()], dtype=torch.float64)
    hertz = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    rising = (hertz - peaks[:-2, None]) / (peaks[1:-1] - peaks[:-2])[:, None]
    falling = (peaks[2:, None] - hertz) / (peaks[2:] - peaks[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp(min=0.0)
    if scale == "slaney":
        filters = filters * (2.0 / (peaks[2:] - peaks[:-2]))[:, None]
    if bool((filters.sum(1) == 0).any()):
        raise InputError(
            f"features: `n_mels` must leave each band a frequency of the {n_fft // 2 + 1} that the window has, "
            f"got {n_mels} bands"
        )
    return filters


def weighted_sums(
    x: Float[Tensor, "*rows F"], places: Int[Tensor, "K W"], weights: Float[Tensor, "K W"]
) -> Float[Tensor, "*rows K"]:
    """sum_w weights[k, w] x[places[k, w]], added in the order of w, so that a row does not depend on the others."""
    total = x.new_zeros(*x.shape[:-1], len(places))
    for place, weight in zip(places.unbind(1), weights.unbind(1), strict=True):
        total = total + x[..., place] * weight
    return total


def _mel(hertz: float, scale: str) -> float:
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hertz / 700.0)
    return 3.0 * hertz / 200.0 if hertz < 1000.0 else 15.0 + 27.0 * math.log(hertz / 1000.0) / math.log(6.4)


def _hertz(mel: float, scale: str) -> float:
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return 200.0 * mel / 3.0 if mel < 15.0 else 1000.0 * math.exp((mel - 15.0) * math.log(6.4) / 27.0)


def _lengths(samples: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is not None:
        return lengths
    return torch.full((len(samples),), samples.shape[1], device=samples.device)
