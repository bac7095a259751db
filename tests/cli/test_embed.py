"""`seqkit embed` on vectors whose answers are known: data on stdout, talk on stderr, 2 for bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqkit.cli import embed
from seqkit.embeddings import WordVectors, io
from seqkit.embeddings.quantized import Int8Rows


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    matrix = np.array([[1, 0, 0.1], [3, 0, 3], [0, 1, 0.1], [0, 2, 2], [-1, -1, 0]], np.float32)
    WordVectors(["man", "king", "woman", "queen", "apfel"], matrix).save(tmp_path / "v.txt")
    return tmp_path / "v.txt"


def test_nearest_has_a_line_for_each_word(seqkit: Any, vectors: Path) -> None:
    ran = seqkit("embed", "nearest", vectors, "king", "man", "-n", "2")
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split("\t") for line in ran.lines]
    assert [row[:2] for row in rows] == [["king", "man"], ["king", "queen"], ["man", "king"], ["man", "queen"]]
    assert float(rows[1][2]) == pytest.approx(0.5, abs=1e-4)


def test_nearest_of_stdin_passes_unknown_words_over(seqkit: Any, vectors: Path) -> None:
    ran = seqkit("embed", "nearest", vectors, "-", "-n", "1", "--json", stdin=b"king\n\npear\nwoman\n")
    assert ran.code == 0
    records = [json.loads(line) for line in ran.lines]
    assert [(record["query"], record["words"][0]["word"]) for record in records] == [
        ("king", "man"),
        ("woman", "queen"),
    ]
    assert "warning: stdin:3: WordVectors: word must be in the vocabulary of 5 words, got 'pear'" in ran.err


def test_analogy(seqkit: Any, vectors: Path) -> None:
    ran = seqkit("embed", "analogy", vectors, "man", "king", "woman", "-n", "1")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0].startswith("man king woman\tqueen\t")
    ran = seqkit("embed", "analogy", vectors, "-", "--method", "3cosmul", "-n", "1", stdin=b"man king woman\na b\n")
    assert [line.split("\t")[1] for line in ran.lines] == ["queen"]
    assert "warning: stdin:2: analogy: line must have three words, got 2" in ran.err


def test_evaluate_says_the_coverage_beside_every_figure(seqkit: Any, vectors: Path, tmp_path: Path) -> None:
    (tmp_path / "q").write_text(": royal\nman king woman queen\nman king woman pear\n: none\na b c d\n")
    (tmp_path / "s").write_text("king queen 5\nking man 9\nman woman 1\nking apfel 0\nking pear 3\n")
    (tmp_path / "t").write_text("a b 5\n")
    arguments = (
        "embed",
        "evaluate",
        vectors,
        "--analogies",
        tmp_path / "q",
        "--similarity",
        tmp_path / "s",
        tmp_path / "t",
    )
    ran = seqkit(*arguments)
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split("  ") for line in ran.lines]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert rows[:4] == [
        ["set", "score", "coverage"],
        ["analogies: royal", "100.00 %", "1 of 2 (50.0 %)"],
        ["analogies: none", "-", "0 of 1 (0.0 %)"],
        ["analogies: all", "100.00 %", "1 of 3 (33.3 %)"],
    ]
    assert rows[4][1:] == ["rho 1.000", "95 % from 1.000 to 1.000", "4 of 5 (80.0 %)"]
    assert rows[5][1:] == ["-", "0 of 1 (0.0 %)"]
    record = json.loads(seqkit(*arguments, "--json").out)
    assert record["analogies"][-1] == {"section": "all", "accuracy": 1.0, "right": 1, "asked": 1, "given": 3}
    assert [each["asked"] for each in record["similarity"]] == [4, 0]
    assert record["similarity"][1]["rho"] is None


def test_convert_keeps_every_number(seqkit: Any, vectors: Path, tmp_path: Path) -> None:
    before = vectors
    for name in ("v.bin", "v.safetensors", "v.glove", "v.vec.gz", "back.txt"):
        ran = seqkit("embed", "convert", before, tmp_path / name)
        assert (ran.code, ran.out, ran.err) == (0, b"", "")
        before = tmp_path / name
    assert before.read_bytes() == vectors.read_bytes()


def test_convert_reads_stdin_and_writes_stdout(seqkit: Any, vectors: Path) -> None:
    ran = seqkit("embed", "convert", "-", "-", "--format", "glove", stdin=vectors.read_bytes())
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == vectors.read_bytes().removeprefix(b"5 3\n")


def test_case_sensitive_takes_words_as_they_are(seqkit: Any, vectors: Path, tmp_path: Path) -> None:
    (tmp_path / "q").write_text("Man king woman queen\nman king woman queen\n")
    (tmp_path / "s").write_text("King queen 5\nking man 9\n")
    arguments = ("embed", "evaluate", vectors, "--analogies", tmp_path / "q", "--similarity", tmp_path / "s", "--json")
    for more, asked in (((), 2), (("--case-sensitive",), 1)):
        record = json.loads(seqkit(*arguments, *more).out)
        assert (record["analogies"][-1]["asked"], record["similarity"][0]["asked"]) == (asked, asked)


def test_convert_to_eight_bits_and_to_the_projector(seqkit: Any, vectors: Path, tmp_path: Path) -> None:
    ran = seqkit("embed", "convert", vectors, tmp_path / "v.safetensors", "--dtype", "int8")
    assert (ran.code, ran.out, ran.err) == (0, b"", "")
    assert isinstance(WordVectors.load(tmp_path / "v.safetensors").rows, Int8Rows)
    ran = seqkit("embed", "nearest", tmp_path / "v.safetensors", "king", "-n", "1")
    assert ran.lines[0].startswith("king\tman\t0.7")
    ran = seqkit("embed", "convert", vectors, tmp_path / "projector", "--format", "projector")
    assert (ran.code, ran.out, ran.err) == (0, b"", "")
    assert (tmp_path / "projector" / "metadata.tsv").read_text() == "man\nking\nwoman\nqueen\napfel\n"


def test_approximate_answers_are_those_of_few_words(seqkit: Any, vectors: Path) -> None:
    pytest.importorskip("faiss")
    for arguments, stdin in ((("king", "man"), b""), (("-",), b"king\nman\n")):
        exact = seqkit("embed", "nearest", vectors, *arguments, "-n", "2", stdin=stdin)
        nearly = seqkit("embed", "nearest", vectors, *arguments, "-n", "2", "--approximate", stdin=stdin)
        assert (nearly.code, nearly.err) == (0, "")
        assert nearly.out == exact.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nearest", "V", "pear"), "word must be in the vocabulary of 5 words, got 'pear'"),
        (("nearest", "V", "king", "-n", "0"), "-n: the count must be at least 1, got 0"),
        (("nearest", "none", "king"), "none: vectors must be a file that can be read"),
        (("analogy", "V", "man", "king"), "words must be three, or - for stdin, got 2"),
        (("evaluate", "V"), "--analogies or --similarity must be given"),
        (("evaluate", "V", "--analogies", "none"), "none: corpus must be a file that can be read"),
        (("convert", "V", "out.npz"), "format must be one of"),
        (("convert", "V", "out.bin", "--format", "fasttext"), "vectors must have subwords"),
        (("convert", "V", "out.bin", "--dtype", "int8"), "dtype must be float32, or int8 in the format safetensors"),
        (("convert", "V", "-", "--format", "projector"), "got projector, which is a folder"),
        (("convert", "V", "/", "--format", "projector"), "folder must be new or empty"),
    ],
)
def test_bad_input_ends_with_2_and_a_sentence(
    seqkit: Any, vectors: Path, arguments: tuple[str, ...], says: str
) -> None:
    ran = seqkit("embed", *(vectors if each == "V" else each for each in arguments))
    assert (ran.code, ran.out) == (2, b"")
    assert says in ran.err
    assert ran.err.count("\n") == 1


def test_the_formats_are_those_of_the_files() -> None:
    assert (embed.FORMATS, embed.DTYPES) == (io.FORMATS, io.DTYPES)


def test_each_command_has_help(seqkit: Any) -> None:
    for command in ("train", "nearest", "analogy", "evaluate", "debias", "plot", "convert"):
        ran = seqkit("embed", command, "--help")
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith(f"usage: seqkit embed {command}".encode())
    assert seqkit("embed").code == 2
