import builtins
import itertools
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from seqkit.analysis.alignment_picture import save_alignment_picture, spread
from seqkit.decode import Alignment, Span
from seqkit.errors import InputError


def said(text: str, step: float = 0.1, *, confidence: float = 0.8) -> Alignment:
    tokens = [Span(text=c, begin=step * n, end=step * (n + 0.5), confidence=confidence) for n, c in enumerate(text)]
    return Alignment(tokens=tuple(tokens), logp=-1.0)


def size(path: Path) -> tuple[int, int]:
    """Width and height in the header of a PNG file (ISO 15948, 5.2 and 11.2.2)."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_a_picture_is_as_wide_as_its_text_and_its_seconds_ask(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    widths = []
    for text, seconds in (("", 1.0), ("ab $é_", 1.0), ("a" * 80, 10.0), ("a", 5000.0)):
        save_alignment_picture(path, torch.randn(50, 8), said(text), seconds=seconds, title="a → $x_{")
        widths.append(size(path)[0])
    assert widths[0] == widths[1] < widths[2] < widths[3] < 9000
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_the_picture_shows_sound_spans_and_confidence(tmp_path: Path) -> None:
    def picture(alignment: Alignment, sound: torch.Tensor) -> bytes:
        save_alignment_picture(tmp_path / "x.png", sound, alignment, seconds=1.0)
        return (tmp_path / "x.png").read_bytes()

    sound = torch.arange(80.0).view(10, 8)
    pictures = [
        picture(said("ab a"), sound),
        picture(said("ab a"), sound.flip(0)),
        picture(said("ab a", confidence=0.1), sound),
        picture(said("ab a", 0.2), sound),
        picture(said("abba"), sound),
    ]
    assert len(set(pictures)) == 5
    assert picture(said("ab a"), sound.to(torch.bfloat16)) == pictures[0]


def test_spread_moves_labels_no_more_than_it_takes() -> None:
    assert spread([], [], 0.0, 1.0) == []
    assert spread([1.0, 3.0], [1.0, 1.0], 0.0, 4.0) == [1.0, 3.0]
    assert spread([2.0, 2.0, 2.0], [1.0, 1.0, 1.0], 0.0, 4.0) == pytest.approx([1.0, 2.0, 3.0])
    assert spread([2.0, 2.0], [1.0, 3.0], 0.0, 9.0) == pytest.approx([1.0, 3.0])
    assert spread([0.0, 0.1, 3.0], [1.0, 1.0, 1.0], 0.0, 3.5) == pytest.approx([0.5, 1.5, 3.0])
    assert spread([3.0, 3.0], [1.0, 1.0], 0.0, 3.0) == pytest.approx([1.5, 2.5])
    centres = torch.rand(40, generator=torch.Generator().manual_seed(0)).sort().values.mul(20).tolist()
    places = spread(centres, [0.4] * 40, 0.0, 20.0)
    assert all(b - a > 0.4 - 1e-9 for a, b in itertools.pairwise(places))
    assert places[0] >= 0.2
    assert places[-1] <= 19.8


@pytest.mark.parametrize(
    ("shape", "seconds", "rule"),
    [
        ((0, 4), 1.0, "must have frames, bands and a length"),
        ((4, 0), 1.0, "must have frames, bands and a length"),
        ((4, 4), 0.0, "must have frames, bands and a length"),
        ((4, 4), math.nan, "must have frames, bands and a length"),
        ((4, 4), 0.2, "must end within 0.20 seconds, got 0.35"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, shape: tuple[int, int], seconds: float, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        save_alignment_picture(tmp_path / "x.png", torch.zeros(shape), said("ab a"), seconds=seconds)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"matplotlib must be installed .* \(pip install 'seqkit\[demo\]'\)"):
        save_alignment_picture(tmp_path / "x.png", torch.ones(1, 1), said("a"), seconds=1.0)
