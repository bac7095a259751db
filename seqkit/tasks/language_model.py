"""A trained language model with its tokenizer: how likely a text is, and texts drawn from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from seqkit.decode.options import SampleOptions
from seqkit.decode.sampling import sample
from seqkit.errors import InputError
from seqkit.tasks.language_model_config import LanguageModelConfig, Model, build_model
from seqkit.tasks.run_folder import check_device, load_weights, saved_tables, saved_weights
from seqkit.text.batch import length_batches, pad
from seqkit.text.tokenizer import Tokenizer, load_tokenizer

STREAMS = 64  # parts of a long text that a recurrent model scores side by side
ROWS = 1024  # tokens whose logits are held at a time
PIECE = 128  # tokens that a recurrent model reads at a time


@dataclass(frozen=True, kw_only=True)
class TextScore:
    """How likely a text is; a line's end is a token, a character and a word of it."""

    nats: float
    """the negative log-likelihood of all tokens"""
    tokens: int
    characters: int
    words: int
    unknown: int
    """tokens that the vocabulary lacks, which are cheaper than what they stand for"""

    @property
    def loss(self) -> float:
        """In nats a token."""
        return self.nats / max(self.tokens, 1)

    @property
    def perplexity(self) -> float:
        """Of a token."""
        return math.exp(min(self.loss, 700.0))

    @property
    def word_perplexity(self) -> float:
        return math.exp(min(self.nats / max(self.words, 1), 700.0))

    @property
    def bits_per_character(self) -> float:
        return self.nats / math.log(2) / max(self.characters, 1)


class LanguageModel:
    """A model with its tokenizer.

    Each line is followed by the end symbol. Where lines are texts of their own, each starts from the begin symbol; else
    all lines are one text.
    """

    def __init__(self, config: LanguageModelConfig, model: Model, tokenizer: Tokenizer, folder: Path) -> None:
        self.config, self.model, self.tokenizer, self.folder = config, model, tokenizer, folder

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> LanguageModel:
        """The model of a run folder.

        Raises:
            InputError: the folder is not one of a language model's run, or a file in it is damaged.
        """
        folder = Path(folder)
        check_device(device)
        config = LanguageModelConfig.from_tables(saved_tables(folder), where=str(folder / "config.toml"))
        tokenizer = load_tokenizer(folder / "tokenizer")
        tensors = saved_weights(folder)
        model = build_model(config.model, tokenizer.vocab_size)
        load_weights(model, tensors, where=str(folder / "model.safetensors"))
        return cls(config, model.to(device).eval(), tokenizer, folder)

    def encode(self, line: str) -> list[int]:
        """A line's tokens and the end symbol."""
        return [*self.tokenizer.encode(line), self.tokenizer.eos_id]

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, with a line's end for each end symbol."""
        lines: list[list[int]] = [[]]
        for token in tokens:
            if token == self.tokenizer.eos_id:
                lines.append([])
            else:
                lines[-1].append(token)
        return "\n".join(map(self.tokenizer.decode, lines))

    def score(self, lines: Sequence[str], *, adapt: float = 0.0) -> TextScore:
        """How likely the lines are, as texts of their own or as one text, as the model was trained.

        Of one text each token is scored behind at least `data.context` tokens, or all that stand before it.

        Args:
            adapt: the rate of dynamic evaluation (Krause et al. 2018, arXiv:1709.07432): after each 128 tokens are
                scored, the weights move by so much of their mean gradient. In the end they are as before. 0 learns
                nothing.

        Raises:
            InputError: `adapt` is negative, or the model carries no state along one text.
        """
        encoded = [self.encode(line) for line in lines]
        logp = self.token_logprobs(encoded, adapt=adapt)
        unknown = sum(tokens.count(self.tokenizer.unk_id) for tokens in encoded)
        return TextScore(
            nats=-math.fsum(math.fsum(row) for row in logp), tokens=sum(map(len, encoded)),
            characters=sum(len(line) + 1 for line in lines), words=sum(len(line.split()) + 1 for line in lines),
            unknown=unknown,
        )  # fmt: skip

    def token_logprobs(self, encoded: Sequence[Sequence[int]], *, adapt: float = 0.0) -> list[list[float]]:
        """The log-probability in nats of each token of each line; `adapt` and errors as in `score`."""
        if not 0.0 <= adapt < math.inf:
            raise InputError(f"score: `adapt` must be 0 or more, got {adapt}")
        if adapt and (self.config.data.lines or self.model.initial_state(1) is None):
            raise InputError(f"score: `adapt` must be 0 for a model that carries no state along a text, got {adapt}")
        self.model.eval()
        if self.config.data.lines:
            return self._of_lines(encoded)
        ids = np.fromiter((token for line in encoded for token in line), np.int64)
        ends = np.cumsum([len(line) for line in encoded])
        found = self._while_learning(ids, adapt) if adapt else self._of_stream(ids)
        return [part.tolist() for part in np.split(found, ends[:-1])] if len(ids) else []

    def sample(self, prompts: Sequence[str], options: SampleOptions | None = None) -> list[list[str]]:
        """`options.n_samples` texts that begin with each prompt; `max_length` counts the tokens after it.

        Raises:
            InputError: the options cannot be met.
        """
        options = options or self.config.sampling
        tokenizer = self.tokenizer
        self.model.eval()
        prefixes = []
        for prompt in prompts:
            *whole, last = prompt.split("\n")
            prefixes.append([token for line in whole for token in self.encode(line)] + tokenizer.encode(last))
        limits = torch.tensor([len(prefix) + options.max_length for prefix in prefixes], dtype=torch.int64)
        if not len(limits):
            return []
        inner = replace(
            options, max_length=int(limits.max()), min_length=options.min_length and options.min_length
            + min(map(len, prefixes)),
        )  # fmt: skip
        ends = self.config.data.lines
        begin, end = (tokenizer.bos_id, tokenizer.eos_id) if ends else (tokenizer.eos_id, tokenizer.pad_id)
        found = sample(
            self.model, torch.arange(len(prompts), device=next(self.model.parameters()).device), inner,
            bos_id=begin, eos_id=end,
            max_lengths=limits, prefix=prefixes,
            suppress=(tokenizer.pad_id, tokenizer.bos_id, tokenizer.unk_id),
        )  # fmt: skip
        return [[self.text(hypothesis.tokens) for hypothesis in several] for several in found]

    @torch.no_grad()
    def _of_lines(self, encoded: Sequence[Sequence[int]]) -> list[list[float]]:
        rows: list[list[float]] = [[] for _ in encoded]
        tokenizer = self.tokenizer
        device = next(self.model.parameters()).device
        for group in length_batches([len(line) for line in encoded], batch_tokens=4096):
            targets, _ = pad([encoded[index] for index in group], pad_id=tokenizer.pad_id)
            inputs = targets.roll(1, dims=1)
            inputs[:, 0] = tokenizer.bos_id
            hidden, _ = self.model(inputs.to(device), self.model.initial_state(len(group)))
            for index, row in zip(group, self._chosen(hidden, targets.to(device)).tolist(), strict=True):
                rows[index] = row[: len(encoded[index])]
        return rows

    @torch.no_grad()
    def _of_stream(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Windows of `context` tokens that are read and `stride` that are scored too; the first is scored whole."""
        data = self.config.data
        carries = self.model.initial_state(1) is not None
        context = data.context if carries else min(data.context, data.window // 2)
        stride = max(-(-(len(ids) - context) // STREAMS), context) if carries else data.window - context
        n_windows = max(1, -(-(len(ids) - context) // stride))
        device = next(self.model.parameters()).device
        targets = torch.from_numpy(np.pad(ids, (0, n_windows * stride + context - len(ids))))
        inputs = targets.roll(1)
        inputs[0] = self.tokenizer.eos_id
        found = np.empty(len(targets))
        per_pass = max(1, 8192 // (data.window if not carries else 128))
        for begin in range(0, n_windows, per_pass):
            windows = range(begin, min(begin + per_pass, n_windows))
            shape = slice(windows.start * stride, (windows.stop - 1) * stride + stride + context)
            rows, wanted = (part[shape].unfold(0, stride + context, stride).to(device) for part in (inputs, targets))
            state = self.model.initial_state(len(windows))
            parts = []
            for at in range(0, stride + context, PIECE if carries else stride + context):
                piece = slice(at, at + (PIECE if carries else stride + context))
                hidden, state = self.model(rows[:, piece].contiguous(), state)
                parts.append(self._chosen(hidden, wanted[:, piece].contiguous()))
            logp = torch.cat(parts, dim=1).double().cpu().numpy()
            for row, window in enumerate(windows):
                scored = 0 if window == 0 else context
                found[window * stride + scored : (window + 1) * stride + context] = logp[row, scored:]
        return found[: len(ids)]

    def _while_learning(self, ids: NDArray[np.int64], rate: float) -> NDArray[np.float64]:
        """The text from beginning to end, piece by piece: scored first, then learnt from by gradient descent."""
        parameters = [parameter.requires_grad_() for parameter in self.model.parameters()]
        before = [parameter.detach().clone() for parameter in parameters]
        targets = torch.from_numpy(ids).to(parameters[0].device)[None]
        inputs = targets.roll(1, dims=1)
        inputs[:, :1] = self.tokenizer.eos_id
        state = self.model.initial_state(1)
        found = np.empty(len(ids))
        try:
            for at in range(0, len(ids), PIECE):
                piece = slice(at, at + PIECE)
                with torch.enable_grad():
                    hidden, state = self.model(inputs[:, piece], state)
                    logp = self._chosen(hidden, targets[:, piece])[0]
                    gradients = torch.autograd.grad(logp.mean(), parameters)
                found[piece] = logp.detach().double().cpu().numpy()
                state = cast(Tensor, state).detach()
                with torch.no_grad():
                    torch._foreach_add_(parameters, gradients, alpha=rate)
        finally:
            with torch.no_grad():
                torch._foreach_copy_(parameters, before)
        return found

    def _chosen(self, hidden: Float[Tensor, "B T H"], targets: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """The log-probability of each target."""
        pieces = [
            self.model.logits(rows).float().log_softmax(-1).gather(1, wanted[:, None])[:, 0]
            for rows, wanted in zip(
                torch.split(hidden.flatten(0, 1), ROWS), torch.split(targets.flatten(), ROWS), strict=True
            )
        ]
        return torch.cat(pieces).view_as(targets)


def read_lines(paths: Sequence[str], *, name: str) -> list[str]:
    """The lines of the files of a language model.

    Raises:
        InputError: there is none.
    """
    from seqkit.text.corpus import LineCorpus

    lines = list(LineCorpus(list(paths), max_chars=None))
    if not lines:
        raise InputError(f"{paths[0] if paths else name}: `{name}` must have at least one line, got none")
    return lines
