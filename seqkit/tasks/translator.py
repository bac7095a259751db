"""A trained translation model with its tokenizers: text in, text out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from seqkit.decode.beam import beam_search
from seqkit.decode.options import BeamOptions
from seqkit.decode.step import Hypothesis
from seqkit.errors import InputError
from seqkit.models.encoder_decoder import Source
from seqkit.models.plain_seq2seq import PlainSeq2Seq
from seqkit.models.transformer import TransformerConfig
from seqkit.tasks.run_folder import check_device, load_weights, saved_tables, saved_weights
from seqkit.tasks.translation_config import Model, TranslationConfig, build_model
from seqkit.text.batch import Batch, length_batches, pad
from seqkit.text.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class Translation:
    """The n best translations of one line; a line without tokens has no hypotheses and the one text ``""``."""

    hypotheses: list[Hypothesis]
    texts: list[str]
    source_pieces: list[str]
    pieces: list[list[str]]


class Translator:
    """A model with the tokenizers of both sides: text in, text out.

    On the native kernels (float32, CPU) a line's result never depends on the lines around it: `batch_tokens` and
    `batch_size` change speed alone. The plain-torch references and CUDA round with the batch.
    """

    def __init__(
        self, config: TranslationConfig, model: Model, source: Tokenizer, target: Tokenizer, folder: Path
    ) -> None:
        self.config = config
        self.model = model
        self.models: list[Model] = [model]
        self.source = source
        self.target = target
        self.search = config.search
        self.source_bos = config.tokenizer.source_bos
        self.source_eos = config.tokenizer.source_eos
        self.folder = folder

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> Translator:
        """The translator of a run folder.

        Raises:
            InputError: the folder is not one of a translation run, or a file in it is damaged.
        """
        folder = Path(folder)
        check_device(device)
        config = TranslationConfig.from_tables(saved_tables(folder), where=str(folder / "config.toml"))
        source, target = load_tokenizers(folder, config.tokenizer.shared)
        tensors = saved_weights(folder)
        model = build_model(config.model, source, target)
        load_weights(model, tensors, where=str(folder / "model.safetensors"))
        return cls(config, model.to(device).eval(), source, target, folder)

    def add_to_ensemble(self, other: Translator) -> None:
        """Lets another model vote on every token (the mean of the probabilities).

        Raises:
            InputError: its tokens are not the same.
        """
        for mine, its in ((self.source, other.source), (self.target, other.target)):
            if mine.pieces(range(mine.vocab_size)) != its.pieces(range(its.vocab_size)):
                raise InputError(f"{other.folder}: the model must have the tokens of {self.folder} to vote, got others")
        if (self.source_bos, self.source_eos) != (other.source_bos, other.source_eos):
            raise InputError(
                f"{other.folder}: the model must frame sources as {self.folder} does to vote, got otherwise"
            )
        self.models.append(other.model)

    @property
    def max_positions(self) -> int:
        """The most tokens that a side may have: without bound unless a model learned its positions."""
        configs = [model.config for model in self.models]
        return min(
            (c.max_positions for c in configs if isinstance(c, TransformerConfig) and c.positions == "learned"),
            default=sys.maxsize,
        )

    @property
    def attends(self) -> bool:
        """Whether a model says where in the source it looks."""
        return not all(isinstance(model, PlainSeq2Seq) for model in self.models)

    def encode(self, line: str) -> list[int]:
        """The model's tokens of a source line, with the begin and end symbols that it was trained with."""
        return self.framed(self.source.encode(line))

    def framed(self, tokens: list[int]) -> list[int]:
        """Source tokens between the symbols that the model was trained with."""
        return [self.source.bos_id] * self.source_bos + tokens + [self.source.eos_id] * self.source_eos

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
            batch_tokens: padded source tokens translated at a time, a short sentence counted as 2 tokens a hypothesis;
                `batch_size` counts sentences instead.
            prefixes: text that each translation must begin with.
        """
        options = options or self.search
        sources = [self.encode(line) for line in lines]
        forced = [self.target.encode(prefix) for prefix in prefixes] if prefixes is not None else None
        results = [Translation([], [""], self.source.pieces(source), [[]]) for source in sources]
        nothing = len(self.framed([]))
        something = [
            index for index, (line, source) in enumerate(zip(lines, sources, strict=True))
            if line.strip() and len(source) > nothing
        ]  # fmt: skip
        lengths_charged = [max(len(sources[index]), 2 * options.beam_size) for index in something]
        if batch_size is not None:
            batch_tokens = None
        for model in self.models:
            model.eval()
        device = next(self.model.parameters()).device
        for group in length_batches(lengths_charged, batch_tokens=batch_tokens, batch_size=batch_size):
            batch = [something[place] for place in group]
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
        return results

    @torch.no_grad()
    def score(self, pairs: Sequence[tuple[str, str]], *, batch_tokens: int = 4096) -> list[list[float]]:
        """The log-probability in nats of each target token (end symbol last) given its source, a list a pair."""
        encoded = [(self.encode(source), self.target.encode(target)) for source, target in pairs]
        results: list[list[float]] = [[] for _ in pairs]
        self.model.eval()
        device = next(self.model.parameters()).device
        longest = [max(len(source), len(target) + 1) for source, target in encoded]
        for line, length in enumerate(longest, start=1):
            if length > self.max_positions:
                raise InputError(
                    f"pair {line}: a side must have at most the model's {self.max_positions} tokens, got {length}"
                )
        for indices in length_batches(longest, batch_tokens=batch_tokens):
            chosen_pairs = [encoded[index] for index in indices]
            batch = Batch.of(
                chosen_pairs, pad_id=self.target.pad_id, bos_id=self.target.bos_id, eos_id=self.target.eos_id
            ).to(device)
            logp = self.model(batch.source, batch.source_lengths, batch.target_in).float().log_softmax(dim=-1)
            chosen = logp.gather(-1, batch.target_out[..., None])[..., 0]  # B T
            for index, row, length in zip(indices, chosen.tolist(), batch.target_lengths.tolist(), strict=True):
                results[index] = row[:length]
        return results


def load_tokenizers(folder: Path, shared: bool) -> tuple[Tokenizer, Tokenizer]:
    """The source and the target tokenizer of a run folder."""
    if shared:
        tokenizer = load_tokenizer(folder / "tokenizer")
        return tokenizer, tokenizer
    return load_tokenizer(folder / "source"), load_tokenizer(folder / "target")
