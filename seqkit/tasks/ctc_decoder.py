"""From a CTC model's frames to text: the best path, or a beam search with a language model and hot words.

A tokenizer of words takes an n-gram model of words; one of characters takes a model of characters (`seqkit ngram train
--unit char`) or of words, which are then spelled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqkit import ops
from seqkit.config import option
from seqkit.errors import InputError
from seqkit.models.ctc import BLANK, best_path
from seqkit.ops.ctc_beam_search import LanguageModel
from seqkit.ops.word_model import WordModel
from seqkit.text.ngram import NgramModel
from seqkit.text.ngram_text import SPACE
from seqkit.text.tokenizer import JOINER, CharTokenizer, Tokenizer, WordTokenizer
from seqkit.text.vocab import Vocab


@dataclass(frozen=True, kw_only=True)
class CTCSearchOptions:
    """How the labels of a recording are found."""

    beam_size: int = option(0, "prefixes that a beam search keeps; 0 for the best path, without a search")
    lm: str = option("", "n-gram model in an ARPA file that the search asks")
    lm_weight: float = option(0.5, "times its log-probabilities")
    word_bonus: float = option(0.0, "what each word or character of the language model adds")
    unknown_score: float = option(-10.0, "what a word that the model of words cannot spell adds")
    hot_word_weight: float = option(5.0, "log-probability that a hot word adds")

    def __post_init__(self) -> None:
        if self.beam_size < 0:
            raise InputError(f"search: `beam_size` must be at least 0, got {self.beam_size}")
        if self.lm and not self.beam_size:
            raise InputError("search: `beam_size` must be at least 1 to ask a language model, got 0")
        for name in ("lm_weight", "word_bonus", "unknown_score", "hot_word_weight"):
            if not math.isfinite(getattr(self, name)) or (name == "lm_weight" and self.lm_weight < 0):
                raise InputError(f"search: `{name}` must be finite, and a weight at least 0, got {getattr(self, name)}")


class Decoded(NamedTuple):
    """The labels of a recording, the frame in which each begins, and the score that they were chosen by."""

    labels: list[int]
    times: list[int]
    score: float


class CTCDecoder:
    """Finds labels as options say.

    Args:
        hot_words: phrases that are made likelier, as text.

    Raises:
        InputError: the language model or a hot word does not suit the tokenizer, or there is no search for them.
    """

    def __init__(self, tokenizer: Tokenizer, options: CTCSearchOptions, hot_words: Sequence[str] = ()) -> None:
        self.tokenizer, self.options = tokenizer, options
        self.lm = _language_model(tokenizer, options) if options.lm else None
        self.hot_words = None
        if hot_words:
            if not options.beam_size:
                raise InputError("search: `beam_size` must be at least 1 to look for hot words, got 0")
            phrases = [tokenizer.encode(phrase) for phrase in hot_words]
            for text, phrase in zip(hot_words, phrases, strict=True):
                if not phrase or tokenizer.unk_id in phrase:
                    raise InputError(f"hot words: a phrase must be made of labels that the model knows, got {text!r}")
            self.hot_words = ops.hot_word_automaton(
                phrases, options.hot_word_weight, n_labels=tokenizer.vocab_size, space=_space(tokenizer)
            )

    def decode(self, log_probs: Float[Tensor, "T C"]) -> Decoded:
        """The labels of one recording."""
        # The begin and end symbols are no labels; the language model would take them for free.
        never = torch.tensor([self.tokenizer.bos_id, self.tokenizer.eos_id], device=log_probs.device)
        log_probs = log_probs.detach().index_fill(1, never, -math.inf)
        if not self.options.beam_size:
            lengths = torch.tensor([len(log_probs)], device=log_probs.device)
            labels, times, scores = best_path(log_probs[None], lengths)
            return Decoded(labels[0], times[0], float(scores[0]))
        found = ops.ctc_beam_search(
            log_probs[None], beam_size=self.options.beam_size, blank=BLANK, lm=self.lm, hot_words=self.hot_words,
            return_times=True,
        )  # fmt: skip
        n = int(found.lengths[0, 0])
        assert found.times is not None
        return Decoded(found.labels[0, 0, :n].tolist(), found.times[0, 0, :n].tolist(), float(found.scores[0, 0]))

    def words(self, decoded: Decoded) -> list[tuple[str, int]]:
        """What stands between the spaces of the text, and the frame in which each begins."""
        starts: list[tuple[list[int], int]] = []
        pieces = self.tokenizer.pieces(decoded.labels)
        before = " "
        for label, piece, time in zip(decoded.labels, pieces, decoded.times, strict=True):
            if isinstance(self.tokenizer, CharTokenizer):
                if piece.isspace():
                    before = piece
                    continue
                new = before.isspace()
            elif isinstance(self.tokenizer, WordTokenizer):
                new = not (piece.startswith(JOINER) or before.endswith(JOINER))
            else:
                new = piece.startswith(SPACE)
            if new or not starts:
                starts.append(([], time))
            starts[-1][0].append(label)
            before = piece
        return [(self.tokenizer.decode(labels).strip(), time) for labels, time in starts]


def _space(tokenizer: Tokenizer) -> int | None:
    """The label between words, where there is one."""
    if not isinstance(tokenizer, CharTokenizer):
        return None
    (label,) = tokenizer.encode(" ")
    return None if label == tokenizer.unk_id else label


def _language_model(tokenizer: Tokenizer, options: CTCSearchOptions) -> LanguageModel:
    model = NgramModel.from_arpa(options.lm)
    specials = (Vocab.pad_id, Vocab.bos_id, Vocab.eos_id)
    if isinstance(tokenizer, WordTokenizer | CharTokenizer):
        unit = "word" if isinstance(tokenizer, WordTokenizer) else "char"
        if model.unit == unit:
            pieces = tokenizer.pieces(range(tokenizer.vocab_size))
            labels = [None if n in specials else SPACE if piece == " " else piece for n, piece in enumerate(pieces)]
            automaton = ops.BackoffAutomaton(**model.automaton(labels))
            return automaton.weighted(options.lm_weight, options.word_bonus)
        space = _space(tokenizer)
        if unit == "char" and space is not None:
            spellings = [tokenizer.encode(word) for word in model.words]
            return WordModel.spelled(
                ops.BackoffAutomaton(**model.automaton()).weighted(options.lm_weight, options.word_bonus),
                [[] if tokenizer.unk_id in spelling or space in spelling else spelling for spelling in spellings],
                space=space, unknown=model.unknown, unknown_score=options.unknown_score,
            )  # fmt: skip
        rule = "a model of words" if unit == "word" else "a model of characters where no label is a space"
        raise InputError(f"{options.lm}: the language model must be {rule}, got one of unit {model.unit}")
    raise InputError(f"{options.lm}: a language model must meet labels that are words or characters, got subwords")
