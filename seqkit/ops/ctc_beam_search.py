"""CTC prefix beam search: the most probable label sequences of a batch, summed over their alignments with the frames.

The kernels (csrc/ctc_beam) keep the prefixes of a sentence as a tree in one piece of memory and extend a prefix by all
labels at a time; nothing is sorted, hashed or allocated in a frame. A sentence's result depends on its own frames
alone, to the last bit: not on the padding, the batch or the threads.

The kernel of the CPU takes float32 and float64; 16-bit tensors are converted to float32. That of CUDA takes float32,
float16 and bfloat16, for beams of up to 512. What it does not cover runs the CPU's kernel there: the frames are copied,
which waits for the device. A language model and hot words are copied to a card once, at their first search there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_range, check_tensors, indices
from seqkit.ops.backoff_automaton import BackoffAutomaton
from seqkit.ops.viterbi_align import viterbi_align
from seqkit.ops.word_model import WordModel

NEVER = -math.inf
MOST_LOGP = 1e30  # kMostCtcLogp in csrc/ctc_beam/ctc_beam.h
MOST_BEAMS = 1 << 16  # kMostCtcBeams
MOST_BEAMS_ON_CUDA = 512  # kMostCtcBeamsOnCuda

LanguageModel = BackoffAutomaton | WordModel


class CtcHypotheses(NamedTuple):
    """The N best of each sentence, best first. A place that has no hypothesis has length 0 and score -infinity."""

    labels: Int[Tensor, "B N T"]  # -1 beyond the length
    lengths: Int[Tensor, "B N"]
    log_probs: Float[Tensor, "B N"]  # of the frames, summed over the alignments that the beam kept
    scores: Float[Tensor, "B N"]  # what they are ranked by: with the language model and the hot words
    times: Int[Tensor, "B N T"] | None = None  # the frame in which each label begins; -1 beyond the length

    def sequences(self, sentence: int) -> list[list[int]]:
        """The labels of a sentence's hypotheses, best first."""
        counts = self.lengths[sentence].tolist()
        found = (self.scores[sentence] > NEVER).tolist()
        return [row[:n] for row, n, there in zip(self.labels[sentence].tolist(), counts, found, strict=True) if there]


class _Standing(NamedTuple):
    """Where a prefix stands in the language models; `score` is a function of the prefix."""

    score: float
    states: tuple[int, ...]
    spelled: int  # of the word that has begun: its labels, and its node in the lexicon or -1
    node: int


class _Scorer:
    """What the language model and the hot words give a prefix, in plain Python."""

    def __init__(self, lm: LanguageModel | None, hot_words: BackoffAutomaton | None) -> None:
        self.words = lm if isinstance(lm, WordModel) else None
        self.labels = [model for model in (lm, hot_words) if isinstance(model, BackoffAutomaton)]
        start = self.words.words.start if self.words else 0
        self.known: dict[tuple[int, ...], _Standing] = {
            (): _Standing(0.0, (*(model.start for model in self.labels), start), 0, 0)
        }

    def _beginning(self, node: int) -> float:
        return self.words.unknown_score if self.words and node < 0 else 0.0

    def _ended(self, at: _Standing) -> tuple[float, int]:
        assert self.words
        word = self.words.word(at.node)
        score, state = self.words.words.follow(at.states[-1], self.words.unknown if word < 0 else word)
        return score + (self.words.unknown_score if word < 0 else 0.0) - self._beginning(at.node), state

    def __call__(self, prefix: tuple[int, ...]) -> float:
        return self.standing(prefix).score

    def standing(self, prefix: tuple[int, ...]) -> _Standing:
        if prefix in self.known:
            return self.known[prefix]
        at, label = self.standing(prefix[:-1]), prefix[-1]
        moves = [model.follow(state, label) for model, state in zip(self.labels, at.states, strict=False)]
        score, states = at.score + sum(score for score, _ in moves), [state for _, state in moves]
        spelled, node, word_state = at.spelled, at.node, at.states[-1]
        if self.words and label == self.words.space:
            if spelled:
                gain, word_state = self._ended(at)
                score += gain
            spelled = node = 0
        elif self.words:
            after = self.words.spell(node, label) if node >= 0 else -1
            score += self._beginning(after) - self._beginning(node)
            spelled, node = spelled + 1, after
        self.known[prefix] = _Standing(score, (*states, word_state), spelled, node)
        return self.known[prefix]

    def at_end(self, prefix: tuple[int, ...]) -> float:
        at = self.standing(prefix)
        score = at.score + sum(model.end(state) for model, state in zip(self.labels, at.states, strict=False))
        if not self.words:
            return score
        gain, state = self._ended(at) if at.spelled else (0.0, at.states[-1])
        return score + gain + self.words.words.end(state)


def _log_add(a: float, b: float) -> float:
    most, least = max(a, b), min(a, b)
    return most if least == NEVER else most + math.log1p(math.exp(least - most))


def _pruned(frame: list[float], blank: int, token_min_logp: float, blank_skip_logp: float) -> list[float]:
    """The frame with what is impossible as -infinity."""
    frame = [NEVER if math.isnan(x) else min(x, MOST_LOGP) for x in frame]
    if frame[blank] > blank_skip_logp:
        return [x if c == blank else NEVER for c, x in enumerate(frame)]
    most = frame.index(max(frame))
    return [x if x >= token_min_logp or c == most else NEVER for c, x in enumerate(frame)]


def ctc_beam_search_reference(
    log_probs: Float[Tensor, "B T C"],
    lengths: Int[Tensor, " B"],
    *,
    beam_size: int,
    blank: int = 0,
    n_best: int = 1,
    token_min_logp: float = NEVER,
    beam_prune_logp: float = NEVER,
    blank_skip: float | None = None,
    lm: LanguageModel | None = None,
    hot_words: BackoffAutomaton | None = None,
) -> CtcHypotheses:
    """`ctc_beam_search` in plain Python, in float64."""
    B, T, C = log_probs.shape
    real = torch.promote_types(log_probs.dtype, torch.float32)
    limits = [token_min_logp, beam_prune_logp, math.log(blank_skip) if blank_skip else math.inf]
    token_min, beam_prune, skip = torch.tensor(limits, dtype=torch.float64).to(real).tolist()
    labels = torch.full((B, n_best, T), -1, dtype=torch.int64)
    counts = torch.zeros(B, n_best, dtype=torch.int64)
    logp, scores = (torch.full((B, n_best), NEVER, dtype=torch.float64) for _ in range(2))
    scored = lm is not None or hot_words is not None
    scorer = _Scorer(lm, hot_words)
    for b, sentence in enumerate(log_probs.detach().double().tolist()):
        beam: dict[tuple[int, ...], tuple[float, float]] = {
            (): (0.0, NEVER)
        }  # the log-probability of ending in a blank, and in the last label
        for frame in (_pruned(x, blank, token_min, skip) for x in sentence[: int(lengths[b])]):
            offers: dict[tuple[int, ...], tuple[float, float]] = {}
            for y, (on_blank, on_label) in beam.items():
                again = frame[y[-1]] if y else NEVER
                given = NEVER
                if y and y[:-1] in beam:
                    x_blank, x_label = beam[y[:-1]]
                    given = x_blank if y[-2:-1] == y[-1:] else _log_add(x_blank, x_label)
                offers[y] = (_log_add(on_blank, on_label) + frame[blank], _log_add(on_label + again, given + again))
            for y, (on_blank, on_label) in beam.items():
                both = _log_add(on_blank, on_label)
                for c in range(C):
                    if c != blank and frame[c] > NEVER and (*y, c) not in beam:
                        offers[(*y, c)] = (NEVER, (on_blank if y[-1:] == (c,) else both) + frame[c])
            ranks = {y: _log_add(*pair) + (scorer(y) if scored else 0.0) for y, pair in offers.items()}
            kept = sorted((y for y in offers if ranks[y] > NEVER), key=lambda y: -ranks[y])[:beam_size]
            alive = {y for y in kept if ranks[y] >= ranks[kept[0]] + beam_prune}
            beam = {y: pair for y, pair in offers.items() if y in alive}
        ends = {y: _log_add(*pair) + (scorer.at_end(y) if scored else 0.0) for y, pair in beam.items()}
        best = sorted((y for y in beam if ends[y] > NEVER), key=lambda y: -ends[y])[:n_best]
        for n, y in enumerate(best):
            labels[b, n, : len(y)] = torch.tensor(y, dtype=torch.int64)
            counts[b, n], logp[b, n], scores[b, n] = len(y), _log_add(*beam[y]), ends[y]
    device = log_probs.device
    return CtcHypotheses(labels.to(device), counts.to(device), logp.to(device, real), scores.to(device, real))


def ctc_beam_search(
    log_probs: Float[Tensor, "B T C"],
    lengths: Int[Tensor, " B"] | None = None,
    *,
    beam_size: int,
    blank: int = 0,
    n_best: int = 1,
    token_min_logp: float = NEVER,
    beam_prune_logp: float = NEVER,
    blank_skip: float | None = None,
    lm: LanguageModel | None = None,
    hot_words: BackoffAutomaton | None = None,
    return_times: bool = False,
) -> CtcHypotheses:
    """The `n_best` most probable label sequences of each sentence. BATCH FIRST, unlike the frames of `ctc_loss`.

    The probability of a label sequence is the sum over its alignments: an alignment gives each frame a label or the
    blank; repeats are merged, then blanks dropped. After each frame the `beam_size` best prefixes live on, ranked by
    the log-probability of all their alignments so far, plus what the language model and the hot words give the prefix.
    A beam that is never full makes the search exact; then the log-probability of a sequence is minus its `ctc_loss`.

    Of prefixes that rank equally the one that entered the beam earlier lives on; of those that enter in one frame, the
    one whose parent did; then the lower label. NaN counts as -infinity, and above 1e30 as 1e30.

    Reference: Graves et al. 2006, section 3.2; Hannun et al. 2014, arXiv:1408.2873; language model and pruning as in
        pyctcdecode, blank skipping as in torchaudio's CUDA decoder.
    Differs: a prefix is one entry of the beam, whether it ends in a blank or not (pyctcdecode and flashlight count
        two); it is kept by its sum, where flashlight's default keeps the best alignment. A word that is not in the
        vocabulary costs the same however long it is.

    Args:
        log_probs: outputs of a log-softmax.
        lengths: frames of each sentence, from 0 to T; all by default.
        beam_size: from 1 to 65,536.
        n_best: from 1 to `beam_size`.
        token_min_logp: a class (the blank too) below it is impossible in a frame, unless it is the most probable there.
            -infinity turns it off.
        beam_prune_logp: at most 0; a prefix that ranks so far below the best is dropped. -infinity turns it off.
        blank_skip: a probability. A frame whose blank is above it is all blank: its labels are impossible. None turns
            it off.
        lm: of labels (a `BackoffAutomaton` with a symbol for each class) or of words (a `WordModel`).
        hot_words: see `hot_word_automaton`.
        return_times: also the frame in which each label begins, in the sequence's most probable alignment
            (`viterbi_align`).

    Raises:
        InputError: shapes do not fit or an option is out of range. RuntimeError, on the CPU: a length is out of range.
    """
    where = "ops.ctc_beam_search"
    check_tensors(where, {"log_probs": log_probs}, {"lengths": lengths})
    if log_probs.ndim != 3:
        raise InputError(f"{where}: log_probs must have the shape [B, T, C], got {list(log_probs.shape)}")
    if not log_probs.is_floating_point():
        raise InputError(f"{where}: log_probs must be of floats, got {log_probs.dtype}")
    B, T, C = log_probs.shape
    if C == 0:
        raise InputError(f"{where}: log_probs must have a class, got the shape {list(log_probs.shape)}")
    if lengths is not None and lengths.shape != (B,):
        raise InputError(f"{where}: lengths must have the shape [{B}], got {list(lengths.shape)}")
    for name, value, most in (
        ("blank", blank, C - 1),
        ("beam_size", beam_size, MOST_BEAMS),
        ("n_best", n_best, beam_size),
    ):
        least = 0 if name == "blank" else 1
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise InputError(f"{where}: {name} must be an integer from {least} to {most}, got {value!r}")
    if beam_size * (T + 1) >= 2**31:
        raise InputError(f"{where}: beam_size times the frames must be below 2^31, got {beam_size} times {T}")
    for name, limit in (("token_min_logp", token_min_logp), ("beam_prune_logp", beam_prune_logp)):
        if (
            not isinstance(limit, int | float)
            or isinstance(limit, bool)
            or not limit <= (0 if name[0] == "b" else 1e300)
        ):
            rule = "at most 0" if name == "beam_prune_logp" else "a number"
            raise InputError(f"{where}: {name} must be {rule}, got {limit!r}")
    if blank_skip is not None and (not isinstance(blank_skip, int | float) or not 0 < blank_skip <= 1):
        raise InputError(f"{where}: blank_skip must be a probability above 0 or None, got {blank_skip!r}")
    _check_models(where, lm, hot_words, C, blank)

    counts = torch.full((B,), T, device=log_probs.device) if lengths is None else indices(where, "lengths", lengths)
    frames, device = log_probs.detach(), log_probs.device
    on_card = device.type != "cpu" and _covered_on_cuda(frames, beam_size)
    if not on_card:
        frames = frames.to(torch.promote_types(frames.dtype, torch.float32))
    if library.backend("ctc_beam_search", device) == "native":
        limits = token_min_logp, beam_prune_logp, blank_skip
        home = device if on_card else torch.device("cpu")
        found = _native(frames.to(home), counts.to(home), beam_size, blank, n_best, *limits, lm, hot_words)
        found = CtcHypotheses(*(x.to(device) for x in found[:4]))
    else:
        check_range(where, "lengths", counts, 0, T)
        found = ctc_beam_search_reference(
            frames,
            counts,
            beam_size=beam_size,
            blank=blank,
            n_best=n_best,
            token_min_logp=token_min_logp,
            beam_prune_logp=beam_prune_logp,
            blank_skip=blank_skip,
            lm=lm,
            hot_words=hot_words,
        )
    return found._replace(times=_times(frames, counts, found, blank)) if return_times else found


def _covered_on_cuda(frames: Tensor, beam_size: int) -> bool:
    """Whether the kernel of a card takes these."""
    fits = beam_size <= MOST_BEAMS_ON_CUDA and beam_size * (frames.shape[2] + 1025) < 2**31
    return fits and frames.dtype != torch.float64


def _check_models(where: str, lm: object, hot_words: object, C: int, blank: int) -> None:
    if lm is not None and not isinstance(lm, BackoffAutomaton | WordModel):
        raise InputError(f"{where}: lm must be a BackoffAutomaton, a WordModel or None, got {type(lm).__name__}")
    if hot_words is not None and not isinstance(hot_words, BackoffAutomaton):
        raise InputError(f"{where}: hot_words must be a BackoffAutomaton or None, got {type(hot_words).__name__}")
    for name, model in (("lm", lm), ("hot_words", hot_words)):
        if isinstance(model, BackoffAutomaton) and model.n_symbols != C:
            raise InputError(f"{where}: {name} must have a symbol for each of {C} classes, got {model.n_symbols}")
    if isinstance(lm, WordModel) and (lm.space >= C or lm.space == blank):
        raise InputError(f"{where}: the space of lm must be below {C} and not the blank {blank}, got {lm.space}")


def _native(
    frames: Tensor,
    lengths: Tensor,
    beam_size: int,
    blank: int,
    n_best: int,
    token_min_logp: float,
    beam_prune_logp: float,
    blank_skip: float | None,
    lm: LanguageModel | None,
    hot_words: BackoffAutomaton | None,
) -> CtcHypotheses:
    words = lm if isinstance(lm, WordModel) else None
    labels = lm if isinstance(lm, BackoffAutomaton) else None
    automata = labels, hot_words, words.words if words else None
    found = torch.ops.seqkit.ctc_beam_search(
        frames.contiguous(),
        lengths,
        beam_size,
        n_best,
        blank,
        float(token_min_logp),
        float(beam_prune_logp),
        math.log(blank_skip) if blank_skip else math.inf,
        *(model.tensors(frames.device) if model else [] for model in automata),
        words.tensors(frames.device) if words else [],
        [model.start if model else 0 for model in automata],
        words.space if words else -1,
        words.unknown if words else -1,
        words.unknown_score if words else 0.0,
    )
    return CtcHypotheses(*found)


def _times(frames: Tensor, lengths: Tensor, found: CtcHypotheses, blank: int) -> Tensor:
    """The frame in which each label of each hypothesis begins."""
    B, N, T = found.labels.shape
    rows = []
    for n in range(N):
        path, _ = viterbi_align(frames, found.labels[:, n], lengths, found.lengths[:, n], blank=blank)  # B T
        before = torch.nn.functional.pad(path, (1, 0), value=-1)[:, :T]
        begins = (path != blank) & (path >= 0) & (path != before)
        place = torch.where(begins, begins.cumsum(1) - 1, T)
        here = torch.arange(T, device=path.device).expand(B, T)
        rows.append(path.new_full((B, T + 1), -1).scatter(1, place, here)[:, :T])
    return torch.stack(rows, dim=1)


def _fake(
    log_probs: Tensor, lengths: Tensor, beam_size: int, n_best: int, *rest: object
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    models = [x for model in rest if isinstance(model, list) for x in model if isinstance(x, Tensor)]
    arrays = {f"model[{n}]": x for n, x in enumerate(models)}
    check_tensors("ctc_beam_search", {"log_probs": log_probs, "lengths": lengths, **arrays})
    B, T, _ = log_probs.shape
    real = torch.promote_types(log_probs.dtype, torch.float32)
    return (
        log_probs.new_empty((B, n_best, T), dtype=torch.int64),
        log_probs.new_empty((B, n_best), dtype=torch.int64),
        log_probs.new_empty((B, n_best), dtype=real),
        log_probs.new_empty((B, n_best), dtype=real),
    )


if library.is_built("ctc_beam_search"):
    torch.library.register_fake("seqkit::ctc_beam_search", _fake)
