"""The report of a debiasing: what was there before, what after, and what such a correction cannot do, on one page.

It is given numbers and words, and knows nothing of vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seqkit.analysis.page import FIRST, INK, MUTED, RULE, SECOND, Page, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 36  # targets in the picture, those that leant most before
FLIPPED_FROM = 0.2  # a smaller effect of the other sign is none
HIDDEN = (
    "A projection takes out what lies along a direction, and nothing else. Words that leant the same way are still one "
    "another's neighbours, so that a bias can often be found again (Gonen and Goldberg 2019, arXiv:1903.03862)."
)


@dataclass(frozen=True, kw_only=True)
class DebiasReport:
    """What the page shows; before and after are in the same order everywhere."""

    attribute: str
    method: str
    about: str  # the vectors, in a sentence
    rows: Sequence[tuple[str, str, str]]  # measure, before, after
    targets: Sequence[str]
    projections: tuple[Sequence[float], Sequence[float]]
    tests: Sequence[tuple[str, float, float]]  # association test, effect before, effect after
    pair: Sequence[str]  # the words whose analogies are looked for; may be empty
    analogies: tuple[Sequence[str], Sequence[str]]
    told_apart: tuple[float, float] | None
    lists: Mapping[str, Sequence[str]]
    unknown: Mapping[str, Sequence[str]]
    source: str
    sides: tuple[str, str]  # the ends of the direction: negative, positive


def remarks(tests: Sequence[tuple[str, float, float]], told_apart: tuple[float, float] | None) -> list[str]:
    """What a reader must not miss: tests that turned round or stayed, words that are still told apart."""
    found = []
    for name, before, after in tests:
        if before * after < 0 and abs(after) >= FLIPPED_FROM:
            found.append(
                f"The association test “{name}” turned round: {before:+.2f} before, {after:+.2f} after. The "
                "association was not removed; it now points the other way."
            )
        elif abs(before) >= FLIPPED_FROM and abs(after) >= abs(before) / 2:
            found.append(f"The association test “{name}” stayed: {before:+.2f} before, {after:+.2f} after.")
    if told_apart is not None and told_apart[1] >= 0.75:
        found.append(
            f"Clustering, told nothing of the attribute, still puts {100 * told_apart[1]:.0f} % of the most biased "
            f"words with their group ({100 * told_apart[0]:.0f} % before)."
        )
    return found


def debias_page(report: DebiasReport) -> str:
    """The page as HTML.

    Raises:
        InputError: matplotlib is not installed.
    """
    page = Page(f"Bias along {report.attribute}, before and after", lead=report.about)
    page.section("What was measured")
    page.table(["measure", "before", "after"], report.rows, numbers=(1, 2))
    for remark in remarks(report.tests, report.told_apart):
        page.text(remark, note=True)
    page.text(HIDDEN)
    if report.targets:
        page.section("The targets on the direction of the attribute")
        page.figure(
            _projections(report),
            caption=f"The cosine of each word with the direction that the vectors had at first; the "
            f"{min(SHOWN, len(report.targets))} of {len(report.targets)} targets that leant most.",
            says="For each target word a dot before and a dot after debiasing, on the direction of the attribute",
        )
    if report.tests:
        page.section("Association tests")
        page.figure(
            _effects(report.tests),
            caption="WEAT effects in standard deviations, from -2 to 2; 0 is no association. The table above has the "
            "p values.",
            says="For each association test its effect before and after debiasing",
        )
    if len(report.pair) == 2:
        first, second = report.pair
        page.section(f"As {first} is to {second}, so is …")
        before, after = report.analogies
        if not after:
            page.text("After debiasing no analogy is left that has a score of 0.001 or more.")
            page.table(["before"], [(line,) for line in before])
        else:
            page.table(["before", "after"], list(itertools.zip_longest(before, after, fillvalue="–")))
    page.section("The word lists")
    if report.source:
        page.text(report.source)
    for name, words in report.lists.items():
        page.folded(f"{name}: {len(words)}", ", ".join(words))
    for name, words in report.unknown.items():
        page.folded(f"{name}, without a vector and left out: {len(words)}", ", ".join(words))
    return page.html(footer=f"seqkit embed debias, method {report.method}.")


def _projections(report: DebiasReport) -> Figure:
    before, after = report.projections
    order = sorted(range(len(before)), key=lambda place: -abs(before[place]))[:SHOWN]
    order.sort(key=lambda place: before[place])
    figure = _dumbbells(
        [report.targets[place] for place in order],
        [before[place] for place in order],
        [after[place] for place in order],
    )
    negative, positive = report.sides
    figure.axes[0].set_xlabel(f"← {negative} · cosine · {positive} →", color=MUTED, fontsize=9)
    return figure


def _effects(tests: Sequence[tuple[str, float, float]]) -> Figure:
    names, before, after = zip(*reversed(tests), strict=True)  # the first on top
    figure = _dumbbells(names, before, after, above=True)
    axes = figure.axes[0]
    axes.set_xlim(-2.1, 2.1)
    axes.set_xticks([-2, -1, 0, 1, 2])
    axes.set_xlabel("effect", color=MUTED, fontsize=9)
    return figure


def _dumbbells(names: Sequence[str], before: Sequence[float], after: Sequence[float], *, above: bool = False) -> Figure:
    """A line for each name from its value before to that after; names at the side, or above their lines."""
    step = 0.42 if above else 0.185  # inches a line
    figure = new_figure(0.95 + step * len(names))
    axes = figure.subplots()
    places = range(len(names))
    axes.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
    axes.hlines(places, before, after, color=RULE, linewidth=1.6, zorder=2)
    axes.scatter(before, places, s=20, color=FIRST, label="before", zorder=3)
    axes.scatter(after, places, s=20, color=SECOND, label="after", zorder=4)
    if above:
        axes.set_yticks([])
        for place, name in zip(places, names, strict=True):
            axes.annotate(
                name, (0, place), xycoords=("axes fraction", "data"), xytext=(2, 9), textcoords="offset points",
                fontsize=9, color=INK,
            )  # fmt: skip
        axes.set_ylim(-0.6, len(names) - 0.2)
    else:
        axes.set_yticks(places, names, fontsize=9, color=INK)
        axes.set_ylim(-0.8, len(names) - 0.2)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.grid(axis="x", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False, fontsize=9, labelcolor=INK
    )
    return figure
