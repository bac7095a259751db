"""What a search or a sampling run can be told, as frozen dataclasses.

Nothing here imports torch: the command line makes its flags from these fields and must answer `--help` at once.

Two choices move every score and every output, and no two toolkits agree on them, so both are options here and their
help says the rule: whether |Y| counts the end symbol, and when a search stops.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqkit.config import option
from seqkit.errors import InputError

PENALTIES = ("none", "power", "gnmt")
STOPPING = ("first", "patience", "exhaustive")
DEFAULT_ALPHA = {"none": 0.0, "power": 0.7, "gnmt": 0.6}


def parse_length_penalty(text: str) -> tuple[str, float]:
    """The kind and the exponent α in ``kind`` or ``kind:alpha``, such as ``power:0.7``.

    Raises:
        InputError: the kind is unknown, or α is not a number ≥ 0.
    """
    kind, colon, number = text.partition(":")
    if kind not in PENALTIES or (kind == "none" and colon):
        raise InputError(f"decode: `length_penalty` must be `none`, `power:ALPHA` or `gnmt:ALPHA`, got {text!r}")
    try:
        alpha = float(number) if colon else DEFAULT_ALPHA[kind]
    except ValueError:
        alpha = -1.0
    if not 0.0 <= alpha < float("inf"):
        raise InputError(f"decode: `length_penalty` must have a finite ALPHA of at least 0, got {text!r}")
    return kind, alpha


@dataclass(frozen=True, kw_only=True)
class LengthOptions:
    """How long an output may become; shared by search and sampling."""

    min_length: int = option(0, "the end symbol is forbidden until an output has this many symbols")
    max_length: int = option(
        200, "most steps for one output; the end symbol takes one, and an output cut here has none"
    )
    max_length_ratio: float = option(0.0, "with a ratio above 0, most steps are also RATIO x source length + EXTRA")
    max_length_extra: int = option(10, "the EXTRA steps of `max_length_ratio`")
    no_repeat_ngram: int = option(0, "no output holds the same run of this many symbols twice; 0 allows all")

    def __post_init__(self) -> None:
        _at_least(0, min_length=self.min_length, no_repeat_ngram=self.no_repeat_ngram)
        _at_least(0, max_length_ratio=self.max_length_ratio, max_length_extra=self.max_length_extra)
        _at_least(1, max_length=self.max_length)
        if self.min_length >= self.max_length:
            raise InputError(
                f"decode: `min_length` must be below `max_length` ({self.max_length}), got {self.min_length}"
            )

    def step_limit(self, source_length: int) -> int:
        """Most steps for a source of this length: at least 1."""
        if self.max_length_ratio <= 0.0:
            return self.max_length
        return max(1, min(self.max_length, int(self.max_length_ratio * source_length) + self.max_length_extra))


@dataclass(frozen=True, kw_only=True)
class BeamOptions(LengthOptions):
    """How a beam search ranks and when it stops."""

    beam_size: int = option(5, "live hypotheses a sentence, K")
    n_best: int = option(1, "outputs returned a sentence, at most `beam_size`")
    length_penalty: str = option(
        "power:0.7",
        "score = log-probability / penalty: `none`, `power:A` (|Y|^A), or `gnmt:A` (((5+|Y|)/6)^A, Wu et al. 2016)",
    )
    count_eos: bool = option(
        True, "|Y| counts the end symbol, as it does in Marian, fairseq, Transformers and CTranslate2 4"
    )
    coverage_penalty: float = option(
        0.0, "adds BETA x sum over source positions of log(min(attention received, 1)) to a finished score (GNMT's cp)"
    )
    stopping: str = option(
        "first",
        "when a sentence is done: `first`: beam_size outputs have ended (fairseq); `patience`: patience x beam_size "
        "have ended (Kasai et al. 2022, CTranslate2); `exhaustive`: no live hypothesis can still reach the n best. "
        "An output ends only when its end symbol ranks among the beam_size best continuations",
        choices=STOPPING,
    )
    patience: float = option(1.0, "the factor of `--stopping patience`")
    diverse_groups: int = option(1, "the beam is searched in this many groups, each kept from the earlier ones' words")
    diversity: float = option(
        0.5, "a word's log-probability is lowered by this in ranking for each earlier group's beam that took it"
    )
    return_attention: bool = option(False, "keep the attention over the source for each symbol")

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(1, beam_size=self.beam_size, n_best=self.n_best, diverse_groups=self.diverse_groups)
        _at_least(0, coverage_penalty=self.coverage_penalty, diversity=self.diversity)
        parse_length_penalty(self.length_penalty)
        if self.n_best > self.beam_size:
            raise InputError(f"decode: `n_best` must be at most `beam_size` ({self.beam_size}), got {self.n_best}")
        if self.stopping not in STOPPING:
            raise InputError(f"decode: `stopping` must be one of {', '.join(STOPPING)}, got {self.stopping!r}")
        if not 0.0 < self.patience < float("inf"):
            raise InputError(f"decode: `patience` must be above 0, got {self.patience}")
        if self.beam_size % self.diverse_groups:
            raise InputError(
                f"decode: `diverse_groups` must divide `beam_size` ({self.beam_size}), got {self.diverse_groups}"
            )


@dataclass(frozen=True, kw_only=True)
class SampleOptions(LengthOptions):
    """How symbols are drawn.

    Reference: Holtzman et al. 2020, section 3, arXiv:1904.09751 (nucleus); Fan et al. 2018, section 5.4,
    arXiv:1805.04833 (top-k).
    """

    temperature: float = option(1.0, "logits are divided by this before the softmax; 0 takes the best symbol")
    top_k: int = option(0, "draw among this many likeliest symbols; 0 is all of them")
    top_p: float = option(1.0, "draw among the fewest likeliest symbols that hold this much probability (nucleus)")
    n_samples: int = option(1, "outputs drawn a sentence")
    seed: int = option(0, "a sentence's draws depend on this and on its index alone")

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(0, temperature=self.temperature, top_k=self.top_k, seed=self.seed)
        _at_least(1, n_samples=self.n_samples)
        if not 0.0 < self.top_p <= 1.0:
            raise InputError(f"decode: `top_p` must be above 0 and at most 1, got {self.top_p}")


def _at_least(least: int, **values: float | int) -> None:
    for name, value in values.items():
        if not least <= value < float("inf"):
            raise InputError(f"decode: `{name}` must be at least {least}, got {value}")
