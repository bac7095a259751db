"""Sound files: blocks and the whole are the same, other rates and channels, and what is broken is told."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from seqkit.audio import wave
from seqkit.audio.wave import audio_blocks, audio_seconds, read_audio, write_wave
from seqkit.errors import InputError

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")


def tone(seconds: float, rate: int, hertz: float = 440.0) -> torch.Tensor:
    return (
        0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * rate), dtype=torch.float64) / rate).float()
    )


@pytest.mark.parametrize("n", [0, 1, 799, 800, 801])
def test_a_file_comes_back(tmp_path: Path, n: int) -> None:
    samples = tone(1.0, 8000)[:n]
    write_wave(tmp_path / "a.wav", samples, rate=8000)
    found = read_audio(tmp_path / "a.wav", rate=8000)
    assert found.shape == samples.shape
    torch.testing.assert_close(found, samples, atol=1 / 32768, rtol=0)
    assert audio_seconds(tmp_path / "a.wav") == n / 8000
    blocks = list(audio_blocks(tmp_path / "a.wav", rate=8000, seconds=0.1))
    assert all(len(block) <= 800 for block in blocks)
    assert torch.equal(torch.cat([torch.zeros(0), *blocks]), found)


def test_too_loud_samples_are_cut(tmp_path: Path) -> None:
    write_wave(tmp_path / "a.wav", torch.tensor([2.0, -2.0]), rate=8000)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", rate=8000), [1.0, -1.0], atol=1e-4)


def test_channels_are_averaged_and_flac_is_read(tmp_path: Path) -> None:
    left, right = tone(0.1, 8000), tone(0.1, 8000, 1000.0)
    soundfile.write(tmp_path / "a.flac", torch.stack([left, right], 1).numpy(), 8000)
    torch.testing.assert_close(read_audio(tmp_path / "a.flac", rate=8000), (left + right) / 2, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("given", "wanted"), [(16000, 8000), (8000, 16000), (44100, 16000)])
def test_another_rate_is_converted_block_by_block(tmp_path: Path, given: int, wanted: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0, given).numpy(), given)
    found = read_audio(tmp_path / "a.wav", rate=wanted)
    assert abs(len(found) - wanted) <= 1
    middle = slice(wanted // 10, 9 * wanted // 10)
    torch.testing.assert_close(found[middle], tone(1.0, wanted)[: len(found)][middle], atol=2e-3, rtol=0)
    blocks = torch.cat(list(audio_blocks(tmp_path / "a.wav", rate=wanted, seconds=0.013)))
    torch.testing.assert_close(blocks, found, atol=1e-5, rtol=0)


def test_a_long_file_needs_the_memory_of_a_block(tmp_path: Path) -> None:
    """Ten minutes are 19 MB of samples; an hour differs in nothing."""
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 8000, 1, "PCM_16") as file:
        for _ in range(60):
            file.write(np.zeros(80000, np.float32))
    tracemalloc.start()
    total = sum(len(block) for block in audio_blocks(tmp_path / "a.wav", rate=16000))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 9_600_000
    assert most < 4e6


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "a.wav: audio must be a file that can be read, got: No such file or directory"),
        (b"", "a.wav: audio must be a file that libsndfile decodes, got: Format not recognised"),
        (b"zero one two\n" * 100, "a.wav: audio must be a file that libsndfile decodes, got: Format not recognised"),
    ],
)
def test_what_is_no_sound_is_told(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "a.wav").write_bytes(content)
    for read in (lambda: read_audio(tmp_path / "a.wav", rate=8000), lambda: audio_seconds(tmp_path / "a.wav")):
        with pytest.raises(InputError) as told:
            read()
        assert sentence in str(told.value)
    with pytest.raises(InputError, match="Is a directory"):
        read_audio(tmp_path, rate=8000)


def test_a_flac_that_breaks_off_is_told(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(size=80000).astype(np.float32) * 0.1, 8000)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2] + b"\0" * 1000)
    with pytest.raises(InputError, match="audio must be a file that libsndfile decodes"):
        read_audio(tmp_path / "a.flac", rate=8000)


def test_samples_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan], np.float32), 8000, subtype="FLOAT")
    with pytest.raises(InputError, match="the samples must be numbers, got one that is not finite"):
        read_audio(tmp_path / "a.wav", rate=8000)


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(InputError, match=r"audio: soundfile must be installed \(pip install 'seqkit\[audio\]'\)"):
        wave.audio_library("soundfile")
