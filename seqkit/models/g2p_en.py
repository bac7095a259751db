"""The network of g2p-en, which spells an English word in ARPAbet phonemes, read into ours.

It is a GRU encoder-decoder without attention (PyPI `g2p-en`, Park and Kim). Its weights stand in the package's
`checkpoint20.npz`, its letters and phonemes in the package's code, and so here. The gates have torch's order.

What the two programs do differently, and how it is bridged: `G2p()` makes its text lower case before it asks the
network, which knows small letters only; here a capital has the row of its small letter. An output is cut after 20
phonemes there, and so here. The package's dictionary, homographs, numbers and accents are not read: this is what its
`predict` computes, for a word that its dictionary lacks.
"""

from __future__ import annotations

import string
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from seqkit.errors import InputError
from seqkit.models.plain_seq2seq import ImportedSeq2Seq, PlainSeq2SeqConfig

CHECKPOINT = "checkpoint20.npz"
MAX_PHONEMES = 20
N_GRAPHEMES = 29  # <pad> <unk> </s> a ... z
# Behind <pad> <unk> <s> </s>, which are seqkit's own and have the same rows.
PHONEMES = [
    "AA0", "AA1", "AA2", "AE0", "AE1", "AE2", "AH0", "AH1", "AH2", "AO0", "AO1", "AO2", "AW0", "AW1", "AW2", "AY0",
    "AY1", "AY2", "B", "CH", "D", "DH", "EH0", "EH1", "EH2", "ER0", "ER1", "ER2", "EY0", "EY1", "EY2", "F", "G", "HH",
    "IH0", "IH1", "IH2", "IY0", "IY1", "IY2", "JH", "K", "L", "M", "N", "NG", "OW0", "OW1", "OW2", "OY0", "OY1", "OY2",
    "P", "R", "S", "SH", "T", "TH", "UH0", "UH1", "UH2", "UW", "UW0", "UW1", "UW2", "V", "W", "Y", "Z", "ZH",
]  # fmt: skip
DAMAGED = (
    KeyError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # what zipfile and numpy raise for files of all sorts  # fmt: skip
NAMES = [f"{side}_{name}" for side in ("enc", "dec") for name in ("emb", "w_ih", "w_hh", "b_ih", "b_hh")]


def import_g2p_en(path: str | Path) -> ImportedSeq2Seq:
    """Reads g2p-en's checkpoint, or the one in the package's folder, into the terms of `PlainSeq2Seq`.

    Raises:
        InputError: the file cannot be read, is damaged, or has other weights.
    """
    path = Path(path)
    path = path / CHECKPOINT if path.is_dir() else path
    weights = _read(path, [*NAMES, "fc_w", "fc_b"])
    embedding_dim, hidden_dim = (int(weights[name].shape[-1]) for name in ("enc_emb", "enc_w_hh"))
    n_phonemes = 4 + len(PHONEMES)
    shapes = {"fc_w": (n_phonemes, hidden_dim), "fc_b": (n_phonemes,)}
    for side, size in (("enc", N_GRAPHEMES), ("dec", n_phonemes)):
        shapes |= {
            f"{side}_emb": (size, embedding_dim), f"{side}_w_ih": (3 * hidden_dim, embedding_dim),
            f"{side}_w_hh": (3 * hidden_dim, hidden_dim), f"{side}_b_ih": (3 * hidden_dim,),
            f"{side}_b_hh": (3 * hidden_dim,),
        }  # fmt: skip
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise InputError(f"{path}: {name} must have the shape {shape}, got {weights[name].shape}")

    pad, unknown, end, *letters = weights["enc_emb"]
    state = {
        "source_embedding": np.stack([pad, unknown, np.zeros_like(pad), end, *letters, *letters]),
        "target_embedding": weights["dec_emb"],
        "output.weight": weights["fc_w"],
        "output.bias": weights["fc_b"],
    }
    for ours, its in (("encoder", "enc"), ("decoder", "dec")):
        for kind in ("w", "b"):
            for end_of_name in ("ih", "hh"):
                name = f"{ours}.network.{'weight' if kind == 'w' else 'bias'}_{end_of_name}_l0"
                state[name] = weights[f"{its}_{kind}_{end_of_name}"]
    return ImportedSeq2Seq(
        config=PlainSeq2SeqConfig(cell="gru", embedding_dim=embedding_dim, hidden_dim=hidden_dim),
        state_dict={name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in state.items()},
        source_tokens=[*string.ascii_lowercase, *string.ascii_uppercase],
        target_tokens=PHONEMES,
        source_eos=True,
        max_length=MAX_PHONEMES,
    )


def _read(path: Path, names: list[str]) -> dict[str, NDArray[np.float32]]:
    """The named arrays of an .npz file; nothing in it is unpickled."""
    weights = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                with archive.open(f"{name}.npy") as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                if array.dtype.kind != "f" or array.ndim not in (1, 2):
                    raise ValueError(f"{name} that is no matrix or vector of real numbers")
                with np.errstate(over="ignore"):
                    weights[name] = array.astype(np.float32)
    except OSError as error:
        raise InputError(f"{path}: the checkpoint must be a file that can be read, got: {error.strerror}") from None
    except DAMAGED as error:
        raise InputError(f"{path}: the checkpoint must be a whole .npz of g2p-en, got: {error}") from None
    for name, weight in weights.items():
        if not np.isfinite(weight).all():
            raise InputError(f"{path}: {name} must be of finite numbers, got others")
    return weights
