"""Labelled points: labels over nothing, colours that say the group, files that are whole and the same again."""

import builtins
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqkit.analysis.word_map import DOT, places, save_word_map
from seqkit.errors import InputError

pytest.importorskip("matplotlib")


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_labels_lie_over_no_label_and_no_dot_and_within_the_frame() -> None:
    generator = np.random.default_rng(1)
    dots = generator.uniform(0, 1000, (400, 2))
    sizes = np.stack([generator.uniform(20, 90, 400), np.full(400, 14.0)], 1)
    found = places(dots, sizes, (0.0, 0.0, 1000.0, 1000.0), 2.0)
    placed = [(place, size) for place, size in zip(found, sizes.tolist(), strict=True) if place]
    boxes = [(left, bottom, left + width, bottom + height) for (left, bottom, _), (width, height) in placed]
    assert 200 < len(boxes) < 400
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    for dot in dots:
        square = (*(dot - 2 * DOT), *(dot + 2 * DOT))
        assert not any(overlap(box, square) for box in boxes)
    assert all(box[0] >= 0 and box[1] >= 0 and box[2] <= 1000 and box[3] <= 1000 for box in boxes)
    assert found == places(dots, sizes, (0.0, 0.0, 1000.0, 1000.0), 2.0)


def test_a_lone_label_stands_at_the_right_of_its_dot_and_a_full_place_is_left_out() -> None:
    ((left, bottom, reach),) = places(np.array([[50.0, 50.0]]), np.array([[20.0, 10.0]]), (0.0, 0.0, 100.0, 100.0), 1.0)
    assert (left, bottom, reach) == (54, 45, 4)
    assert places(np.array([[50.0, 50.0]]), np.array([[200.0, 10.0]]), (0.0, 0.0, 100.0, 100.0), 1.0) == [None]
    same = places(np.full((80, 2), 50.0), np.full((80, 2), 30.0), (0.0, 0.0, 100.0, 100.0), 1.0)
    assert same[0] is not None
    assert same[-1] is None
    assert places(np.empty((0, 2)), np.empty((0, 2)), (0.0, 0.0, 1.0, 1.0), 1.0) == []


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_each_format_is_written_and_the_same_again(tmp_path: Path, suffix: str, magic: bytes) -> None:
    points = np.random.default_rng(2).normal(size=(5, 2)).astype(np.float32)
    words = ["king", "$\\frac$", "a_b^c", "été", "\\alpha"]
    for name in ("a", "b"):
        drawn = save_word_map(tmp_path / f"{name}.{suffix}", points, words, groups={"king": "royal $1"}, title="50 % $")
        assert (drawn.left_out, drawn.no_font) == ([], "")
    content = (tmp_path / f"a.{suffix}").read_bytes()
    assert content.startswith(magic)
    assert content == (tmp_path / f"b.{suffix}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_groups_have_colours(tmp_path: Path) -> None:
    from matplotlib.image import imread

    points = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    seen = []
    for groups in ({}, {"a": "first", "b": "second"}, dict.fromkeys("abcd", "one")):
        save_word_map(tmp_path / "m.png", points, list("abcd"), groups=groups, axes_mean=True)
        picture = (imread(tmp_path / "m.png")[..., :3] * 255).round().astype(int) @ [65536, 256, 1]
        seen.append([bool((picture == colour).any()) for colour in (0x1F5FA8, 0x1F77B4, 0xFF7F0E, 0x9AA0A6)])
    assert seen == [[True, False, False, False], [False, True, True, True], [False, True, False, False]]


def test_one_word_and_equal_points_are_drawn(tmp_path: Path) -> None:
    assert save_word_map(tmp_path / "m.png", np.zeros((1, 2), np.float32), ["a"]).left_out == []
    drawn = save_word_map(tmp_path / "m.png", np.zeros((200, 2), np.float32), [f"word{row}" for row in range(200)])
    assert 100 < len(drawn.left_out) < 200
    assert "word0" not in drawn.left_out


def test_characters_that_no_font_has_are_told(tmp_path: Path) -> None:
    drawn = save_word_map(tmp_path / "m.svg", np.zeros((1, 2), np.float32), ["a\U000f0000"])
    assert drawn.no_font == "\U000f0000"


def test_wrong_calls_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.zeros((2, 2), np.float32)
    for path, words, says in [
        ("m.gif", ["a", "b"], r"m.gif: picture must end in one of .png, .svg, .pdf, got .gif"),
        ("m", ["a", "b"], "got none"),
        ("m.png", ["a"], r"two numbers for each of 1 words, got \(2, 2\)"),
    ]:
        with pytest.raises(InputError, match=says):
            save_word_map(tmp_path / path, points, words)
    with pytest.raises(InputError, match="for each of 0 words"):
        save_word_map(tmp_path / "m.png", points[:0], [])

    def absent(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r"matplotlib must be installed to draw, .*seqkit\[plot\]"):
        save_word_map(tmp_path / "m.png", points, ["a", "b"])
    assert list(tmp_path.iterdir()) == []
