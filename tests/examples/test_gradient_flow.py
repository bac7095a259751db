"""The teaching page of recurrent cells: its code is the kernels', and its example measures what it says."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from seqkit import ops

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/learn/recurrent-cells.md"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page's blocks define."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
    return names


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples/recurrent/gradient_flow.py"))


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64) * 0.5


B, T, D, H = 3, 4, 5, 6


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "peephole"])
def test_the_pages_cells_are_those_of_ops(page: dict[str, Any], cell: str) -> None:
    torch.manual_seed(0)
    gates = {"rnn": 1, "gru": 3}.get(cell, 4)
    x, W, U, b = drawn(B, T, D), drawn(gates * H, D), drawn(gates * H, H), drawn(gates * H)
    more = {"gru": (drawn(gates * H),), "peephole": tuple(drawn(3, H))}.get(cell, ())
    states = [torch.zeros(B, H, dtype=torch.float64) for _ in range(1 if cell in ("rnn", "gru") else 2)]
    shown = []
    for t in range(T):
        after = page[f"{cell}_step"](x[:, t], *states, W, U, b, *more)
        states = [after] if isinstance(after, torch.Tensor) else list(after)
        shown.append(states[0])
    weights = ops.RecurrentWeights(W, U, b, more[0] if cell == "gru" else None)
    if cell == "peephole":
        weights = weights._replace(peepholes=torch.stack(more))
    run = {"rnn": ops.rnn, "gru": ops.gru}.get(cell, ops.lstm)
    outputs, last = run(x, None, weights)
    torch.testing.assert_close(torch.stack(shown, 1), outputs)
    torch.testing.assert_close(states if len(states) > 1 else states[0], list(last) if len(states) > 1 else last)


def test_a_gradient_reaches_further_in_an_lstm(example: dict[str, Any]) -> None:
    torch.manual_seed(0)
    at_twenty = {cell: example["reach"](example["make_layer"](cell), 21)[20].item() for cell in ("rnn", "lstm")}
    assert at_twenty["rnn"] < 1e-5 < at_twenty["lstm"]
    large = example["reach"](example["make_layer"]("rnn", example["LARGE"]), 21)
    assert large[0] == 1
    assert large[20] > 10


def test_clipping_keeps_an_exploding_rnn_on_course(example: dict[str, Any]) -> None:
    clipped, free = example["repeat"](1.0, 60), example["repeat"](None, 60)
    assert sum(clipped[-20:]) < 0.7 * sum(free[-20:])


def test_the_picture_is_drawn(example: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    example["main"](["-o", str(tmp_path / "flow.png"), "--updates", "20", "--distances", "3", "5"])
    assert (tmp_path / "flow.png").read_bytes().startswith(b"\x89PNG")
    assert "first symbol named" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        example["main"](["-o", "flow.jpg"])
    assert "must end in .png, .svg or .pdf, got flow.jpg" in capsys.readouterr().err
