"""Varied recordings: the noise has the level that was asked for, speed moves pitch and length, masks stay within."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from seqkit.audio.augment import AugmentConfig, add_noise, change_speed, coloured_noise, masked, varied
from seqkit.errors import InputError


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tone(n: int, hertz: float) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(n) / 8000)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 20.0])
@pytest.mark.parametrize("n_noise", [1, 300, 5000])
def test_noise_has_the_level_that_was_asked_for(snr: float, n_noise: int) -> None:
    signal, noise = tone(2000, 440.0), 7.0 * (torch.rand(n_noise, generator=torch.Generator().manual_seed(1)) + 0.1)
    added = add_noise(signal, noise, snr, random()) - signal
    measured = 10 * math.log10(float(signal.square().mean() / added.square().mean()))
    assert measured == pytest.approx(snr, abs=0.01)


def test_silence_gets_no_noise_and_silent_noise_adds_none() -> None:
    signal = tone(100, 440.0)
    assert torch.equal(add_noise(torch.zeros(100), signal, 0.0, random()), torch.zeros(100))
    for noise in (torch.zeros(10), torch.zeros(0)):
        assert torch.equal(add_noise(signal, noise, 0.0, random()), signal)
    assert not len(add_noise(torch.zeros(0), signal, 0.0, random()))


def test_noise_is_coloured() -> None:
    """The power of brown noise falls by 6 dB an octave."""
    for exponent, fall in ((0.0, 0.0), (1.0, 3.01), (2.0, 6.02)):
        power = np.abs(np.fft.rfft(coloured_noise(1 << 16, exponent, random()).double().numpy())) ** 2
        octaves = [power[1 << k : 2 << k].mean() for k in range(9, 15)]
        falls = -np.diff(10 * np.log10(octaves))
        np.testing.assert_allclose(falls, np.full(5, fall), atol=0.8)
    assert float(coloured_noise(1000, 1.0, random()).std(unbiased=False)) == pytest.approx(1.0, abs=1e-3)
    assert [len(coloured_noise(n, 1.0, random())) for n in (0, 1, 2, 3)] == [0, 1, 2, 3]


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_speed_changes_length_and_pitch(factor: float) -> None:
    pytest.importorskip("soxr")
    found = change_speed(tone(8000, 400.0), factor)
    assert len(found) == pytest.approx(8000 / factor, abs=1)
    peak = np.abs(np.fft.rfft(found.numpy(), 8000)).argmax()
    assert peak == pytest.approx(400 * factor, abs=1)


def test_a_recording_is_varied_by_its_seed_alone() -> None:
    pytest.importorskip("soxr")
    config = AugmentConfig(speed=0.1, noise_probability=1.0)
    signal = tone(4000, 300.0)
    one, same, other = (varied(signal, config, [], random(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert len(one) != len(other)
    assert torch.equal(varied(signal, AugmentConfig(), [], random()), signal)
    from_file = varied(signal, AugmentConfig(noise_probability=1.0), [torch.ones(5)], random())
    np.testing.assert_allclose((from_file - signal).diff(), np.zeros(3999), atol=1e-6)


def test_masks_are_runs_within_their_limits() -> None:
    config = AugmentConfig(frequency_masks=1, frequency_width=3, time_masks=1, time_width=50, time_share=0.25)
    widths = set()
    for seed in range(60):
        zero = masked(torch.ones(20, 8), config, random(seed)) == 0
        columns, rows = zero.all(0).nonzero()[:, 0], zero.all(1).nonzero()[:, 0]
        widths.add((len(columns), len(rows)))
        assert int(zero.sum()) == 20 * len(columns) + 8 * len(rows) - len(columns) * len(rows)
        for run in (columns, rows):
            assert not len(run) or int(run[-1] - run[0]) == len(run) - 1
    assert {columns for columns, _ in widths} == {0, 1, 2, 3}
    assert {rows for _, rows in widths} == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("shape", [(0, 8), (1, 1)])
def test_the_smallest_features_are_masked(shape: tuple[int, int]) -> None:
    features = torch.ones(shape)
    assert masked(features, AugmentConfig(frequency_masks=2, time_masks=2), random()).shape == shape
    assert torch.equal(features, torch.ones(shape))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"speed": 1.0}, r"`speed` must be in \[0, 1\), got 1.0"),
        ({"noise_probability": 1.5}, "`noise_probability` must be from 0 to 1, got 1.5"),
        ({"time_masks": -1}, "`time_masks` must be at least 0, got -1"),
        ({"lowest_snr": 40.0}, "`lowest_snr` must be at most `highest_snr`, got 40.0 and 30.0"),
    ],
)
def test_wrong_options_are_told(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        AugmentConfig(**given)
