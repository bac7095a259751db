from pathlib import Path
from typing import Any

import pytest

STDIN = "abc\ndd a\néab\nc\nbcdab\nzz\n".encode()


def test_export_and_import_give_the_same_translations(seqkit: Any, tiny_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    ran = seqkit("export", tiny_run, "--to", "ctranslate2", "-o", tmp_path / "ct2")
    assert (ran.code, ran.out) == (0, b"")
    assert ran.err == f"{tmp_path / 'ct2'}: a CTranslate2 model\n"
    names = {path.name for path in (tmp_path / "ct2").iterdir()}
    assert {"model.bin", "config.json", "source.chars.tsv", "target.chars.tsv"} <= names
    ran = seqkit("import", tmp_path / "ct2", "-o", tmp_path / "back")
    assert (ran.code, ran.out) == (0, b"")
    search = (
        "--beam",
        "3",
        "--length-penalty",
        "power:0.7",
        "--max-length",
        "12",
        "--stopping",
        "first",
        "--nbest",
        "3",
    )
    before = [line.split(" ||| ") for line in seqkit("translate", tiny_run, *search, stdin=STDIN).lines]
    after = [line.split(" ||| ") for line in seqkit("translate", tmp_path / "back", *search, stdin=STDIN).lines]
    assert len(before) == 18
    assert [line[:2] for line in after] == [line[:2] for line in before]
    assert [float(line[2]) for line in after] == pytest.approx([float(line[2]) for line in before], abs=1e-4)


def test_ctranslate2_itself_gives_the_same_translations(seqkit: Any, tiny_run: Path, tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    assert seqkit("export", tiny_run, "--to", "ctranslate2", "-o", tmp_path / "ct2").code == 0
    flags = ("--beam", "4", "--length-penalty", "power:1", "--stopping", "patience", "--max-length", "12")
    ours = seqkit("translate", tiny_run, *flags, stdin=STDIN).lines
    lines = STDIN.decode().splitlines()
    peer = ctranslate2.Translator(str(tmp_path / "ct2"), intra_threads=1)
    tokens = [[char if char in "abcdé " else "<unk>" for char in line] for line in lines]
    theirs = peer.translate_batch(tokens, beam_size=4, max_decoding_length=12, min_decoding_length=0)
    assert ours == ["".join(each.hypotheses[0]) for each in theirs]


def test_export_refuses_what_it_cannot_write(seqkit: Any, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")
    ran = seqkit("export", tiny_run, "--to", "ctranslate2", "-o", tmp_path / "full")
    assert ran.code == 2
    assert "folder must be new or empty, got one that holds something" in ran.err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    ran = seqkit("export", tmp_path, "--to", "ctranslate2", "-o", tmp_path / "x")
    assert ran.code == 2
    assert "must be a run folder" in ran.err
    assert seqkit("export", tiny_run, "--to", "onnx", "-o", tmp_path / "x").code == 2
