import builtins
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from seqkit.analysis.attention_map import save_attention_map
from seqkit.errors import InputError


def size(path: Path) -> tuple[int, int]:
    """Width and height in the header of a PNG file (ISO 15948, 5.2 and 11.2.2)."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[12:16] == b"IHDR"
    assert data[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_a_picture_grows_with_its_tokens(tmp_path: Path) -> None:
    sizes = []
    for n_target, n_source in ((1, 1), (3, 12), (12, 3)):
        weights = torch.rand(n_target, n_source).softmax(dim=1)
        path = tmp_path / f"{n_target}.png"
        save_attention_map(path, weights, source=["a"] * n_source, target=["é "] * n_target, title="a → b")
        sizes.append(size(path))
    assert sizes[0] < sizes[1]
    assert sizes[1][0] > sizes[2][0] > 200
    assert sizes[2][1] > sizes[1][1] > 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png", "12.png", "3.png"]


def test_darker_is_more(tmp_path: Path) -> None:
    """The picture shows the weights: two that differ give other pictures, and full attention darkens the cells."""
    from matplotlib.image import imread

    means = []
    for value in (0.0, 0.5, 1.0):
        save_attention_map(tmp_path / "x.png", torch.full((4, 4), value), source=list("abcd"), target=list("abcd"))
        means.append(imread(tmp_path / "x.png")[:, :, 0].mean())
    assert means[0] > means[1] > means[2]


def test_it_takes_bfloat16_weights_and_any_token(tmp_path: Path) -> None:
    weights = torch.eye(3, dtype=torch.bfloat16)
    save_attention_map(tmp_path / "x.png", weights, source=["a", " ", "</s>"], target=["_{x}", "%", "b"])
    assert size(tmp_path / "x.png")[0] > 200


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (4, 2), (2, 4)])
def test_weights_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"\(3 x 2\), got"):
        save_attention_map(tmp_path / "x.png", torch.zeros(shape), source=["a", "b"], target=["c", "d", "e"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("source", "target"), [([], ["a"]), (["a"], []), ([], [])])
def test_a_picture_of_nothing_is_refused(tmp_path: Path, source: list[str], target: list[str]) -> None:
    with pytest.raises(InputError, match="must have at least one"):
        save_attention_map(tmp_path / "x.png", torch.zeros(len(target), len(source)), source=source, target=target)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"matplotlib must be installed .* \(pip install 'seqkit\[demo\]'\)"):
        save_attention_map(tmp_path / "x.png", torch.ones(1, 1), source=["a"], target=["b"])
