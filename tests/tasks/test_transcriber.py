"""Recordings heard in windows, in groups and one by one; manifests; what cannot be read."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_recordings import CONFIG

from seqkit.audio.wave import write_wave
from seqkit.errors import InputError
from seqkit.tasks import transcriber as module
from seqkit.tasks.ctc_config import TranscriptionConfig
from seqkit.tasks.ctc_decoder import CTCDecoder, CTCSearchOptions
from seqkit.tasks.transcriber import Recording, Transcriber, read_manifest
from seqkit.text.tokenizer import WordTokenizer

pytest.importorskip("soundfile")


def untrained(folder: Path, **model: object) -> Transcriber:
    torch.manual_seed(0)
    tables = tomllib.loads(CONFIG)
    tables["model"] |= model
    config = TranscriptionConfig.from_tables(tables, where="c")
    return Transcriber.new(config, WordTokenizer.train(["low mid high"]), folder)


def noise(seconds: float, seed: int = 0) -> torch.Tensor:
    draw = np.random.default_rng(seed).normal(scale=0.1, size=round(8000 * seconds))
    return torch.from_numpy(draw.astype(np.float32))


@pytest.mark.parametrize("subsampling", [1, 2, 4])
def test_a_short_recording_is_heard_as_a_whole(tmp_path: Path, subsampling: int) -> None:
    transcriber = untrained(tmp_path, subsampling=subsampling)
    samples = noise(1.0)
    frames = transcriber.frames(samples)
    assert frames.shape == (98, 12)
    with torch.no_grad():
        expected, _ = transcriber.model.eval()(frames[None], torch.tensor([98]))
    (found,) = transcriber.log_probs([torch.split(samples, 777)])
    assert torch.equal(found, expected[0])


def test_windows_join_to_what_the_whole_gives_where_the_model_sees_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder of no layers sees the neighbours alone, so that windows must make no difference at all."""
    transcriber = untrained(tmp_path, encoder="none", subsampling=4)
    object.__setattr__(transcriber.config.features, "normalize", False)
    for seconds in (0.0, 0.01, 0.3, 0.99, 1.0, 1.5, 2.31, 4.0):
        samples = noise(seconds)
        (whole,) = transcriber.log_probs([[samples]])
        with monkeypatch.context() as patch:
            patch.setattr(module, "WINDOW", 1.0)
            patch.setattr(module, "CONTEXT", 0.2)
            (found,) = transcriber.log_probs([torch.split(samples, 3000)])
        assert torch.equal(found, whole)


def test_a_result_depends_on_no_other_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transcriber = untrained(tmp_path)
    recordings = [noise(seconds, seed) for seed, seconds in enumerate((0.7, 0.0, 1.9, 0.1, 0.7))]
    alone = [next(iter(transcriber.log_probs([[samples]]))) for samples in recordings]
    for batch_frames in (1, 100, 100_000):
        monkeypatch.setattr(module, "BATCH_FRAMES", batch_frames)
        together = list(transcriber.log_probs([samples] for samples in recordings))
        assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))  # type: ignore[arg-type]


def test_a_file_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    transcriber = untrained(tmp_path)
    for name in "ac":
        write_wave(tmp_path / f"{name}.wav", noise(0.3), rate=8000)
    first, second, third = transcriber.transcribe([tmp_path / f"{name}.wav" for name in "abc"])
    assert first == third
    assert isinstance(second, InputError)
    assert "b.wav: audio must be a file that can be read" in str(second)


def test_words_have_their_seconds(tmp_path: Path) -> None:
    transcriber = untrained(tmp_path, subsampling=4)
    log_probs = torch.full((6, transcriber.tokenizer.vocab_size), -20.0)
    mid = transcriber.tokenizer.encode("mid")[0]
    log_probs[[0, 1, 3, 4, 5], 0] = 0.0
    log_probs[2, mid] = 0.0
    found = transcriber.transcription(log_probs, CTCDecoder(transcriber.tokenizer, CTCSearchOptions()))
    assert found.text == "mid"
    assert found.labels == [mid]
    assert [(word, round(start, 6)) for word, start in found.words] == [("mid", 0.08)]


def test_an_evaluation_needs_recordings_that_can_be_read(tmp_path: Path) -> None:
    transcriber = untrained(tmp_path)
    with pytest.raises(InputError, match="the data must have at least one recording, got none"):
        transcriber.evaluate([])
    with pytest.raises(InputError, match="audio must be a file that can be read"):
        transcriber.evaluate([Recording(str(tmp_path / "none.wav"), "low")])


def test_a_manifest_names_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_text("a/b.wav\tlow mid\n/c.wav\t\n")
    found = read_manifest([str(tmp_path / "m.tsv")])
    assert found == [Recording(str(tmp_path / "a/b.wav"), "low mid"), Recording("/c.wav", "")]


@pytest.mark.parametrize("line", ["a.wav low", "\tlow", ""])
def test_a_wrong_line_is_told(tmp_path: Path, line: str) -> None:
    (tmp_path / "m.tsv").write_text(f"a.wav\tlow\n{line}\n")
    with pytest.raises(InputError, match=r"m.tsv:2.*: line must have a sound file, a tab and what is said"):
        read_manifest([str(tmp_path / "m.tsv")])
