"""Small networks in the formats of others, with random weights, and their owners' own decoding in numpy."""

from __future__ import annotations

import itertools
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOURCE, TARGET = "ba cé\xa0d", "\tx\ny \u200bzœ’"  # in the order of their rows
HIDDEN = 12
SEED, SCALES = 4, {"kernel": 3.0, "recurrent_kernel": 1.5, "bias": 0.3}  # many outputs, some of which end
LONGEST_SOURCE, LONGEST_TARGET = 6, 9
Weights = dict[str, NDArray[np.float32]]


def lstm_layer(name: str, inputs: list[Any], **changes: Any) -> dict[str, Any]:
    config = {
        "name": name, "units": HIDDEN, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": True,
        "return_state": True, "return_sequences": name == "lstm_2", "go_backwards": False,
    }  # fmt: skip
    return {"class_name": "LSTM", "name": name, "inbound_nodes": [inputs], "config": config | changes}


def tensorflow_js_folder(folder: Path, *, gates: str = "hard_sigmoid", infix: str = "", n_shards: int = 1) -> Weights:
    """Writes model.json, its shards and metadata.json as TensorFlow.js does; gives the weights."""
    folder.mkdir()
    generator = np.random.default_rng(SEED)
    shapes = {"dense_1/kernel": (HIDDEN, len(TARGET)), "dense_1/bias": (len(TARGET),)}
    for name, size in (("lstm_1", len(SOURCE)), ("lstm_2", len(TARGET))):
        shapes |= {
            f"{name}{infix}/kernel": (size, 4 * HIDDEN), f"{name}{infix}/recurrent_kernel": (HIDDEN, 4 * HIDDEN),
            f"{name}{infix}/bias": (4 * HIDDEN,),
        }  # fmt: skip
    weights = {
        name: (SCALES[name.rsplit("/", 1)[1]] * generator.standard_normal(shape)).astype("<f4")
        for name, shape in shapes.items()
    }
    layers = [
        {"class_name": "InputLayer", "inbound_nodes": [], "config": {"name": "input_1"}},
        {"class_name": "InputLayer", "inbound_nodes": [], "config": {"name": "input_2"}},
        lstm_layer("lstm_1", [["input_1", 0, 0, {}]], recurrent_activation=gates),
        lstm_layer(
            "lstm_2", [["input_2", 0, 0, {}], ["lstm_1", 0, 1, {}], ["lstm_1", 0, 2, {}]], recurrent_activation=gates
        ),
        {
            "class_name": "Dense", "inbound_nodes": [[["lstm_2", 0, 0, {}]]],
            "config": {"name": "dense_1", "units": len(TARGET), "activation": "softmax", "use_bias": True},
        },
    ]  # fmt: skip
    paths = [f"group1-shard{number + 1}of{n_shards}" for number in range(n_shards)]
    described = [{"name": name, "shape": list(w.shape), "dtype": "float32"} for name, w in weights.items()]
    model = {
        "modelTopology": {"model_config": {"class_name": "Model", "config": {"name": "model_1", "layers": layers}}},
        "weightsManifest": [{"paths": paths, "weights": described}],
    }
    (folder / "model.json").write_text(json.dumps(model))
    data = b"".join(weight.tobytes() for weight in weights.values())
    cuts = [len(data) * number // n_shards for number in range(n_shards + 1)]
    for path, (begin, end) in zip(paths, itertools.pairwise(cuts), strict=True):
        (folder / path).write_bytes(data[begin:end])
    facts = {
        "input_token_index": {char: row for row, char in enumerate(SOURCE)},
        "target_token_index": {char: row for row, char in enumerate(TARGET)},
        "max_encoder_seq_length": LONGEST_SOURCE,
        "max_decoder_seq_length": LONGEST_TARGET,
    }
    (folder / "metadata.json").write_text(json.dumps(facts))
    return {name.replace(infix, "") if infix else name: weight for name, weight in weights.items()}


def keras_translation(weights: Weights, text: str, *, gates: str = "hard_sigmoid") -> str:
    """The decoding of Keras's lstm_seq2seq example, and of TensorFlow.js's page for it."""

    def squashed(x: NDArray[Any]) -> NDArray[Any]:
        return np.clip(0.2 * x + 0.5, 0.0, 1.0) if gates == "hard_sigmoid" else 1.0 / (1.0 + np.exp(-x))

    def step(layer: str, x: NDArray[Any], h: NDArray[Any], c: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        z = x @ weights[f"{layer}/kernel"] + h @ weights[f"{layer}/recurrent_kernel"] + weights[f"{layer}/bias"]
        i, f, g, o = np.split(z, 4)
        c = squashed(f) * c + squashed(i) * np.tanh(g)
        return squashed(o) * np.tanh(c), c

    encoded = np.zeros((max(LONGEST_SOURCE, len(text)), len(SOURCE)))
    for place, char in enumerate(text):
        if char in SOURCE:
            encoded[place, SOURCE.index(char)] = 1.0
    h = c = np.zeros(HIDDEN)
    for x in encoded:
        h, c = step("lstm_1", x, h, c)
    row, output = TARGET.index("\t"), ""
    while len(output) <= LONGEST_TARGET:
        h, c = step("lstm_2", np.eye(len(TARGET))[row], h, c)
        logits = h @ weights["dense_1/kernel"] + weights["dense_1/bias"]
        logits[TARGET.index("\t")] = -np.inf  # the start mark, which no output of a trained network has
        row = int(logits.argmax())
        if TARGET[row] == "\n":
            break
        output += TARGET[row]
    return output


def g2p_checkpoint(path: Path, *, embedding_dim: int = 6, hidden_dim: int = 12) -> Weights:
    """Writes an .npz with the names and shapes of g2p-en's; gives the weights."""
    generator = np.random.default_rng(4)
    shapes: dict[str, tuple[int, ...]] = {"fc_w": (74, hidden_dim), "fc_b": (74,)}
    for side, size in (("enc", 29), ("dec", 74)):
        shapes |= {
            f"{side}_emb": (size, embedding_dim), f"{side}_w_ih": (3 * hidden_dim, embedding_dim),
            f"{side}_w_hh": (3 * hidden_dim, hidden_dim), f"{side}_b_ih": (3 * hidden_dim,),
            f"{side}_b_hh": (3 * hidden_dim,),
        }  # fmt: skip
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    weights["fc_b"][:3] = -50.0  # no trained network says <pad>, <unk> or <s>
    weights["fc_b"][3] = 4.0  # some outputs end, some are cut
    np.savez(path, **weights)  # type: ignore[arg-type]
    return weights


def g2p_rows(weights: Weights, word: str) -> list[int]:
    """The rows of the phonemes that g2p-en's `predict` gives."""

    def step(side: str, x: NDArray[Any], h: NDArray[Any]) -> NDArray[Any]:
        from_input = weights[f"{side}_w_ih"] @ x + weights[f"{side}_b_ih"]
        from_hidden = weights[f"{side}_w_hh"] @ h + weights[f"{side}_b_hh"]
        x_r, x_z, x_n = np.split(from_input.astype(np.float64), 3)
        h_r, h_z, h_n = np.split(from_hidden.astype(np.float64), 3)
        r, z = (1.0 / (1.0 + np.exp(-total)) for total in (x_r + h_r, x_z + h_z))
        return (1.0 - z) * np.tanh(x_n + r * h_n) + z * h

    graphemes = ["<pad>", "<unk>", "</s>", *string.ascii_lowercase]
    h = np.zeros(weights["enc_w_hh"].shape[1])
    for letter in [*word, "</s>"]:
        row = graphemes.index(letter) if letter in graphemes else 1
        h = step("enc", weights["enc_emb"][row], h)
    rows: list[int] = []
    row = 2
    for _ in range(20):
        h = step("dec", weights["dec_emb"][row], h)
        row = int((weights["fc_w"] @ h + weights["fc_b"]).argmax())
        if row == 3:
            break
        rows.append(row)
    return rows
