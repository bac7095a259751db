"""fastText's model file: what it holds byte by byte, and what of it is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest

from seqkit.embeddings import WordVectors, native
from seqkit.embeddings.fasttext import SubwordVectors, subword_buckets
from seqkit.errors import InputError

pytestmark = pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the n-gram hash is not built")


def model(
    *, version: int = 12, quantised: bool = False, pruned: int = -1, rows: int = 12, min_n: int = 3, max_n: int = 4
) -> bytes:
    """Two words, `</s>` and `king`, two numbers each, ten buckets: as fastText 0.9.2 writes it."""
    options = struct.pack("<12id", 2, 5, 5, 1, 5, 1, 2, 2, 10, min_n, max_n, 100, 1e-4)
    words = b"".join(word + b"\0" + struct.pack("<qb", 7, 0) for word in (b"</s>", b"king"))
    matrix = np.arange(24, dtype="<f4").tobytes()
    return (
        struct.pack("<ii", 793712314, version) + options + struct.pack("<iiiqq", 2, 2, 0, 14, pruned) + words
        + struct.pack("<?qq", quantised, rows, 2) + matrix + struct.pack("<?qq", False, 2, 2) + bytes(16)
    )  # fmt: skip


def test_words_are_the_mean_of_their_rows_and_the_end_has_no_ngrams(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(model())
    found = WordVectors.load(tmp_path / "m")
    assert isinstance(found, SubwordVectors)
    rows = np.arange(24, dtype=np.float32).reshape(12, 2)
    wanted = rows[2:][subword_buckets("king", 3, 4, 10)]
    assert (found["</s>"] == rows[0]).all()
    assert np.allclose(found["king"], (rows[1] + wanted.sum(0)) / (1 + len(wanted)))
    unseen = rows[2:][subword_buckets("kin", 3, 4, 10)]
    assert np.allclose(found["kin"], unseen.mean(0))


def test_a_model_without_ngrams_is_its_words(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(model(min_n=0, max_n=0))
    found = WordVectors.load(tmp_path / "m")
    assert not isinstance(found, SubwordVectors)
    assert found["king"].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (model(version=11), "version must be 12, got 11"),
        (model(quantised=True), "must not be quantised"),
        (model(pruned=3), "must not be pruned, got 3"),
        (model(rows=13), "matrix must be of 12 rows of 2 numbers, got 13 of 2"),
        (model()[:60], "must have a header of fastText"),
        (model()[:150], "matrix must have 96 bytes"),
        (model()[:-33], "must have an output matrix"),
    ],
)
def test_other_and_damaged_models_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(InputError, match=says):
        WordVectors.load(tmp_path / "m")
