"""From what a search wrote down at each step to its hypotheses and its trees, once, after the search.

During a search no object stands for a hypothesis and nothing is copied from the device: a step leaves its parents,
tokens and log-probabilities, and a sentence that stops leaves its pool of ended hypotheses and its live beams. Walking
back from there gives the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqkit.decode.step import Hypothesis
from seqkit.ops.beam_step import BeamState

NEVER = float("-inf")


@dataclass(frozen=True)
class SearchNode:
    """One candidate of a search. Its place in `SearchTree.nodes` is its number."""

    step: int  # from 1
    parent: int  # the number of the node it continues; -1 in the first step
    token: int
    logprob: float  # of all tokens up to this one
    score: float  # normalised
    fate: str  # live, finished or pruned


@dataclass(frozen=True)
class SearchTree:
    """Every candidate that a search ranked for a sentence: 2K a step, best first; JSON with `dataclasses.asdict`."""

    nodes: list[SearchNode]


@dataclass(frozen=True)
class Ending:
    """A sentence that leaves the search."""

    sentence: int
    row: int  # in the state it leaves with
    steps: int  # the length of that state's live hypotheses
    closed: bool  # they count as outputs, without an end symbol


@dataclass(frozen=True)
class _End:
    """Where a walk back starts: a live hypothesis of this length, and the end symbol it got, if it got one."""

    score: float
    logprob: float
    length: int
    beam: int
    eos_logp: float | None


class History:
    """What the steps of one search left behind. A search in G groups is G states side by side."""

    def __init__(self, *, with_tree: bool) -> None:
        self.with_tree = with_tree
        self.places: list[dict[int, int]] = []  # a step: sentence -> row
        self.parents: list[Tensor] = []  # a step: B K
        self.tokens: list[Tensor] = []
        self.token_logp: list[Tensor] = []
        self.attention: list[Tensor] = []  # a step: B K S, of the beams before the step
        self.candidates: list[list[Tensor]] = []  # a step: a group: B 4 C
        self.endings: list[tuple[list[Ending], list[Tensor]]] = []

    def record(self, place: dict[int, int], groups: list[BeamState], attention: Tensor | None) -> None:
        """Keeps one step."""
        self.places.append(place)
        self.parents.append(side_by_side([group.parents for group in groups]))
        self.tokens.append(side_by_side([group.tokens for group in groups]))
        self.token_logp.append(side_by_side([group.token_logp for group in groups]))
        if attention is not None:
            self.attention.append(attention)
        if self.with_tree:
            self.candidates.append([_candidates(group) for group in groups])

    def end(self, endings: list[Ending], groups: list[BeamState]) -> None:
        """Keeps the sentences that leave with this state."""
        if endings:
            self.endings.append((endings, [_pool_and_live(group) for group in groups]))

    def hypotheses(self, n_sentences: int, *, n_best: int, source_lengths: list[int] | None) -> list[list[Hypothesis]]:
        """The n best of each sentence, best score first; of equal ones the earlier ended, and ended before closed."""
        results: list[list[Hypothesis]] = [[] for _ in range(n_sentences)]
        walker = _Walker(self, source_lengths)
        for endings, values in self.endings:
            rows = [part.tolist() for part in values]
            for ending in endings:
                ends = [end for group, part in enumerate(rows) for end in _ends(part[ending.row], ending, group)]
                ends.sort(key=lambda end: -end.score)  # stable
                results[ending.sentence] = [walker.walk(ending.sentence, end) for end in ends[:n_best]]
        return results

    def trees(self, n_sentences: int, *, eos_id: int) -> list[SearchTree]:
        """The tree of each sentence; empty without `with_tree`."""
        steps = [[group.tolist() for group in groups] for groups in self.candidates]
        return [SearchTree(nodes=self._nodes(sentence, steps, eos_id)) for sentence in range(n_sentences)]

    def _nodes(self, sentence: int, steps: list[list[list[list[list[float]]]]], eos_id: int) -> list[SearchNode]:
        nodes: list[SearchNode] = []
        live = dict.fromkeys(range(self.parents[0].shape[1]), -1) if steps else {}
        for step, (place, groups) in enumerate(zip(self.places, steps, strict=True), start=1):
            if sentence not in place:
                break
            width = self.parents[step - 1].shape[1] // len(groups)
            following: dict[int, int] = {}
            for group, rows in enumerate(groups):
                n_live = 0
                for rank, (parent, token, logp, score) in enumerate(zip(*rows[place[sentence]], strict=True)):
                    if logp == NEVER:
                        break
                    fate = "pruned"
                    if int(token) == eos_id:
                        fate = "finished" if rank < width else "pruned"
                    elif n_live < width:
                        fate = "live"
                        following[group * width + n_live] = len(nodes)
                        n_live += 1
                    nodes.append(SearchNode(step, live[int(parent)], int(token), logp, score, fate))
            live = following
        return nodes


def side_by_side(parts: list[Tensor]) -> Tensor:
    """The groups' beams as one beam."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _candidates(group: BeamState) -> Tensor:
    columns = (group.candidate_parents, group.candidate_tokens, group.candidate_logp, group.candidate_scores)
    return torch.stack([column.double() for column in columns], dim=1)


def _pool_and_live(group: BeamState) -> Tensor:
    """[B, 4, F + K] in doubles, which hold every float and every small integer exactly: score, log-probability, length
    and beam of the pool's hypotheses, then of the live; and the end symbol's log-probability, NaN for the live."""
    K = group.logp.shape[1]
    lengths = group.lengths[:, None].expand(-1, K)
    first = torch.arange(K, device=group.logp.device).expand(lengths.shape)
    return torch.stack(
        [
            torch.cat([group.finished_scores, group.scores], dim=1).double(),
            torch.cat([group.finished_logp, group.logp], dim=1).double(),
            torch.cat([group.finished_lengths, lengths], dim=1).double(),
            torch.cat([group.finished_beams, first], dim=1).double(),
            torch.cat([group.finished_eos_logp, torch.full_like(group.logp, float("nan"))], dim=1).double(),
        ],
        dim=1,
    )


def _ends(rows: list[list[float]], ending: Ending, group: int) -> list[_End]:
    """The hypotheses of one group that a sentence leaves with."""
    ends = []
    width = 0
    for score, logp, length, beam, eos_logp in zip(*rows, strict=True):
        is_live = eos_logp != eos_logp  # NaN
        width += is_live
        if logp == NEVER or (is_live and not ending.closed):
            continue
        ends.append(_End(score, logp, int(length), int(beam), None if is_live else eos_logp))
    if not group:
        return ends
    # Live beams are numbered within their group, the pool counts through all. The empty hypothesis is group 0's.
    return [
        end if end.eos_logp is not None else _End(end.score, end.logprob, end.length, end.beam + group * width, None)
        for end in ends
        if end.length
    ]


class _Walker:
    """Walks from the end of a hypothesis to its first token."""

    def __init__(self, history: History, source_lengths: list[int] | None) -> None:
        self.places = history.places
        self.parents = _lists(history.parents)
        self.tokens = _lists(history.tokens)
        self.token_logp = _lists(history.token_logp)
        self.attention = [step.cpu() for step in history.attention]
        self.source_lengths = source_lengths

    def walk(self, sentence: int, end: _End) -> Hypothesis:
        tokens: list[int] = []
        logp = [] if end.eos_logp is None else [end.eos_logp]
        attention: list[Tensor] = []
        beam = end.beam
        for step in range(end.length - 1, -1, -1):
            row = self.places[step][sentence]
            tokens.append(self.tokens[step][row][beam])
            logp.append(self.token_logp[step][row][beam])
            beam = self.parents[step][row][beam]
            if self.attention:
                attention.append(self.attention[step][row, beam])
        return Hypothesis(
            tokens=tokens[::-1],
            ended=end.eos_logp is not None,
            logprob=end.logprob,
            score=end.score,
            token_logprobs=logp[::-1],
            attention=self._attention(sentence, attention[::-1]),
        )

    def _attention(self, sentence: int, rows: list[Tensor]) -> Tensor | None:
        if not self.attention:
            return None
        stacked = torch.stack(rows).float() if rows else self.attention[0].new_zeros(0, self.attention[0].shape[2])
        return stacked if self.source_lengths is None else stacked[:, : self.source_lengths[sentence]].clone()


def _lists(steps: list[Tensor]) -> list[list[list[Any]]]:
    """The steps as nested lists, through one transfer."""
    if not steps:
        return []
    values = torch.cat([step.flatten() for step in steps]).tolist()
    nested = []
    start = 0
    for step in steps:
        rows, width = step.shape
        nested.append([values[start + row * width : start + (row + 1) * width] for row in range(rows)])
        start += rows * width
    return nested
