"""Beam search over any `StepModel`, for a batch of sentences at once.

At each step all continuations of a sentence's K live hypotheses are ranked by log-probability. The 2K best are its
candidates: an end symbol ranked among the K best ends its hypothesis, the K best others live on (`ops.beam_step`). At
its maximum length a sentence that has not stopped closes its live hypotheses without an end symbol. What has ended, or
was closed, is ranked by log P(Y|X) / penalty(|Y|), plus the coverage term.

A sentence stops when

    first        K hypotheses have ended;
    patience     ceil(patience K) have ended (Kasai et al. 2022, arXiv:2204.05424);
    exhaustive   the n best have ended and no live hypothesis can still beat the last of them.

The bound of `exhaustive`. Let a live hypothesis have log-probability L <= 0. Whatever it becomes has log-probability at
most L, since a token adds log p <= 0 (in floats too: beam_step never gives more, and rounding is monotone), and at most
Tmax symbols with the end symbol: a closed one has Tmax, an ended one at most Tmax - 1 and its end symbol. The penalties
grow with |Y| for alpha >= 0, so its score is at most L / penalty(Tmax); a minimum length changes neither; a coverage
term is at most 0. Two ways to compute a penalty may differ in the last bit: the bound takes penalty(Tmax) (1 + 1e-6).
An equal score arrives too late to displace: the pool keeps the earlier.

Every sentence is searched as if it were alone: ended sentences leave the batch, and no operation here mixes sentences,
so a model whose rows do not depend on the batch gives the same bits for any batch and any order.

Reference: Wu et al. 2016, section 7, arXiv:1609.08144; Vijayakumar et al. 2018, section 3, arXiv:1610.02424 (groups).
Differs: each diverse group stops, and fills its pool, by itself; its diversity term ranks and is not added up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqkit.decode.backtrack import Ending, History, SearchTree, side_by_side
from seqkit.decode.ensemble import Ensemble
from seqkit.decode.options import BeamOptions, LengthOptions, parse_length_penalty
from seqkit.decode.scoring import coverage_penalty, device_of
from seqkit.decode.step import Hypothesis, StepModel, StepOutput
from seqkit.errors import InputError
from seqkit.ops.beam_step import BeamState, beam_step, length_divisor

NEVER = float("-inf")


def beam_search(
    models: StepModel | Sequence[StepModel],
    inputs: Any,
    options: BeamOptions,
    *,
    bos_id: int,
    eos_id: int,
    max_lengths: Int[Tensor, " B"] | None = None,
    prefix: Sequence[Sequence[int]] | None = None,
    suppress: Sequence[int] = (),
    source_lengths: Int[Tensor, " B"] | None = None,
    batch_size: int | None = None,
) -> list[list[Hypothesis]]:
    """The n best outputs of each sentence, best first; at least one a sentence.

    The number of sentences is that of `max_lengths`, `prefix`, `batch_size`, `inputs.lengths` or a tensor `inputs`,
    whichever is given first. A sentence that nothing can continue (all logits -inf) and of which nothing has ended is
    closed where it stands.

    Args:
        models: one model, or several whose probabilities are averaged.
        max_lengths: most steps of each sentence, such as `options.step_limit` of its source; at most
            `options.max_length` in any case.
        prefix: the tokens each output must begin with, maybe none; they count in its length, score and n-grams.
        suppress: tokens that no output has.
        source_lengths: for the coverage term and to cut the attention; `inputs.lengths` where there are such.

    Raises:
        InputError: options that the sentences, the prefix or the model cannot meet.
    """
    search = _Search(models, inputs, options, bos_id, eos_id, suppress, with_tree=False)
    history, B, sources = search.run(inputs, max_lengths, prefix, source_lengths, batch_size)
    return history.hypotheses(B, n_best=options.n_best, source_lengths=sources)


def beam_search_trees(
    models: StepModel | Sequence[StepModel],
    inputs: Any,
    options: BeamOptions,
    *,
    bos_id: int,
    eos_id: int,
    max_lengths: Int[Tensor, " B"] | None = None,
    prefix: Sequence[Sequence[int]] | None = None,
    suppress: Sequence[int] = (),
    source_lengths: Int[Tensor, " B"] | None = None,
    batch_size: int | None = None,
) -> tuple[list[list[Hypothesis]], list[SearchTree]]:
    """`beam_search`, and with it everything that each sentence's search ranked."""
    search = _Search(models, inputs, options, bos_id, eos_id, suppress, with_tree=True)
    history, B, sources = search.run(inputs, max_lengths, prefix, source_lengths, batch_size)
    found = history.hypotheses(B, n_best=options.n_best, source_lengths=sources)
    return found, history.trees(B, eos_id=eos_id)


@dataclass
class Sentences:
    """What belongs to the sentences still searched, a row each."""

    limits: Int[Tensor, " B"]  # most steps
    prefix: Int[Tensor, "B P"]  # -1 behind each end
    source_lengths: Int[Tensor, " B"] | None
    coverage: Float[Tensor, "B K S"] | None = None  # attention so far
    outputs: Int[Tensor, "B K T"] | None = None  # tokens so far

    def keep(self, rows: Int[Tensor, " B2"]) -> Sentences:
        """These rows alone."""
        return Sentences(*(None if value is None else value[rows] for value in vars(self).values()))  # type: ignore[arg-type]

    def forced(self, step: int) -> Int[Tensor, " B"] | None:
        """The token each prefix asks for at a step counted from 0."""
        return self.prefix[:, step] if step < self.prefix.shape[1] else None


class _Search:
    """A search with everything that holds for all its steps."""

    def __init__(
        self,
        models: StepModel | Sequence[StepModel],
        inputs: Any,
        options: BeamOptions,
        bos_id: int,
        eos_id: int,
        suppress: Sequence[int],
        *,
        with_tree: bool,
    ) -> None:
        several = list(models) if isinstance(models, Sequence) else [models]
        self.model: StepModel = several[0] if len(several) == 1 else Ensemble(several)
        self.device = device_of(several[0], inputs) if several else torch.device("cpu")
        self.options = options
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.with_tree = with_tree
        self.suppress = torch.tensor([*suppress], dtype=torch.int64, device=self.device)
        self.penalty, self.alpha = parse_length_penalty(options.length_penalty)
        self.width = options.beam_size // options.diverse_groups
        patience = options.patience if options.stopping == "patience" else 1.0
        self.enough = math.ceil(patience * self.width)
        self.pool_size = max(self.width, self.enough)

    @torch.inference_mode()
    def run(
        self,
        inputs: Any,
        max_lengths: Tensor | None,
        prefix: Sequence[Sequence[int]] | None,
        source_lengths: Tensor | None,
        batch_size: int | None,
    ) -> tuple[History, int, list[int] | None]:
        """Searches until every sentence has left; the history, the number of sentences, and their source lengths."""
        if source_lengths is None:
            source_lengths = getattr(inputs, "lengths", None)
        B = count_sentences(inputs, max_lengths, prefix, source_lengths, batch_size)
        sources = None if source_lengths is None else source_lengths.tolist()
        history = History(with_tree=self.with_tree)
        if B == 0:
            return history, B, sources
        limits = step_limits(B, self.options, max_lengths)
        rows = Sentences(
            limits=torch.tensor(limits, device=self.device),
            prefix=prefix_table(B, prefix, limits, eos_id=self.eos_id).to(self.device),
            source_lengths=None if source_lengths is None else source_lengths.to(self.device),
        )
        state = self.model.start(inputs)
        groups = [
            BeamState.start(B, pool_size=self.pool_size, device=self.device) for _ in range(self.options.diverse_groups)
        ]
        tokens = torch.full((B, 1), self.bos_id, device=self.device)
        active = list(range(B))
        place = {sentence: row for row, sentence in enumerate(active)}
        step = 0
        while active:
            output = self.model.step(tokens, state)
            if step == 0:
                self._check_output(output, rows)
            before, groups = groups, self._advance(output, groups, rows, step)
            step += 1
            history.record(place, groups, output.attention if self.options.return_attention else None)
            stays, endings = self._endings(groups, rows.limits, step, active)
            for earlier in (False, True):
                leaving = [ending for ending in endings if (ending.steps < step) == earlier]
                history.end(leaving, before if earlier else groups)
            state, parents = output.state, side_by_side([group.parents for group in groups])
            if endings:
                if not stays:
                    break
                kept = torch.tensor(stays, device=self.device)
                state, parents, rows = self.model.keep(state, kept), parents[kept], rows.keep(kept)
                groups = [BeamState(*(value[kept] for value in group)) for group in groups]
                active = [active[row] for row in stays]
                place = {sentence: row for row, sentence in enumerate(active)}
            tokens = side_by_side([group.tokens for group in groups])
            self._follow(rows, parents, tokens)
            state = self.model.reorder(state, parents)
        return history, B, sources

    def _check_output(self, output: StepOutput, rows: Sentences) -> None:
        """What can be known to be wrong once the model has spoken."""
        V = output.logits.shape[-1]
        for name, token in (("bos_id", self.bos_id), ("eos_id", self.eos_id)):
            if not 0 <= token < V:
                raise InputError(f"decode: `{name}` must be a token below {V}, got {token}")
        if rows.prefix.numel() and int(rows.prefix.max()) >= V:
            raise InputError(f"decode: `prefix` must be of tokens below {V}, got {int(rows.prefix.max())}")
        if self.options.coverage_penalty > 0 and (output.attention is None or rows.source_lengths is None):
            raise InputError("decode: `coverage_penalty` must be 0 for a model without attention or source lengths")
        if self.options.return_attention and output.attention is None:
            raise InputError("decode: `return_attention` must be off for a model without attention")

    def _advance(self, output: StepOutput, groups: list[BeamState], rows: Sentences, step: int) -> list[BeamState]:
        """The next state of each group; a later group ranks the words of the earlier ones lower."""
        if self.options.coverage_penalty > 0 and output.attention is not None:
            received = output.attention if rows.coverage is None else rows.coverage + output.attention
            rows.coverage = received
            offset = self._coverage(received, rows)
        else:
            offset = None
        banned = self._banned(output.logits, rows)
        forced = rows.forced(step)
        advanced: list[BeamState] = []
        for index, group in enumerate(groups):
            # Before the first step all groups share one row.
            beams = (
                slice(None) if len(groups) == 1 or step == 0 else slice(index * self.width, (index + 1) * self.width)
            )
            advanced.append(
                beam_step(
                    output.logits[:, beams],
                    group,
                    eos=self.eos_id,
                    beam_size=self.width,
                    length_penalty=self.penalty,
                    alpha=self.alpha,
                    count_eos=self.options.count_eos,
                    min_length=self.options.min_length,
                    offset=None if offset is None else offset[:, beams],
                    forced=forced,
                    banned=None if banned is None else banned[:, beams],
                    penalised=_taken(advanced) if index else None,
                    penalty=self.options.diversity if index else 0.0,
                    first_beam=0 if step == 0 else index * self.width,
                )
            )
        if len(groups) == 1:
            return advanced
        # A group that has stopped waits for the others without live beams.
        met = [self._rule_met(group, rows.limits)[:, None] for group in advanced]
        return [
            group._replace(logp=group.logp.masked_fill(stopped, NEVER))
            for group, stopped in zip(advanced, met, strict=True)
        ]

    def _coverage(self, received: Tensor, rows: Sentences) -> Tensor:
        assert rows.source_lengths is not None
        return coverage_penalty(received, rows.source_lengths, beta=self.options.coverage_penalty)

    def _banned(self, logits: Tensor, rows: Sentences) -> Int[Tensor, "B K M"] | None:
        """The tokens that no output has and those that would repeat an n-gram."""
        B, K, _ = logits.shape
        parts = [self.suppress.expand(B, K, -1)] if self.suppress.numel() else []
        if rows.outputs is not None:
            parts.append(repeating_tokens(rows.outputs, self.options.no_repeat_ngram))
        return torch.cat(parts, dim=2) if parts else None

    def _rule_met(self, group: BeamState, limits: Int[Tensor, " B"]) -> Bool[Tensor, " B"]:
        """Where the stopping rule lets a sentence stop."""
        if self.options.stopping != "exhaustive":
            return group.n_finished >= self.enough
        last = group.finished_scores[:, min(self.options.n_best, self.width) - 1]
        ceiling = length_divisor(limits, length_penalty=self.penalty, alpha=self.alpha) * (1.0 + 1e-6)
        return (last > NEVER) & (last >= group.logp.amax(dim=1) / ceiling)

    def _endings(
        self, groups: list[BeamState], limits: Int[Tensor, " B"], step: int, active: list[int]
    ) -> tuple[list[int], list[Ending]]:
        """The rows that stay and the sentences that leave: the one place of a step that waits for the device."""
        met = torch.stack([self._rule_met(group, limits) for group in groups])
        dead = torch.stack([group.logp.amax(dim=1) == NEVER for group in groups])
        nothing = torch.stack([group.n_finished == 0 for group in groups])
        stop = (met | dead).all(dim=0)
        facts = torch.stack([stop, (dead & nothing).all(dim=0), step >= limits], dim=1)
        stays, endings = [], []
        for row, (stops, stuck, full) in enumerate(facts.tolist()):
            if not stops and not full:
                stays.append(row)
            elif stuck:
                endings.append(Ending(active[row], row, step - 1, closed=True))
            else:
                endings.append(Ending(active[row], row, step, closed=not stops))
        return stays, endings

    def _follow(self, rows: Sentences, parents: Int[Tensor, "B K"], tokens: Int[Tensor, "B K"]) -> None:
        """Lets what is kept of each hypothesis follow its beam."""
        if rows.coverage is not None:
            rows.coverage = _take(rows.coverage, parents)
        if self.options.no_repeat_ngram:
            earlier = tokens.new_zeros(*tokens.shape, 0) if rows.outputs is None else _take(rows.outputs, parents)
            rows.outputs = torch.cat([earlier, tokens[:, :, None]], dim=2)


def count_sentences(
    inputs: Any,
    max_lengths: Tensor | None,
    prefix: Sequence[Sequence[int]] | None,
    source_lengths: Tensor | None,
    batch_size: int | None,
) -> int:
    """How many sentences there are, from whatever says so.

    Raises:
        InputError: nothing does, or two disagree.
    """
    said = {
        "max_lengths": None if max_lengths is None else max_lengths.shape[0],
        "prefix": None if prefix is None else len(prefix),
        "batch_size": batch_size,
        "source_lengths": None if source_lengths is None else source_lengths.shape[0],
        "inputs": inputs.shape[0] if isinstance(inputs, Tensor) and inputs.ndim else None,
    }
    known = {name: count for name, count in said.items() if count is not None}
    if not known:
        raise InputError(
            "decode: `batch_size` must be given when neither the inputs nor `max_lengths` tell it, got none"
        )
    if len(set(known.values())) > 1:
        counts = ", ".join(f"{count} in `{name}`" for name, count in known.items())
        raise InputError(f"decode: the number of sentences must be one, got {counts}")
    return next(iter(known.values()))


def step_limits(B: int, options: LengthOptions, max_lengths: Tensor | None) -> list[int]:
    """Most steps of each sentence.

    Raises:
        InputError: one is below 1.
    """
    limits = [options.max_length] * B
    if max_lengths is not None:
        limits = [min(int(length), options.max_length) for length in max_lengths.tolist()]
    if min(limits, default=1) < 1:
        raise InputError(f"decode: `max_lengths` must be at least 1, got {min(limits)}")
    return limits


def prefix_table(
    B: int, prefix: Sequence[Sequence[int]] | None, limits: list[int], *, eos_id: int
) -> Int[Tensor, "B P"]:
    """The prefixes side by side, -1 behind each end.

    Raises:
        InputError: a prefix does not fit its sentence's limit, or holds the end symbol or no token.
    """
    if prefix is None:
        return torch.zeros(B, 0, dtype=torch.int64)
    for sentence, (tokens, limit) in enumerate(zip(prefix, limits, strict=True)):
        if len(tokens) > limit:
            raise InputError(
                f"decode: `prefix` must fit the maximum length of sentence {sentence} ({limit}), got {len(tokens)}"
            )
        if any(token < 0 or token == eos_id for token in tokens):
            raise InputError(f"decode: `prefix` must be of tokens other than the end symbol, got {list(tokens)}")
    longest = max((len(tokens) for tokens in prefix), default=0)
    table = [[*tokens, *[-1] * (longest - len(tokens))] for tokens in prefix]
    return torch.tensor(table, dtype=torch.int64).view(B, longest)


def repeating_tokens(outputs: Int[Tensor, "B K T"], n: int) -> Int[Tensor, "B K M"]:
    """The tokens that would complete an n-gram the output already holds; -1 where one does not.

    A token y_i follows its n-1 predecessors; where those equal the last n-1 tokens, y_i may not come now.
    """
    B, K, T = outputs.shape
    if n > T:
        return outputs.new_empty(B, K, 0)
    if n == 1:
        return outputs
    contexts = outputs.unfold(2, n - 1, 1)  # B K T-n+2 n-1; the last one is the current context
    same = (contexts[:, :, :-1] == contexts[:, :, -1:]).all(dim=3)
    return outputs[:, :, n - 1 :].masked_fill(~same, -1)


def _taken(groups: list[BeamState]) -> Int[Tensor, "B N"]:
    """The words that the groups' live beams took in this step; -1 for an empty beam."""
    return torch.cat([group.tokens.masked_fill(group.logp == NEVER, -1) for group in groups], dim=1)


def _take(values: Tensor, parents: Int[Tensor, "B K"]) -> Tensor:
    """values[b, parents[b, j]]"""
    return values[torch.arange(values.shape[0], device=values.device)[:, None], parents]
