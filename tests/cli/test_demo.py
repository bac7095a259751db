import copy
import re
from pathlib import Path
from typing import Any

import pytest

from seqkit.cli import demo
from seqkit.tasks.translator import Translator


@pytest.mark.slow
def test_the_demo_end_to_end_and_once_more(
    seqkit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With few dates and small models, so that it is the way that is tested and not what is learned."""
    models = copy.deepcopy(demo.MODELS)
    for tables in models.values():
        tables["training"] |= {"max_epochs": 2, "batch_tokens": 300, "warmup": 10}
    models["dates-lstm"]["model"] |= {"embedding_dim": 16, "hidden_dim": 16}
    models["dates-transformer"]["model"] |= {"model_dim": 16, "ffn_dim": 16, "encoder_layers": 1, "decoder_layers": 1}
    monkeypatch.setattr(demo, "MODELS", models)
    monkeypatch.setattr(demo, "TRAIN", 300)
    monkeypatch.setattr(demo, "HELD_OUT", 20)
    folder = tmp_path / "demo"
    ran = seqkit("demo", "-o", folder, "--threads", "1")
    assert ran.code == 0, ran.err
    rows = ran.lines
    assert rows[1].split() == ["input", "right", "answer", "dates-lstm", "score", "dates-transformer", "score"]
    pairs = [line.split("\t") for line in (folder / "data" / "test.tsv").read_text().splitlines()]
    assert len(pairs) == 20
    for row, (text, answer) in zip(rows[2:14], pairs, strict=False):
        assert row.startswith(text)
        assert f" {answer} " in row
        assert len(re.findall(r"-\d+\.\d{3}", row)) == 2
    exact = [line for line in rows if "exact match on 20 held-out dates, beam 5: " in line]
    assert [line.split()[0] for line in exact] == ["dates-lstm", "dates-transformer"]
    assert (folder / "attention.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert rows[-1] == f"$ echo '{demo.EXAMPLE}' | seqkit translate {folder / 'dates-transformer'}"
    (best,) = Translator.load(folder / "dates-transformer").translate([demo.EXAMPLE])
    assert capfd.readouterr().out == best.texts[0] + "\n"  # what the command itself wrote
    assert {path.name for path in folder.iterdir()} == {"data", "dates-lstm", "dates-transformer", "attention.png"}

    monkeypatch.setattr(demo, "_translate_from_stdin", lambda model: None)
    again = seqkit("demo", "-o", folder, "--threads", "1")
    assert again.code == 0
    assert again.err.count("resuming from step") == 2
    assert [line for line in again.lines if "exact match" in line] == exact


def test_padding_counts_wide_characters_twice() -> None:
    assert demo._padded("ab", 4) == "ab  "
    assert demo._padded("年a", 4) == "年a "
