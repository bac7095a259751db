"""A language model of words for a search over labels: a back-off automaton of words, and how the words are spelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Int32
from torch import Tensor

from seqkit.errors import InputError
from seqkit.ops.backoff_automaton import ArrayCopies, BackoffAutomaton, arrays_on


@dataclass(frozen=True, kw_only=True, eq=False)
class WordModel:
    """What a search asks when labels spell words; `WordModel.spelled` makes it.

    The lexicon is a tree whose node 0 is the empty word. A word ends at `space` or at the end of the sequence, and is
    scored then; a space behind a space ends nothing.
    """

    words: BackoffAutomaton
    first: Int32[Tensor, " starts"]  # where the arcs of a node of the lexicon begin
    labels: Int32[Tensor, " L"]  # sorted in each node
    next: Int32[Tensor, " L"]
    ends: Int32[Tensor, " M"]  # the word that ends at a node, or -1
    space: int
    unknown: int
    unknown_score: float
    _copies: ArrayCopies = field(init=False, repr=False, default_factory=dict)

    @classmethod
    def spelled(
        cls,
        words: BackoffAutomaton,
        spellings: Sequence[Sequence[int]],
        *,
        space: int,
        unknown: int,
        unknown_score: float = -10.0,
    ) -> WordModel:
        """The model with its lexicon.

        Args:
            words: of words; `weighted` gives it its weight and the bonus of a word.
            spellings: the labels of each word, in the order of its number; empty for one that no labels spell, such as
                the end symbol. Of words that are spelled alike, the first counts.
            space: the label between words.
            unknown: the word that stands for all that are not spelled.
            unknown_score: what a word that is not spelled is given beside its score, from the label on that makes it
                unknown.

        Raises:
            InputError: there are more spellings than words, a label is negative or a space, a number is out of range.
        """
        where = "WordModel.spelled"
        if len(spellings) > words.n_symbols:
            raise InputError(f"{where}: spellings must be at most one a word, {words.n_symbols}, got {len(spellings)}")
        if not 0 <= unknown < words.n_symbols:
            raise InputError(f"{where}: unknown must be from 0 to {words.n_symbols - 1}, got {unknown}")
        if not math.isfinite(unknown_score):
            raise InputError(f"{where}: unknown_score must be finite, got {unknown_score}")
        if space < 0:
            raise InputError(f"{where}: space must be a label, got {space}")
        parents, labels, ends = [-1], [-1], [-1]
        path = [0]  # the nodes of the word before, whose labels the next one may share
        before: tuple[int, ...] = ()
        for spelling, word in sorted((tuple(spelling), word) for word, spelling in enumerate(spellings) if spelling):
            shared = 0
            for a, b in zip(before, spelling, strict=False):
                if a != b:
                    break
                shared += 1
            del path[shared + 1 :]
            for label in spelling[shared:]:
                if label < 0 or label == space:
                    raise InputError(f"{where}: a spelling must be of labels and no space, got {list(spelling)}")
                parents.append(path[-1])
                labels.append(label)
                ends.append(-1)
                path.append(len(parents) - 1)
            if ends[path[-1]] < 0:
                ends[path[-1]] = word
            before = spelling
        above = torch.tensor(parents[1:], dtype=torch.int64)
        order = above.argsort(stable=True)  # a node's children were made in the order of their labels
        counts = torch.bincount(above, minlength=len(parents)) if len(above) else torch.zeros(1, dtype=torch.int64)
        return cls(
            words=words,
            first=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]).to(torch.int32),
            labels=torch.tensor(labels[1:], dtype=torch.int32)[order],
            next=(order + 1).to(torch.int32),
            ends=torch.tensor(ends, dtype=torch.int32),
            space=space,
            unknown=unknown,
            unknown_score=float(unknown_score),
        )

    def tensors(self, device: torch.device | None = None) -> list[Tensor]:
        """The arrays of the lexicon in the order in which the kernel takes them; by default on the CPU."""
        arrays = [self.first, self.labels, self.next, self.ends]
        return arrays if device is None else arrays_on(device, arrays, self._copies)

    @cached_property
    def _arcs(self) -> dict[tuple[int, int], int]:
        first, labels, after, _ = (x.tolist() for x in self.tensors())
        return {
            (node, labels[arc]): after[arc]
            for node in range(len(first) - 1)
            for arc in range(first[node], first[node + 1])
        }

    @cached_property
    def _ends(self) -> list[int]:
        ends: list[int] = self.ends.tolist()
        return ends

    def spell(self, node: int, label: int) -> int:
        """The node of the lexicon after one more label of a word; -1 where no word goes on like that."""
        return self._arcs.get((node, label), -1)

    def word(self, node: int) -> int:
        """The word that ends at a node of the lexicon, or -1."""
        return -1 if node < 0 else self._ends[node]
