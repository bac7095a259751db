"""A back-off automaton: what an n-gram model, or a list of hot words, gives each symbol of a sequence.

A state's arcs, sorted by their symbol, have scores and next states. A symbol that has no arc costs the state's
back-off and is looked up from the state's suffix, a lower state; state 0 has one arc for each symbol, in order. That is
an n-gram model as it is stored (Katz 1987), and a matcher of phrases too (Aho and Corasick 1975): an arc gives a part
of the bonus and a back-off takes it away. So a search knows one thing: csrc/ctc_beam reads these arrays as they are,
and Python walks them in `follow`, which is the definition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from seqkit.errors import InputError

ArrayCopies = dict[torch.device, list[Tensor]]
INDICES = ("first", "symbols", "next", "suffix")
NUMBERS = ("scores", "backoff", "final")


def arrays_on(device: torch.device, arrays: list[Tensor], copies: ArrayCopies) -> list[Tensor]:
    """The arrays of a model, which stand on the CPU, on a device; those of a card are copied once."""
    if device.type == "cpu":
        return arrays
    if torch.compiler.is_compiling():  # a copy that a trace makes is not a tensor to keep
        return [x.to(device) for x in arrays]
    if device not in copies:
        copies[device] = [x.to(device) for x in arrays]
    return copies[device]


@dataclass(frozen=True, kw_only=True, eq=False)
class BackoffAutomaton:
    """The arrays: S states, A arcs; indices are int32, scores float32.

    Raises:
        InputError: shapes or dtypes do not fit, an index is out of range, a suffix is not below its state, or state 0
            lacks a symbol.
    """

    first: Int32[Tensor, " starts"]  # where the arcs of a state begin
    symbols: Int32[Tensor, " A"]  # sorted in each state
    scores: Float[Tensor, " A"]
    next: Int32[Tensor, " A"]
    backoff: Float[Tensor, " S"]
    suffix: Int32[Tensor, " S"]
    final: Float[Tensor, " S"]  # what the end of the sequence adds
    start: int = 0
    n_symbols: int = field(init=False)  # an int, not read off a tensor, so that a search can be traced
    _copies: ArrayCopies = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        where = "BackoffAutomaton"
        for name in (*INDICES, *NUMBERS):
            x = getattr(self, name)
            wanted = torch.int32 if name in INDICES else torch.float32
            if not isinstance(x, Tensor) or x.ndim != 1 or x.dtype != wanted or not x.is_contiguous():
                got = f"{x.dtype} of {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
                raise InputError(f"{where}: {name} must be contiguous {wanted} with one axis, got {got}")
        states, arcs = len(self.backoff), len(self.symbols)
        for name, size in (
            ("first", states + 1),
            ("scores", arcs),
            ("next", arcs),
            ("suffix", states),
            ("final", states),
        ):
            if len(getattr(self, name)) != size:
                raise InputError(f"{where}: {name} must have {size} numbers, got {len(getattr(self, name))}")
        steps = self.first.diff()
        if states == 0 or self.first[0] != 0 or self.first[-1] != arcs or bool((steps < 0).any()):
            raise InputError(f"{where}: first must rise from 0 to {arcs} over at least one state")
        object.__setattr__(self, "n_symbols", int(self.first[1]))
        if not torch.equal(self.symbols[: self.n_symbols], torch.arange(self.n_symbols, dtype=torch.int32)):
            raise InputError(f"{where}: state 0 must have one arc for each symbol, in order")
        owner = torch.repeat_interleave(torch.arange(states), steps)
        falls = (self.symbols.diff() <= 0) & (owner.diff() == 0)
        if bool(falls.any()) or (arcs and not 0 <= int(self.symbols.min()) <= int(self.symbols.max()) < self.n_symbols):
            raise InputError(f"{where}: symbols must rise in each state and be below {self.n_symbols}")
        if arcs and not 0 <= int(self.next.min()) <= int(self.next.max()) < states:
            raise InputError(f"{where}: next must be from 0 to {states - 1}")
        if bool(((self.suffix < 0) | (self.suffix >= torch.arange(states).clamp(min=1))).any()):
            raise InputError(f"{where}: suffix must be a state below its own, and 0 for state 0")
        if not 0 <= self.start < states:
            raise InputError(f"{where}: start must be from 0 to {states - 1}, got {self.start}")
        for name in NUMBERS:
            x = getattr(self, name)
            if bool((x.isnan() | (x == torch.inf)).any()):
                raise InputError(f"{where}: {name} must be below infinity and not NaN")

    def tensors(self, device: torch.device | None = None) -> list[Tensor]:
        """The arrays in the order in which the kernel takes them; by default on the CPU."""
        arrays = [self.first, self.symbols, self.scores, self.next, self.backoff, self.suffix, self.final]
        return arrays if device is None else arrays_on(device, arrays, self._copies)

    def weighted(self, alpha: float, beta: float = 0.0) -> BackoffAutomaton:
        """alpha times every score, and beta for each symbol: a language model's weight and the bonus of a word.

        Raises:
            InputError: a weight is not finite, or alpha is negative.
        """
        if not (math.isfinite(alpha) and alpha >= 0 and math.isfinite(beta)):
            raise InputError(f"weighted: alpha must be finite and at least 0, and beta finite, got {alpha} and {beta}")
        return BackoffAutomaton(
            first=self.first,
            symbols=self.symbols,
            scores=self.scores * alpha + beta,
            next=self.next,
            backoff=self.backoff * alpha,
            suffix=self.suffix,
            final=self.final * alpha,
            start=self.start,
        )

    @cached_property
    def _lists(self) -> tuple[list[int], list[int], list[float], list[int], list[float], list[int], list[float]]:
        first, symbols, scores, after, backoff, suffix, final = (x.tolist() for x in self.tensors())
        return first, symbols, scores, after, backoff, suffix, final

    @cached_property
    def _arcs(self) -> dict[tuple[int, int], int]:
        first, symbols, *_ = self._lists
        return {
            (state, symbols[arc]): arc
            for state in range(len(first) - 1)
            for arc in range(first[state], first[state + 1])
        }

    def follow(self, state: int, symbol: int) -> tuple[float, int]:
        """The score of one symbol from a state, and the state behind it."""
        _, _, scores, after, backoff, suffix, _ = self._lists
        total = 0.0
        while (arc := self._arcs.get((state, symbol))) is None:
            total += backoff[state]
            state = suffix[state]
        return total + scores[arc], after[arc]

    def end(self, state: int) -> float:
        """What the end of the sequence adds in a state."""
        return self._lists[6][state]


def hot_word_automaton(
    phrases: Sequence[Sequence[int]],
    weights: float | Sequence[float],
    *,
    n_labels: int,
    space: int | None = None,
    prefixes: bool = False,
) -> BackoffAutomaton:
    """Gives a sequence of labels the weight of each phrase that it holds, in equal parts over the phrase's labels.

    A part that was given is taken away again where the phrase breaks off, so that only whole phrases count in the end.
    Of phrases that overlap, the one that began first counts, and the other only if that one breaks off.

    Args:
        phrases: labels, without blanks.
        weights: log-probability that a phrase adds, one for all or one each.
        n_labels: C of the frames.
        space: the label between words. A phrase must then begin where a word does and, unless `prefixes`, end where one
            ends.

    Raises:
        InputError: a phrase is empty or has a label out of range, a weight is not finite, or their numbers differ.
    """
    where = "hot_word_automaton"
    given = [float(weights)] * len(phrases) if isinstance(weights, int | float) else [float(w) for w in weights]
    if len(given) != len(phrases):
        raise InputError(f"{where}: weights must be one a phrase, got {len(given)} for {len(phrases)}")
    if space is not None and not 0 <= space < n_labels:
        raise InputError(f"{where}: space must be from 0 to {n_labels - 1}, got {space}")
    children: list[dict[int, int]] = [{}]
    values: list[float] = [0.0]  # given on the way to a node
    whole: dict[int, float] = {}  # of the nodes that end a phrase

    def grow(node: int, label: int, value: float) -> int:
        if label not in children[node]:
            children[node][label] = len(children)
            children.append({})
            values.append(value)
        child = children[node][label]
        values[child] = max(values[child], value) if value >= 0 else min(values[child], value)
        return child

    boundary = 0 if space is None else grow(0, space, 0.0)
    for phrase, weight in zip(phrases, given, strict=True):
        if not phrase or not all(0 <= label < n_labels for label in phrase):
            raise InputError(f"{where}: a phrase must be labels from 0 to {n_labels - 1}, got {list(phrase)}")
        if not math.isfinite(weight):
            raise InputError(f"{where}: weights must be finite, got {weight}")
        node = boundary
        for depth, label in enumerate(phrase, start=1):
            node = grow(node, label, weight * depth / len(phrase))
        if space is not None and not prefixes:
            node = grow(node, space, weight)
        whole[node] = weight

    # Nodes by depth, so that a suffix, which is shorter, is a lower state.
    order, number = [0], {0: 0}
    banked = [0.0] * len(children)  # of what was given, that which stays whatever follows
    for node in order:
        for child in children[node].values():
            banked[child] = whole.get(child, banked[node])
            number[child] = len(order)
            order.append(child)
    suffix = [0] * len(order)
    for node in order:
        for label, child in children[node].items():
            state = suffix[number[node]]
            while state and label not in children[order[state]]:
                state = suffix[state]
            found = children[order[state]].get(label)
            suffix[number[child]] = number[found] if found is not None and found != child else 0
    backoff = [banked[n] - values[n] + values[order[suffix[s]]] for s, n in enumerate(order)]
    backoff[0] = 0.0
    broken = [0.0] * len(order)  # what is taken away when nothing follows
    for state in range(1, len(order)):
        broken[state] = backoff[state] + broken[suffix[state]]
    first, symbols, scores, after = [0], [], [], []
    for node in order:
        labels = range(n_labels) if node == 0 else sorted(children[node])
        for label in labels:
            child = children[node].get(label, 0)
            symbols.append(label)
            scores.append(values[child] - values[node])
            after.append(number[child])
        first.append(len(symbols))

    def automaton(final: list[float]) -> BackoffAutomaton:
        return BackoffAutomaton(
            first=torch.tensor(first, dtype=torch.int32),
            symbols=torch.tensor(symbols, dtype=torch.int32),
            scores=torch.tensor(scores, dtype=torch.float32),
            next=torch.tensor(after, dtype=torch.int32),
            backoff=torch.tensor(backoff, dtype=torch.float32),
            suffix=torch.tensor(suffix, dtype=torch.int32),
            final=torch.tensor(final, dtype=torch.float32),
            start=number[boundary],
        )

    if space is None:
        return automaton(broken)
    closing = automaton(broken)
    moves = [closing.follow(state, space) for state in range(len(order))]  # the end closes a word
    return automaton([score + broken[state] for score, state in moves])
