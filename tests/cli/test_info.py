import json
from typing import Any

import pytest
import torch

import seqkit as package
from seqkit.cli.info import warn_if_not_built
from seqkit.ops import library


def test_info_has_a_line_for_each_op(seqkit: Any) -> None:
    ran = seqkit("info")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0].split() == ["seqkit", package.__version__]
    assert ["torch", torch.__version__] in [line.split() for line in ran.lines]
    assert any(line.startswith("built") for line in ran.lines)
    for line in library.status():
        assert any(row.split()[:3] == [line.op, line.device, line.backend] for row in ran.lines)


def test_info_as_json(seqkit: Any) -> None:
    record = json.loads(seqkit("info", "--json").out)
    assert record["torch"] == torch.__version__
    assert isinstance(record["build"]["built"], bool)
    assert {op["op"] for op in record["ops"]} == set(library.OPERATORS)
    assert {op["backend"] for op in record["ops"]} <= {"native", "reference"}


def test_info_says_that_references_were_asked_for(seqkit: Any) -> None:
    with library.use_backend("reference"):
        rows = [line.split(maxsplit=3) for line in seqkit("info").lines]
    rows = [row for row in rows if row and row[0] in library.OPERATORS]
    assert len(rows) >= len(library.OPERATORS)
    built = {op for op in library.OPERATORS if library.is_built(op)}
    assert {row[2] for row in rows} == {"reference"}
    assert {row[0] for row in rows if row[3] == "SEQKIT_BACKEND is `reference`"} == built


def test_info_refuses_a_back_end_that_there_is_not(seqkit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_choice", "quick")
    ran = seqkit("info")
    assert (ran.code, ran.out) == (2, b"")
    assert "SEQKIT_BACKEND: the backend must be one of auto, native, reference, got 'quick'" in ran.err


def test_info_says_why_nothing_is_built(seqkit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_native", frozenset())
    monkeypatch.setattr(library, "_missing", "no compiler was found")
    monkeypatch.setattr(library, "build_facts", lambda: {"built": False, "why": "no compiler was found"})
    text = seqkit("info").out.decode()
    assert "built    no: no compiler was found" in text
    assert " native " not in text


def test_a_run_on_references_is_said_once(
    seqkit: Any, tiny_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if all(library.is_built(op) for op in library.OPERATORS):
        assert seqkit("translate", tiny_run, stdin=b"a\n").err == ""
    with library.use_backend("reference"):
        native, reference = [seqkit("translate", tiny_run, stdin=b"abc\n") for _ in range(2)]
    assert native == reference
    monkeypatch.setattr(library, "_native", frozenset())
    monkeypatch.setattr(library, "_missing", "no compiler was found")
    warn_if_not_built()
    names = ", ".join(sorted(library.OPERATORS))
    assert capsys.readouterr().err == f"seqkit: {names} run on plain torch: no compiler was found\n"
