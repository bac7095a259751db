import json
import math
from pathlib import Path
from typing import Any

import pytest

SOURCES = ["abc", "dd a", "éab", "c", "bcdab"]


@pytest.fixture
def files(seqkit: Any, tiny_run: Path, tmp_path: Path) -> tuple[list[Any], Path, Path]:
    """The best translations of some lines, as records and as files of both sides; only those that ended."""
    stdin = "".join(line + "\n" for line in SOURCES).encode()
    records = [json.loads(line) for line in seqkit("translate", tiny_run, "--json", stdin=stdin).lines]
    records = [record for record in records if record["hypotheses"][0]["ended"]]
    assert len(records) > 2
    (tmp_path / "source").write_text("".join(record["source"] + "\n" for record in records))
    (tmp_path / "target").write_text("".join(record["hypotheses"][0]["text"] + "\n" for record in records))
    return records, tmp_path / "source", tmp_path / "target"


def test_score_adds_up_to_what_translate_said(seqkit: Any, tiny_run: Path, files: Any) -> None:
    records, source, target = files
    ran = seqkit("score", tiny_run, source, target, "--threads", "1")
    assert ran.code == 0
    for line, record in zip(ran.lines, records, strict=True):
        total, mean, count = line.split("\t")
        best = record["hypotheses"][0]
        assert float(total) == pytest.approx(best["logprob"], abs=2e-4)
        assert int(count) == len(best["token_logprobs"])
        assert float(mean) == pytest.approx(float(total) / int(count), abs=1e-4)


def test_score_as_json_has_each_token(seqkit: Any, tiny_run: Path, files: Any) -> None:
    records, source, target = files
    for line, record in zip(seqkit("score", tiny_run, source, target, "--json").lines, records, strict=True):
        scored, best = json.loads(line), record["hypotheses"][0]
        assert scored["pieces"] == [*best["pieces"], "</s>"]
        assert scored["token_logprobs"] == pytest.approx(best["token_logprobs"], abs=1e-4)
        assert scored["logprob"] == pytest.approx(math.fsum(scored["token_logprobs"]), abs=1e-9)
        assert scored["logprob"] == pytest.approx(best["logprob"], abs=1e-4)


def test_score_reads_a_table_and_empty_sides(seqkit: Any, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("abc\tcba\n\ta\nabc\t\n")
    lines = seqkit("score", tiny_run, tmp_path / "x.tsv").lines
    assert [line.split("\t")[2] for line in lines] == ["4", "2", "1"]
    (tmp_path / "none.tsv").write_text("")
    assert seqkit("score", tiny_run, tmp_path / "none.tsv") == (0, b"", "")


def test_score_refuses_sides_of_different_length(seqkit: Any, tiny_run: Path, files: Any) -> None:
    _, source, target = files
    target.write_text("a\n")
    ran = seqkit("score", tiny_run, source, target)
    assert (ran.code, ran.out) == (2, b"")
    assert f"{target}:2: line must be there as in {source}, got the end after 1 lines" in ran.err
    ran = seqkit("score", tiny_run, source)
    assert ran.code == 2
    assert "must be .tsv tables when targets is not given" in ran.err
