"""Character translators of Keras's `lstm_seq2seq` example, converted to TensorFlow.js, read into ours.

A folder holds `model.json` (Keras's topology and the list of weights), the shards that it names (float32, one weight
after the other), and `metadata.json` (the row of each character on both sides, and the longest sequences of training).
Nothing but numpy is needed: the formats are parsed here.

What the two programs do differently, and how it is bridged:

- Characters go in as one-hot vectors: an embedding whose matrix is the identity, with zero rows for the specials and
  zero columns on the side with fewer characters. A character that the network does not know is the zero vector.
- The source is a matrix of `max_encoder_seq_length` rows, and the encoder reads the zero rows behind a shorter sentence
  too: `padded_source`. A longer sentence, which its owner refuses, is read to its end.
- A tab starts an output and a line break ends it: they are our begin and end symbols. What is cut is cut after
  `max_decoder_seq_length` + 1 characters.
- Keras's gates stand in the order i, f, c, o, which is torch's, and its kernels are our weights transposed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seqkit.errors import InputError
from seqkit.models.plain_seq2seq import ImportedSeq2Seq, PlainSeq2SeqConfig

N_SPECIALS = 4  # <pad> <unk> <s> </s>, as in seqkit.text.vocab, which models do not import
NEVER = -1e9  # bias of an output that the network does not have
GATES = ("sigmoid", "hard_sigmoid")
MAX_CHARACTERS = 10_000  # of a side; their one-hot vectors are a square matrix


def import_tensorflow_js(folder: str | Path) -> ImportedSeq2Seq:
    """Reads a folder of TensorFlow.js into the terms of `PlainSeq2Seq`.

    Raises:
        InputError: a file is missing or damaged, or the network is not an encoder LSTM, a decoder LSTM that starts from
            its states, and a softmax.
    """
    folder = Path(folder)
    where = str(folder / "model.json")
    description = _read_json(folder / "model.json")
    encoder, decoder, softmax = _network(description, where)
    if encoder["recurrent_activation"] != decoder["recurrent_activation"]:
        raise InputError(f"{where}: both LSTMs must have one recurrent_activation, got different ones")

    hidden_dim = encoder["units"]
    parts = _parts(_weights(folder, description, where), encoder, decoder, softmax, where)
    n_source, n_target = (len(parts[side, "kernel"]) for side in ("encoder", "decoder"))

    facts_path = folder / "metadata.json"
    facts = _read_json(facts_path)
    source = _characters(facts, "input_token_index", n_source, facts_path)
    target = _characters(facts, "target_token_index", n_target, facts_path)
    for name, mark in (("tab", "\t"), ("line break", "\n")):
        if mark not in target:
            raise InputError(f"{facts_path}: target_token_index must have a {name}, got none")
    longest_source, longest_target = (
        _count(facts, f"max_{side}_seq_length", facts_path) for side in ("encoder", "decoder")
    )

    embedding_dim = max(n_source, n_target)
    ordinary = [row for row, char in enumerate(target) if char not in "\t\n"]
    target_rows = [-1, -1, target.index("\t"), target.index("\n"), *ordinary]
    bias = _rows(parts["output", "bias"], target_rows)
    bias[[row < 0 for row in target_rows]] = NEVER
    source_rows = [-1] * N_SPECIALS + list(range(n_source))
    state = {
        "source_embedding": _rows(np.eye(n_source, embedding_dim, dtype=np.float32), source_rows),
        "target_embedding": _rows(np.eye(n_target, embedding_dim, dtype=np.float32), target_rows),
        "output.weight": _rows(parts["output", "kernel"].T, target_rows),
        "output.bias": bias,
    }
    for side in ("encoder", "decoder"):
        kernel = parts[side, "kernel"]
        state |= {
            f"{side}.network.weight_ih_l0": np.pad(kernel, ((0, embedding_dim - len(kernel)), (0, 0))).T,
            f"{side}.network.weight_hh_l0": parts[side, "recurrent_kernel"].T,
            f"{side}.network.bias_ih_l0": parts[side, "bias"],
            f"{side}.network.bias_hh_l0": np.zeros(4 * hidden_dim, np.float32),
        }
    return ImportedSeq2Seq(
        config=PlainSeq2SeqConfig(
            cell="lstm", embedding_dim=embedding_dim, hidden_dim=hidden_dim, gates=encoder["recurrent_activation"],
            padded_source=longest_source,
        ),
        state_dict={name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in state.items()},
        source_tokens=source,
        target_tokens=[target[row] for row in ordinary],
        source_eos=False,
        max_length=longest_target + 1,
    )  # fmt: skip


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: the file must be one that can be read, got: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: the file must be JSON, got: {error}") from None
    if not isinstance(read, dict):
        raise InputError(f"{path}: the file must be a JSON object, got {type(read).__name__}")
    return read


def _network(description: dict[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The configs of the encoder, the decoder and the softmax, after a look at how they are joined."""
    try:
        topology = description["modelTopology"]
        layers = topology.get("model_config", topology)["config"]["layers"]
        kinds = [str(layer["class_name"]) for layer in layers]
        joined = {
            layer["config"]["name"]: [tuple(source[:3]) for source in (layer["inbound_nodes"] or [[]])[0]]
            for layer in layers
        }
        configs = {layer["config"]["name"]: layer["config"] for layer in layers}
    except (KeyError, TypeError, IndexError, AttributeError):
        raise InputError(f"{where}: modelTopology must be that of a Keras model, got another") from None
    lstms = [layer["config"]["name"] for layer in layers if layer["class_name"] == "LSTM"]
    outputs = [layer["config"]["name"] for layer in layers if layer["class_name"] == "Dense"]
    if sorted(kinds) != ["Dense", "InputLayer", "InputLayer", "LSTM", "LSTM"] or len(configs) != 5:
        raise InputError(f"{where}: layers must be two inputs, two LSTMs and a Dense, got {', '.join(kinds)}")
    encoder, decoder = sorted(lstms, key=lambda name: len(joined[name]))
    states = [(encoder, 0, 1), (encoder, 0, 2)]
    if len(joined[encoder]) != 1 or joined[decoder][1:] != states or joined[outputs[0]] != [(decoder, 0, 0)]:
        raise InputError(
            f"{where}: the decoder must start from both states of the encoder, and the Dense read it, got other inputs"
        )
    wanted: dict[str, dict[str, tuple[Any, ...]]] = {
        encoder: {"return_state": (True,)},
        decoder: {"return_sequences": (True,)},
        outputs[0]: {"activation": ("softmax",), "use_bias": (True,)},
    }
    for name in lstms:
        wanted[name] |= {
            "activation": ("tanh",), "recurrent_activation": GATES, "use_bias": (True,), "go_backwards": (False,),
            "units": (configs[encoder].get("units"),),
        }  # fmt: skip
    for name, settings in wanted.items():
        for key, allowed in settings.items():
            if (value := configs[name].get(key)) not in allowed:
                raise InputError(f"{where}: {key} of {name} must be {' or '.join(map(str, allowed))}, got {value}")
    if not isinstance(units := configs[encoder].get("units"), int) or units < 1:
        raise InputError(f"{where}: units of {encoder} must be a whole number of at least 1, got {units}")
    return configs[encoder], configs[decoder], configs[outputs[0]]


def _weights(folder: Path, description: dict[str, Any], where: str) -> dict[str, NDArray[np.float32]]:
    """All weights by name, from the shards that stand in the folder itself."""
    weights: dict[str, NDArray[np.float32]] = {}
    groups = []
    try:
        for group in description["weightsManifest"]:
            entries = [
                (str(weight["name"]), [int(n) for n in weight["shape"]], weight["dtype"], "quantization" in weight)
                for weight in group["weights"]
            ]
            groups.append(([str(path) for path in group["paths"]], entries))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: weightsManifest must list paths and weights, got another") from None
    for paths, entries in groups:
        for path in paths:
            if path in ("", ".", "..") or Path(path).name != path:
                raise InputError(f"{where}: shards must stand beside it, got the path {path!r}")
        try:
            data = b"".join((folder / path).read_bytes() for path in paths)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InputError(f"{where}: shards must be files that can be read, got: {reason}") from None
        at = 0
        for name, shape, dtype, quantized in entries:
            if dtype != "float32" or quantized:
                raise InputError(f"{where}: {name} must be float32, got {'quantized' if quantized else dtype}")
            n_bytes = 4 * math.prod(shape)
            if min(shape, default=0) < 1 or n_bytes > len(data) - at:
                raise InputError(
                    f"{where}: {name} of the shape {shape} must lie within its shards, got {len(data)} bytes"
                )
            weights[name] = np.frombuffer(data, "<f4", n_bytes // 4, at).reshape(shape)
            if not np.isfinite(weights[name]).all():
                raise InputError(f"{where}: {name} must be of finite numbers, got others")
            at += n_bytes
        if at != len(data):
            raise InputError(f"{where}: shards must have the {at} bytes of their weights, got {len(data)}")
    return weights


def _parts(
    weights: dict[str, NDArray[np.float32]],
    encoder: dict[str, Any],
    decoder: dict[str, Any],
    softmax: dict[str, Any],
    where: str,
) -> dict[tuple[str, str], NDArray[np.float32]]:
    """The weights by side and Keras's name of the weight, after a look at every shape.

    Keras 2.2 calls a weight `lstm_1/kernel`; later ones put the cell's name between.
    """
    parts = {}
    for side, layer in (("encoder", encoder), ("decoder", decoder), ("output", softmax)):
        for name in ("kernel", "bias") if side == "output" else ("kernel", "recurrent_kernel", "bias"):
            found = [full for full in weights if full.split("/")[0] == layer["name"] and full.split("/")[-1] == name]
            if len(found) != 1:
                raise InputError(f"{where}: weightsManifest must have {layer['name']}/{name} once, got {len(found)}")
            parts[side, name] = weights[found[0]]
    hidden_dim = encoder["units"]
    for (side, name), weight in parts.items():
        inputs = hidden_dim if side == "output" else len(parts[side, "kernel"])
        units = len(parts["decoder", "kernel"]) if side == "output" else 4 * hidden_dim
        shape = {"kernel": (inputs, units), "recurrent_kernel": (hidden_dim, units), "bias": (units,)}[name]
        if weight.shape != shape:
            raise InputError(f"{where}: {name} of the {side} must have the shape {shape}, got {weight.shape}")
    return parts


def _characters(facts: dict[str, Any], key: str, size: int, where: Path) -> list[str]:
    """The characters of a side in the order of their rows."""
    index = facts.get(key)
    if size > MAX_CHARACTERS:
        raise InputError(f"{where}: {key} must have at most {MAX_CHARACTERS:,} characters, got {size:,}")
    if not isinstance(index, dict) or any(len(char) != 1 for char in index):
        raise InputError(f"{where}: {key} must give characters their rows, got another")
    if sorted(map(str, index.values())) != sorted(map(str, range(size))):
        raise InputError(f"{where}: {key} must give each of {size} rows a character, got {len(index)} others")
    return sorted(index, key=lambda char: int(index[char]))


def _count(facts: dict[str, Any], key: str, where: Path) -> int:
    value = facts.get(key)
    if not isinstance(value, int) or not 1 <= value < 1 << 20:
        raise InputError(f"{where}: {key} must be a whole number of at least 1, got {value!r}")
    return value


def _rows(weight: NDArray[np.float32], rows: list[int]) -> NDArray[np.float32]:
    """The rows in our order, zero for -1."""
    permuted = weight[rows]  # a copy
    permuted[[row < 0 for row in rows]] = 0.0
    return permuted
