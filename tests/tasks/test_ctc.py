"""Training CTC models: they learn, resume bit for bit with augmentation, and what is wrong is told."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from toy_recordings import CONFIG, write_recordings

import seqkit as package
from seqkit.errors import InputError
from seqkit.tasks import ctc
from seqkit.tasks.ctc import train_ctc
from seqkit.tasks.transcriber import Transcriber, read_manifest
from seqkit.training.loop import Outcome

pytest.importorskip("soundfile")
pytest.importorskip("soxr")


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def progress(self, step: int, total: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def train(folder: Path, name: str, *, resume: bool = False, **changes: dict[str, Any]) -> tuple[Outcome, Notes]:
    tables = tomllib.loads(CONFIG)
    for section, values in changes.items():
        tables[section] = tables.get(section, {}) | values
    notes = Notes()
    return train_ctc(tables, folder / name, where="c", base=folder, resume=resume, report=notes), notes


def test_it_learns_and_loads(tmp_path: Path) -> None:
    texts = write_recordings(tmp_path)
    outcome, notes = train(tmp_path, "run")
    assert outcome.best_value == 0.0
    assert "40 recordings" in notes.notes[-1]
    transcriber = package.load(tmp_path / "run")
    assert isinstance(transcriber, Transcriber)
    found = list(transcriber.transcribe([tmp_path / "sounds/0.wav", tmp_path / "sounds/1.wav"]))
    assert [each.text for each in found] == texts[:2]
    score = transcriber.evaluate(read_manifest([str(tmp_path / "train.tsv")]))
    assert (score.labels.errors, score.words.errors, score.characters.errors) == (0, 0, 0)
    assert score.labels.total == sum(len(text.split()) for text in texts)
    assert 0.0 < score.loss < 0.5


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recordings(tmp_path, n=8)
    changes: dict[str, Any] = {
        "training": {"max_epochs": 2, "batch_tokens": 150, "checkpoint_every": 1},
        "augment": {"speed": 0.1, "noise_probability": 0.5, "frequency_masks": 1, "time_masks": 1},
    }
    train(tmp_path, "whole", **changes)
    expected = (tmp_path / "whole/model.safetensors").read_bytes()
    real = ctc.Trainer._update
    calls = 0

    def dying(self: Any, group: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise MemoryError
        return real(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(ctc.Trainer, "_update", dying)
        with pytest.raises(MemoryError):
            train(tmp_path, "cut", **changes)
    train(tmp_path, "cut", resume=True, **changes)
    assert (tmp_path / "cut/model.safetensors").read_bytes() == expected


def test_recordings_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    write_recordings(tmp_path, n=6)
    with (tmp_path / "train.tsv").open("a") as file:
        file.write(f"sounds/0.wav\t{'low ' * 200}\n")
    _, notes = train(tmp_path, "run", data={"longest": 10.0}, training={"max_epochs": 1})
    assert "left out 1 of 7 recordings: 0 longer than 10 s, 1 with fewer frames than labels" in notes.notes
    with pytest.raises(InputError, match="`train` must have a usable recording, got none"):
        train(tmp_path, "none", data={"longest": 0.01})


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    write_recordings(tmp_path, n=2)
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(InputError, match="`valid` must have a recording, got none"):
        train(tmp_path, "run", data={"valid": ["empty.tsv"]})
    (tmp_path / "sounds/1.wav").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"1\.wav: audio must be a file that libsndfile decodes"):
        train(tmp_path, "run")
