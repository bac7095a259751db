"""Files of word vectors: each format there and back, damaged ones refused with a sentence, and mutations of all."""

import gzip
import lzma
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from seqkit.embeddings import WordVectors, native
from seqkit.embeddings.fasttext import SubwordVectors, subword_buckets
from seqkit.embeddings.quantized import Int8Rows
from seqkit.errors import InputError

WORDS = ["the", "été", "日本", "3", "</s>", "a\u00a0b"]
FILES = ["v.safetensors", "v.bin", "v.vec", "v.txt", "v.glove", "v.txt.gz", "v.bin.xz", "v.safetensors.gz"]
built = pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the n-gram hash is not built")


def plain() -> WordVectors:
    matrix = np.random.default_rng(1).normal(size=(len(WORDS), 7)).astype(np.float32)
    matrix[0, 0], matrix[1, 1], matrix[2, 2] = 1e-38, -3e38, 0
    return WordVectors(WORDS, matrix)


def subword() -> SubwordVectors:
    generator = np.random.default_rng(2)
    words, hashing = ["king", "queen", "été"], (3, 4, 50)
    buckets = np.unique(np.concatenate([subword_buckets(word, *hashing) for word in words]))
    ngrams = generator.normal(size=(len(buckets), 6)).astype(np.float32)
    return SubwordVectors(words, generator.normal(size=(3, 6)).astype(np.float32), ngrams, buckets, hashing)


@pytest.mark.parametrize("file", FILES)
def test_what_is_written_is_read_to_the_bit(tmp_path: Path, file: str) -> None:
    vectors = plain()
    vectors.save(tmp_path / file)
    found = WordVectors.load(tmp_path / file)
    assert found.words == vectors.words
    assert found.matrix.dtype == np.float32
    assert (found.matrix == vectors.matrix).all()


def test_the_content_says_the_format_whatever_the_name(tmp_path: Path) -> None:
    for file in FILES:
        plain().save(tmp_path / file)
        (tmp_path / file).rename(tmp_path / "vectors")
        assert (WordVectors.load(tmp_path / "vectors").matrix == plain().matrix).all()


def test_safetensors_is_mapped_not_read(tmp_path: Path) -> None:
    size = 50_000
    WordVectors([f"w{row}" for row in range(size)], np.ones((size, 50), np.float32)).save(tmp_path / "v.safetensors")
    tracemalloc.start()
    found = WordVectors.load(tmp_path / "v.safetensors")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not found.matrix.flags.owndata
    assert not found.matrix.flags.writeable
    assert peak < found.matrix.nbytes * 1.5  # the words and their index alone


def test_eight_bits_are_mapped_and_come_back_to_the_bit(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    vectors = WordVectors([f"w{row}" for row in range(3000)], generator.normal(size=(3000, 100)).astype(np.float32))
    vectors.save(tmp_path / "v.safetensors")
    vectors.save(tmp_path / "small.safetensors", dtype="int8")
    sizes = [(tmp_path / name).stat().st_size for name in ("small.safetensors", "v.safetensors")]
    assert sizes[0] < 0.3 * sizes[1]
    found = WordVectors.load(tmp_path / "small.safetensors")
    assert isinstance(found.rows, Int8Rows)
    assert not found.rows.numbers.flags.owndata
    assert (found["w7"] == Int8Rows.of(vectors.matrix[7:8])[0]).all()
    assert "matrix" not in vars(found)  # one word does not make all rows float32
    np.testing.assert_allclose(found.matrix, vectors.matrix, atol=0.02)
    assert found.similarity("w1", "w2") == pytest.approx(vectors.similarity("w1", "w2"), abs=0.01)
    found.save(tmp_path / "again.safetensors", dtype="int8")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "small.safetensors").read_bytes()
    found.save(tmp_path / "back.vec.gz")
    assert (WordVectors.load(tmp_path / "back.vec.gz").matrix == found.matrix).all()
    with pytest.raises(InputError, match="dtype must be float32, or int8 in the format safetensors, got int8 in word2"):
        vectors.save(tmp_path / "v.bin", dtype="int8")
    with pytest.raises(InputError, match="got float16 in safetensors"):
        vectors.save(tmp_path / "v.safetensors", dtype="float16")
    with pytest.raises(InputError, match="numbers must be finite, got another in row 0"):
        WordVectors(["a"], np.full((1, 2), np.nan, np.float32)).save(tmp_path / "nan.safetensors", dtype="int8")
    assert not (tmp_path / "nan.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scales": None}, "must hold seqkit's word vectors"),
        ({"scales": np.ones(3, np.float32)}, "scales must be one for each row"),
        ({"scales": np.ones((2, 1), np.float32)}, "scales must be one for each row"),
        ({"scales": np.ones(2, np.int32)}, "scales: numbers must be float32, got int32"),
        ({"scales": np.array([1, np.nan], np.float32)}, "scales must be from 0 to"),
        ({"scales": np.array([1, -1], np.float32)}, "scales must be from 0 to"),
        ({"matrix": np.ones(2, np.int8)}, "scales must be one for each row"),
        ({"matrix": np.ones((2, 2), np.uint8)}, "matrix: rows must be of float32 or int8, got uint8"),
        ({"matrix": np.ones((2, 0), np.int8)}, "matrix must have rows"),
        ({"vocabulary": np.frombuffer(b"a\n", np.uint8)}, "vocabulary must have a word for each of 2 rows, got 1"),
    ],
)
def test_files_of_eight_bits_that_lie_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray | None], says: str
) -> None:
    tensors = {
        "matrix": np.ones((2, 2), np.int8),
        "scales": np.ones(2, np.float32),
        "vocabulary": np.frombuffer(b"a\nb\n", np.uint8),
    }
    whole = safetensors.numpy.save(tensors)
    (tmp_path / "v").write_bytes(whole)
    assert WordVectors.load(tmp_path / "v").matrix.tolist() == [[1, 1], [1, 1]]
    for size in range(len(whole)):
        (tmp_path / "v").write_bytes(whole[:size])
        with pytest.raises(InputError):
            WordVectors.load(tmp_path / "v")
    changed = {key: value for key, value in (tensors | changes).items() if value is not None}
    (tmp_path / "v").write_bytes(safetensors.numpy.save(changed))
    with pytest.raises(InputError, match=says) as raised:
        WordVectors.load(tmp_path / "v")
    assert str(raised.value).startswith(str(tmp_path / "v"))


@built
def test_subwords_in_eight_bits(tmp_path: Path) -> None:
    vectors = subword()
    vectors.save(tmp_path / "v.safetensors", dtype="int8")
    found = WordVectors.load(tmp_path / "v.safetensors")
    assert isinstance(found, SubwordVectors)
    assert isinstance(found.ngrams, Int8Rows)
    for word in [*vectors.words, "kings", "queer"]:
        assert np.allclose(found[word], vectors[word], atol=0.02)
    assert found.nearest("kings", 2)[0][0] == vectors.nearest("kings", 2)[0][0]
    for file in ("v.bin", "float.safetensors"):
        found.save(tmp_path / file)
        assert np.allclose(WordVectors.load(tmp_path / file)["kings"], found["kings"], atol=1e-6)


@built
@pytest.mark.parametrize("file", ["v.safetensors", "v.bin"])
def test_subwords_come_back(tmp_path: Path, file: str) -> None:
    vectors = subword()
    vectors.save(tmp_path / file)
    found = WordVectors.load(tmp_path / file)
    assert isinstance(found, SubwordVectors)
    assert found.words == vectors.words
    assert found.hashing == vectors.hashing
    for word in [*vectors.words, "kings", "queer"]:
        assert np.allclose(found[word], vectors[word], atol=1e-6)


def test_text_as_others_write_it(tmp_path: Path) -> None:
    for name, content, words in [
        ("spaces at the ends, as word2vec.c", b"2 2\na 1 2 \nb 3 4 \n", ["a", "b"]),
        ("no newline at the end", b"2 2\na 1 2\nb 3 4", ["a", "b"]),
        ("carriage returns and a byte order mark", b"\xef\xbb\xbf2 2\r\na 1 2\r\nb 3 4\r\n", ["a", "b"]),
        ("tabs", b"2 2\na\t1\t2\nb\t3\t4\n", ["a", "b"]),
        ("words with spaces, as GloVe's largest", b"a 1 2\n. . 3 4\n", ["a", ". ."]),
        ("binary rows without newlines, as gensim", b"2 2\na \0\0\x80?\0\0\0@b \0\0@@\0\0\x80@", ["a", "b"]),
    ]:
        (tmp_path / name).write_bytes(content)
        found = WordVectors.load(tmp_path / name)
        assert found.words == words, name
        assert found.matrix.tolist() == [[1, 2], [3, 4]], name


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "must hold word vectors, got an empty one"),
        (b"1000000000 300\na 1 2\n", "v:1: header must match the file, got 1000000000 words of 300 numbers"),
        (b"0 3\n", "v:1: header must say how many"),
        (b"2 2\na 1 2\n", "v:1: header must match the file"),
        (b"2 2\nlonger 1.0000 2.0000\n", "v:3: file must have the 2 words of its header, got 1"),
        (b"1 2\na 1 2\nb 3 4\n", "v:3: file must end after the 1 words"),
        (b"2 2\na 1 2\na 3 4\n", "v:3: word must come once, got 'a' as at .*v:2"),
        (b"2 2\na 1 2\nb 3 x\n", "v:3: number 2 must be finite, got b'x'"),
        (b"2 2\na 1 nan\nb 3 4\n", "v:2: number 2 must be finite, got b'nan'"),
        (b"2 2\na 1 1e99\nb 3 4\n", "v:2: number 2 must be finite"),
        (b"2 2\na 1 2\nb 3 4 5\n", "v:3: line must be a word and 2 numbers, got 3"),
        (b"2 3\na 1\v2  3\nb 4 5 6\n", r"v:2: number 1 must be finite, got b'1\\x0b2'"),
        (b"2 3\na 1  3\nb 4 5\v6 7\n", "v:2: number 2 must be finite, got b''"),
        (b"2 2\na 1 2\nb 3 1_0\n", "v:3: number 2 must be finite, got b'1_0'"),
        (b"a 1 2\nb 3\n", "v:2: line must be a word and 2 numbers, got 1"),
        (b"a 1 2\n\xe9t\xe9 3 4\n", "v:2: word must be UTF-8, got byte 0xe9 at 0"),
        (b"hello world\n", "v:1: line must be a word and its numbers"),
        (b"2 2\na " + bytes(8) + b"\na " + bytes(8), "byte 15: word must come once, got 'a' as at .*byte 4"),
        (b"2 2\na " + bytes(8) + b"\nb " + bytes(7), "file must have 2 words of 2 numbers, got the end"),
        (b"1 2\na " + bytes(8) + b"\nb " + bytes(8), "file must end after the 1 words of its header, got more at byte"),
        (b"1 2\n\xff " + bytes(8), "byte 4: word must be UTF-8"),
        (b"\x1f\x8b\x08\0", "must unpack to its end"),
        (b"\x10\0\0\0\0\0\0\0{                ", "must hold seqkit's word vectors"),
        (b"a" * (1 << 23), "line must have at most"),
    ],
)
def test_damaged_files_are_refused_with_their_place(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(InputError, match=says) as raised:
        WordVectors.load(tmp_path / "v")
    assert str(raised.value).startswith(str(tmp_path / "v"))


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a file that can be read"):
        WordVectors.load(tmp_path / "none")
    with pytest.raises(InputError, match="must be a file that can be read"):
        WordVectors.load(tmp_path)
    with pytest.raises(InputError, match=r"format must be one of .*, got \.npz"):
        plain().save(tmp_path / "v.npz")
    with pytest.raises(InputError, match="must have subwords"):
        plain().save(tmp_path / "v.bin", "fasttext")
    for word in ("", "a b", "a\nb", "\ud800"):
        with pytest.raises(InputError, match="word must"):
            WordVectors([word], np.ones((1, 2), np.float32)).save(tmp_path / "v.txt")
    assert list(tmp_path.iterdir()) == []


def contents(folder: Path) -> dict[str, bytes]:
    found = {}
    for file in ("v.safetensors", "v.bin", "v.vec", "v.glove", "v.txt.gz", "v.bin.xz"):
        plain().save(folder / file)
        found[file] = (folder / file).read_bytes()
    plain().save(folder / "v.safetensors", dtype="int8")
    found["int8"] = (folder / "v.safetensors").read_bytes()
    if (native.PACKAGE / native.LIBRARY).exists():
        for file in ("v.safetensors", "v.bin"):
            subword().save(folder / file)
            found[f"subword {file}"] = (folder / file).read_bytes()
    return found


def mutated(content: bytes, generator: random.Random) -> bytes:
    """A part lost, doubled, or a few bytes changed, most of them near the begin where the sizes stand."""
    changed = bytearray(content)
    kind = generator.randrange(5)
    if kind == 0:
        return content[: generator.randrange(len(content))]
    if kind == 1:
        begin = generator.randrange(len(content))
        return content[:begin] + content[begin : begin + 40] + content[begin:]
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(content) if kind == 2 else min(len(content), 120))
        changed[at] = generator.choice([0, 1, 10, 32, 48, 57, 127, 128, 255, generator.randrange(256)])
    return bytes(changed)


def test_mutated_files_give_vectors_that_fit_or_a_sentence(tmp_path: Path) -> None:
    generator = random.Random(5)
    refused = read = 0
    for content in contents(tmp_path).values():
        for _ in range(400):
            (tmp_path / "v").write_bytes(mutated(content, generator))
            try:
                found = WordVectors.load(tmp_path / "v")
            except InputError:
                refused += 1
                continue
            assert len(found.words) == len(found.matrix) > 0
            assert found.matrix.shape[1] > 0
            assert found.matrix.nbytes < 1 << 20
            read += 1
    assert refused > read > 100


def test_packed_files_cut_short_are_refused(tmp_path: Path) -> None:
    for pack in (gzip.compress, lzma.compress):
        whole = pack(b"2 2\na 1 2\nb 3 4\n")
        for size in range(6, len(whole)):
            (tmp_path / "v").write_bytes(whole[:size])
            with pytest.raises(InputError):
                WordVectors.load(tmp_path / "v")
