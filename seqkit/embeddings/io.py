"""Files of word vectors: what people have is read by its content, what they ask for is written by its suffix.

| format          | suffix            | content                                                     |
|-----------------|-------------------|-------------------------------------------------------------|
| `safetensors`   | .safetensors      | `matrix` and `vocabulary`; read through a memory map        |
| `word2vec`      | .bin              | word2vec's binary: `COUNT DIM`, then a word and its floats  |
| `word2vec-text` | .vec, .txt, .w2v  | `COUNT DIM`, then a line a word; fastText's `.vec` too      |
| `glove`         | .glove            | the same without the first line                             |
| `fasttext`      | .bin of subwords  | fastText's model: words, n-grams and their hashing          |
| `projector`     | a folder          | for TensorBoard's projector; written, not read              |

Safetensors hold float32 or, with a scale a row, eight bits a number (see quantized). gensim's own files are read as
well (see gensim_file). `.gz` and `.xz` are unpacked into a temporary file first. A file that says of itself what its
size cannot hold is refused before anything is allocated.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import mmap
import re
import shutil
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from seqkit.atomic import atomic_file
from seqkit.embeddings.fasttext import SubwordVectors
from seqkit.embeddings.fasttext_file import MAGIC, read_fasttext, write_fasttext
from seqkit.embeddings.gensim_file import read_gensim
from seqkit.embeddings.projector import write_projector
from seqkit.embeddings.quantized import Int8Rows
from seqkit.embeddings.vectors import WordVectors
from seqkit.errors import InputError
from seqkit.text.corpus import BYTE_ORDER_MARK

FORMATS = ("safetensors", "word2vec", "word2vec-text", "glove", "fasttext", "projector")
DTYPES = ("float32", "int8")
SUFFIXES = {
    ".safetensors": "safetensors", ".bin": "word2vec", ".vec": "word2vec-text", ".txt": "word2vec-text",
    ".w2v": "word2vec-text", ".glove": "glove",
}  # fmt: skip
MAX_WORD = 1 << 16  # bytes; a longer word is a damaged file
MAX_LINE = 1 << 22
MAX_HEADER = 1 << 24
BLOCK = 1 << 22  # bytes of text whose numbers are read at a time

_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"
_SCALES = {"matrix": "scales", "ngrams": "ngram_scales"}
# The projector's page takes a line of blanks for none, and one with a tab for a heading.
_NOT_IN_WORDS = {"safetensors": "\n", "fasttext": "\0", "projector": r"[\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029]|^\s*$"}
_ODD_SPACE = re.compile(rb"^ |  |[\t\v\f\r]")
_COUNTS = re.compile(rb"\s*(\d{1,18})[ \t]+(\d{1,18})\s*")


def load(path: str | Path) -> WordVectors:
    """The vectors of a file of any format above; `-` is stdin.

    Raises:
        InputError: the file cannot be read or unpacked, is of no known format, ends early or goes on too long, has a
            word twice, a word that is not UTF-8, a number that is none, or asks for what cannot be read safely.
    """
    name = "stdin" if str(path) == "-" else str(path)
    data = _mapped(str(path), name)
    if data[:4] == MAGIC:
        return read_fasttext(data, name)
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return read_gensim(data, name)
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return _read_safetensors(data, name)
    first = _line(data, 0, name, 1)
    header = _COUNTS.fullmatch(first.removeprefix(BYTE_ORDER_MARK))
    if header is None:
        return _read_text(data, name, 0, None, _dim_of(first, name))
    count, dim = int(header[1]), int(header[2])
    if count == 0 or dim == 0:
        raise InputError(f"{name}:1: header must say how many words and numbers there are, got {count} and {dim}")
    begin = len(first) + 1
    text = _starts_text(data, begin, dim)
    least = count * (2 * dim + 1) if text else count * (4 * dim + 2)
    if len(data) - begin + 1 < least:  # the last line may lack its end
        raise InputError(
            f"{name}:1: header must match the file, got {count} words of {dim} numbers, which take {least} bytes or "
            f"more, and {max(len(data) - begin, 0)} bytes"
        )
    return _read_text(data, name, begin, count, dim) if text else _read_binary(data, name, begin, count, dim)


def save(vectors: WordVectors, path: str | Path, format: str | None = None, *, dtype: str = "float32") -> None:
    """Writes a file, whole or not at all; `.gz` and `.xz` are packed, `-` is stdout. A projector is a folder.

    Args:
        format: one of `FORMATS`; None for that of the suffix, where `.bin` is `fasttext` for subword vectors.
        dtype: one of `DTYPES`; int8 in safetensors only.

    Raises:
        InputError: the suffix says no format, or the format cannot hold these words or this type; the path cannot be
            written.
    """
    path = str(path)
    format = format_of(path, format, subwords=isinstance(vectors, SubwordVectors), dtype=dtype)
    _check_words(vectors, path, format)
    if format == "projector":
        write_projector(vectors, path)
        return
    write = _write_int8 if dtype == "int8" else _WRITERS[format]
    if path == "-":
        write(vectors, sys.stdout.buffer.write)
        return
    with atomic_file(path) as temporary:
        if path.endswith(".gz"):
            with open(temporary, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
                write(vectors, packed.write)
        elif path.endswith(".xz"):
            with lzma.open(temporary, "wb") as packed_xz:
                write(vectors, packed_xz.write)
        else:
            with open(temporary, "wb") as file:
                write(vectors, file.write)


def format_of(path: str, format: str | None = None, *, subwords: bool = False, dtype: str = "float32") -> str:
    """The format that a file of this name is written in.

    Raises:
        InputError: the suffix says none, and none is asked for; there is none of that name, or it cannot hold the type.
    """
    suffix = Path(path.removesuffix(".gz").removesuffix(".xz")).suffix
    if format is None:
        format = SUFFIXES.get(suffix)
        if format == "word2vec" and subwords:
            format = "fasttext"
    if format not in FORMATS:
        raise InputError(
            f"{path}: format must be one of {', '.join(FORMATS)}, or the suffix one of {', '.join(SUFFIXES)}, "
            f"got {format or suffix or 'none'}"
        )
    if dtype not in DTYPES or (dtype == "int8" and format != "safetensors"):
        raise InputError(f"{path}: dtype must be float32, or int8 in the format safetensors, got {dtype} in {format}")
    if format == "projector" and path == "-":
        raise InputError("stdout: format must be that of a file, got projector, which is a folder")
    return format


def _mapped(path: str, name: str) -> mmap.mmap:
    """A file's bytes, unpacked, without reading them."""
    try:
        with contextlib.ExitStack() as stack:
            if path == "-":
                file: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(sys.stdin.buffer, file)
                file.flush()
                file.seek(0)
            else:
                file = stack.enter_context(open(path, "rb"))
            begin = file.read(6)
            file.seek(0)
            if begin[:2] == _GZIP or begin == _XZ:
                unpack: Any = gzip.GzipFile if begin[:2] == _GZIP else lzma.LZMAFile
                packed = stack.enter_context(unpack(filename=file) if unpack is lzma.LZMAFile else unpack(fileobj=file))
                file = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(packed, file, 1 << 20)
                file.flush()
            if file.seek(0, 2) == 0:
                raise InputError(f"{name}: file must hold word vectors, got an empty one")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{name}: file must unpack to its end, got {error}") from error
    except OSError as error:
        raise InputError(f"{name}: vectors must be a file that can be read, got {error.strerror or error}") from error


def _line(data: mmap.mmap, begin: int, name: str, number: int) -> bytes:
    """A line without its newline."""
    end = data.find(b"\n", begin, begin + MAX_LINE)
    if end < 0:
        if len(data) - begin > MAX_LINE:
            raise InputError(f"{name}:{number}: line must have at most {MAX_LINE} bytes, got more; is it word vectors?")
        end = len(data)
    return data[begin:end]


def _starts_text(data: mmap.mmap, begin: int, dim: int) -> bool:
    """Whether what follows a header is a line of numbers, not of bytes."""
    end = data.find(b"\n", begin, begin + MAX_LINE)
    columns = data[begin : end if end >= 0 else begin + MAX_LINE].split()
    return len(columns) > 1 and all(_is_number(each) for each in columns[1:][-dim:])


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return b"_" not in text  # Python's own


def _dim_of(first: bytes, name: str) -> int:
    """The numbers at the end of a line; the word before them may hold spaces."""
    columns = first.split()
    dim = 0
    while dim + 1 < len(columns) and _is_number(columns[-1 - dim]):
        dim += 1
    if dim == 0:
        raise InputError(f"{name}:1: line must be a word and its numbers, or two counts, got {first[:40]!r}")
    return dim


def _read_text(data: mmap.mmap, name: str, begin: int, count: int | None, dim: int) -> WordVectors:
    first = 1 if begin == 0 else 2
    words: list[str] = []
    blocks: list[NDArray[np.float32]] = []
    for lines in _line_blocks(data, name, begin, first):
        split = [_word_and_numbers(line, dim, name, first + len(words) + at) for at, line in enumerate(lines)]
        blocks.append(_numbers([numbers for _, numbers in split], dim, name, first + len(words)))
        for word, _ in split:
            words.append(_decoded(word, f"{name}:{first + len(words)}"))
        if count is not None and len(words) > count:
            raise InputError(f"{name}:{first + count}: file must end after the {count} words of its header, got more")
    if count is not None and len(words) < count:
        at = first + len(words)
        raise InputError(f"{name}:{at}: file must have the {count} words of its header, got {len(words)}")
    if first == 1 and words:
        words[0] = words[0].removeprefix("\ufeff")
    return _vectors(words, np.concatenate(blocks), lambda row: f"{name}:{first + row}")


def _line_blocks(data: mmap.mmap, name: str, begin: int, number: int) -> Iterator[list[bytes]]:
    """The lines in blocks, blank ones at the file's end left out."""
    end = len(data)
    while end > begin and data[end - 1 : end] in (b"\n", b"\r", b" "):
        end -= 1
    while begin < end:
        stop = end
        if end - begin > BLOCK:
            stop = data.rfind(b"\n", begin, begin + BLOCK)
            if stop < 0:
                raise InputError(f"{name}:{number}: line must have at most {BLOCK} bytes, got more")
        lines = data[begin:stop].split(b"\n")
        yield lines
        number += len(lines)
        begin = stop + 1


def _word_and_numbers(line: bytes, dim: int, name: str, number: int) -> tuple[bytes, bytes]:
    line = line.rstrip(b" \r\t")
    if line.count(b" ") == dim and b"\t" not in line:
        word, _, numbers = line.partition(b" ")
        return word, numbers
    columns = line.rsplit(None, dim)  # a word may hold spaces, as a few of GloVe's do
    if len(columns) != dim + 1 or (b" " in columns[0] and _is_number(columns[0].rsplit(None, 1)[-1])):
        found = max(len(line.split()) - 1, 0)
        raise InputError(f"{name}:{number}: line must be a word and {dim} numbers, got {found} after the word")
    return columns[0], b" ".join(columns[1:])


def _numbers(rows: list[bytes], dim: int, name: str, number: int) -> NDArray[np.float32]:
    """The numbers of lines that have `dim` columns, each after one space."""
    text = b" ".join(rows)
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.simplefilter("error", DeprecationWarning)  # numpy's way to say that a number is none
        # An empty column beside one with two numbers in it would be counted right and read wrong.
        if _ODD_SPACE.search(text) is None:
            with contextlib.suppress(DeprecationWarning, ValueError):  # the loop below names the line
                found = np.fromstring(text, np.float32, sep=" ")
                if len(found) == len(rows) * dim and np.isfinite(found).all():
                    return found.reshape(len(rows), dim)
        found = np.empty((len(rows), dim), np.float32)
        for at, row in enumerate(rows):
            for column, text in enumerate(row.split(b" ")):
                if not _is_number(text) or not np.isfinite(np.float32(float(text))):
                    raise InputError(f"{name}:{number + at}: number {column + 1} must be finite, got {text[:40]!r}")
                found[at, column] = float(text)
    return found


def _read_binary(data: mmap.mmap, name: str, begin: int, count: int, dim: int) -> WordVectors:
    words: list[str] = []
    offsets: list[int] = []
    matrix = np.empty((count, dim), np.float32)
    at = begin
    for row in range(count):
        while data[at : at + 1] == b"\n":  # word2vec.c ends a row so, gensim does not
            at += 1
        space = data.find(b" ", at, at + MAX_WORD)
        if space < 0 or space + 1 + 4 * dim > len(data):
            raise InputError(
                f"{name}: file must have {count} words of {dim} numbers, got the end of it or no word in word "
                f"{row + 1}, at byte {at}"
            )
        words.append(_decoded(data[at:space], f"{name}: byte {at}"))
        offsets.append(at)
        matrix[row] = np.frombuffer(data, "<f4", dim, space + 1)
        at = space + 1 + 4 * dim
    if data[at : at + 16].strip(b"\r\n") or len(data) - at > 16:
        raise InputError(f"{name}: file must end after the {count} words of its header, got more at byte {at}")
    return _vectors(words, matrix, lambda row: f"{name}: byte {offsets[row]}")


def _read_safetensors(data: mmap.mmap, name: str) -> WordVectors:
    size = int.from_bytes(data[:8], "little")
    if size > MAX_HEADER:
        raise InputError(f"{name}: header must have at most {MAX_HEADER} bytes, got {size}")
    try:
        header: Any = json.loads(data[8 : 8 + size])
        meta = header.pop("__metadata__", {})
        found = {key: _tensor(data, 8 + size, entry) for key, entry in header.items()}
        matrix, text = _rows(found, "matrix"), found["vocabulary"]
        hashing = tuple(int(meta[key]) for key in ("min_n", "max_n", "buckets")) if "ngrams" in found else None
        ngrams, buckets = (_rows(found, "ngrams"), found["buckets"]) if hashing else (matrix, text)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{name}: file must hold seqkit's word vectors, got another ({error!r})") from error
    if text.dtype != np.uint8 or 0 in matrix.shape:
        raise InputError(f"{name}: matrix must have rows and vocabulary bytes, got {matrix.shape} and {text.dtype}")
    words = _decoded(text.tobytes(), f"{name}: vocabulary").split("\n")
    if words.pop() or len(words) != len(matrix):
        raise InputError(f"{name}: vocabulary must have a word for each of {len(matrix)} rows, got {len(words)}")
    _check_words_differ(words, lambda row: f"{name}: row {row}")
    if hashing is None:
        return WordVectors(words, matrix)
    min_n, max_n, n_buckets = hashing
    fits = 1 <= min_n <= max_n <= 64 and 1 <= n_buckets < 1 << 31
    fits = fits and ngrams.shape == (len(buckets), matrix.shape[1])
    fits = fits and buckets.dtype == np.int32 and buckets.ndim == 1 and bool((np.diff(buckets) > 0).all())
    if not fits or (len(buckets) and not 0 <= buckets[0] <= buckets[-1] < n_buckets):
        raise InputError(f"{name}: ngrams must have a row for each rising bucket, got {ngrams.shape}, {hashing}")
    return SubwordVectors(words, matrix, ngrams, buckets, (min_n, max_n, n_buckets))


def _rows(found: dict[str, NDArray[Any]], key: str) -> NDArray[np.float32] | Int8Rows:
    """A matrix of float32, or of eight bits with the scale of each row beside it.

    Raises:
        InputError: it is neither.
    """
    matrix = found[key]
    if matrix.dtype == np.int8:
        scales = found[_SCALES[key]]
        if scales.dtype != np.float32:
            raise InputError(f"{_SCALES[key]}: numbers must be float32, got {scales.dtype}")
        return Int8Rows(matrix, scales)
    if matrix.dtype != np.float32 or matrix.ndim != 2:
        raise InputError(f"{key}: rows must be of float32 or int8, got {matrix.dtype} of the shape {matrix.shape}")
    return matrix


def _tensor(data: mmap.mmap, base: int, entry: dict[str, Any]) -> NDArray[Any]:
    kind = np.dtype({"F32": "<f4", "I8": "i1", "U8": "u1", "I32": "<i4"}[entry["dtype"]])
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    size = 1
    for axis in shape:
        if not isinstance(axis, int) or axis < 0:
            raise ValueError(f"shape {shape}")
        size *= axis
    if not 0 <= begin <= end <= len(data) - base or end - begin != size * kind.itemsize:
        raise ValueError(f"bytes {begin} to {end} of {len(data) - base} for the shape {shape}")
    return np.frombuffer(data, kind, size, base + begin).reshape(shape) if size else np.empty(shape, kind)


def _decoded(word: bytes, where: str) -> str:
    try:
        text = word.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: word must be UTF-8, got byte 0x{word[error.start]:02x} at {error.start}") from error
    if not text:
        raise InputError(f"{where}: word must have a character, got none")
    return text


def _vectors(words: list[str], matrix: NDArray[np.float32], where: Callable[[int], str]) -> WordVectors:
    _check_words_differ(words, where)
    return WordVectors(words, matrix)


def _check_words_differ(words: list[str], where: Callable[[int], str]) -> None:
    if len(set(words)) == len(words):
        return
    seen: dict[str, int] = {}
    for row, word in enumerate(words):
        if word in seen:
            raise InputError(f"{where(row)}: word must come once, got {word!r} as at {where(seen[word])}")
        seen[word] = row


def _check_words(vectors: WordVectors, path: str, format: str) -> None:
    """That a format can hold the words and be told from the others again."""
    if 0 in vectors.rows.shape:
        raise InputError(f"{path}: vectors must have a word and a number, got the shape {vectors.rows.shape}")
    if format == "fasttext" and not isinstance(vectors, SubwordVectors):
        raise InputError(f"{path}: vectors must have subwords for the format fasttext, got none; word2vec fits them")
    if format == "glove" and vectors.dim < 2:
        raise InputError(f"{path}: vectors must have two numbers or more for the format glove, got one")
    bad = re.compile(_NOT_IN_WORDS.get(format, "[ \t\r\n]"))
    for word in vectors.words:
        if not word or bad.search(word) or len(word) > MAX_WORD // 4:
            raise InputError(f"{path}: word must not be empty or hold {bad.pattern!r} for {format}, got {word[:40]!r}")
        if not word.isascii():
            try:
                word.encode()
            except UnicodeEncodeError as error:
                raise InputError(f"{path}: word must be Unicode, got {word!r} with a lone surrogate") from error
    if format in ("glove", "word2vec-text") and vectors.words[0].startswith("\ufeff"):
        raise InputError(f"{path}: first word must not begin with a byte order mark in {format}, got one that does")


def _write_safetensors(vectors: WordVectors, put: Callable[[bytes], object]) -> None:
    tensors = {"matrix": np.ascontiguousarray(vectors.matrix, np.float32)}
    if isinstance(vectors, SubwordVectors):
        tensors["ngrams"] = np.ascontiguousarray(vectors.ngrams[:], np.float32)
    _write_tensors(vectors, tensors, put)


def _write_int8(vectors: WordVectors, put: Callable[[bytes], object]) -> None:
    rows = {"matrix": vectors.rows}
    if isinstance(vectors, SubwordVectors):
        rows["ngrams"] = vectors.ngrams
    tensors: dict[str, NDArray[Any]] = {}
    for key, each in rows.items():
        found = each if isinstance(each, Int8Rows) else Int8Rows.of(each)
        tensors |= {key: np.ascontiguousarray(found.numbers), _SCALES[key]: np.ascontiguousarray(found.scales)}
    _write_tensors(vectors, tensors, put)


def _write_tensors(vectors: WordVectors, tensors: dict[str, NDArray[Any]], put: Callable[[bytes], object]) -> None:
    text = "".join(word + "\n" for word in vectors.words).encode()
    tensors = {**tensors, "vocabulary": np.frombuffer(text, np.uint8)}
    meta = {"format": "seqkit word vectors"}
    if isinstance(vectors, SubwordVectors):
        tensors["buckets"] = np.ascontiguousarray(vectors.buckets, np.int32)
        meta |= dict(zip(("min_n", "max_n", "buckets"), map(str, vectors.hashing), strict=True))
    put(safetensors.numpy.save(tensors, meta))


def _write_word2vec(vectors: WordVectors, put: Callable[[bytes], object]) -> None:
    put(f"{len(vectors)} {vectors.dim}\n".encode())
    for word, row in zip(vectors.words, vectors.matrix.astype("<f4", copy=False), strict=True):
        put(word.encode() + b" " + row.tobytes() + b"\n")


def _write_text(vectors: WordVectors, put: Callable[[bytes], object]) -> None:
    put(f"{len(vectors)} {vectors.dim}\n".encode())
    _write_glove(vectors, put)


def _write_glove(vectors: WordVectors, put: Callable[[bytes], object]) -> None:
    line = "%s" + " %.9g" * vectors.dim + "\n"  # nine digits give each float32 back
    for word, row in zip(vectors.words, vectors.matrix, strict=True):
        put((line % (word, *row.tolist())).encode())


_WRITERS: dict[str, Callable[[Any, Callable[[bytes], object]], None]] = {
    "safetensors": _write_safetensors, "word2vec": _write_word2vec, "word2vec-text": _write_text,
    "glove": _write_glove, "fasttext": write_fasttext,
}  # fmt: skip
