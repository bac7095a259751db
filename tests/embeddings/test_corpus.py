"""The corpus: the same words and sentences from every source, and clear words for what is wrong with one."""

import gzip
import io
import lzma
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from seqkit.embeddings import native
from seqkit.embeddings.corpus import Corpus
from seqkit.errors import InputError

pytestmark = pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the trainer is not built")


def some_text(lines: int, seed: int = 1, kinds: int = 400) -> str:
    generator = random.Random(seed)
    words = [f"w{'xyzé字'[i % 5]}{i}" * (1 + i % 4) for i in range(kinds)]
    weights = [1 / (1 + i) for i in range(len(words))]
    return "".join(
        " ".join(generator.choices(words, weights, k=generator.randint(0, 30)))
        + generator.choice(["\n", "\r\n", " \n\n"])
        for _ in range(lines)
    )


def plain(text: str, min_count: int) -> tuple[list[str], list[int], list[list[str]]]:
    """Words, counts and sentences by plain Python."""
    counts = Counter(text.split())
    ranked = sorted(((w, n) for w, n in counts.items() if n >= min_count), key=lambda wn: (-wn[1], wn[0].encode()))
    kept = {word for word, _ in ranked}
    sentences = [[word for word in line.split() if word in kept] for line in text.split("\n")]
    return [w for w, _ in ranked], [n for _, n in ranked], [s for s in sentences if s]


def sentences_of(corpus: Corpus) -> list[list[str]]:
    words, found = corpus.words, [[]]
    for index in corpus.ids().tolist():
        if index < 0:
            found.append([])
        else:
            found[-1].append(words[index])
    assert found.pop() == []
    return found


@pytest.mark.parametrize(("threads", "memory"), [(1, None), (3, None), (1, 100_000), (3, 100_000)])
def test_corpus_of_a_file_is_that_of_plain_python(tmp_path: Path, threads: int, memory: int | None) -> None:
    text = some_text(20_000, kinds=4000)  # several blocks
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert len(text.encode()) > 3 << 19
    corpus = Corpus(tmp_path / "a.txt", min_count=3, threads=threads, memory=memory)
    words, counts, sentences = plain(text, 3)
    assert corpus.words == words
    assert corpus.counts.tolist() == counts
    assert sentences_of(corpus) == sentences
    with tempfile.TemporaryFile() as file:
        mapped = corpus.ids(file)
        assert isinstance(mapped, np.memmap)
        assert (mapped == corpus.ids()).all()
    assert corpus.n_raw_words == len(text.split())
    assert corpus.n_words == sum(counts)
    assert corpus.spilled == (memory is not None)


def test_corpus_is_the_same_from_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = some_text(12_000)
    data = text.encode()
    (tmp_path / "a.txt").write_bytes(data)
    (tmp_path / "a.gz").write_bytes(gzip.compress(data, 1))
    (tmp_path / "a.xz").write_bytes(lzma.compress(data, preset=0))
    expected = Corpus(tmp_path / "a.txt")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    lines = text.split("\n")
    sources = [tmp_path / "a.gz", tmp_path / "a.xz", "-", lines, iter([line.split() for line in lines])]
    for source in sources:
        corpus = Corpus(source)
        assert corpus.words == expected.words
        assert (corpus.ids() == expected.ids()).all()


def test_corpus_of_several_files_has_their_lines_in_order(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("b a\nno newline")
    (tmp_path / "b").write_bytes("\ufeffa b\n".encode())
    corpus = Corpus([tmp_path / "a", tmp_path / "b"], min_count=1)
    assert sentences_of(corpus) == [["b", "a"], ["no", "newline"], ["a", "b"]]
    assert corpus.words == ["a", "b", "newline", "no"]


def test_corpus_keeps_known_words_first() -> None:
    corpus = Corpus(["c c c d d"], min_count=2, known={"z": 7, "c": 4})
    assert corpus.words == ["z", "c", "d"]
    assert corpus.counts.tolist() == [7, 7, 2]


def test_corpus_keeps_at_most_max_vocab_words() -> None:
    assert Corpus(["a a a b b c"], min_count=1, max_vocab=2).words == ["a", "b"]


def test_a_line_of_a_megabyte_is_cut_between_words(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("ab cde " * 200_000)
    corpus = Corpus(tmp_path / "a")
    assert corpus.counts.tolist() == [200_000, 200_000]
    assert [word for sentence in sentences_of(corpus) for word in sentence] == ["ab", "cde"] * 200_000


@pytest.mark.parametrize(
    "wrong", [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe0\x80\x80", b"\x80"]
)
def test_an_invalid_byte_names_its_line(tmp_path: Path, wrong: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("é fine\n".encode() * 100_000 + b"ab " + wrong + b" c\n")
    for source in (path, gzipped(path)):
        with pytest.raises(InputError) as caught:
            Corpus(source, threads=2)
        sentence = f"{source}:100001: line must be UTF-8, got byte 0x{wrong[0]:02x} at 3"
        assert str(caught.value) == sentence


def gzipped(path: Path) -> Path:
    target = path.with_suffix(".gz")
    target.write_bytes(gzip.compress(path.read_bytes(), 1))
    return target


def test_what_is_wrong_with_a_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: corpus must be a file that can be read, got No such file"):
        Corpus(tmp_path / "none")
    with pytest.raises(InputError, match="corpus must be a file that can be read"):
        Corpus(tmp_path)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"a b c")[:-9])
    with pytest.raises(InputError, match="file must unpack to its end"):
        Corpus(tmp_path / "a.gz")
    for empty in ([], [""], ["a b"]):
        with pytest.raises(InputError, match="words that occur 5 times or more, got none"):
            Corpus(empty)
    with pytest.raises(InputError, match="sentence 2: word must be a string without whitespace, got 'b c'"):
        Corpus([["a"], ["b c"]])
    (tmp_path / "long").write_bytes(b"a\n" + b"x" * 5000)
    with pytest.raises(InputError, match="long:2: word must have at most 4096 bytes"):
        Corpus(tmp_path / "long")
