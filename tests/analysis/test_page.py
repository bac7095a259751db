"""The page stands alone: no script, nothing fetched, text that stays text, figures in the page's colours."""

from html.parser import HTMLParser

import pytest

from seqkit.analysis.page import FIRST, INK, Page, new_figure
from seqkit.errors import InputError


class Nesting(HTMLParser):
    """Notes the tags in order, and refuses one that is closed in the wrong place."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Nesting()
    parser.feed(page)
    assert parser.open == []
    return parser.seen


def test_text_is_never_taken_as_html() -> None:
    page = Page("<b>title</b>", lead="a & b")
    page.section("<script>alert(1)</script>")
    page.text("<i>one</i>", note=True)
    page.table(["<td>"], [["<img src=x>"]])
    page.folded("<summary>", "<p>")
    tags = [tag for tag, _ in read(page.html(footer="<hr>"))]
    assert not {"script", "b", "i", "img", "hr"} & set(tags)
    assert (tags.count("td"), tags.count("p"), tags.count("summary")) == (1, 3, 1)


def test_nothing_is_fetched_and_a_phone_is_served() -> None:
    pytest.importorskip("matplotlib")
    page = Page("a")
    figure = new_figure(1.0)
    figure.subplots().plot([0, 1], color=FIRST)
    page.figure(figure, caption="b", says="c")
    made = page.html()
    tags = read(made)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    for _, attributes in tags:
        assert not {"src", "srcset", "onload", "onclick"} & set(attributes)
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in made
    assert "prefers-color-scheme: dark" in made


def test_figures_have_the_pages_colours_and_their_own_names() -> None:
    pytest.importorskip("matplotlib")
    page = Page("a")
    for _ in range(2):
        figure = new_figure(1.0)
        axes = figure.subplots()
        axes.plot([0, 1], color=FIRST)
        axes.set_xlabel("words stay words", color=INK)
        page.figure(figure, caption="b", says="c")
    made = page.html()
    assert FIRST not in made
    assert "stroke: var(--first)" in made
    assert made.count("words stay words") == 2
    tags = read(made)
    names = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(set(names)) == len(names) > 10
    (first, second) = [attributes for tag, attributes in tags if tag == "svg"]
    assert "viewbox" in first
    assert not {"width", "height"} & set(first)
    assert first["viewbox"] == second["viewbox"]
    for _, attributes in tags:  # what is pointed at is there
        clip = attributes.get("clip-path")
        assert clip is None or clip.removeprefix("url(#").removesuffix(")") in names
    assert "<metadata>" not in made


def test_numbers_stand_to_the_right() -> None:
    page = Page("a")
    page.table(["measure", "value"], [["one", "1"], ["two", "2"]], numbers=[1])
    tags = read(page.html())
    assert [attributes.get("class") for tag, attributes in tags if tag == "td"] == [None, "number"] * 2
    with pytest.raises(InputError, match="a row must have 2 cells, got 1"):
        page.table(["measure", "value"], [["one"]])


def test_without_matplotlib_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"matplotlib must be installed.*seqkit\[demo\]"):
        new_figure(1.0)
