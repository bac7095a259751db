import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sacrebleu

from seqkit.tasks.translator import Translator


@pytest.fixture
def data(tiny_config: Path) -> Path:
    return tiny_config.parent / "train.tsv"


def test_scores_agree_with_sacrebleu_and_carry_its_signature(
    seqkit: Any, tiny_run: Path, data: Path, tmp_path: Path
) -> None:
    ran = seqkit("evaluate", tiny_run, data, "-o", tmp_path / "out", "--threads", "1")
    assert ran.code == 0
    outputs = (tmp_path / "out").read_text().splitlines()
    sources, references = zip(*(line.split("\t") for line in data.read_text().splitlines()), strict=True)
    stdin = "".join(source + "\n" for source in sources).encode()
    assert outputs == seqkit("translate", tiny_run, stdin=stdin).lines
    for line, name, metric in zip(
        ran.lines, ("BLEU", "chrF2", "TER"), (sacrebleu.BLEU(), sacrebleu.CHRF(), sacrebleu.TER()), strict=False
    ):
        value = metric.corpus_score(outputs, [references]).score
        assert line == f"{name} = {value:.2f} ({metric.get_signature()})"
    scores = [line.split("\t") for line in seqkit("score", tiny_run, data).lines]
    count = sum(int(score[2]) for score in scores)
    perplexity = math.exp(-sum(float(score[0]) for score in scores) / count)
    assert ran.lines[3] == f"perplexity = {perplexity:.3f} over {count:,} tokens of the model, end symbols included"


def test_bleu_of_sentences_with_words_in_common(
    seqkit: Any, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny model has no four words in a row, so one that repeats its input stands in for it."""

    def repeat(_: object, lines: list[str], options: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(texts=[line]) for line in lines]

    monkeypatch.setattr(Translator, "translate", repeat)
    sources = ["A man rides a red bicycle.", "Two dogs run on the beach today."]
    references = ["A man rides a bicycle.", "Two dogs run on the beach now."]
    (tmp_path / "x.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in zip(sources, references, strict=True)))
    score = sacrebleu.BLEU().corpus_score(sources, [references]).score
    assert 20 < score < 90
    assert seqkit("evaluate", tiny_run, tmp_path / "x.tsv").lines[0].startswith(f"BLEU = {score:.2f} (nrefs:1|")


def test_json_and_search_flags(seqkit: Any, tiny_run: Path, data: Path) -> None:
    record = json.loads(seqkit("evaluate", tiny_run, data, "--json").out)
    assert [score["name"] for score in record["scores"]] == ["BLEU", "chrF2", "TER"]
    assert record["sentences"] == 60
    assert "bootstrap" not in record
    short = json.loads(seqkit("evaluate", tiny_run, data, "--json", "--beam", "1", "--max-length", "1").out)
    assert short["perplexity"] == record["perplexity"]
    assert short["scores"] != record["scores"]


def test_a_baseline_gives_a_paired_bootstrap(seqkit: Any, tiny_run: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "base").write_text("x\n" * 60)
    ran = seqkit("evaluate", tiny_run, data, "--baseline", tmp_path / "base")
    assert ran.code == 0
    assert ran.lines[-1].startswith("BLEU: 0.00 [")
    assert "p = " in ran.lines[-1]
    record = json.loads(seqkit("evaluate", tiny_run, data, "--baseline", tmp_path / "base", "--json").out)
    assert 0 <= record["bootstrap"]["p_value"] <= 1


def test_an_empty_source_line_has_an_empty_output_as_in_translate(seqkit: Any, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("abc\n\n  \nabc\n")
    (tmp_path / "t").write_text("a\nb\nc\nd\n")
    assert seqkit("evaluate", tiny_run, tmp_path / "s", tmp_path / "t", "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out").read_bytes() == seqkit("translate", tiny_run, tmp_path / "s").out
    assert (tmp_path / "out").read_text().split("\n")[1] == ""


def test_what_cannot_be_evaluated_is_told(seqkit: Any, tiny_run: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").write_text("")
    ran = seqkit("evaluate", tiny_run, tmp_path / "empty.tsv")
    assert (ran.code, ran.out) == (2, b"")
    assert "the test set must have at least one pair, got none" in ran.err
    (tmp_path / "base").write_text("x\n")
    ran = seqkit("evaluate", tiny_run, data, "--baseline", tmp_path / "base")
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert "none.tsv: corpus must be a file that can be read" in seqkit("evaluate", tiny_run, "none.tsv").err
    assert "`--adapt` must be for a language model" in seqkit("evaluate", tiny_run, data, "--adapt", "0.1").err
