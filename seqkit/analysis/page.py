"""One static page of HTML: a title, sections, tables and figures, in one file that needs no network and no JavaScript.

It reads on a phone and on a wide screen, in light and dark, and prints. Figures are inline SVG, whose colours follow
the reader's choice: they are drawn in the colours below, and these become the page's own.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seqkit.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What figures are drawn in. No other drawing has these, so that they can be told in an SVG and be replaced.
INK, MUTED, RULE, FIRST, SECOND = "#101112", "#606162", "#d0d1d2", "#b35a01", "#1f5fa1"
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", FIRST: "--first", SECOND: "--second"}
WIDTH = 4.2  # inches of a figure: on a phone it is shrunk a little only, so that its words stay readable

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --muted: #5f6368; --rule: #dadce0; --soft: #f6f7f8;
  --first: #b35a00; --second: #1f5fa0; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e6e6e6; --muted: #a0a4aa; --rule: #3a3e44;
  --soft: #1e2126; --first: #f0a050; --second: #7fb4f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 46rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .5rem; padding-top: .6rem; border-top: 1px solid var(--rule); }
p { margin: .5rem 0; }
.lead, figcaption { color: var(--muted); }
.note { padding: .6rem .8rem; background: var(--soft); border-left: 3px solid var(--first); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; overflow-wrap: normal; }
th, td { padding: .35rem .6rem .35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; color: var(--muted); }
.number { text-align: right; font-variant-numeric: tabular-nums;
  padding: .35rem 0 .35rem .9rem; }
figure { margin: 1rem 0; }
figure svg { display: block; width: 100%; max-width: 32rem; height: auto; margin: 0 auto; }
figcaption { font-size: .88rem; margin-top: .3rem; }
details { margin: .4rem 0; }
summary { cursor: pointer; }
footer { margin-top: 3rem; color: var(--muted); font-size: .85rem; }
@media print { body { max-width: none; } details { display: block; } }
"""


class Page:
    """A page that grows from top to bottom; all text is taken as text, never as HTML."""

    def __init__(self, title: str, *, lead: str = "") -> None:
        self.title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>"]
        if lead:
            self._parts.append(f'<p class="lead">{html.escape(lead)}</p>')
        self._figures = 0

    def section(self, heading: str) -> None:
        self._parts.append(f"<h2>{html.escape(heading)}</h2>")

    def text(self, paragraph: str, *, note: bool = False) -> None:
        """A paragraph; a note stands out."""
        kind = ' class="note"' if note else ""
        self._parts.append(f"<p{kind}>{html.escape(paragraph)}</p>")

    def table(self, heading: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()) -> None:
        """A table.

        Args:
            numbers: the columns that are set to the right, counted from 0.

        Raises:
            InputError: a row has more or fewer cells than the heading.
        """
        for row in rows:
            if len(row) != len(heading):
                raise InputError(f"table: a row must have {len(heading)} cells, got {len(row)}")

        def line(cells: Sequence[str], tag: str) -> str:
            made = []
            for column, cell in enumerate(cells):
                kind = ' class="number"' if column in numbers else ""
                made.append(f"<{tag}{kind}>{html.escape(cell)}</{tag}>")
            return f"<tr>{''.join(made)}</tr>"

        body = "\n".join(line(row, "td") for row in rows)
        self._parts.append(
            f'<div class="wide"><table><thead>{line(heading, "th")}</thead><tbody>\n{body}\n</tbody></table></div>'
        )

    def figure(self, drawn: Figure, *, caption: str, says: str) -> None:
        """A figure of matplotlib.

        Args:
            says: what it shows, for those who do not see it.
        """
        self._figures += 1
        self._parts.append(
            f'<figure role="img" aria-label="{html.escape(says)}">{_svg(drawn, self._figures)}'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def folded(self, heading: str, paragraph: str) -> None:
        """Text that opens when its heading is asked for."""
        self._parts.append(
            f"<details><summary>{html.escape(heading)}</summary><p>{html.escape(paragraph)}</p></details>"
        )

    def html(self, *, footer: str = "") -> str:
        """The whole file."""
        end = f"<footer>{html.escape(footer)}</footer>" if footer else ""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(self.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            + "\n".join(self._parts)
            + f"\n{end}\n</body>\n</html>\n"
        )


def new_figure(height: float) -> Figure:
    """An empty figure in the page's colours, `height` inches high and as wide as a page has it.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(
            "page: matplotlib must be installed to draw, got no such package (pip install 'seqkit[demo]')"
        ) from None
    return Figure(figsize=(WIDTH, height), layout="constrained")


def _svg(drawn: Figure, number: int) -> str:
    """The figure as inline SVG, its colours the page's, its names unlike those of the page's other figures."""
    import matplotlib as mpl

    drawn.patch.set_visible(False)
    for axes in drawn.axes:
        axes.patch.set_visible(False)
    content = io.StringIO()
    # Words stay words: they can be searched, copied and read aloud. A fixed salt gives equal figures equal files.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "seqkit"}):
        drawn.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    made = content.getvalue()
    made = made[made.index("<svg") :]
    made = re.sub(r"<metadata>.*?</metadata>", "", made, flags=re.DOTALL)
    made = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", made, count=1), count=1
    )
    made = re.sub(r'(id="|url\(#|href="#)', rf"\1f{number}-", made)
    for colour, variable in _VARIABLES.items():
        made = made.replace(colour, f"var({variable})")
    return made
