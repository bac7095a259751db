import builtins
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqkit.decode.beam import beam_search
from seqkit.decode.options import BeamOptions
from seqkit.errors import InputError
from seqkit.models.ctranslate2 import ImportedTransformer, export_ctranslate2, import_ctranslate2, read_model_bin
from seqkit.models.encoder_decoder import Source
from seqkit.models.transformer import Transformer, TransformerConfig
from seqkit.text.batch import pad
from seqkit.text.vocab import Vocab

ctranslate2 = pytest.importorskip("ctranslate2")

CONFIGS: dict[str, dict[str, Any]] = {
    "paper": {"tied_embeddings": "all", "output_bias": True},
    "post-norm": {
        "pre_norm": False,
        "activation": "gelu",
        "positions": "learned",
        "max_positions": 40,
        "tied_embeddings": "decoder",
        "scale_embeddings": False,
        "output_bias": True,
    },
    "untied": {"tied_embeddings": "none", "encoder_layers": 1, "norm_eps": 1e-3},
}
TARGET = [f"t{index}" for index in range(26)]


def random_model(name: str) -> tuple[Transformer, list[str]]:
    """A small Transformer whose outputs differ from source to source, and its source tokens."""
    shape: dict[str, Any] = {"model_dim": 16, "ffn_dim": 32, "n_heads": 4, "encoder_layers": 2, "decoder_layers": 3}
    config = TransformerConfig(**(shape | CONFIGS[name]))
    source_tokens = TARGET if config.tied_embeddings == "all" else [f"s{index}" for index in range(21)]
    torch.manual_seed(4)
    model = Transformer(config, source_vocab_size=len(source_tokens) + 4, target_vocab_size=len(TARGET) + 4).eval()
    for key, weight in model.named_parameters():
        if key.endswith(("embedding", "output_weight")):
            torch.nn.init.normal_(weight, std=0.7)
        elif weight.ndim > 1:
            weight.data.mul_(3.0)
        else:
            weight.data.add_(0.3 * torch.randn_like(weight))
    if model.output_bias is not None:
        model.output_bias.data[3] = 2.0  # so that some outputs end
    return model, source_tokens


def ours(
    model: Transformer, sources: list[list[int]], *, beam_size: int, max_length: int
) -> tuple[list[list[list[int]]], list[list[float]]]:
    tokens, lengths = pad(sources, pad_id=0)
    options = BeamOptions(
        beam_size=beam_size,
        n_best=beam_size,
        length_penalty="power:1",
        count_eos=True,
        stopping="patience",
        max_length=max_length,
    )
    with torch.inference_mode():
        found = beam_search(model, Source(tokens, lengths), options, bos_id=2, eos_id=3)
    return [[h.tokens for h in hypotheses] for hypotheses in found], [[h.score for h in found] for found in found]


def loaded(imported: ImportedTransformer) -> tuple[Transformer, Vocab, Vocab]:
    source, target = Vocab(imported.source_tokens), Vocab(imported.target_tokens)
    model = Transformer(imported.config, source_vocab_size=len(source), target_vocab_size=len(target))
    model.load_state_dict(imported.state_dict)
    return model.eval(), source, target


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    model, source_tokens = random_model("untied")
    export_ctranslate2(model, tmp_path / "model", source_tokens=source_tokens, target_tokens=TARGET)
    return tmp_path / "model"


@pytest.mark.parametrize("name", CONFIGS)
def test_export_gives_the_same_beams_in_ctranslate2(name: str, tmp_path: Path) -> None:
    model, source_tokens = random_model(name)
    export_ctranslate2(model, tmp_path / "model", source_tokens=source_tokens, target_tokens=TARGET)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    translator = ctranslate2.Translator(str(tmp_path / "model"))
    generator = random.Random(1)
    texts = [generator.choices(range(len(source_tokens)), k=generator.randint(1, 9)) for _ in range(40)]
    sources = [[index + 4 for index in text] + [3] for text in texts]
    for beam_size in (1, 4):
        outputs, scores = ours(model, sources, beam_size=beam_size, max_length=12)
        assert len({str(output[0]) for output in outputs}) > 3  # the model listens to its source
        results = translator.translate_batch(
            [[source_tokens[index] for index in text] for text in texts],
            beam_size=beam_size,
            num_hypotheses=beam_size,
            return_scores=True,
            min_decoding_length=0,
            max_decoding_length=12,
        )
        names = Vocab(TARGET).tokens
        assert [[[names[i] for i in tokens] for tokens in output] for output in outputs] == [
            result.hypotheses for result in results
        ]
        for score, result in zip(scores, results, strict=True):
            assert score == pytest.approx(result.scores, abs=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_export_then_import_is_the_same_model(name: str, tmp_path: Path) -> None:
    model, source_tokens = random_model(name)
    for source_eos in (True, False):
        folder = tmp_path / str(source_eos)
        export_ctranslate2(model, folder, source_tokens=source_tokens, target_tokens=TARGET, source_eos=source_eos)
        imported = import_ctranslate2(folder)
        assert imported.config == model.config
        assert (imported.source_tokens, imported.target_tokens) == (source_tokens, TARGET)
        assert (imported.source_bos, imported.source_eos) == (False, source_eos)
        expected = model.state_dict()
        assert imported.state_dict.keys() == expected.keys()
        for key, value in imported.state_dict.items():
            assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize(
    ("quantization", "error"), [("int8", 0.5 / 127), ("int16", 0.5 / 1024), ("float16", 2**-11), ("bfloat16", 2**-8)]
)
def test_import_multiplies_quantised_weights_out(quantization: str, error: float, tmp_path: Path) -> None:
    model, source_tokens = random_model("paper")  # its output matrix is an alias with a scale
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    export_ctranslate2(
        model, tmp_path / "model", source_tokens=source_tokens, target_tokens=TARGET, quantization=quantization
    )
    imported = import_ctranslate2(tmp_path / "model")
    assert imported.config.tied_embeddings == "all"
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key])  # the exported model itself is left alone
    changed = 0
    for key, value in imported.state_dict.items():
        if "positions" in key:  # rounded sinusoids are no longer the paper's
            continue
        bound = error * expected[key].abs().max() * 1.001 + 1e-7
        assert (value - expected[key]).abs().max() <= bound, key
        changed += not torch.equal(value, expected[key])
    assert changed > 10


def test_import_reproduces_the_transliteration_model(shared_data: Path) -> None:
    folder = shared_data / "models" / "ar-en-transliteration"
    if not folder.is_dir():
        pytest.skip("the transliteration model is not here")
    imported = import_ctranslate2(folder)
    model, source, target = loaded(imported)
    translator = ctranslate2.Translator(str(folder))
    assert (imported.config.encoder_layers, imported.config.decoder_layers, imported.config.n_heads) == (6, 6, 8)
    assert (imported.source_bos, imported.source_eos) == (False, False)

    outputs, scores = ours(model, [source.encode("آتزمون")], beam_size=4, max_length=256)
    assert ["".join(target.decode(tokens)) for tokens in outputs[0][:2]] == ["atzmon", "atzumon"]
    assert scores[0][:2] == pytest.approx([-0.152, -0.266], abs=1e-3)

    generator = random.Random(2)
    letters = [token for token in imported.source_tokens if len(token) == 1]
    words = [generator.choices(letters, k=generator.randint(1, 12)) for _ in range(120)]
    for beam_size in (1, 2, 5):
        outputs, scores = ours(model, [source.encode(word) for word in words], beam_size=beam_size, max_length=256)
        results = translator.translate_batch(
            words, beam_size=beam_size, num_hypotheses=beam_size, return_scores=True, min_decoding_length=0
        )
        assert [[target.decode(tokens) for tokens in output] for output in outputs] == [r.hypotheses for r in results]
        for score, result in zip(scores, results, strict=True):
            assert score == pytest.approx(result.scores, abs=1e-3)


def as_version_2(folder: Path) -> bytes:
    """The model.bin of a folder as the oldest programs wrote it: item sizes for types, no aliases."""
    file = read_model_bin(folder / "model.bin")
    variables = {n.replace("embeddings_0", "embeddings"): v for n, v in file.variables.items() if v.dtype == np.float32}
    variables = {name: value for name, value in variables.items() if value.ndim}

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    data = struct.pack("<I", 2) + string("TransformerBase") + struct.pack("<II", 2, len(variables))
    for name, value in variables.items():
        data += string(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        data += struct.pack("<BI", 4, value.size) + value.tobytes()
    return data


def test_import_reads_the_oldest_format_with_its_defaults(exported: Path) -> None:
    new = import_ctranslate2(exported)
    (exported / "model.bin").write_bytes(as_version_2(exported))
    settings = json.loads((exported / "config.json").read_text())
    (exported / "config.json").unlink()
    for side, tokens in (("source", new.source_tokens), ("target", new.target_tokens)):
        (exported / f"{side}_vocabulary.json").unlink()
        lines = ["<blank>", "<s>", "</s>", *tokens]  # no <unk>: it is the row after the last
        (exported / f"{side}_vocabulary.txt").write_bytes("".join(f"{token}\n" for token in lines).encode())
    old = import_ctranslate2(exported)
    assert settings["layer_norm_epsilon"] == new.config.norm_eps
    assert old.config.n_heads == 8
    assert old.config.norm_eps == 1e-5
    assert (old.source_tokens, old.target_tokens) == (new.source_tokens, new.target_tokens)
    order = [0, len(old.target_tokens) + 3, 1, 2, *range(3, len(old.target_tokens) + 3)]
    assert torch.equal(old.state_dict["output_weight"], new.state_dict["output_weight"][order])
    assert torch.equal(old.state_dict["target_embedding"], new.state_dict["target_embedding"][order])


def test_import_fills_specials_that_a_vocabulary_lacks(exported: Path) -> None:
    """A vocabulary in the order of Marian: </s> and <unk> first, no begin symbol, decoding starts with </s>."""
    before = import_ctranslate2(exported)
    for side, tokens in (("source", before.source_tokens), ("target", before.target_tokens)):
        path = exported / f"{side}_vocabulary.json"
        path.write_text(json.dumps(["</s>", "<unk>", "q", "r", *tokens]))
    settings = json.loads((exported / "config.json").read_text())
    settings |= {"bos_token": "</s>", "decoder_start_token": "</s>"}
    (exported / "config.json").write_text(json.dumps(settings))
    imported = import_ctranslate2(exported)
    state, old = imported.state_dict, before.state_dict
    assert imported.target_tokens == ["q", "r", *before.target_tokens]
    assert torch.equal(state["target_embedding"][4:], old["target_embedding"][2:])
    assert torch.equal(state["target_embedding"][3], old["target_embedding"][0])
    assert torch.equal(state["target_embedding"][2], old["target_embedding"][0])
    assert state["output_bias"][:4].tolist() == [-1e9, 0.0, -1e9, 0.0]
    model, source, target = loaded(imported)
    outputs, scores = ours(model, [[*source.encode(["s1", "q", "s7"]), 3]], beam_size=3, max_length=9)
    (result,) = ctranslate2.Translator(str(exported)).translate_batch(
        [["s1", "q", "s7"]],
        beam_size=3,
        num_hypotheses=3,
        return_scores=True,
        min_decoding_length=0,
        max_decoding_length=9,
    )
    assert [target.decode(tokens) for tokens in outputs[0]] == result.hypotheses
    assert scores[0] == pytest.approx(result.scores, abs=1e-4)


def test_read_model_bin_names_a_file_cut_short(exported: Path) -> None:
    data = (exported / "model.bin").read_bytes()
    path = exported / "cut.bin"
    generator = random.Random(3)
    for length in [0, 3, 4, 9, *(generator.randrange(len(data)) for _ in range(60))]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"cut short|binary version"):
            read_model_bin(path)
    path.write_bytes(struct.pack("<I", 99) + data[4:])
    with pytest.raises(InputError, match="binary version must be from 2 to 6, got 99"):
        read_model_bin(path)
    with pytest.raises(InputError, match="file that can be read"):
        read_model_bin(exported / "none.bin")


def test_import_names_what_it_cannot_take(exported: Path) -> None:
    def broken(old: bytes, new: bytes) -> None:
        assert len(old) == len(new)
        assert old in data
        (exported / "model.bin").write_bytes(data.replace(old, new))

    data = (exported / "model.bin").read_bytes()
    broken(b"encoder/layer_norm/gamma", b"encoder/layer_norm/ramma")
    with pytest.raises(InputError, match=r"model must have encoder/layer_norm/gamma, got none"):
        import_ctranslate2(exported)
    broken(b"decoder/scale_alibi", b"decoder/scale_other")
    with pytest.raises(InputError, match=r"must be a plain Transformer, got one with decoder/scale_other"):
        import_ctranslate2(exported)
    broken(b"TransformerSpec", b"WhisperSpecific")
    with pytest.raises(InputError, match="must be an encoder-decoder Transformer, got WhisperSpecific"):
        import_ctranslate2(exported)
    (exported / "model.bin").write_bytes(data)
    (exported / "target_vocabulary.json").write_text(json.dumps(["<pad>", "<unk>", "<s>", "</s>", "a"]))
    with pytest.raises(InputError, match="target vocabulary must have 30 tokens, got 5"):
        import_ctranslate2(exported)
    (exported / "target_vocabulary.json").unlink()
    with pytest.raises(InputError, match=r"target vocabulary must be one of target_vocabulary\.json, .*, got none"):
        import_ctranslate2(exported)


def test_export_rejects_wrong_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, source_tokens = random_model("untied")
    with pytest.raises(InputError, match="source_tokens must be 21 beside the specials, got 3"):
        export_ctranslate2(model, tmp_path / "m", source_tokens=source_tokens[:3], target_tokens=TARGET)
    with pytest.raises(InputError, match=r"quantization must be one of .*int8.*, got 'int3'"):
        export_ctranslate2(
            model, tmp_path / "m", source_tokens=source_tokens, target_tokens=TARGET, quantization="int3"
        )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="folder must be new or empty"):
        export_ctranslate2(model, tmp_path / "full", source_tokens=source_tokens, target_tokens=TARGET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]

    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("ctranslate2"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'seqkit\[ctranslate2\]'"):
        export_ctranslate2(model, tmp_path / "m", source_tokens=source_tokens, target_tokens=TARGET)
