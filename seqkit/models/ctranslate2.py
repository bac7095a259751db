"""Transformers of CTranslate2, read into ours and written from ours.

Reading needs nothing but numpy: the file format is parsed here. Writing goes through CTranslate2's own
``specs.TransformerSpec`` (``pip install 'seqkit[ctranslate2]'``).

model.bin, little-endian; a string is a uint16 length that counts its closing NUL, then the bytes::

    uint32 binary version (2 to 6)   string spec name   uint32 spec revision   uint32 number of variables
    each variable: string name, uint8 rank, uint32 sizes[rank],
                   version >= 4: uint8 type (float32 int8 int16 int32 float16 bfloat16), uint32 bytes, data
                   version <  4: uint8 item size (4: float32, 2: int16, 1: int8),        uint32 items, data
    version >= 3:  uint32 number of aliases, each: string alias, string variable

What the two programs do differently, and how it is bridged:

- Sinusoidal positions. CTranslate2's own, used where a model stores no table, count from 1 and put all sines before all
  cosines, with frequencies 10000^(-j / (D/2 - 1)); ours are the paper's. An imported model therefore holds them as a
  table of learned positions; an exported one stores ours as a table.
- The order of tokens. Rows are permuted so that the specials get the ids of `seqkit.text.vocab.Vocab`; a special that a
  vocabulary lacks gets a row that is never predicted. The row of the begin symbol is that of the decoder's start token.
- Whether the source gets begin and end symbols is said beside the model, not in it: `ImportedTransformer.source_eos`.

To get CTranslate2's own outputs and scores: `BeamOptions(length_penalty="power:1", count_eos=True,
stopping="patience")`, and there ``min_decoding_length=0``. CTranslate2 4.8 does count the end symbol in the length that
normalises a score. Its default of at least one token before the end symbol takes that symbol out before the softmax, so
that the others' share grows; ours takes it out after, and scores stay log-probabilities of the model.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqkit.atomic import atomic_folder
from seqkit.errors import InputError
from seqkit.models.transformer import Transformer, TransformerConfig
from seqkit.nn.transformer import sinusoids

SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")  # as in seqkit.text.vocab, which models do not import
IMPORTED_POSITIONS = 2048  # rows of the table for a model that stores none; CTranslate2 cuts sources at 1024 tokens
NEVER = -1e9  # bias of an output that the model does not have

_TYPES = ("<f4", "i1", "<i2", "<i4", "<f2", "bfloat16")
_TYPE_OF_SIZE = {4: 0, 2: 2, 1: 1}
_HEADS_OF_SPEC = {"": 8, "TransformerBase": 8, "TransformerBig": 16}
_ACTIVATIONS = {0: "relu", 3: "gelu"}  # 1 is the tanh form of gelu, which ours is not
_NEEDED_ZERO = (
    "with_relative_position",
    "alibi",
    "alibi_use_positive_positions",
    "scale_alibi",
    "multi_query_attention",
)
_IGNORED = (  # those with no bearing on the weights
    "alignment_layer",
    "alignment_heads",
    "embeddings_merge",
    "with_source_bos",
    "with_source_eos",
    "with_target_bos",
)


class ModelFile(NamedTuple):
    """What a model.bin holds."""

    version: int
    spec: str
    revision: int
    variables: dict[str, NDArray[Any]]
    """by name, aliases included; bfloat16 as float32"""


class ImportedTransformer(NamedTuple):
    """A CTranslate2 model in seqkit's terms."""

    config: TransformerConfig
    state_dict: dict[str, Tensor]
    source_tokens: list[str]
    """ordinary tokens in the order of their ids, which begin at 4"""
    target_tokens: list[str]
    source_bos: bool
    """whether the model expects the begin symbol before a source"""
    source_eos: bool
    """whether it expects the end symbol after one"""


def read_model_bin(path: str | Path) -> ModelFile:
    """Parses a model.bin of any specification.

    Raises:
        InputError: the file cannot be read, is cut short, or is of an unknown version.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: model must be a file that can be read, got {error.strerror}") from error
    reader = _Reader(data, str(path))
    version = reader.number("I")
    if not 2 <= version <= 6:
        raise InputError(f"{path}: binary version must be from 2 to 6, got {version}")
    spec, revision = reader.string(), reader.number("I")
    variables: dict[str, NDArray[Any]] = {}
    for _ in range(reader.number("I")):
        name = reader.string()
        variables[name] = reader.array(name, version)
    if version >= 3:
        for _ in range(reader.number("I")):
            alias, name = reader.string(), reader.string()
            if name not in variables:
                raise InputError(f"{path}: alias {alias} must name a variable of the file, got {name}")
            variables[alias] = variables[name]
            if f"{name}_scale" in variables:
                variables[f"{alias}_scale"] = variables[f"{name}_scale"]
    return ModelFile(version, spec, revision, variables)


class _Reader:
    """Numbers, strings and arrays from the bytes of a file, in order."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._where = where
        self._at = 0

    def _bytes(self, n: int) -> bytes:
        if n > len(self._data) - self._at:
            raise InputError(f"{self._where}: model must be whole, got a file cut short at byte {len(self._data)}")
        self._at += n
        return self._data[self._at - n : self._at]

    def number(self, code: str) -> int:
        (value,) = struct.unpack(f"<{code}", self._bytes(struct.calcsize(f"<{code}")))
        return int(value)

    def string(self) -> str:
        raw = self._bytes(self.number("H"))
        try:
            return raw.removesuffix(b"\0").decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{self._where}: names must be UTF-8, got {raw[:40]!r}") from error

    def array(self, name: str, version: int) -> NDArray[Any]:
        shape = tuple(self.number("I") for _ in range(self.number("B")))
        if version >= 4:
            kind, n_bytes = self.number("B"), self.number("I")
        else:
            item_size = self.number("B")
            kind, n_bytes = _TYPE_OF_SIZE.get(item_size, len(_TYPES)), self.number("I") * item_size
        if kind >= len(_TYPES):
            raise InputError(f"{self._where}: {name} must have one of the types {', '.join(_TYPES)}, got number {kind}")
        raw = self._bytes(n_bytes)
        width = 2 if _TYPES[kind] == "bfloat16" else np.dtype(_TYPES[kind]).itemsize
        if math.prod(shape) * width != n_bytes:
            raise InputError(f"{self._where}: {name} must have {math.prod(shape) * width} bytes, got {n_bytes}")
        if _TYPES[kind] == "bfloat16":
            return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
        return np.frombuffer(raw, _TYPES[kind]).reshape(shape)


def import_ctranslate2(folder: str | Path) -> ImportedTransformer:
    """Reads a CTranslate2 folder (model.bin, vocabularies, config.json if there) into our Transformer's terms.

    Specs ``TransformerBase``, ``TransformerBig`` and ``TransformerSpec`` are read, of any quantisation; weights become
    float32. ``Transformer(config, …).load_state_dict(state_dict)`` and ``Vocab(source_tokens)`` then fit together.

    Raises:
        InputError: a file is missing or damaged, or the model has a part that our Transformer has not (the part is
            named).
    """
    folder = Path(folder)
    file = read_model_bin(folder / "model.bin")
    settings = _settings(folder)
    where = str(folder / "model.bin")
    if file.spec not in ("TransformerSpec", *_HEADS_OF_SPEC):
        raise InputError(f"{where}: model must be an encoder-decoder Transformer, got {file.spec}")
    parts = _Parts(file, where)
    config = _config(parts, settings)

    source_vocab = _vocabulary(folder, "source", settings)
    target_vocab = _vocabulary(folder, "target", settings)
    source_rows, source_tokens = _rows(source_vocab, settings, f"{folder}: source vocabulary")
    target_rows, target_tokens = _rows(target_vocab, settings, f"{folder}: target vocabulary")

    source = parts.first("encoder/embeddings/weight", "encoder/embeddings_0/weight")
    target = parts.take("decoder/embeddings/weight")
    output = parts.take("decoder/projection/weight")
    bias = parts.take("decoder/projection/bias", None)
    for name, matrix, tokens in (("source", source, source_vocab), ("target", target, target_vocab)):
        if len(matrix) != len(tokens):
            raise InputError(f"{folder}: {name} vocabulary must have {len(matrix)} tokens, got {len(tokens)}")
    start = settings["decoder_start_token"]
    if start is None:
        start = settings["bos_token" if parts.number("with_target_bos", default=1.0) else "eos_token"]
    if start not in target_vocab:
        raise InputError(f"{folder}: decoder_start_token must be in the target vocabulary, got {start!r}")

    target_in, target_out = _permuted(target, target_rows), _permuted(output, target_rows)
    target_in[2] = 0.0 if parts.flag("decoder/start_from_zero_embedding") else target[target_vocab.index(start)]
    target_bias = _permuted(bias if bias is not None else np.zeros(len(output), np.float32), target_rows)
    target_bias[[row < 0 for row in target_rows]] = NEVER
    source_in = _permuted(source, source_rows)
    if settings["bos_token"] in source_vocab:  # where it is the end symbol too, it has no row of its own
        source_in[2] = source[source_vocab.index(settings["bos_token"])]

    scales = [parts.scale(side, config.model_dim) for side in ("encoder", "decoder")]
    if scales[0] == scales[1] == math.sqrt(config.model_dim):
        config = replace(config, scale_embeddings=True)
    else:
        source_in, target_in = source_in * np.float32(scales[0]), target_in * np.float32(scales[1])
    with_bias = bool(np.any(target_bias))
    tied = "none"
    if np.array_equal(target_in, target_out):
        same = source_tokens == target_tokens and np.array_equal(source_in, target_in)
        tied = "all" if same else "decoder"
    config = replace(config, tied_embeddings=tied, output_bias=with_bias)

    state = {"target_embedding": target_in}
    if tied != "all":
        state["source_embedding"] = source_in
    if tied == "none":
        state["output_weight"] = target_out
    if with_bias:
        state["output_bias"] = target_bias
    tables = [parts.take(f"{side}/position_encodings/encodings", None) for side in ("encoder", "decoder")]
    config = _with_positions(config, tables, state)
    for ours, theirs, kind in _modules(config):
        weight, shift = ("weight", "bias") if kind == "linear" else ("gamma", "beta")
        state[f"{ours}.weight"] = parts.take(f"{theirs}/{weight}")
        zeros = np.zeros(len(state[f"{ours}.weight"]), np.float32)
        state[f"{ours}.bias"] = parts.take(f"{theirs}/{shift}", zeros if kind == "linear" else None)
        if state[f"{ours}.bias"] is None:
            raise InputError(f"{where}: layer normalisation must have {theirs}/beta, got none")
    parts.finish()
    return ImportedTransformer(
        config=config,
        state_dict=_checked(state, config, len(source_rows), len(target_rows), where),
        source_tokens=source_tokens,
        target_tokens=target_tokens,
        source_bos=settings["add_source_bos"] or parts.flag("with_source_bos"),
        source_eos=settings["add_source_eos"] or parts.flag("with_source_eos"),
    )


def export_ctranslate2(
    model: Transformer,
    folder: str | Path,
    *,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    source_bos: bool = False,
    source_eos: bool = True,
    quantization: str | None = None,
    max_positions: int = 2048,
) -> None:
    """Writes a Transformer as a folder that ``ctranslate2.Translator`` loads, whole or not at all.

    Args:
        source_tokens: ordinary tokens in the order of their ids, without the four specials; so the target's.
        source_bos: whether CTranslate2 is to add the begin symbol to a source.
        source_eos: whether it is to add the end symbol, as seqkit's translation task does.
        quantization: how CTranslate2 stores weights, such as ``int8``; None keeps float32.
        max_positions: rows of the table in which sinusoidal positions are stored.

    Raises:
        InputError: CTranslate2 is not installed, the folder is not empty, the tokens do not fit the model, or the
            quantisation is unknown.
    """
    where = "export_ctranslate2"
    try:
        from ctranslate2 import specs
        from ctranslate2.specs import common_spec, model_spec
    except ImportError as error:
        raise InputError(f"{where}: CTranslate2 must be installed; pip install 'seqkit[ctranslate2]'") from error
    config = model.config
    # copies: the specification quantises the arrays that it is given in place
    state = {
        name: value.detach().to("cpu", torch.float32, copy=True).numpy() for name, value in model.state_dict().items()
    }
    target = state["target_embedding"]
    source = state.get("source_embedding", target)
    for name, matrix, tokens in (("source_tokens", source, source_tokens), ("target_tokens", target, target_tokens)):
        if len(tokens) + len(SPECIALS) != len(matrix):
            raise InputError(
                f"{where}: {name} must be {len(matrix) - len(SPECIALS)} beside the specials, got {len(tokens)}"
            )
    if quantization is not None and quantization not in model_spec.ACCEPTED_MODEL_TYPES:
        known = ", ".join(model_spec.ACCEPTED_MODEL_TYPES)
        raise InputError(f"{where}: quantization must be one of {known}, got {quantization!r}")

    spec = specs.TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.n_heads,
        pre_norm=config.pre_norm,
        activation=common_spec.Activation({name: number for number, name in _ACTIVATIONS.items()}[config.activation]),
    )
    for side in (spec.encoder, spec.decoder):
        side.scale_embeddings = config.scale_embeddings
    spec.encoder.embeddings[0].weight = source
    spec.decoder.embeddings.weight = target
    spec.decoder.projection.weight = state.get("output_weight", target)
    if config.output_bias:
        spec.decoder.projection.bias = state["output_bias"]
    paper = None if config.positions == "learned" else sinusoids(max_positions, config.model_dim).numpy()
    spec.encoder.position_encodings.encodings = state["source_positions.weight"] if paper is None else paper
    spec.decoder.position_encodings.encodings = state["target_positions.weight"] if paper is None else paper
    for ours, theirs, kind in _modules(config):
        part = model_spec.index_spec(spec, theirs)
        weight, shift = ("weight", "bias") if kind == "linear" else ("gamma", "beta")
        setattr(part, weight, state[f"{ours}.weight"])
        setattr(part, shift, state[f"{ours}.bias"])
    spec.config.add_source_bos = source_bos
    spec.config.add_source_eos = source_eos
    spec.config.layer_norm_epsilon = config.norm_eps
    spec.register_source_vocabulary([*SPECIALS, *source_tokens])
    spec.register_target_vocabulary([*SPECIALS, *target_tokens])
    spec.validate()
    spec.optimize(quantization=quantization)
    with atomic_folder(folder) as temporary:
        spec.save(str(temporary))


def _modules(config: TransformerConfig) -> Iterator[tuple[str, str, str]]:
    """Our name, their name and the kind of every affine map and normalisation.

    Queries, keys and values are joined in the same order on both sides.
    """
    for index in range(config.encoder_layers):
        ours, theirs = f"encoder.{index}", f"encoder/layer_{index}"
        yield f"{ours}.attention.qkv", f"{theirs}/self_attention/linear_0", "linear"
        yield f"{ours}.attention.output", f"{theirs}/self_attention/linear_1", "linear"
        yield f"{ours}.attention_norm", f"{theirs}/self_attention/layer_norm", "norm"
        yield f"{ours}.feed_forward.inner", f"{theirs}/ffn/linear_0", "linear"
        yield f"{ours}.feed_forward.outer", f"{theirs}/ffn/linear_1", "linear"
        yield f"{ours}.feed_forward_norm", f"{theirs}/ffn/layer_norm", "norm"
    for index in range(config.decoder_layers):
        ours, theirs = f"decoder.{index}", f"decoder/layer_{index}"
        yield f"{ours}.attention.qkv", f"{theirs}/self_attention/linear_0", "linear"
        yield f"{ours}.attention.output", f"{theirs}/self_attention/linear_1", "linear"
        yield f"{ours}.attention_norm", f"{theirs}/self_attention/layer_norm", "norm"
        yield f"{ours}.cross.query", f"{theirs}/attention/linear_0", "linear"
        yield f"{ours}.cross.key_value", f"{theirs}/attention/linear_1", "linear"
        yield f"{ours}.cross.output", f"{theirs}/attention/linear_2", "linear"
        yield f"{ours}.cross_norm", f"{theirs}/attention/layer_norm", "norm"
        yield f"{ours}.feed_forward.inner", f"{theirs}/ffn/linear_0", "linear"
        yield f"{ours}.feed_forward.outer", f"{theirs}/ffn/linear_1", "linear"
        yield f"{ours}.feed_forward_norm", f"{theirs}/ffn/layer_norm", "norm"
    if config.pre_norm:
        yield "encoder_norm", "encoder/layer_norm", "norm"
        yield "decoder_norm", "decoder/layer_norm", "norm"


_REQUIRED: Any = object()


class _Parts:
    """The variables of a file as float32, taken one by one, so that what is left over can be named."""

    def __init__(self, file: ModelFile, where: str) -> None:
        self.file = file
        self.where = where
        self._left = dict(file.variables)

    def __contains__(self, name: str) -> bool:
        return name in self.file.variables

    def take(self, name: str, default: Any = _REQUIRED) -> Any:
        """A weight, multiplied out where it is quantised."""
        if name not in self.file.variables:
            if default is _REQUIRED:
                raise InputError(f"{self.where}: model must have {name}, got none")
            return default
        self._left.pop(name, None)
        self._left.pop(f"{name}_scale", None)
        value = self.file.variables[name]
        scale = self.file.variables.get(f"{name}_scale")
        weight = value.astype(np.float32)
        if scale is not None:
            scale = scale.astype(np.float32)
            weight = weight / scale.reshape(scale.shape + (1,) * (weight.ndim - scale.ndim))
        return weight

    def first(self, *names: str) -> Any:
        """The weight under the first of these names that there is."""
        return self.take(next((name for name in names if name in self), names[0]))

    def number(self, *names: str, default: float | int) -> float:
        """A scalar under the first of these names that there is."""
        value = float(default)
        for name in reversed(names):
            if name in self:
                value = float(self.take(name).item())
        return value

    def flag(self, name: str) -> bool:
        return self.number(name, default=0.0) != 0.0

    def scale(self, side: str, model_dim: int) -> float:
        """What embeddings are multiplied by: a flag (int8) says whether by sqrt(D), a float is the factor itself."""
        names = (
            f"{side}/scale_embeddings",
            f"{side}/embeddings/multiply_by_sqrt_depth",
            f"{side}/embeddings_0/multiply_by_sqrt_depth",
        )
        name = next((name for name in names if name in self), None)
        if name is None:
            return math.sqrt(model_dim)
        value = self.number(name, default=1.0)
        if self.file.variables[name].dtype == np.int8:
            return math.sqrt(model_dim) if value else 1.0
        return value

    def count(self, prefix: str) -> int:
        """How many layers there are."""
        n = 0
        while f"{prefix}/layer_{n}/self_attention/linear_0/weight" in self:
            n += 1
        return n

    def finish(self) -> None:
        """Raises when something is left that changes what the model computes."""
        for name in list(self._left):
            last = name.rsplit("/", 1)[-1]
            if last in _IGNORED or (last in _NEEDED_ZERO and not np.any(self._left[name])):
                del self._left[name]
        if self._left:
            raise InputError(f"{self.where}: model must be a plain Transformer, got one with {min(self._left)}")


def _settings(folder: Path) -> dict[str, Any]:
    """config.json over CTranslate2's defaults."""
    settings: dict[str, Any] = {
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "decoder_start_token": None,
        "add_source_bos": False,
        "add_source_eos": False,
        "layer_norm_epsilon": None,
    }
    path = folder / "config.json"
    if path.exists():
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: settings must be JSON, got {error}") from error
        if not isinstance(read, dict):
            raise InputError(f"{path}: settings must be a JSON object, got {type(read).__name__}")
        settings.update({name: value for name, value in read.items() if name in settings})
    return settings


def _config(parts: _Parts, settings: dict[str, Any]) -> TransformerConfig:
    """The shape that the variables tell; embeddings, bias and positions are filled in later."""
    numbers = {}
    for name, default in (("num_heads", _HEADS_OF_SPEC.get(parts.file.spec, 8)), ("pre_norm", 1), ("activation", 0)):
        sides = [int(parts.number(f"{side}/{name}", name, default=default)) for side in ("encoder", "decoder")]
        if sides[0] != sides[1]:
            raise InputError(f"{parts.where}: {name} must be the same in encoder and decoder, got {sides}")
        numbers[name] = sides[0]
    if numbers["activation"] not in _ACTIVATIONS:
        raise InputError(f"{parts.where}: activation must be relu (0) or gelu (3), got number {numbers['activation']}")
    for side in ("encoder", "decoder"):
        if parts.count(side) == 0:
            raise InputError(f"{parts.where}: {side} must have at least one layer, got none")
    ffn_dim, model_dim = parts.take("encoder/layer_0/ffn/linear_0/weight").shape
    epsilon = settings["layer_norm_epsilon"]
    return TransformerConfig(
        model_dim=model_dim,
        ffn_dim=ffn_dim,
        n_heads=numbers["num_heads"],
        encoder_layers=parts.count("encoder"),
        decoder_layers=parts.count("decoder"),
        pre_norm=bool(numbers["pre_norm"]),
        activation=_ACTIVATIONS[numbers["activation"]],
        scale_embeddings=False,
        norm_eps=1e-5 if epsilon is None else float(epsilon),
    )


def _vocabulary(folder: Path, side: str, settings: dict[str, Any]) -> list[str]:
    """The tokens of one side in the order of the model's rows."""
    paths = [folder / f"{name}_vocabulary.{suffix}" for name in (side, "shared") for suffix in ("json", "txt")]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise InputError(f"{folder}: {side} vocabulary must be one of {', '.join(p.name for p in paths)}, got none")
    try:
        text = path.read_bytes().decode()
        tokens = json.loads(text) if path.suffix == ".json" else text.split("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: vocabulary must be UTF-8 text or JSON, got {error}") from error
    if path.suffix == ".txt":
        if tokens[-1] == "":
            tokens.pop()
        if all(token.endswith("\r") for token in tokens):  # where only some do, it belongs to the token
            tokens = [token[:-1] for token in tokens]
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise InputError(f"{path}: vocabulary must be a list of tokens, got something else")
    if settings["unk_token"] not in tokens:
        tokens.append(settings["unk_token"])  # as CTranslate2 does, whose converters count on it
    return tokens


def _rows(vocabulary: list[str], settings: dict[str, Any], where: str) -> tuple[list[int], list[str]]:
    """For each of our ids the row it has there, -1 for a special without one; and the ordinary tokens."""
    row_of = {token: row for row, token in enumerate(vocabulary)}
    if len(row_of) != len(vocabulary):
        raise InputError(f"{where}: tokens must differ, got {len(vocabulary) - len(row_of)} of them twice")
    taken: dict[str, int] = {}
    for special, names in (
        ("</s>", (settings["eos_token"],)),
        ("<unk>", (settings["unk_token"],)),
        ("<s>", (settings["bos_token"],)),
        ("<pad>", ("<pad>", "<blank>")),
    ):
        name = next((name for name in names if row_of.get(name, -1) not in (-1, *taken.values())), None)
        taken[special] = -1 if name is None else row_of[name]
    if taken["</s>"] < 0:
        raise InputError(f"{where}: eos_token must be in it, got {settings['eos_token']!r}")
    ordinary = [(row, token) for row, token in enumerate(vocabulary) if row not in taken.values()]
    for _, token in ordinary:
        if token in SPECIALS:
            raise InputError(f"{where}: {token} must be a special here too, got an ordinary token")
    return [taken[special] for special in SPECIALS] + [row for row, _ in ordinary], [token for _, token in ordinary]


def _permuted(weight: NDArray[Any], rows: list[int]) -> NDArray[Any]:
    """The rows in our order, zero where there is none."""
    permuted = weight[rows]  # a copy; -1 takes the last row, cleared below
    permuted[[row < 0 for row in rows]] = 0.0
    return permuted


def _with_positions(
    config: TransformerConfig, tables: list[NDArray[Any] | None], state: dict[str, NDArray[Any]]
) -> TransformerConfig:
    """Puts the position tables into the state, unless they are the paper's sinusoids, which need none."""
    source, target = tables
    if source is None or target is None:
        table = _own_sinusoids(IMPORTED_POSITIONS, config.model_dim)
        source = table if source is None else source
        target = table if target is None else target
    n = min(len(source), len(target))
    paper = sinusoids(n, config.model_dim).numpy()
    if np.array_equal(source[:n], paper) and np.array_equal(target[:n], paper):
        return replace(config, positions="sinusoidal")
    state["source_positions.weight"], state["target_positions.weight"] = source[:n], target[:n]
    return replace(config, positions="learned", max_positions=n)


def _own_sinusoids(length: int, model_dim: int) -> NDArray[Any]:
    """The table that CTranslate2 computes: PE(p) = [sin(p f) | cos(p f)], f_j = 10000^(-j / (D/2 - 1)), p from 1."""
    half = model_dim // 2
    increment = np.float32(math.log(10000.0)) / np.float32(half - 1)
    frequency = np.exp(-increment * np.arange(half, dtype=np.float32))
    angle = np.arange(1, length + 1, dtype=np.float32)[:, None] * frequency
    return np.concatenate((np.sin(angle), np.cos(angle)), axis=1)


def _checked(
    state: dict[str, NDArray[Any]], config: TransformerConfig, n_source: int, n_target: int, where: str
) -> dict[str, Tensor]:
    """The state as tensors, after a look at every shape."""
    with torch.device("meta"):
        model = Transformer(config, source_vocab_size=n_source, target_vocab_size=n_target)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name in sorted(expected.keys() | state.keys()):
        shape = state[name].shape if name in state else None
        if shape != expected.get(name):
            raise InputError(f"{where}: {name} must have the shape {expected.get(name)}, got {shape}")
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}
