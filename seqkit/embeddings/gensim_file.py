"""gensim's own file of word vectors, a pickle, read without running what it asks for.

A pickle is a program. This one may build lists, dicts, strings and numbers; gensim's and NumPy's classes become plain
records whose numbers are checked before an array is made of them; any other name is refused.
"""

from __future__ import annotations

import io
import mmap
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from seqkit.embeddings.fasttext import SubwordVectors
from seqkit.embeddings.fasttext_file import composed
from seqkit.embeddings.vectors import WordVectors
from seqkit.errors import InputError

KINDS = {"f2", "f4", "f8"}


class _Record:
    """An object of gensim's, as its attributes."""


class _Array:
    """A NumPy array before it is one."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _Kind:
    """A NumPy dtype, as its letters and byte order."""

    def __init__(self, letters: str, *_: object) -> None:
        self.letters, self.order = letters, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


def _array(*_: object) -> _Array:
    return _Array()


def _latin(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


def _number(*_: object) -> None:
    """A NumPy scalar; none is needed."""


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    **{("gensim.models.keyedvectors", name): _Record
       for name in ("KeyedVectors", "EuclideanKeyedVectors", "Word2VecKeyedVectors", "FastTextKeyedVectors", "Vocab",
                    "CompatVocab")},
    ("gensim.models.fasttext", "FastTextKeyedVectors"): _Record,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _number for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _latin,
}  # fmt: skip

_Python: Any = pickle._Unpickler  # C's allocates what a length claims; this reads it


class _Unpickler(_Python):  # type: ignore[misc]
    """Builds what `_NAMES` has and nothing else."""

    dispatch: ClassVar[dict[int, Any]] = {
        code: method
        for code, method in _Python.dispatch.items()
        if code not in {each[0] for each in (pickle.BYTEARRAY8, pickle.EXT1, pickle.EXT2, pickle.EXT4)}
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise InputError(f"pickle must name gensim's KeyedVectors and NumPy arrays only, got {module}.{name}")
        return _NAMES[module, name]


def read_gensim(data: mmap.mmap, name: str) -> WordVectors:
    """The vectors of `KeyedVectors.save`, and of gensim's FastText with their subwords.

    Raises:
        InputError: the pickle ends early, is of another object, or names what is not a part of word vectors.
    """
    try:
        found = _Unpickler(io.BytesIO(data)).load()
        if not isinstance(found, _Record):
            raise InputError(f"pickle must be of a KeyedVectors, got {type(found).__name__}")
        state = vars(found)
        words = state.get("index_to_key", state.get("index2word"))
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise InputError("KeyedVectors must have a list of words, got none")
        key = next((key for key in ("vectors", "vectors_vocab", "syn0") if _holds(state, key)), "vectors")
        matrix = _matrix(state, key, name)
        if matrix.shape[0] != len(words):
            raise InputError(f"vectors must have a row for each of {len(words)} words, got {matrix.shape[0]}")
        if not _holds(state, "vectors_ngrams"):
            return WordVectors(words, matrix)
        ngrams = _matrix(state, "vectors_ngrams", name)
        hashing = (state["min_n"], state["max_n"], state["bucket"])
        fits = all(isinstance(each, int) for each in hashing) and 1 <= hashing[0] <= hashing[1] <= 64
        if not fits or ngrams.shape != (hashing[2], matrix.shape[1]):
            raise InputError(f"vectors_ngrams must have a row a bucket, got {ngrams.shape} for {hashing}")
        if key == "vectors_vocab":  # the words' own rows: gensim leaves out what can be computed
            matrix = composed(words, matrix, ngrams, hashing)
        return SubwordVectors(words, matrix, ngrams, np.arange(len(ngrams), dtype=np.int32), hashing)
    except InputError as error:
        raise InputError(f"{name}: {error}; gensim's save_word2vec_format writes what is read anywhere") from error
    except Exception as error:  # a damaged program fails in any way
        raise InputError(f"{name}: file must be a whole pickle of gensim's KeyedVectors, got {error!r}") from error


def _holds(state: dict[str, Any], key: str) -> bool:
    return state.get(key) is not None or key in state.get("__numpys", [])


def _matrix(state: dict[str, Any], key: str, name: str) -> NDArray[np.float32]:
    """An array of the pickle, or of the file beside it that gensim puts large ones in."""
    held = state.get(key)
    if held is None and _holds(state, key):
        beside = Path(f"{name}.{key}.npy")
        if not beside.exists():
            raise InputError(f"{key} must be in the file beside, got no {beside}")
        loaded: NDArray[Any] = np.load(beside, mmap_mode="r", allow_pickle=False)
        if loaded.dtype.kind != "f" or loaded.ndim != 2:
            raise InputError(f"{key} must be rows of floats, got {loaded.dtype} of shape {loaded.shape}")
        return loaded.astype(np.float32, copy=False)
    if not isinstance(held, _Array) or len(held.state) != 5:
        raise InputError(f"{key} must be an array, got {type(held).__name__}")
    _, shape, kind, by_columns, raw = held.state
    if not isinstance(kind, _Kind) or kind.letters not in KINDS or not isinstance(raw, bytes):
        raise InputError(f"{key} must be of floats, got {getattr(kind, 'letters', kind)}")
    numbers = np.frombuffer(raw, (">" if kind.order == ">" else "<") + kind.letters)
    if len(shape) != 2 or shape[0] * shape[1] != len(numbers) or min(shape) < 1:
        raise InputError(f"{key} must have the shape it says, got {shape} and {len(numbers)} numbers")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told when it is asked for
        return numbers.reshape(shape, order="F" if by_columns else "C").astype(np.float32, copy=False)
