"""gensim's pickles: read as far as they are word vectors, and never run."""

import pickle
import random
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqkit.embeddings import WordVectors, native
from seqkit.embeddings.fasttext import subword_buckets
from seqkit.errors import InputError


@pytest.fixture
def pickled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pickles attributes as an object of gensim's, which is not installed."""
    module = types.ModuleType("gensim.models.keyedvectors")
    kind = type("KeyedVectors", (), {"__module__": module.__name__})
    module.KeyedVectors = kind  # type: ignore[attr-defined]
    for name in ("gensim", "gensim.models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def dump(attributes: dict[str, Any], protocol: int = 4) -> bytes:
        one = kind()
        one.__dict__.update(attributes)
        return pickle.dumps(one, protocol)

    return dump


WORDS, MATRIX = ["king", "été"], np.array([[1, 2, 3], [4, 5, 6]], np.float32)
STATE = {"vector_size": 3, "index_to_key": WORDS, "key_to_index": {"king": 0, "été": 1}, "norms": None}


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_vectors_are_read(tmp_path: Path, pickled: Any, protocol: int, kind: str, order: Any) -> None:
    (tmp_path / "v").write_bytes(pickled({**STATE, "vectors": MATRIX.astype(kind, order=order)}, protocol))
    found = WordVectors.load(tmp_path / "v")
    assert found.words == WORDS
    assert found.matrix.dtype == np.float32
    assert (found.matrix == MATRIX).all()


def test_large_arrays_lie_in_a_file_beside(tmp_path: Path, pickled: Any) -> None:
    (tmp_path / "v").write_bytes(pickled({**STATE, "__numpys": ["vectors"]}))
    with pytest.raises(InputError, match=r"must be in the file beside, got no .*v\.vectors\.npy"):
        WordVectors.load(tmp_path / "v")
    np.save(tmp_path / "v.vectors.npy", MATRIX)
    assert (WordVectors.load(tmp_path / "v").matrix == MATRIX).all()


@pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the n-gram hash is not built")
def test_subwords_are_read_and_words_made_of_them(tmp_path: Path, pickled: Any) -> None:
    ngrams = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    state = {**STATE, "vectors_vocab": MATRIX, "vectors_ngrams": ngrams, "min_n": 3, "max_n": 4, "bucket": 20}
    (tmp_path / "v").write_bytes(pickled(state))
    found = WordVectors.load(tmp_path / "v")
    wanted = ngrams[subword_buckets("king", 3, 4, 20)]
    assert np.allclose(found["king"], (MATRIX[0] + wanted.sum(0)) / (1 + len(wanted)), atol=1e-6)
    assert np.allclose(found["kings"], ngrams[subword_buckets("kings", 3, 4, 20)].mean(0), atol=1e-6)


class Evil:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


def test_no_code_is_run(tmp_path: Path, pickled: Any) -> None:
    for function, argument in [
        (exec, f"open({str(tmp_path / 'ran')!r}, 'w')"),
        (np.zeros, 10**12),
        (bytearray, 10**12),
    ]:
        (tmp_path / "v").write_bytes(pickled({**STATE, "vectors": Evil(function, argument)}))
        with pytest.raises(
            InputError, match=r"must name gensim's KeyedVectors and NumPy arrays only, got .*save_word2vec"
        ):
            WordVectors.load(tmp_path / "v")
    assert not (tmp_path / "ran").exists()


def test_what_is_not_word_vectors_is_refused(tmp_path: Path, pickled: Any) -> None:
    for content, says in [
        (pickle.dumps([1]), "must be of a KeyedVectors, got list"),
        (pickled({"vectors": MATRIX}), "must have a list of words"),
        (pickled({**STATE, "vectors": MATRIX[:1]}), "a row for each of 2 words, got 1"),
        (pickled({**STATE, "vectors": MATRIX.astype(int)}), "must be of floats, got i8"),
        (pickled({**STATE, "vectors": [1]}), "must be an array, got list"),
        (pickled({**STATE, "vectors": MATRIX})[:-20], "must be a whole pickle"),
        (b"\x80\x04\x96" + (1 << 40).to_bytes(8, "little"), "must be a whole pickle"),
        (b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little"), "must be a whole pickle"),
    ]:
        (tmp_path / "v").write_bytes(content)
        with pytest.raises(InputError, match=says):
            WordVectors.load(tmp_path / "v")


def test_mutated_pickles_give_vectors_that_fit_or_a_sentence(tmp_path: Path, pickled: Any) -> None:
    generator, whole = random.Random(1), pickled({**STATE, "vectors": MATRIX})
    for _ in range(1500):
        changed = bytearray(whole[: generator.choice([len(whole), len(whole), generator.randrange(2, len(whole))])])
        for _ in range(generator.randint(0, 3)):
            changed[generator.randrange(2, len(changed))] = generator.randrange(256)
        (tmp_path / "v").write_bytes(changed)
        try:
            found = WordVectors.load(tmp_path / "v")
        except InputError:
            continue
        assert len(found.words) == len(found.matrix) == 2
