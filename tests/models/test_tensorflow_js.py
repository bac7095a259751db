"""The format: what is read, and what is refused. Its outputs are the matter of `tests/tasks/test_importer.py`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_networks import HIDDEN, LONGEST_SOURCE, LONGEST_TARGET, SOURCE, TARGET, lstm_layer, tensorflow_js_folder

from seqkit.errors import InputError
from seqkit.models.plain_seq2seq import PlainSeq2Seq
from seqkit.models.tensorflow_js import import_tensorflow_js


def test_tables_and_shapes_are_those_of_the_folder(tmp_path: Path) -> None:
    weights = tensorflow_js_folder(tmp_path / "model", n_shards=3)
    read = import_tensorflow_js(tmp_path / "model")
    assert read.source_tokens == list(SOURCE)
    assert read.target_tokens == ["x", "y", " ", "\u200b", "z", "œ", "’"]
    assert (read.source_eos, read.max_length) == (False, LONGEST_TARGET + 1)
    assert (read.config.gates, read.config.padded_source) == ("hard_sigmoid", LONGEST_SOURCE)
    assert (read.config.hidden_dim, read.config.embedding_dim) == (HIDDEN, len(TARGET))
    model = PlainSeq2Seq(read.config, source_vocab_size=4 + len(SOURCE), target_vocab_size=len(TARGET) + 2)
    model.load_state_dict(read.state_dict)
    assert model.source_embedding[:4].abs().sum() == 0
    # A one-hot row times the kernel is that row of the kernel.
    rows = model.target_embedding @ model.decoder.network.weight_ih_l0.T
    expected = weights["lstm_2/kernel"][[TARGET.index(char) for char in "\t\nxy \u200bzœ’"]]
    torch.testing.assert_close(rows[2:], torch.from_numpy(expected))
    assert model.output.bias[:2].tolist() == [-1e9, -1e9]
    np.testing.assert_array_equal(model.output.bias[2:].detach(), weights["dense_1/bias"][[0, 2, 1, 3, 4, 5, 6, 7, 8]])


def test_names_of_later_keras_are_read(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    tensorflow_js_folder(one)
    tensorflow_js_folder(two, infix="/lstm_cell")
    before, after = (import_tensorflow_js(folder).state_dict for folder in (one, two))
    assert all(torch.equal(before[name], after[name]) for name in before)


def _model(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A change of model.json."""
    return lambda folder: _rewrite(folder / "model.json", change)


def _facts(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda folder: _rewrite(folder / "metadata.json", change)


def _rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _layer(number: int, **changes: Any) -> Callable[[Path], None]:
    return _model(lambda m: m["modelTopology"]["model_config"]["config"]["layers"][number]["config"].update(changes))


def _weight(number: int, **changes: Any) -> Callable[[Path], None]:
    return _model(lambda m: m["weightsManifest"][0]["weights"][number].update(changes))


def _shard(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        shard = folder / "group1-shard1of1"
        shard.write_bytes(change(shard.read_bytes()))

    return apply


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no-model": (lambda folder: (folder / "model.json").unlink(), "must be one that can be read"),
    "no-facts": (lambda folder: (folder / "metadata.json").unlink(), "metadata.json: the file must be one that can"),
    "no-shard": (lambda folder: (folder / "group1-shard1of1").unlink(), "shards must be files that can be read"),
    "cut-json": (lambda folder: (folder / "model.json").write_text('{"modelTopology": '), "must be JSON"),
    "deep-json": (lambda folder: (folder / "model.json").write_text("[" * 200_000), "must be JSON"),
    "list-json": (lambda folder: (folder / "model.json").write_text("[1]"), "must be a JSON object, got list"),
    "not-utf8": (lambda folder: (folder / "metadata.json").write_bytes(b"\xff{}"), "must be JSON"),
    "cut-shard": (_shard(lambda data: data[:-4]), "must lie within its shards"),
    "long-shard": (_shard(lambda data: data + b"\0\0\0\0"), "must have the [0-9]+ bytes of their weights"),
    "nan": (_shard(lambda data: b"\xff\xff\xff\xff" + data[4:]), "dense_1/kernel must be of finite numbers"),
    "other-folder": (_model(lambda m: m["weightsManifest"][0].update(paths=["../x"])), "shards must stand beside it"),
    "null-path": (_model(lambda m: m["weightsManifest"][0].update(paths=["a\0b"])), "shards must be files that can"),
    "no-manifest": (_model(lambda m: m.pop("weightsManifest")), "weightsManifest must list paths and weights"),
    "half": (_weight(0, dtype="float16"), "must be float32, got float16"),
    "quantized": (_weight(0, quantization={"dtype": "uint8"}), "must be float32, got quantized"),
    "negative": (_weight(0, shape=[-1, -HIDDEN * len(TARGET)]), "must lie within its shards"),
    "enormous": (_weight(0, shape=[1 << 40, 1 << 40]), "must lie within its shards"),
    "infinite": (_weight(0, shape=[float("inf")]), "weightsManifest must list"),
    "transposed": (_weight(0, shape=[len(TARGET), HIDDEN]), "kernel of the output must have the shape"),
    "renamed": (_weight(1, name="dense_2/bias"), "must have dense_1/bias once, got 0"),
    "twice": (_weight(1, name="dense_1/x/kernel"), "must have dense_1/kernel once, got 2"),
    "other-units": (_layer(3, units=8), "units of lstm_2 must be 12, got 8"),
    "no-units": (lambda folder: [_layer(n, units=None)(folder) for n in (2, 3)], "units of lstm_1 must be a whole"),
    "relu": (_layer(2, activation="relu"), "activation of lstm_1 must be tanh, got relu"),
    "other-gates": (_layer(2, recurrent_activation="relu"), "recurrent_activation of lstm_1 must be sigmoid or hard_"),
    "two-gates": (_layer(2, recurrent_activation="sigmoid"), "both LSTMs must have one recurrent_activation"),
    "backwards": (_layer(2, go_backwards=True), "go_backwards of lstm_1 must be False"),
    "no-softmax": (_layer(4, activation="linear"), "activation of dense_1 must be softmax"),
    "topology": (_model(lambda m: m.update(modelTopology={"model_config": 3})), "modelTopology must be that of"),
    "third-lstm": (
        _model(lambda m: m["modelTopology"]["model_config"]["config"]["layers"].append(lstm_layer("lstm_3", []))),
        "layers must be two inputs, two LSTMs and a Dense, got",
    ),
    "not-joined": (
        _model(lambda m: m["modelTopology"]["model_config"]["config"]["layers"][3].update(inbound_nodes=[])),
        "the decoder must start from both states of the encoder",
    ),
    "no-start": (
        _facts(lambda m: m["target_token_index"].update({"q": m["target_token_index"].pop("\t")})), "must have a tab",
    ),
    "long-token": (_facts(lambda m: m["input_token_index"].update({"ab": 9})), "must give characters their rows"),
    "row-twice": (_facts(lambda m: m["input_token_index"].update({"a": 0})), "must give each of 7 rows a character"),
    "no-length": (_facts(lambda m: m.pop("max_encoder_seq_length")), "max_encoder_seq_length must be a whole number"),
    "negative-length": (_facts(lambda m: m.update(max_decoder_seq_length=-3)), "must be a whole number of at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_or_lying_folder_is_one_sentence(name: str, tmp_path: Path) -> None:
    tensorflow_js_folder(tmp_path / "model")
    change, sentence = BROKEN[name]
    change(tmp_path / "model")
    with pytest.raises(InputError, match=sentence) as raised:
        import_tensorflow_js(tmp_path / "model")
    assert "\n" not in str(raised.value)


def test_every_cut_of_the_description_is_one_sentence(tmp_path: Path) -> None:
    tensorflow_js_folder(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    text = path.read_text()
    for length in range(0, len(text), 97):
        path.write_text(text[:length])
        with pytest.raises(InputError, match="must be JSON"):
            import_tensorflow_js(tmp_path / "model")
