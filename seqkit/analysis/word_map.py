"""A picture of labelled points in the plane, whose labels do not lie over one another."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqkit.atomic import write_atomically
from seqkit.errors import InputError

SUFFIXES = (".png", ".svg", ".pdf")
REACHES = (4.0, 10.0, 20.0, 34.0, 52.0, 74.0)  # points from the dot to its label, the nearest free place first
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
LINE_FROM = 15.0  # a label further away gets a line to its dot
DOT = 2.2  # radius in points
OTHERS = "#9aa0a6"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a picture lacks."""

    left_out: list[str]  # words whose labels found no free place
    no_font: str  # characters that no installed font has


def save_word_map(
    path: str | Path, points: NDArray[np.float32], words: Sequence[str], *, groups: Mapping[str, str] | None = None,
    title: str = "", axes_mean: bool = False,
) -> Drawn:  # fmt: skip
    """Draws a dot and a label for each word, and writes a PNG, SVG or PDF file by the suffix.

    A label takes the first free place around its dot, in the order of the words; one that finds none is left out, not
    laid over another.

    Args:
        points: [N, 2], a row a word.
        groups: the group of a word, which gives its colour; words of none are grey.
        axes_mean: whether the axes mean something and get numbers.

    Raises:
        InputError: the suffix is another, points and words differ in number or there are none, or matplotlib is
            not installed.
    """
    check_suffix(path)
    if points.shape != (len(words), 2) or not words:
        raise InputError(f"word_map: points must be two numbers for each of {len(words)} words, got {points.shape}")
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(
            "word_map: matplotlib must be installed to draw, got no such package (pip install 'seqkit[plot]')"
        ) from None
    groups = groups or {}
    side = min(max(8.0, 0.75 * math.sqrt(len(words))), 30.0)
    fonts, no_font = _more_fonts("".join([*words, title, *groups.values()]))
    look = {
        "font.family": ["DejaVu Sans", *fonts],
        "svg.hashsalt": "seqkit", "text.parse_math": False,
    }  # fmt: skip
    with matplotlib.rc_context(look), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for it
        figure = Figure(figsize=(1.25 * side, side), dpi=160, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots()
        colours = _colours(list(dict.fromkeys(groups[word] for word in words if word in groups)))
        for group in [None, *colours]:
            rows = [row for row, word in enumerate(words) if groups.get(word) == group]
            if rows:
                colour = "#1f5fa8" if not colours else OTHERS if group is None else colours[group]
                axes.scatter(
                    points[rows, 0],
                    points[rows, 1],
                    s=(2 * DOT) ** 2,
                    color=colour,
                    linewidths=0,
                    label=group,
                    zorder=2,
                )
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.08)
        axes.set_title(title)
        if not axes_mean:
            axes.set_xticks([])
            axes.set_yticks([])
        if colours:
            figure.legend(loc="outside right upper", frameon=False)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        left_out = _label(axes, points, words, [colours.get(groups.get(word, ""), "#222222") for word in words], canvas)
        content = io.BytesIO()
        suffix = Path(path).suffix.lower()
        fixed: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
        figure.savefig(content, format=suffix[1:], metadata=fixed)
    write_atomically(path, content.getvalue())
    return Drawn(left_out=left_out, no_font=no_font)


def check_suffix(path: str | Path) -> None:
    """That a picture can have this name.

    Raises:
        InputError: it cannot.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: picture must end in one of {', '.join(SUFFIXES)}, got {Path(path).suffix or 'none'}")


def places(
    dots: NDArray[np.float64], sizes: NDArray[np.float64], frame: tuple[float, float, float, float], unit: float
) -> list[tuple[float, float, float] | None]:
    """Where labels go: the left, the bottom and the reach of each, or None where no place is free.

    Args:
        dots: [N, 2] in pixels, and `sizes` the width and height of each label.
        frame: left, bottom, right and top that labels must stay within.
        unit: pixels of a typographic point.
    """
    taken = np.concatenate([dots - DOT * unit, dots + DOT * unit], 1)  # left, bottom, right, top of what is there
    found: list[tuple[float, float, float] | None] = []
    for (x, y), (width, height) in zip(dots.tolist(), sizes.tolist(), strict=True):
        place = None
        for reach in REACHES:
            for across, up in SIDES:
                shift = reach * unit / math.hypot(across, up)
                left = x + across * shift + (across - 1) / 2 * width
                bottom = y + up * shift + (up - 1) / 2 * height
                right, top = left + width, bottom + height
                if left < frame[0] or bottom < frame[1] or right > frame[2] or top > frame[3]:
                    continue
                over = (taken[:, 0] < right) & (taken[:, 2] > left) & (taken[:, 1] < top) & (taken[:, 3] > bottom)
                if not over.any():
                    place = (left, bottom, reach)
                    break
            if place:
                break
        if place:
            taken = np.append(taken, [[place[0], place[1], place[0] + width, place[1] + height]], 0)
        found.append(place)
    return found


def _label(
    axes: Any, points: NDArray[np.float32], words: Sequence[str], colours: Sequence[str], canvas: Any
) -> list[str]:
    renderer = canvas.get_renderer()
    unit = axes.figure.dpi / 72
    texts = [
        axes.text(0, 0, word, fontsize=8, color=colour, zorder=3) for word, colour in zip(words, colours, strict=True)
    ]
    boxes = [text.get_window_extent(renderer) for text in texts]
    sizes = np.array([(box.width + unit, box.height) for box in boxes])
    dots = axes.transData.transform(points)
    to_data = axes.transData.inverted().transform
    frame = axes.bbox.x0, axes.bbox.y0, axes.bbox.x1, axes.bbox.y1
    found = places(dots, sizes, frame, unit)
    left_out = []
    for text, dot, size, place in zip(texts, dots, sizes, found, strict=True):
        if place is None:
            left_out.append(text.get_text())
            text.remove()
            continue
        left, bottom, reach = place
        text.set_position(to_data((left + unit / 2, bottom + size[1] / 2)))
        text.set_verticalalignment("center")
        if reach > LINE_FROM:
            end = np.clip(dot, (left, bottom), (left + size[0], bottom + size[1]))
            axes.plot(*to_data([dot, end]).T, color="#b0b0b0", linewidth=0.5, zorder=1, scalex=False, scaley=False)
    return left_out


def _colours(groups: Sequence[str]) -> dict[str, str]:
    """A colour for each group; they come again after the twentieth."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    colours = [to_hex(colormaps["tab10" if len(groups) <= 10 else "tab20"](at)) for at in range(20)]
    return {group: colours[at % (10 if len(groups) <= 10 else 20)] for at, group in enumerate(groups)}


def _more_fonts(text: str) -> tuple[list[str], str]:
    """Installed fonts for the characters that matplotlib's own has not, and those that none has."""
    from matplotlib import font_manager, ft2font

    def known(path: str) -> set[int]:
        return set(ft2font.FT2Font(path).get_charmap())

    left = set(map(ord, text)) - {ord("\n")} - known(font_manager.findfont("DejaVu Sans"))
    fonts = []
    for font in font_manager.fontManager.ttflist if left else []:
        if font.name.startswith("Last Resort"):  # boxes for all characters there are
            continue
        try:
            has = left & known(font.fname)
        except (OSError, RuntimeError):
            continue  # a font that cannot be read is none
        if has:
            fonts.append(font.name)
            left -= has
        if not left:
            break
    return fonts, "".join(map(chr, sorted(left)))
