"""A picture of when each token is said: words, tokens in the colour of their confidence, and the spectrogram below.

A word begins at a white line and ends at a dotted one; the fainter lines are where its tokens begin.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from seqkit.atomic import write_atomically
from seqkit.decode.alignment import Alignment, Span
from seqkit.errors import InputError

SPACE = "␣"
LETTER = 0.1  # inches that a character of a label takes
MARGIN = 1.6  # inches beside the axes
WIDEST = 60.0


def save_alignment_picture(
    path: str | Path,
    spectrogram: Float[Tensor, "T F"],
    alignment: Alignment,
    *,
    seconds: float,
    space: str = " ",
    title: str = "",
) -> None:
    """Draws an alignment over the spectrogram of its recording, and writes a PNG file.

    The spectrogram and the alignment may have frames of another length. Labels that would lie over one another are
    moved apart, as little as it takes, and a line leads to the span of each.

    Args:
        spectrogram: from the lowest band to the highest, in any unit that is even to the eye, as decibels are.
        alignment: with spans in seconds.
        seconds: how long the recording is.
        space: the token between words.

    Raises:
        InputError: there is no frame or no band, a span ends after the recording, or matplotlib is not installed.
    """
    where = "alignment_picture"
    if not all(spectrogram.shape) or not 0 < seconds < math.inf:
        raise InputError(
            f"{where}: spectrogram must have frames, bands and a length in seconds, "
            f"got {tuple(spectrogram.shape)} and {seconds}"
        )
    tokens, words = alignment.tokens, alignment.words(space)
    if tokens and tokens[-1].end > seconds * 1.01 + 0.05:  # the last frame may reach beyond the last sample
        raise InputError(f"{where}: alignment must end within {seconds:.2f} seconds, got {tokens[-1].end:.2f}")
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.cm import ScalarMappable
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise InputError(
            f"{where}: matplotlib must be installed to draw, got no such package (pip install 'seqkit[demo]')"
        ) from None
    shown = [token.text.replace(" ", SPACE) for token in tokens]
    widths = [LETTER * (len(text) + 0.3) for text in shown]
    width = min(max(5.0, 1.5 * seconds, 1.4 * sum(widths)), WIDEST)
    scale = seconds / width  # seconds an inch
    places = spread([_centre(token) for token in tokens], [scale * w for w in widths], 0.0, seconds)
    lengths = [scale * LETTER * (len(word.text) + 1) for word in words]
    word_places = spread([_centre(word) for word in words], lengths, 0.0, seconds)

    close = ConstrainedLayoutEngine(hspace=0.0, h_pad=0.02)
    figure = Figure(figsize=(width + MARGIN, 4.2), dpi=130, layout=close)
    canvas = FigureCanvasAgg(figure)
    above, labels, sound = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [0.28, 0.75, 3.0]})
    colours = colormaps["viridis_r"]

    image = spectrogram.detach().float().cpu().T.numpy()  # F T
    extent = (0.0, seconds, 0.0, float(len(image)))
    sound.imshow(image, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="nearest")
    sound.set_xlim(0.0, seconds)
    sound.set_xlabel("seconds")
    sound.set_ylabel("band")
    for axes in (above, labels):
        axes.set_ylim(0.0, 1.0)
        axes.axis("off")
    for word, place in zip(words, word_places, strict=True):
        above.plot([word.begin, word.end], [0.05, 0.05], color="#1f5fa8", linewidth=2.5, solid_capstyle="butt")
        above.text(place, 0.25, word.text, ha="center", va="bottom", fontsize=9, parse_math=False)
        sound.axvline(word.begin, color="white", linewidth=1.2)
        sound.axvline(word.end, color="white", linewidth=1.2, linestyle=(0, (1, 2)))
    for token, text, place in zip(tokens, shown, places, strict=True):
        labels.axvspan(token.begin, token.end, 0.0, 0.28, color=colours(token.confidence), linewidth=0)
        labels.plot([place, _centre(token)], [0.6, 0.28], color="#5f6368", linewidth=0.7)
        labels.text(place, 0.62, text, ha="center", va="bottom", fontsize=9, family="monospace", parse_math=False)
        sound.axvline(token.begin, color="white", linewidth=0.7, alpha=0.4)
    sure = ScalarMappable(cmap=colours)
    sure.set_clim(0.0, 1.0)
    figure.colorbar(sure, ax=[above, labels, sound], label="confidence", pad=0.01, aspect=30)
    figure.suptitle(title, fontsize=10, parse_math=False)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for it
        canvas.print_figure(content, format="png")
    write_atomically(path, content.getvalue())


def _centre(span: Span) -> float:
    return (span.begin + span.end) / 2


def spread(centres: Sequence[float], widths: Sequence[float], lowest: float, highest: float) -> list[float]:
    """Rising centres moved apart so that no two widths overlap, by the least sum of squared moves.

    Labels that touch form a block, which stands where its labels would stand on average. Blocks are kept between the
    lowest and the highest place as far as there is room.

    Reference: isotonic regression by pooling adjacent violators, Ayer et al. 1955.
    """
    offsets = [0.0]  # from the first label's centre to each one's, all packed
    for a, b in itertools.pairwise(widths):
        offsets.append(offsets[-1] + (a + b) / 2)
    blocks: list[tuple[float, int]] = []  # the mean of centre minus offset, and how many labels
    for centre, offset in zip(centres, offsets, strict=False):
        mean, count = centre - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        blocks.append((mean, count))
    if not blocks:
        return []
    first, last = lowest + widths[0] / 2, highest - widths[-1] / 2 - offsets[-1]
    means = [max(min(mean, last), first) for mean, count in blocks for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]
