"""ARPA files: what is written is read back, in whatever form other programs write it."""

import io
import math
from pathlib import Path

import numpy as np
import pytest

from seqkit.errors import InputError
from seqkit.text import arpa
from seqkit.text.arpa import NgramTable, read_arpa, write_arpa

WORDS = ["<unk>", "<s>", "</s>", "é"]


def tables() -> list[NgramTable]:
    natural = math.log(10)
    return [
        NgramTable(
            np.arange(4, dtype=np.int32)[:, None],
            np.array([-100.0, 0.0, -12.3456789, -1e-9]) * natural,
            np.array([0.0, -0.1234567, 0.5, -9.9999999]) * natural,
        ),
        NgramTable(np.array([[1, 3], [3, 2]], np.int32), np.array([-0.25, -99.0]) * natural, np.zeros(2)),
    ]


def written(unit: str | None = None) -> bytes:
    file = io.BytesIO()
    write_arpa(file, WORDS, [4, 2], tables(), unit=unit)
    return file.getvalue()


def test_what_is_written() -> None:
    assert written().decode() == (
        "\\data\\\nngram 1=4\nngram 2=2\n\n\\1-grams:\n-100.000000\t<unk>\t0\n0\t<s>\t-0.1234567\n"
        "-12.345679\t</s>\t0.5\n0\té\t-10\n\n\\2-grams:\n-0.250000\t<s> é\n-99.000000\té </s>\n\n\\end\\\n"
    )
    assert written("char").startswith(b"# unit: char\n\\data\\\n")


@pytest.mark.parametrize("lines", [arpa.LINES, 1])
@pytest.mark.parametrize(
    ("was", "becomes"),
    [("", ""), ("\t", " "), ("\t", " \t "), ("\n", "\r\n"), ("\n", " \n\n"), ("\t0\n", "\n"), ("\\end\\\n", "\\end\\")],
)
def test_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int, was: str, becomes: str) -> None:
    monkeypatch.setattr(arpa, "LINES", lines)
    (tmp_path / "m.arpa").write_bytes(written("char").decode().replace(was or "\0", becomes).encode())
    found = read_arpa(tmp_path / "m.arpa")
    assert (found.words, found.unit) == (WORDS, "char")
    for mine, its in zip(tables(), found.tables, strict=True):
        assert np.array_equal(mine.ids, its.ids)
        np.testing.assert_allclose(its.log_probs, mine.log_probs, atol=2e-6)
        np.testing.assert_allclose(its.backoffs, mine.backoffs, atol=2e-6)


@pytest.mark.parametrize("lines", [arpa.LINES, 2])
def test_the_line_is_told_behind_blank_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    monkeypatch.setattr(arpa, "LINES", lines)
    for was, becomes, sentence in [
        ("-99.000000\té", "\n\n-99.000000\tè", "m.arpa:15: an n-gram of order 2 must be 2 unigrams, got 'è </s>'"),
        ("-99.000000\té", "\n99.000000\té", "m.arpa:14: 'é </s>' must have a log-probability and a finite back-off"),
        ("\té </s>", "\t </s>", "m.arpa:13: a line must be a logarithm, 2 words and perhaps a back-off, got"),
        ("0\té", "0\t<s>", "m.arpa:9: an n-gram must stand once, got '<s>' twice"),
        ("0\té\t-10", "0\té\t-1O", "m.arpa:9: a line must be a logarithm"),
        ("ngram 1=4", "ngram 1=3", "there must be 3 1-grams as its head says, got more"),
        ("ngram 1=4", "ngram 1=5", "there must be 5 1-grams as its head says, got 4"),
        ("ngram 2=2", "ngram 2=0", "there must be 0 2-grams as its head says, got more"),
    ]:  # fmt: skip
        text = written().decode()
        assert was in text
        (tmp_path / "m.arpa").write_bytes(text.replace(was, becomes, 1).encode())
        with pytest.raises(InputError) as caught:
            read_arpa(tmp_path / "m.arpa")
        assert sentence in str(caught.value)


def test_orders_without_ngrams(tmp_path: Path) -> None:
    with (tmp_path / "m.arpa").open("wb") as file:
        write_arpa(file, WORDS, [4, 0, 0], tables()[:1], unit=None)
    assert [len(table.ids) for table in read_arpa(tmp_path / "m.arpa").tables] == [4, 0, 0]
