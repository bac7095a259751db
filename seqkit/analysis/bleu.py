"""Corpus scores of translations: BLEU, chrF and TER, each with the signature that makes it comparable.

The arithmetic is sacrebleu's (Post 2018, arXiv:1804.08771), on detokenised text: scores that are computed on one's own
tokens differ by several points between papers, and a signature says how this one was made.

References are given as streams: ``references[r][i]`` is the r-th reference of sentence i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric
from sacrebleu.significance import PairedTest

from seqkit.errors import InputError


@dataclass(frozen=True)
class Score:
    """A corpus score and how it was computed."""

    name: str
    """BLEU, chrF2 (the digit is beta; ++ where words count) or TER"""
    value: float
    """in percent; TER, an error rate, may exceed 100"""
    signature: str
    """sacrebleu's signature: references, case, tokeniser, smoothing, version"""

    def __str__(self) -> str:
        return f"{self.name} = {self.value:.2f} ({self.signature})"


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same sentences, and whether their difference is more than chance."""

    baseline: Score
    system: Score
    baseline_interval: tuple[float, float]
    """mean of the baseline's scores over the resampled test sets, less and plus half the width of their middle 95 %"""
    system_interval: tuple[float, float]
    p_value: float
    """how often a difference as large as the one seen would come up if there were none"""

    def __str__(self) -> str:
        rows = ((self.baseline, self.baseline_interval), (self.system, self.system_interval))
        ranges = " -> ".join(f"{score.value:.2f} [{low:.2f}, {high:.2f}]" for score, (low, high) in rows)
        return f"{self.system.name}: {ranges}, p = {self.p_value:.4f} ({self.system.signature})"


def bleu(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenize: str = "13a",
    lowercase: bool = False,
) -> Score:
    """BLEU of a corpus: brevity penalty times the geometric mean of the clipped 1- to 4-gram precisions.

    Reference: Papineni et al. 2002, section 2.3; exponential smoothing of zero counts as in sacrebleu.

    Args:
        tokenize: sacrebleu's tokeniser: ``13a``, ``intl``, ``zh``, ``ja-mecab``, ``char``, ``none`` and others.

    Raises:
        InputError: there is no hypothesis or no reference, their numbers differ, or the tokeniser is unknown.
    """
    return _corpus_score(_bleu_metric(tokenize, lowercase), "bleu", hypotheses, references)


def chrf(hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, word_order: int = 0) -> Score:
    """chrF of a corpus: F-score (beta 2) of the character 1- to 6-grams, averaged over the orders.

    Reference: Popović 2015; with `word_order` 2 it is chrF++ of Popović 2017.

    Raises:
        InputError: there is no hypothesis or no reference, or their numbers differ.
    """
    if word_order < 0:
        raise InputError(f"chrf: word_order must be at least 0, got {word_order}")
    return _corpus_score(CHRF(word_order=word_order), "chrf", hypotheses, references)


def ter(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """TER of a corpus: edits (insertions, deletions, substitutions, shifts) a reference word; lower is better.

    Reference: Snover et al. 2006, section 3.

    Raises:
        InputError: there is no hypothesis or no reference, or their numbers differ.
    """
    return _corpus_score(TER(), "ter", hypotheses, references)


def paired_bootstrap(
    baseline: Sequence[str],
    system: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    metric: str = "bleu",
    n_samples: int = 1000,
) -> Comparison:
    """Compares two systems by resampling the test set with replacement, the same sentences for both.

    The p-value is the share of resampled sets, with one added above and below, on which the difference exceeds its own
    mean by more than the difference seen on the whole set.

    Reference: Koehn 2004, section 4; the centred two-sided statistic is that of Moses' script, as sacrebleu has it.
    Differs: equal scores have p = 1, where sacrebleu's strict comparison gives 1 / (n_samples + 1).
    The resampling is seeded: the same texts give the same answer (sacrebleu reads another seed from SACREBLEU_SEED).

    Args:
        metric: ``bleu``, ``chrf`` or ``ter``, with their default settings.

    Raises:
        InputError: the metric is unknown, `n_samples` is not positive, or the texts do not match as in `bleu`.
    """
    where = "paired_bootstrap"
    metrics: dict[str, Metric] = {"bleu": _bleu_metric("13a", False), "chrf": CHRF(), "ter": TER()}
    if metric not in metrics:
        raise InputError(f"{where}: metric must be bleu, chrf or ter, got {metric!r}")
    if n_samples < 1:
        raise InputError(f"{where}: n_samples must be at least 1, got {n_samples}")
    for hypotheses in (baseline, system):
        _check(where, hypotheses, references)
    test = PairedTest(
        [("baseline", baseline), ("system", system)],
        {metric: metrics[metric]},
        references,
        test_type="bs",
        n_samples=n_samples,
    )
    signatures, table = test()
    ((name, signature),) = signatures.items()
    first, second = table[name]
    return Comparison(
        baseline=Score(name, first.score, signature.format()),
        system=Score(name, second.score, signature.format()),
        baseline_interval=(float(first.mean - first.ci), float(first.mean + first.ci)),
        system_interval=(float(second.mean - second.ci), float(second.mean + second.ci)),
        p_value=float(second.p_value) if first.score != second.score else 1.0,
    )


def _bleu_metric(tokenize: str, lowercase: bool) -> BLEU:
    if tokenize not in BLEU.TOKENIZERS:
        raise InputError(f"bleu: tokenize must be one of {', '.join(sorted(BLEU.TOKENIZERS))}, got {tokenize!r}")
    return BLEU(tokenize=tokenize, lowercase=lowercase, force=True)  # force: no warning about lines that end in " ."


def _corpus_score(metric: Any, where: str, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    _check(where, hypotheses, references)
    result = metric.corpus_score(hypotheses, references)
    return Score(result.name, result.score, metric.get_signature().format())


def _check(where: str, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raises where sacrebleu would fail or, worse, score what fits."""
    if isinstance(hypotheses, str) or isinstance(references, str) or any(isinstance(r, str) for r in references):
        raise InputError(f"{where}: texts must be lists of sentences, and lists of those for references, got a string")
    if len(hypotheses) == 0:
        raise InputError(f"{where}: hypotheses must hold at least one sentence, got none")
    if len(references) == 0:
        raise InputError(f"{where}: references must hold at least one stream, got none")
    for reference in references:
        if len(reference) != len(hypotheses):
            raise InputError(
                f"{where}: references must be as many as the {len(hypotheses)} hypotheses, got {len(reference)}"
            )
