import json
from pathlib import Path
from typing import Any

import pytest
from toy_networks import g2p_checkpoint

from seqkit.models.g2p_en import CHECKPOINT


def test_a_network_trained_elsewhere_gives_its_published_outputs(
    seqkit: Any, shared_data: Path, tmp_path: Path
) -> None:
    """Outputs and scores are those of ctranslate2 itself on this model: atzmon -0.152, atzumon -0.266."""
    folder = shared_data / "models" / "ar-en-transliteration"
    if not folder.is_dir():
        pytest.skip("the transliteration model is not here")
    ran = seqkit("import", folder, "--tokens", "char", "-o", tmp_path / "run")
    assert (ran.code, ran.out) == (0, b"")
    assert ran.err == f"{tmp_path / 'run'}: try `seqkit translate {tmp_path / 'run'}`\n"
    stdin = "آتزمون\n\nآتزمون\n".encode()
    ran = seqkit("translate", tmp_path / "run", "--nbest", "2", "--json", "--threads", "1", stdin=stdin)
    records = [json.loads(line) for line in ran.lines]
    assert [len(record["hypotheses"]) for record in records] == [2, 0, 2]
    assert records[0]["hypotheses"] == records[2]["hypotheses"]
    best, second = records[0]["hypotheses"]
    assert (best["text"], second["text"]) == ("atzmon", "atzumon")
    assert best["score"] == pytest.approx(-0.152, abs=1e-3)
    assert second["score"] == pytest.approx(-0.266, abs=1e-3)
    assert len(seqkit("translate", tmp_path / "run", stdin=b"abc " * 500 + b"\n\xd8\xa2\n").lines) == 2


def test_a_network_without_attention_is_run_from_the_command_line(seqkit: Any, tmp_path: Path) -> None:
    g2p_checkpoint(tmp_path / CHECKPOINT)
    ran = seqkit("import", tmp_path, "-o", tmp_path / "run")
    assert (ran.code, ran.out) == (0, b"")
    stdin = b"hello\n\nWorld\n"
    greedy, wide = (
        seqkit("translate", tmp_path / "run", "--threads", "1", *flags, stdin=stdin) for flags in ((), ("--beam", "5"))
    )
    assert (greedy.code, wide.code) == (0, 0)
    assert len(greedy.lines) == len(wide.lines) == 3
    assert greedy.lines[1] == ""
    ran = seqkit("translate", tmp_path / "run", "--json", "--threads", "1", stdin=stdin)
    records = [json.loads(line) for line in ran.lines]
    assert [record["hypotheses"][0]["text"] for record in records[::2]] == greedy.lines[::2]
    assert all("alignment" not in hypothesis for record in records for hypothesis in record["hypotheses"])
    ran = seqkit("translate", tmp_path / "run", "--alignments", stdin=stdin)
    assert (ran.code, ran.err) == (
        2, "seqkit translate: decode: `return_attention` must be off for a model without attention\n",
    )  # fmt: skip
    ran = seqkit("import", tmp_path, "-o", tmp_path / "run", "--tokens", "char")
    assert (ran.code, "--tokens must be left out for g2p-en" in ran.err) == (2, True)


def test_import_refuses_what_it_cannot_read(seqkit: Any, tiny_run: Path, tmp_path: Path) -> None:
    ran = seqkit("import", tmp_path / "none", "-o", tmp_path / "run")
    assert (ran.code, ran.out) == (2, b"")
    assert "model.bin" in ran.err
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.bin").write_bytes(b"\x06\0\0\0")
    assert seqkit("import", tmp_path / "bad", "-o", tmp_path / "run").code == 2
    assert not (tmp_path / "run").exists()
    assert seqkit("import", tmp_path / "bad", "--tokens", "bytes", "-o", tmp_path / "run").code == 2
