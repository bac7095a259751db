"""The example of sentence polarity: what it reads, how it splits, and its baseline."""

import runpy
import zipfile
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/classification/polarity.py"


@pytest.fixture
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


def test_the_archive_becomes_three_files(
    example: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a/rt.pos", "a \x85 good film \n" * 40)
        archive.writestr("a/rt.neg", "a bad film \n\n" * 40)
    monkeypatch.setattr("sys.argv", ["polarity.py", str(tmp_path / "z.zip"), str(tmp_path / "out")])
    example["main"]()
    lines = (tmp_path / "out/test.tsv").read_text().splitlines()
    assert lines == ["neg\ta bad film", "pos\ta good film"] * 4
    assert len((tmp_path / "out/train.tsv").read_text().splitlines()) == 64
    said = capsys.readouterr().out
    assert "64, 8 and 8 sentences" in said
    if "no baseline" not in said:
        assert "accuracy = 100.00 % (8 of 8" in said


def test_a_wrong_archive_is_told(example: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="archive must be a zip file that can be read"):
        example["read"](str(tmp_path / "none.zip"))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a/rt.pos", "a\n")
    with pytest.raises(SystemExit, match=r"must hold a file .pos and a file .neg, got pos"):
        example["read"](str(tmp_path / "z.zip"))
