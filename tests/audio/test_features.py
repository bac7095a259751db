"""Features against numpy by hand, the published mel formulas, and themselves: in chunks, in batches, with padding."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from seqkit.audio.features import MFCC, FeatureConfig, LogMel, build_features, mel_filters, normalized, weighted_sums
from seqkit.errors import InputError


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(
    x: np.ndarray, *, rate: int, window: int, hop: int, n_fft: int, filters: np.ndarray, a: float
) -> np.ndarray:
    """Frame by frame, with the discrete Fourier transform written out, in float64."""
    x = x.astype(np.float64)
    y = x - a * np.concatenate([[0.0], x[:-1]])
    rows = []
    for begin in range(0, len(y) - window + 1, hop):
        frame = y[begin : begin + window] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window))
        f, n = np.arange(n_fft // 2 + 1)[:, None], np.arange(window)
        power = np.abs((frame * np.exp(-2j * np.pi * f * n / n_fft)).sum(1)) ** 2
        rows.append(np.log(np.maximum(filters @ power, 1e-10)))
    return np.array(rows)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("a", [0.0, 0.97])
def test_log_mel_is_what_its_definition_says(scale: str, a: float) -> None:
    mel = LogMel(rate=8000, n_mels=20, mel_scale=scale, lowest=50.0, preemphasis=a)
    samples = noise(1, 1003)
    found, counts = mel(samples)
    filters = mel_filters(256, 8000, 20, scale=scale, lowest=50.0).numpy()
    expected = by_hand(samples[0].numpy(), rate=8000, window=200, hop=80, n_fft=256, filters=filters, a=a)
    assert counts.tolist() == [11]
    np.testing.assert_allclose(found[0], expected, atol=2e-5)


def test_mel_formulas_are_the_published_ones() -> None:
    """HTK: 1,000 Hz are 999.99 mel. Slaney: 1,000 Hz are 15 mel and 6,400 Hz are 42; below, 200 / 3 Hz a mel."""
    peaks = mel_filters(1 << 16, 16000, 41, scale="slaney", lowest=0.0, highest=6400.0).argmax(1) * 16000 / (1 << 16)
    np.testing.assert_allclose(peaks[:15], np.arange(1, 16) * 200 / 3, atol=0.2)
    np.testing.assert_allclose(peaks[14:] / 1000, 6.4 ** (np.arange(27) / 27), atol=3e-4)
    one = mel_filters(1 << 16, 16000, 1, scale="htk", highest=700 * (10 ** (2 * 1000 / 2595) - 1))
    assert float(one.argmax()) * 16000 / (1 << 16) == pytest.approx(700 * (10 ** (1000 / 2595) - 1), abs=0.2)
    assert float(one.max()) == pytest.approx(1.0, abs=1e-3)


def test_slaney_triangles_have_the_area_of_one_hertz() -> None:
    filters = mel_filters(1 << 14, 16000, 20, scale="slaney")
    np.testing.assert_allclose(filters.sum(1) * 16000 / (1 << 14), np.ones(20), atol=1e-3)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_mel_filters_are_librosas(scale: str) -> None:
    librosa = pytest.importorskip("librosa")
    for n_fft, rate, n_mels in ((512, 16000, 80), (256, 8000, 40)):
        theirs = librosa.filters.mel(
            sr=rate, n_fft=n_fft, n_mels=n_mels, htk=scale == "htk", norm="slaney" if scale == "slaney" else None
        )
        np.testing.assert_allclose(mel_filters(n_fft, rate, n_mels, scale=scale), theirs, atol=1e-6)


def test_mfcc_is_the_cosine_transform() -> None:
    transform = pytest.importorskip("scipy.fft").dct
    mel = LogMel(rate=8000, n_mels=23)
    samples = noise(2, 900)
    energies, _ = mel(samples)
    found, counts = MFCC(mel, 13)(samples)
    assert counts.tolist() == [9, 9]
    np.testing.assert_allclose(found, transform(energies.numpy(), norm="ortho")[..., :13], atol=2e-5)


@pytest.mark.parametrize("kind", ["log-mel", "mfcc"])
@pytest.mark.parametrize("hop", [0.01, 0.04])  # the second is longer than the window
def test_chunks_give_the_frames_of_the_whole(kind: str, hop: float) -> None:
    features = build_features(FeatureConfig(kind=kind, rate=8000, hop=hop, n_mels=24, preemphasis=0.97))
    samples = noise(1, 12345)
    whole, _ = features(samples)
    random = np.random.default_rng(1)
    for most in (1, 3, 100, 700, 20000):
        stream, frames, at = features.stream(), [], 0
        while at < samples.shape[1] and (most > 1 or at < 900):
            n = int(random.integers(0, most + 1))
            frames.append(stream.push(samples[0, at : at + n]))
            at += n
        found = torch.cat(frames)
        assert len(found) == (whole.shape[1] if most > 1 else int(features.n_frames(torch.tensor(at))))
        assert torch.equal(found, whole[0, : len(found)])
        assert stream.rest.shape[1] < 200


def test_a_frame_does_not_depend_on_its_batch_or_padding() -> None:
    features = LogMel(rate=8000, n_mels=40)
    samples, lengths = noise(5, 3001), torch.tensor([3001, 0, 199, 200, 1717])
    samples[2, 199:] = math.nan
    together, counts = features(samples, lengths)
    assert counts.tolist() == [36, 0, 0, 1, 19]
    for row, n in enumerate(lengths.tolist()):
        alone, count = features(samples[row : row + 1, :n])
        assert torch.equal(together[row, : counts[row]], alone[0])
        assert int(count) == int(counts[row])
        assert not together[row, counts[row] :].any()


def test_silence_is_finite() -> None:
    found, _ = LogMel(rate=8000, n_mels=40)(torch.zeros(1, 400))
    np.testing.assert_allclose(found, np.full((1, 3, 40), math.log(1e-10)), rtol=1e-6)


def test_features_have_a_gradient() -> None:
    samples = noise(1, 400).requires_grad_()
    LogMel(rate=8000, n_mels=20)(samples)[0].sum().backward()
    assert samples.grad is not None
    assert bool(samples.grad.isfinite().all())


def test_normalized_features_have_mean_0_and_deviation_1() -> None:
    x, lengths = noise(3, 7, 4) * 5 + 3, torch.tensor([7, 0, 3])
    x[0, :, 1] = 2.0
    found = normalized(x, lengths)
    np.testing.assert_allclose(found[2, :3].mean(0), np.zeros(4), atol=1e-6)
    np.testing.assert_allclose(found[2, :3].std(0, unbiased=False), np.ones(4), atol=1e-5)
    assert not found[0, :, 1].any()
    assert not found[1].any()
    assert not found[2, 3:].any()


def test_weighted_sums_are_sums() -> None:
    x = noise(2, 3, 5)
    places, weights = torch.tensor([[0, 4], [1, 1]]), torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    torch.testing.assert_close(
        weighted_sums(x, places, weights), torch.stack([x[..., 0] + 2 * x[..., 4], 2 * x[..., 1]], -1)
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"hop": 0.0}, "`hop` must be at least one sample long, got 0.0"),
        ({"n_mels": 0}, "`n_mels` must be at least 1, got 0"),
        ({"preemphasis": 1.0}, r"`preemphasis` must be in \[0, 1\), got 1.0"),
        ({"kind": "mfcc", "n_coefficients": 81}, r"`n_coefficients` must be at most n_mels \(80\), got 81"),
        ({"highest": 9000.0}, "`lowest` and `highest` must rise from 0 to 8000, half the rate, got 0 and 9000"),
        ({"rate": 8000, "n_mels": 200}, "`n_mels` must leave each band a frequency of the 129 that the window has"),
    ],
)
def test_wrong_options_are_told(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build_features(FeatureConfig(**given))


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(InputError, match="mel_scale must be one of slaney, htk, got 'bark'"):
        mel_filters(512, 16000, 40, scale="bark")
    with pytest.raises(InputError, match="n_coefficients must be from 1 to 20, got 21"):
        MFCC(LogMel(n_mels=20), 21)
