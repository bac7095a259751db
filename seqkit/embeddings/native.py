"""The native trainer, `seqkit/_embedding.abi3.so`, through ctypes: see csrc/embedding/api.cpp.

ctypes releases the interpreter's lock while a call runs, so that one thread trains while another asks for progress.
"""

from __future__ import annotations

import ctypes
import functools
import json
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

from seqkit.errors import InputError

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARY = "_embedding.abi3.so"


COUNTS = ("dim", "window", "negative", "architecture", "objective", "epochs", "seed", "threads", "deterministic")
SUBWORD_COUNTS = ("min_n", "max_n", "buckets")
NUMBERS = ("sample", "alpha", "min_alpha")
OPTIONS = (*COUNTS, *SUBWORD_COUNTS, *NUMBERS)


class Options(ctypes.Structure):
    """`Word2VecOptions` of csrc/embedding/word2vec.h."""

    _fields_ = (*((name, c_int64) for name in (*COUNTS, *SUBWORD_COUNTS)), *((name, c_double) for name in NUMBERS))


GLOVE_COUNTS = ("dim", "window", "epochs", "seed", "threads", "memory")
GLOVE_NUMBERS = ("x_max", "alpha", "eta")


class GloVeOptions(ctypes.Structure):
    """`GloVeOptions` of csrc/embedding/glove.h."""

    _fields_ = (*((name, c_int64) for name in GLOVE_COUNTS), *((name, c_double) for name in GLOVE_NUMBERS))


class Progress(ctypes.Structure):
    """Chunks, words and pairs that are done, and the sum of the pairs' losses."""

    _fields_ = (("position", c_int64), ("words", c_int64), ("pairs", c_int64), ("loss", c_double))


# Result and arguments of each function; a c_char_p result is an error.
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "corpus_new": (c_void_p, [c_int64, c_int64, c_int64, c_int64, c_char_p]),
    "corpus_free": (None, [c_void_p]),
    "corpus_add_known": (c_char_p, [c_void_p, c_char_p, c_int64, c_int64]),
    "corpus_add_file": (c_char_p, [c_void_p, c_char_p]),
    "corpus_feed": (c_char_p, [c_void_p, c_char_p, c_int64, c_char_p]),
    "corpus_end_stream": (c_char_p, [c_void_p]),
    "corpus_finish": (c_char_p, [c_void_p]),
    "corpus_vocabulary": (c_int64, [c_void_p]),
    "corpus_words": (c_int64, [c_void_p]),
    "corpus_raw_words": (c_int64, [c_void_p]),
    "corpus_spilled": (c_int64, [c_void_p]),
    "corpus_counts": (POINTER(c_int64), [c_void_p]),
    "corpus_text": (POINTER(ctypes.c_char), [c_void_p, POINTER(c_int64)]),
    "corpus_ids": (c_char_p, [c_void_p, c_void_p, POINTER(c_int64)]),
    "word2vec_new": (c_char_p, [POINTER(Options), c_void_p, POINTER(c_void_p)]),
    "word2vec_free": (None, [c_void_p]),
    "word2vec_run": (c_char_p, [c_void_p]),
    "word2vec_stop": (None, [c_void_p]),
    "word2vec_progress": (None, [c_void_p, POINTER(Progress)]),
    "word2vec_restore": (None, [c_void_p, POINTER(Progress)]),
    "word2vec_matrix": (POINTER(c_float), [c_void_p, c_int64, POINTER(c_int64), POINTER(c_int64)]),
    "word2vec_buckets": (POINTER(c_int32), [c_void_p, POINTER(c_int64)]),
    "subword_buckets": (c_int64, [c_char_p, c_int64, c_int64, c_int64, c_int64, c_void_p, c_int64]),
    "cooccurrence": (
        c_char_p,
        [c_void_p, c_int64, c_int64, c_int64, c_char_p, c_void_p, c_void_p, c_void_p, c_int64, POINTER(c_int64)],
    ),
    "glove_new": (c_char_p, [POINTER(GloVeOptions), c_void_p, c_char_p, POINTER(c_void_p)]),
    "glove_free": (None, [c_void_p]),
    "glove_run": (c_char_p, [c_void_p]),
    "glove_stop": (None, [c_void_p]),
    "glove_terms": (c_int64, [c_void_p]),
    "glove_on_disk": (c_int64, [c_void_p]),
    "glove_progress": (None, [c_void_p, POINTER(Progress)]),
    "glove_restore": (None, [c_void_p, POINTER(Progress)]),
    "glove_rows": (POINTER(c_float), [c_void_p, POINTER(c_int64), POINTER(c_int64)]),
    "glove_step": (c_double, [c_void_p, c_int64, c_int32, c_int32, c_float, c_float, c_float]),
    "window_step": (c_double, [c_void_p, c_int64, c_void_p, c_void_p, c_int64, c_int64, c_int64]),
}


@functools.cache
def _functions() -> dict[str, Any]:
    path = PACKAGE / LIBRARY
    if not path.exists():
        facts = PACKAGE / "_build.json"
        why = json.loads(facts.read_text())["why"] if facts.exists() else "seqkit was not installed; run: pip install ."
        raise InputError(
            f"embeddings: the native trainer must be built to train, got none: {why or 'install it again'}"
        )
    library = ctypes.CDLL(str(path))
    functions = {}
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, f"seqkit_{name}")
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return functions


def call(name: str, *arguments: Any) -> Any:
    """The result of a native function.

    Raises:
        InputError: the function said what is wrong, or the native trainer is not built.
    """
    result = _functions()[name](*arguments)
    if _SIGNATURES[name][0] is c_char_p and result is not None:
        raise InputError(result.decode(errors="replace"))
    return result
