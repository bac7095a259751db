import gzip
import io
import lzma
import sys
from pathlib import Path

import pytest

from seqkit.errors import InputError
from seqkit.text.corpus import LineCorpus, ParallelCorpus


def write(path: Path, content: bytes) -> Path:
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".xz":
        content = lzma.compress(content)
    path.write_bytes(content)
    return path


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz"])
def test_line_corpus_splits_at_newline_bytes_only(tmp_path: Path, name: str) -> None:
    content = "\ufeffone\r\n\ntwo\u2028still\x0ctwo\rtwo\r\r\n\0\n\ufefffour\nlast".encode()
    lines = ["one", "", "two\u2028still\x0ctwo\rtwo\r", "\0", "\ufefffour", "last"]
    corpus = LineCorpus(write(tmp_path / name, content))
    assert list(corpus) == lines
    assert list(corpus) == lines  # restartable


@pytest.mark.parametrize(
    ("content", "lines"), [(b"", []), (b"\n", [""]), (b"a", ["a"]), (b"a\n", ["a"]), (b"a\r", ["a\r"])]
)
def test_line_corpus_edges(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    assert list(LineCorpus(write(tmp_path / "a.txt", content))) == lines


def test_line_corpus_reads_several_files_in_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.txt", b"1\n2"), write(tmp_path / "b.gz", b"3\n")]
    assert list(LineCorpus(paths)) == ["1", "2", "3"]


def test_line_corpus_reads_stdin_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"a\nb\xff\n")
    corpus = LineCorpus("-")
    with pytest.raises(InputError, match="stdin:2: line must be UTF-8, got byte 0xff at 1"):
        list(corpus)
    with pytest.raises(InputError, match="stdin: corpus must be read once"):
        list(corpus)
    assert not sys.stdin.buffer.closed


def test_line_corpus_names_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"fine\n\xe9t\xe9\n")
    with pytest.raises(InputError, match=r"a.txt:2: line must be UTF-8, got byte 0xe9 at 0"):
        list(LineCorpus(path))


def test_line_corpus_bounds_characters_not_bytes(tmp_path: Path) -> None:
    for char in ("a", "é", "😀"):
        fits, longer = (write(tmp_path / "b.txt", ("x\n" + char * n + "\r\ny\n").encode()) for n in (10, 10))
        assert list(LineCorpus(fits, max_chars=10)) == ["x", char * 10, "y"]
        longer = write(tmp_path / "c.txt", ("x\n" + char * 11 + "\ny").encode())
        with pytest.raises(InputError, match=r"c.txt:2: line must have at most 10 characters, got more"):
            list(LineCorpus(longer, max_chars=10))
    for length in range(40, 60):  # wherever the bounded read cuts
        path = write(tmp_path / "d.txt", ("é" * length).encode() + b"\n")
        with pytest.raises(InputError, match=r"d.txt:1: line must have at most 10 characters"):
            list(LineCorpus(path, max_chars=10))
    path = write(tmp_path / "e.txt", b"x" * 200_000)
    assert [len(line) for line in LineCorpus(path, max_chars=None)] == [200_000]
    with pytest.raises(InputError, match="at most 100000 characters"):
        list(LineCorpus(path))


def test_line_corpus_names_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.txt: corpus must be a file that can be read, got No such file"):
        list(LineCorpus(tmp_path / "none.txt"))
    with pytest.raises(InputError, match="corpus must be a file that can be read"):
        list(LineCorpus(tmp_path))
    (tmp_path / "a.gz").write_bytes(b"not packed")
    (tmp_path / "a.xz").write_bytes(b"not packed")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"a\n" * 9999)[:-20])
    (tmp_path / "b.xz").write_bytes(lzma.compress(b"a\n" * 9999)[:-20])
    damaged = bytearray(gzip.compress(bytes(range(256)).replace(b"\n", b"") * 9))
    damaged[40:60] = bytes(20)
    (tmp_path / "c.gz").write_bytes(damaged)
    for name in ("a.gz", "a.xz", "b.gz", "b.xz", "c.gz"):
        with pytest.raises(InputError, match=rf"{name}"):
            list(LineCorpus(tmp_path / name))
    with pytest.raises(InputError, match=r"b.gz: file must unpack to its end"):
        list(LineCorpus(tmp_path / "b.gz"))


def test_parallel_corpus_pairs_lines_and_restarts(tmp_path: Path) -> None:
    corpus = ParallelCorpus(
        [write(tmp_path / "a.en", b"one\ntwo\n"), write(tmp_path / "b.en.gz", b"three")],
        [write(tmp_path / "a.de.xz", b"eins\r\nzwei"), write(tmp_path / "b.de", b"drei\n")],
    )
    for _ in range(2):
        assert list(corpus) == [("one", "eins"), ("two", "zwei"), ("three", "drei")]


@pytest.mark.parametrize(
    ("left", "right", "short"), [(b"1\n2\n3\n", b"1\n2\n", "b.de:3"), (b"1\n", b"1\n\n", "a.en:2")]
)
def test_parallel_corpus_names_the_side_that_ends_first(tmp_path: Path, left: bytes, right: bytes, short: str) -> None:
    corpus = ParallelCorpus(write(tmp_path / "a.en", left), write(tmp_path / "b.de", right))
    with pytest.raises(InputError, match=f"{short}: line must be there as in"):
        list(corpus)


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.tsv.xz"])
def test_parallel_corpus_reads_tables(tmp_path: Path, name: str) -> None:
    corpus = ParallelCorpus(write(tmp_path / name, b"one\teins\r\ntwo\tzwei\tCC-BY 2.0\n\t\n"))
    for _ in range(2):
        assert list(corpus) == [("one", "eins"), ("two", "zwei"), ("", "")]
    with pytest.raises(InputError, match=rf"{name}:2: line must have two columns"):
        list(ParallelCorpus(write(tmp_path / name, b"a\tb\nc d\n")))


def test_parallel_corpus_takes_one_side_from_stdin_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"one\n")
    corpus = ParallelCorpus("-", write(tmp_path / "a.de", b"eins\n"))
    assert list(corpus) == [("one", "eins")]
    with pytest.raises(InputError, match="stdin: corpus must be read once"):
        list(corpus)


def test_parallel_corpus_rejects_mismatched_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"targets must be as many files as sources \(2\), got 1"):
        ParallelCorpus(["a", "b"], ["c"])
    with pytest.raises(InputError, match=r"sources must be \.tsv tables"):
        ParallelCorpus("a.txt")
    with pytest.raises(InputError, match="got `-` twice"):
        ParallelCorpus("-", "-")
