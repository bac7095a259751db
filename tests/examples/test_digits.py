"""The example of spoken digits: which clips are for what, how they are joined, and what is wrong."""

import io
import runpy
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqkit.tasks.transcriber import read_manifest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/ctc/digits.py"
soundfile = pytest.importorskip("soundfile")


@pytest.fixture
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


def archive(path: Path, *, rate: int = 8000) -> None:
    """Clips whose samples are all digit / 10, from two speakers that are known and two that are not."""
    with tarfile.open(path, "w:xz") as file:
        for speaker in ("george", "lucas", "theo", "yweweler"):
            for digit in (3, 7):
                for place in (0, 4, 5, 9, 10, 49):
                    content = io.BytesIO()
                    soundfile.write(content, np.full(500, digit / 10, np.float32), rate, format="WAV")
                    entry = tarfile.TarInfo(f"recordings/{digit}_{speaker}_{place}.wav")
                    entry.size = len(content.getvalue())
                    file.addfile(entry, io.BytesIO(content.getvalue()))


def test_the_archive_becomes_strings_of_each_part(
    example: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(tmp_path / "a.tar.xz")
    monkeypatch.setattr("sys.argv", ["digits.py", str(tmp_path / "a.tar.xz"), str(tmp_path / "out")])
    monkeypatch.setitem(example["main"].__globals__, "STRINGS", {"train": 3, "valid": 2, "test": 2, "unseen": 1})
    example["main"]()
    assert capsys.readouterr().out.splitlines()[0].startswith("6 strings of train: ")
    for part, speakers in (("train", {"george", "lucas"}), ("unseen", {"theo", "yweweler"})):
        recordings = read_manifest([str(tmp_path / f"out/{part}.tsv")])
        assert {Path(recording.path).name.split("-")[0] for recording in recordings} == speakers
    for recording in recordings:
        words = recording.text.split()
        assert 3 <= len(words) <= 7
        samples, rate = soundfile.read(recording.path)
        assert rate == 8000
        for word, level in (("three", 0.3), ("seven", 0.7)):
            assert int((abs(samples - level) < 0.01).sum()) == 500 * words.count(word)


def test_clips_are_split_by_number_and_speaker(example: dict[str, Any], tmp_path: Path) -> None:
    archive(tmp_path / "a.tar.xz")
    parts = example["read"](str(tmp_path / "a.tar.xz"))
    sizes = {part: {speaker: len(clips) for speaker, clips in by.items()} for part, by in parts.items()}
    known = {"george": 4, "lucas": 4}
    assert sizes == {"train": known, "valid": known, "test": known, "unseen": {"theo": 12, "yweweler": 12}}


def test_a_wrong_archive_is_told(example: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="archive must be a tar file of sound files"):
        example["read"](str(tmp_path / "none.tar.xz"))
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(SystemExit, match="archive must hold clips"):
        example["read"](str(tmp_path / "empty.tar"))
    archive(tmp_path / "a.tar.xz", rate=16000)
    with pytest.raises(SystemExit, match="must be one channel of 8000 samples a second"):
        example["read"](str(tmp_path / "a.tar.xz"))
