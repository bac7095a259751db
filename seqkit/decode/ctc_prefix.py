"""From the frames of a CTC model to texts: the best path, and the prefix beam search with all that can help it.

The face of `ops.ctc_beam_search` for people who have labels and words rather than numbers. Knows no file: the language
model is handed in, as anything that answers the `NgramSource` protocol (`seqkit.text.NgramModel.from_arpa(path)` does).

The search takes two things that help: a language model, of words or of labels, and hot words. A lexicon is a model of
words that likes all of them alike; beside it a model of characters takes the place of the hot words, so that all three
at once are refused.

A lexicon bars every other word. The search takes a finite price for a word that is not spelled: here one that no frame
can make up for, and what is left of such words in the beam is dropped from the results.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqkit.decode.alignment import Span, check_labels, join_words, path_spans
from seqkit.errors import InputError
from seqkit.ops import (
    BackoffAutomaton,
    CtcHypotheses,
    WordModel,
    ctc_beam_search,
    hot_word_automaton,
    viterbi_align,
)
from seqkit.ops.arguments import check_range

NEVER = -math.inf
BARRED = -1e9  # the price of a word that is not in the lexicon
WORD_BONUS = 1.5
SPACE_SYMBOL = "▁"  # how a model of characters writes a space
SPECIAL = ("<unk>", "<s>", "</s>")  # symbols of a model that nobody says


@runtime_checkable
class NgramSource(Protocol):
    """An n-gram model as the decoder reads it; `seqkit.text.NgramModel` is one."""

    words: tuple[str, ...]
    unit: str  # what a symbol is: word or char

    def automaton(self, labels: Sequence[str | None] | None = None) -> dict[str, Any]:
        """The arguments of an `ops.BackoffAutomaton` whose symbols are `labels`, unknown ones counted as unknown."""
        ...


@dataclass(frozen=True, kw_only=True)
class CTCHypothesis:
    """A text that the frames may say."""

    text: str
    score: float  # what hypotheses are ranked by: with the language model and the hot words
    logp: float  # of the text, by the frames alone; of the best path, that path's
    tokens: tuple[Span, ...]  # in its most probable alignment
    space: str | None  # the token between words

    @property
    def words(self) -> tuple[Span, ...]:
        """The spans of its words; none where the labels have no space."""
        return () if self.space is None else join_words(self.tokens, self.space)


class CTCDecoder:
    """Reads texts off the log-probabilities of a CTC model.

    A hypothesis y is ranked by log p(y | frames) + alpha log p_LM(y) + beta |y| + hot words, |y| in the symbols of the
    language model. Texts that differ in spaces at their ends or in doubled spaces alone are one, their probabilities
    added.

    Reference: Graves et al. 2006, section 3.2; Hannun et al. 2014, arXiv:1408.2873.
    Differs: from pyctcdecode in the price of a word that the language model lacks: `unknown_score` as it is, however
        long the word and whatever alpha, where pyctcdecode gives the whole word alpha ln(10) times its offset.

    Args:
        labels: the text of each class, in their order; that of the blank does not count.
        blank: the class of the blank.
        space: the label between words; None where there are no words.
        lm: an n-gram model.
        lm_kind: whether its symbols are words or labels (`char`); by default as the model says.
        alpha: the weight of its log-probabilities.
        beta: what each of its symbols adds; by default 1.5 for words and 0 for labels.
        unknown_score: what a word that the language model lacks is given beside its log-probability.
        lexicon: the only words that may be found. One that the labels cannot spell is left out (`unspelled`).
        hot_words: words or phrases that are wanted, each with the log-probability that it adds, or all with
            `hot_word_score`.

    Raises:
        InputError: an option is out of range, no word can be spelled, or options do not go together.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        blank: int = 0,
        space: str | None = " ",
        lm: NgramSource | None = None,
        lm_kind: str | None = None,
        alpha: float = 0.5,
        beta: float | None = None,
        unknown_score: float = -10.0,
        lexicon: Iterable[str] | None = None,
        hot_words: Mapping[str, float] | Sequence[str] = (),
        hot_word_score: float = 10.0,
    ) -> None:
        where = "CTCDecoder"
        self.labels = tuple(labels)
        if not 0 <= blank < len(self.labels):
            raise InputError(f"{where}: blank must be from 0 to {len(self.labels) - 1}, got {blank}")
        self.blank = blank
        self._numbers = {text: label for label, text in reversed(list(enumerate(self.labels))) if label != blank}
        self.space = space if space in self._numbers else None
        self.unspelled: tuple[str, ...] = ()
        self._lexicon: frozenset[str] | None = None
        kind = lm_kind or (lm.unit if lm else "word")
        if kind not in ("word", "char"):
            raise InputError(f"{where}: lm_kind must be one of word, char, got {kind!r}")
        given = WORD_BONUS if kind == "word" else 0.0
        weights = (alpha, given if beta is None else beta)

        helps: list[BackoffAutomaton | WordModel] = []
        if lexicon is not None or (lm and kind == "word"):
            source = lm if kind == "word" else None
            helps.append(self._word_model(source, weights if source else (0.0, 0.0), unknown_score, lexicon))
        if lm and kind == "char":
            helps.append(self._label_model(lm).weighted(*weights))
        self._lm = helps[0] if helps else None
        self._hot = next((model for model in helps[1:] if isinstance(model, BackoffAutomaton)), None)
        if hot_words:
            if self._hot:
                raise InputError(f"{where}: hot_words must not come with a lexicon and a model of characters, got all")
            if isinstance(hot_words, str):
                raise InputError(f"{where}: hot_words must be words, got a string")
            scores = hot_words if isinstance(hot_words, Mapping) else dict.fromkeys(hot_words, hot_word_score)
            self._hot = self._hot_words(scores)

    # ---- what helps ----

    def spell(self, text: str) -> list[int] | None:
        """The labels of a text, a label a character; None where it has a character that is no label."""
        found = [self._numbers.get(letter) for letter in text]
        return None if None in found else [label for label in found if label is not None]

    def _label_model(self, lm: NgramSource) -> BackoffAutomaton:
        known = set(lm.words)
        names: list[str | None] = list(self.labels)
        names[self.blank] = None
        if self.space is not None and self.space not in known:
            names[self._numbers[self.space]] = SPACE_SYMBOL
        return BackoffAutomaton(**lm.automaton(names))

    def _word_model(
        self, lm: NgramSource | None, weights: tuple[float, float], unknown_score: float, lexicon: Iterable[str] | None
    ) -> WordModel:
        where = "CTCDecoder"
        if self.space is None:
            raise InputError(f"{where}: labels must have a space where words are known, got none")
        if isinstance(lexicon, str):
            raise InputError(f"{where}: lexicon must be words, got a string")
        given = list(dict.fromkeys(lexicon if lexicon is not None else lm.words if lm else ()))
        barred = SPECIAL if lexicon is None else ()
        spelled = [(word, [] if self.space in word or word in barred else self.spell(word) or []) for word in given]
        usable = [(word, spelling) for word, spelling in spelled if spelling]
        if not usable:
            raise InputError(f"{where}: the words must have one that the labels spell, got none of {len(given)}")
        names: list[str | None] = [word for word, _ in usable]
        if lexicon is not None:
            self.unspelled = tuple(word for word, spelling in spelled if not spelling)
            self._lexicon = frozenset(word for word, _ in usable)
        # The symbol behind the words stands for all that are not spelled; no model has an empty word.
        model = BackoffAutomaton(**lm.automaton([*names, ""])) if lm else _even(len(names) + 1)
        return WordModel.spelled(
            model.weighted(*weights),
            [spelling for _, spelling in usable],
            space=self._numbers[self.space],
            unknown=len(names),
            unknown_score=unknown_score if lexicon is None else BARRED,
        )

    def _hot_words(self, scores: Mapping[str, float]) -> BackoffAutomaton:
        phrases = []
        for phrase in scores:
            spelling = self.spell(phrase)
            if not spelling:
                raise InputError(f"CTCDecoder: hot_words must be of the labels, got {phrase!r}")
            phrases.append(spelling)
        space = None if self.space is None else self._numbers[self.space]
        return hot_word_automaton(phrases, list(scores.values()), n_labels=len(self.labels), space=space)

    # ---- decoding ----

    def best_path(
        self,
        log_probs: Float[Tensor, "B T C"],
        lengths: Int[Tensor, " B"] | None = None,
        *,
        frame_seconds: float = 1.0,
    ) -> list[CTCHypothesis]:
        """The text of each sentence's most probable label a frame: repeats merged, blanks dropped. Knows no word.

        Raises:
            InputError: the frames do not fit the labels.
        """
        counts = self._counts("best_path", log_probs, lengths, frame_seconds)
        likely, path = log_probs.detach().double().max(dim=2)  # B T
        beyond = torch.arange(path.shape[1], device=path.device) >= counts[:, None]
        path = path.masked_fill(beyond, -1)
        logp = likely.masked_fill(beyond, 0.0).sum(dim=1).tolist()
        spans = path_spans(log_probs, path, self.labels, blank=self.blank, frame_seconds=frame_seconds)
        texts = [self._text(token.text for token in tokens) for tokens in spans]
        return [
            CTCHypothesis(text=text, score=score, logp=score, tokens=tokens, space=self.space)
            for text, tokens, score in zip(texts, spans, logp, strict=True)
        ]

    def beam_search(
        self,
        log_probs: Float[Tensor, "B T C"],
        lengths: Int[Tensor, " B"] | None = None,
        *,
        beam_size: int = 100,
        n_best: int = 1,
        token_min_logp: float = NEVER,
        beam_prune_logp: float = NEVER,
        blank_skip: float | None = None,
        frame_seconds: float = 1.0,
    ) -> list[list[CTCHypothesis]]:
        """The `n_best` texts of each sentence, best first; fewer where the beam holds fewer.

        `ops.ctc_beam_search` says what the options do. pyctcdecode's are `token_min_logp=-5, beam_prune_logp=-10`.

        Args:
            log_probs: outputs of a log-softmax.
            lengths: frames of each sentence, from 0 to T; all by default.
            frame_seconds: how long a frame is; by default spans are in frames.

        Raises:
            InputError: the frames do not fit the labels, or an option is out of range.
        """
        counts = self._counts("beam_search", log_probs, lengths, frame_seconds)
        if not 1 <= n_best <= beam_size:
            raise InputError(f"beam_search: n_best must be from 1 to the beam's {beam_size}, got {n_best}")
        B = log_probs.shape[0]
        found = ctc_beam_search(
            log_probs,
            counts,
            beam_size=beam_size,
            blank=self.blank,
            n_best=beam_size,  # several of which may be one text
            token_min_logp=token_min_logp,
            beam_prune_logp=beam_prune_logp,
            blank_skip=blank_skip,
            lm=self._lm,
            hot_words=self._hot,
        )
        kept = [self._merged(found, b)[:n_best] for b in range(B)]

        # The k-th texts of all sentences are aligned at a time.
        results: list[list[CTCHypothesis]] = [[] for _ in range(B)]
        for k in range(max(map(len, kept), default=0)):
            here = [b for b in range(B) if k < len(kept[b])]
            sequences = [kept[b][k].labels for b in here]
            targets = torch.full((len(here), max(map(len, sequences))), self.blank)
            for row, sequence in zip(targets, sequences, strict=True):
                row[: len(sequence)] = torch.tensor(sequence, dtype=torch.int64)
            frames = log_probs[here]
            sizes = torch.tensor([len(sequence) for sequence in sequences])
            device = log_probs.device
            path, _ = viterbi_align(frames, targets.to(device), counts[here], sizes.to(device), blank=self.blank)
            spans = path_spans(frames, path, self.labels, blank=self.blank, frame_seconds=frame_seconds)
            for b, tokens in zip(here, spans, strict=True):
                best = kept[b][k]
                results[b].append(
                    CTCHypothesis(text=best.text, score=best.score, logp=best.logp, tokens=tokens, space=self.space)
                )
        return results

    def _counts(self, where: str, log_probs: Tensor, lengths: Tensor | None, frame_seconds: float) -> Tensor:
        """The frames of each sentence, where the frames fit the labels."""
        if log_probs.ndim != 3:
            raise InputError(f"{where}: log_probs must have the shape [B, T, C], got {list(log_probs.shape)}")
        B, T, C = log_probs.shape
        check_labels(where, self.labels, C, frame_seconds)
        if lengths is None:
            return torch.full((B,), T, device=log_probs.device)
        if lengths.shape != (B,):
            raise InputError(f"{where}: lengths must have the shape [{B}], got {list(lengths.shape)}")
        check_range(where, "lengths", lengths, 0, T)
        return lengths.to(log_probs.device)

    def _text(self, labels: Iterable[str]) -> str:
        text = "".join(labels)
        return text if self.space is None else self.space.join(filter(None, text.split(self.space)))

    def _merged(self, found: CtcHypotheses, sentence: int) -> list[_Found]:
        """The texts of a sentence's beam, best first; the labels of a text are those of its best sequence."""
        there = int((found.scores[sentence] > NEVER).sum())
        rows, counts, scores, logps = (
            x[sentence, :there].tolist() for x in (found.labels, found.lengths, found.scores, found.log_probs)
        )
        texts: dict[str, _Found] = {}
        for row, count, score, logp in zip(rows, counts, scores, logps, strict=True):
            labels = row[:count]
            text = self._text(self.labels[label] for label in labels)
            if self._lexicon is not None and not self._lexicon.issuperset(filter(None, text.split(self.space))):
                continue
            first = texts.get(text)
            if first is None:
                texts[text] = _Found(text, labels, score, logp)
            else:
                texts[text] = _Found(text, first.labels, _log_add(first.score, score), _log_add(first.logp, logp))
        return sorted(texts.values(), key=lambda found: -found.score)


@dataclass(frozen=True)
class _Found:
    text: str
    labels: list[int]
    score: float
    logp: float


def _log_add(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def _even(n_words: int) -> BackoffAutomaton:
    """A model that gives every word the same: nothing."""
    return BackoffAutomaton(
        first=torch.tensor([0, n_words], dtype=torch.int32),
        symbols=torch.arange(n_words, dtype=torch.int32),
        scores=torch.zeros(n_words),
        next=torch.zeros(n_words, dtype=torch.int32),
        backoff=torch.zeros(1),
        suffix=torch.zeros(1, dtype=torch.int32),
        final=torch.zeros(1),
    )
