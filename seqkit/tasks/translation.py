"""Translation: from a config to a trained run folder, and from a run folder to translations.

A run folder holds `config.toml` (resolved), the tokenizers (`tokenizer.*` where both sides share one, else `source.*`
and `target.*`), and what `seqkit.training.loop` writes. Source sentences end with the end symbol: none is empty.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqkit.analysis.bleu import bleu
from seqkit.atomic import write_atomically
from seqkit.config import from_table, nearest, option, read_toml, resolve_path, to_table, write_toml
from seqkit.decode.beam import beam_search
from seqkit.decode.options import BeamOptions
from seqkit.decode.step import Hypothesis
from seqkit.errors import InputError
from seqkit.models.encoder_decoder import Source
from seqkit.models.seq2seq import Seq2Seq, Seq2SeqConfig
from seqkit.models.transformer import Transformer, TransformerConfig
from seqkit.nn.losses import cross_entropy
from seqkit.text.batch import Batch, TokenBatches, pad, source_batches
from seqkit.text.corpus import ParallelCorpus
from seqkit.text.tokenizer import (
    CharTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    WordTokenizer,
    load_tokenizer,
    train_tokenizer,
)
from seqkit.training.checkpoint import load_tensors
from seqkit.training.loop import Outcome, Reporter, Trainer, TrainingConfig

MODELS: dict[str, tuple[type, type]] = {
    "transformer": (TransformerConfig, Transformer),
    "seq2seq": (Seq2SeqConfig, Seq2Seq),
}
Model = Transformer | Seq2Seq
TOKENIZER_SUFFIXES = (SentencePieceTokenizer.suffix, CharTokenizer.suffix, WordTokenizer.suffix)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the sentence pairs are. A path may hold $VARIABLES; a relative one starts at the config file."""

    train: list[str] = field(metadata={"help": "source and target file, or one .tsv; .gz and .xz are read too"})
    valid: list[str] = field(metadata={"help": "the same, for validation"})
    max_length: int = option(200, "training pairs with more tokens on a side are left out")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How text becomes tokens."""

    kind: str = option("unigram", "subwords, words or characters", choices=("unigram", "bpe", "word", "char"))
    vocab_size: int = option(8000, "most tokens, specials included")
    shared: bool = option(True, "one vocabulary for both sides")
    character_coverage: float = option(1.0, "share of the characters that subwords must cover")
    source_bos: bool = option(False, "begin source sentences with the begin symbol")
    source_eos: bool = option(True, "end source sentences with the end symbol, so that none is empty")
    sampling: float = option(0.0, "subword sampling of the training data: alpha of Kudo 2018 (0.1 to 0.5); 0 for none")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """How the model is measured while it trains."""

    bleu: bool = option(True, "translate the validation set and record its BLEU")
    beam_size: int = option(1, "beam of that translation")


@dataclass(frozen=True, kw_only=True)
class TranslationConfig:
    """Everything a translation run is made from: one table a part."""

    data: DataConfig
    tokenizer: TokenizerConfig
    model: Any
    training: TrainingConfig
    validation: ValidationConfig
    search: BeamOptions

    @classmethod
    def from_tables(cls, tables: dict[str, Any], *, where: str) -> TranslationConfig:
        """The config of TOML tables.

        Raises:
            InputError: an unknown table or key, a wrong value, or no `model.kind`.
        """
        parts = {
            "data": DataConfig, "tokenizer": TokenizerConfig, "training": TrainingConfig,
            "validation": ValidationConfig, "search": BeamOptions,
        }  # fmt: skip
        tables = dict(tables)
        if (task := tables.pop("task", "translation")) != "translation":
            raise InputError(f"{where}: `task` must be translation, got {task!r}")
        for name, table in tables.items():
            if name not in (*parts, "model"):
                raise InputError(
                    f"{where}: `{name}` must be a known table{nearest(name, (*parts, 'model'))}, got another"
                )
            if not isinstance(table, dict):
                raise InputError(f"{where}: `{name}` must be a table, got {table!r}")
        model = dict(tables.pop("model", {}))
        kind = model.pop("kind", None)
        if kind not in MODELS:
            allowed = ", ".join(MODELS)
            raise InputError(
                f"{where} [model]: `kind` must be one of {allowed}, got {kind!r}{nearest(str(kind), MODELS)}"
            )
        values: dict[str, Any] = {
            name: from_table(part, tables.get(name, {}), where=f"{where} [{name}]") for name, part in parts.items()
        }
        return cls(model=from_table(MODELS[kind][0], model, where=f"{where} [model]"), **values)

    def to_tables(self) -> dict[str, Any]:
        """TOML tables with every default written out."""
        kind = next(kind for kind, (config, _) in MODELS.items() if isinstance(self.model, config))
        tables: dict[str, Any] = {"task": "translation"}
        for name in ("data", "tokenizer", "model", "training", "validation", "search"):
            tables[name] = to_table(getattr(self, name))
        tables["model"] = {"kind": kind, **tables["model"]}
        return tables


@dataclass(frozen=True)
class Translation:
    """The n best translations of one line."""

    hypotheses: list[Hypothesis]
    texts: list[str]
    source_pieces: list[str]
    pieces: list[list[str]]


class Translator:
    """A model with the tokenizers of both sides: text in, text out.

    A line's result never depends on the lines around it: `batch_tokens` and `batch_size` change speed alone.
    """

    def __init__(
        self,
        model: Model,
        source: Tokenizer,
        target: Tokenizer,
        search: BeamOptions,
        *,
        source_bos: bool = False,
        source_eos: bool = True,
        folder: Path | None = None,
    ) -> None:
        self.model = model
        self._source_start = [source.bos_id] if source_bos else []
        self._source_end = [source.eos_id] if source_eos else []
        self.source = source
        self.target = target
        self.search = search
        self.folder = folder
        self.models: list[Model] = [model]

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> Translator:
        """The translator of a run folder.

        Raises:
            InputError: the folder is not one of a translation run, or a file in it is damaged.
        """
        folder = Path(folder)
        _check_device(device)
        if not (folder / "config.toml").is_file():
            raise InputError(f"{folder}: the model must be a run folder with a config.toml, got none")
        config = TranslationConfig.from_tables(read_toml(folder / "config.toml"), where=str(folder / "config.toml"))
        source, target = _load_tokenizers(folder, config.tokenizer.shared)
        if not (folder / "model.safetensors").is_file():
            raise InputError(
                f"{folder}: the model must have been trained up to a validation, got no model.safetensors yet"
            )
        tensors, _ = load_tensors(folder / "model.safetensors")
        model = build_model(config.model, source, target)
        load_weights(model, tensors, where=str(folder / "model.safetensors"))
        return cls.of(config, model.to(device).eval(), source, target, folder)

    @classmethod
    def of(
        cls, config: TranslationConfig, model: Model, source: Tokenizer, target: Tokenizer, folder: Path
    ) -> Translator:
        """A translator as its config says."""
        return cls(
            model, source, target, config.search,
            source_bos=config.tokenizer.source_bos, source_eos=config.tokenizer.source_eos, folder=folder,
        )  # fmt: skip

    def add_to_ensemble(self, other: Translator) -> None:
        """Lets another model vote on every token (the mean of the probabilities).

        Raises:
            InputError: its tokens are not the same.
        """
        for mine, its in ((self.source, other.source), (self.target, other.target)):
            if mine.pieces(range(mine.vocab_size)) != its.pieces(range(its.vocab_size)):
                raise InputError(f"{other.folder}: the model must have the tokens of {self.folder} to vote, got others")
        self.models.append(other.model)

    @property
    def max_positions(self) -> int:
        """The most tokens that a side may have: without bound unless a model learned its positions."""
        configs = [model.config for model in self.models]
        return min(
            (c.max_positions for c in configs if isinstance(c, TransformerConfig) and c.positions == "learned"),
            default=sys.maxsize,
        )

    def encode(self, line: str) -> list[int]:
        """The model's tokens of a source line, with the begin and end symbols that it was trained with."""
        return self.framed(self.source.encode(line))

    def framed(self, tokens: list[int]) -> list[int]:
        """Source tokens between the symbols that the model was trained with."""
        return [*self._source_start, *tokens, *self._source_end]

    def translate(
        self,
        lines: Sequence[str],
        options: BeamOptions | None = None,
        *,
        batch_tokens: int | None = 4096,
        batch_size: int | None = None,
        prefixes: Sequence[str] | None = None,
    ) -> list[Translation]:
        """The translations of the lines, in their order.

        Args:
            options: of the search; those of the run's config where none are given.
            batch_tokens: padded source tokens translated at a time; `batch_size` counts sentences instead.
            prefixes: text that each translation must begin with.
        """
        options = options or self.search
        sources = [self.encode(line) for line in lines]
        forced = [self.target.encode(prefix) for prefix in prefixes] if prefixes is not None else None
        results: list[Translation | None] = [None] * len(sources)
        if batch_size is not None:
            batch_tokens = None
        for model in self.models:
            model.eval()
        device = next(self.model.parameters()).device
        for batch in source_batches(sources, batch_tokens=batch_tokens, batch_size=batch_size):
            tokens, lengths = pad([sources[index] for index in batch], pad_id=self.source.pad_id)
            limits = torch.tensor([min(options.step_limit(int(length)), self.max_positions) for length in lengths])
            want = options.return_attention or options.coverage_penalty > 0
            found = beam_search(
                self.models, Source(tokens.to(device), lengths.to(device), want), options,
                bos_id=self.target.bos_id, eos_id=self.target.eos_id, max_lengths=limits, source_lengths=lengths,
                suppress=(self.target.pad_id, self.target.bos_id),
                prefix=[forced[index] for index in batch] if forced is not None else None,
            )  # fmt: skip
            for index, hypotheses in zip(batch, found, strict=True):
                results[index] = Translation(
                    hypotheses=hypotheses,
                    texts=[self.target.decode(hypothesis.tokens) for hypothesis in hypotheses],
                    source_pieces=self.source.pieces(sources[index]),
                    pieces=[self.target.pieces(hypothesis.tokens) for hypothesis in hypotheses],
                )
        return [result for result in results if result is not None]

    @torch.no_grad()
    def score(self, pairs: Sequence[tuple[str, str]], *, batch_tokens: int = 4096) -> list[list[float]]:
        """The log-probability in nats of each target token (end symbol last) given its source, a list a pair."""
        encoded = [(self.encode(source), self.target.encode(target)) for source, target in pairs]
        results: list[list[float]] = [[] for _ in pairs]
        self.model.eval()
        device = next(self.model.parameters()).device
        longest = [range(max(len(source), len(target) + 1)) for source, target in encoded]
        for indices in source_batches(longest, batch_tokens=batch_tokens):
            chosen_pairs = [encoded[index] for index in indices]
            batch = Batch.of(
                chosen_pairs, pad_id=self.target.pad_id, bos_id=self.target.bos_id, eos_id=self.target.eos_id
            ).to(device)
            logp = self.model(batch.source, batch.source_lengths, batch.target_in).float().log_softmax(dim=-1)
            chosen = logp.gather(-1, batch.target_out[..., None])[..., 0]  # B T
            for index, row, length in zip(indices, chosen.tolist(), batch.target_lengths.tolist(), strict=True):
                results[index] = row[:length]
        return results


def _check_device(name: str) -> None:
    """Raises an error unless this torch can use the device."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device: the device must be one that this torch can use, got `{name}`: {reason}") from None


def build_model(config: Any, source: Tokenizer, target: Tokenizer) -> Model:
    """The untrained model of a config for these vocabularies."""
    for config_class, model_class in MODELS.values():
        if isinstance(config, config_class):
            model: Model = model_class(config, source_vocab_size=source.vocab_size, target_vocab_size=target.vocab_size)
            return model
    raise TypeError(f"no model family has the config {type(config).__name__}")


def load_weights(model: nn.Module, tensors: dict[str, Tensor], *, where: str) -> None:
    """Puts weights into a model.

    Raises:
        InputError: their names or shapes are not the model's.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        raise InputError(
            f"{where}: the weights must fit the model of its config.toml, got other names or shapes"
        ) from None


def train_translation(
    tables: dict[str, Any], folder: Path, *, where: str, base: Path, resume: bool, report: Reporter
) -> Outcome:
    """Trains a translation model as TOML tables say, in a run folder.

    Args:
        where: what to call the config in an error.
        base: the folder that relative data paths start at.
        resume: go on where the folder's last checkpoint stands.

    Raises:
        InputError: the config or the data is wrong, or the folder holds a run that is not to be resumed.
    """
    config = TranslationConfig.from_tables(tables, where=where)
    config = replace(config, data=_resolved(config.data, base))
    _check_folder(config, folder, resume=resume)
    train = _read_pairs(config.data.train, name="train", report=report)
    valid = _read_pairs(config.data.valid, name="valid", report=report)

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: the run folder must be one that can be made, got: {error.strerror}") from None
    source, target = _tokenizers(config.tokenizer, train, folder, report, keep=resume)
    write_atomically(folder / "config.toml", write_toml(config.to_tables()).encode())
    training = config.training
    torch.manual_seed(training.seed)
    model = build_model(config.model, source, target)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    report.note(f"{type(model).__name__}: {n_parameters:,} parameters, {source.vocab_size:,} source and "
                f"{target.vocab_size:,} target tokens")  # fmt: skip

    translator = Translator.of(config, model, source, target, folder)
    batches = _training_batches(config, train, translator, report)

    def loss(module: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        logits = module(batch.source, batch.source_lengths, batch.target_in)
        total = cross_entropy(logits, batch.target_out, pad_id=target.pad_id, label_smoothing=training.label_smoothing)
        return total, batch.n_tokens

    def validate(_: nn.Module) -> dict[str, float]:
        return _figures(translator, valid, config.validation)

    trainer = Trainer(model, batches, loss, training, folder, validate=validate, report=report)
    return trainer.run(resume=resume)


def _figures(translator: Translator, pairs: list[tuple[str, str]], config: ValidationConfig) -> dict[str, float]:
    """Loss in nats a token, perplexity, and BLEU where it is asked for."""
    scores = translator.score(pairs)
    mean = -sum(map(math.fsum, scores)) / sum(map(len, scores))
    figures = {"loss": mean, "perplexity": math.exp(min(mean, 700.0))}
    if config.bleu:
        options = replace(
            translator.search, beam_size=config.beam_size, n_best=1, return_attention=False, diverse_groups=1
        )
        outputs = translator.translate([source for source, _ in pairs], options)
        figures["bleu"] = bleu([output.texts[0] for output in outputs], [[target for _, target in pairs]]).value
    return figures


def _training_batches(
    config: TranslationConfig, pairs: list[tuple[str, str]], translator: Translator, report: Reporter
) -> TokenBatches:
    """The training pairs as batches; pairs with an empty or too long side are left out, and how many is told."""
    encoded = [(translator.encode(source), translator.target.encode(target)) for source, target in pairs]
    longest = config.data.max_length
    kept = [
        index for index, (source, target) in enumerate(encoded)
        if len(translator.framed([])) < len(source) <= longest and 0 < len(target) < longest
    ]  # fmt: skip
    if len(kept) < len(pairs):
        report.note(f"left out {len(pairs) - len(kept):,} of {len(pairs):,} training pairs: a side is empty or longer "
                    f"than {longest} tokens")  # fmt: skip
    if not kept:
        raise InputError("data: `train` must have a usable pair, got none")
    training, alpha = config.training, config.tokenizer.sampling
    sampled = None
    if alpha:
        source, target = translator.source, translator.target
        if not (isinstance(source, SentencePieceTokenizer) and isinstance(target, SentencePieceTokenizer)):
            raise InputError(f"tokenizer: `sampling` must be 0 for {config.tokenizer.kind} tokens, got {alpha}")

        def sampled(epoch: int, index: int) -> tuple[list[int], list[int]]:
            text = pairs[kept[index]]
            seed = (training.seed * 1_000_003 + epoch) * 1_000_003 + index
            return (
                translator.framed(source.encode_sampled(text[0], alpha=alpha, seed=2 * seed)),
                target.encode_sampled(text[1], alpha=alpha, seed=2 * seed + 1),
            )

    tokenizer = translator.target
    return TokenBatches(
        [encoded[index] for index in kept], batch_tokens=training.batch_tokens, seed=training.seed, encode=sampled,
        pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id,
    )  # fmt: skip


def _resolved(data: DataConfig, base: Path) -> DataConfig:
    for name in ("train", "valid"):
        if len(getattr(data, name)) not in (1, 2):
            raise InputError(
                f"data: `{name}` must be a source and a target file, or one .tsv, got {len(getattr(data, name))} paths"
            )
    return replace(
        data,
        train=[resolve_path(path, base) for path in data.train],
        valid=[resolve_path(path, base) for path in data.valid],
    )


def _read_pairs(paths: list[str], *, name: str, report: Reporter) -> list[tuple[str, str]]:
    pairs = list(ParallelCorpus(paths[0], paths[1] if len(paths) == 2 else None))
    if not pairs:
        raise InputError(f"{paths[0]}: `{name}` must have at least one pair, got none")
    report.note(f"{name}: {len(pairs):,} pairs")
    return pairs


# What may change when a run goes on: how long it lasts, and what only looks at it.
_CHANGEABLE = {"max_epochs", "max_steps", "patience", "checkpoint_every", "log_every", "tensorboard"}


def _check_folder(config: TranslationConfig, folder: Path, *, resume: bool) -> None:
    """Refuses to overwrite a run, and to go on with another config than it was started with."""
    saved = folder / "config.toml"
    if not resume:
        if (folder / "checkpoints").exists() or (folder / "model.safetensors").exists():
            raise InputError(f"{folder}: the run folder must be new, got one with a run in it; go on with --resume")
        return
    if not saved.exists():
        return
    before, now = read_toml(saved), config.to_tables()
    for table, values in now.items():
        if not isinstance(values, dict) or table in ("search", "validation"):
            continue
        for key, value in values.items():
            old = before.get(table, {}).get(key)
            if value != old and key not in _CHANGEABLE:
                raise InputError(
                    f"{folder}: `{table}.{key}` must be {old!r} as when the run was started, to resume, got {value!r}"
                )


def _tokenizers(
    config: TokenizerConfig, pairs: list[tuple[str, str]], folder: Path, report: Reporter, *, keep: bool
) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizers of a run folder, trained anew unless those are kept that belong to its config.toml.

    They are written before config.toml: without it, they may be left over from another config.
    """
    keep = keep and (folder / "config.toml").exists()
    sides = {"source": [source for source, _ in pairs], "target": [target for _, target in pairs]}
    if config.shared:
        sides = {"tokenizer": sides["source"] + sides["target"]}
    for name, lines in sides.items():
        found = [path for suffix in TOKENIZER_SUFFIXES if (path := folder / f"{name}{suffix}").exists()]
        if not (keep and found):
            for path in found:
                path.unlink()
            report.note(f"training the {config.kind} tokenizer `{name}` on {len(lines):,} lines")
            train_tokenizer(
                config.kind, lines, vocab_size=config.vocab_size, character_coverage=config.character_coverage
            ).save(folder / name)
    return _load_tokenizers(folder, config.shared)


def _load_tokenizers(folder: Path, shared: bool) -> tuple[Tokenizer, Tokenizer]:
    if shared:
        tokenizer = load_tokenizer(folder / "tokenizer")
        return tokenizer, tokenizer
    return load_tokenizer(folder / "source"), load_tokenizer(folder / "target")
