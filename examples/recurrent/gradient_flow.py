"""How far a gradient reaches in an RNN, a GRU and an LSTM, and what clipping does: three measurements, a picture.

    python examples/recurrent/gradient_flow.py -o gradient-flow.png

1. Vanishing and exploding: how the last state depends on the input k steps before, as the norm of the gradient divided
   by that at no distance. Untrained cells of 64 units; of the RNN also with recurrent weights 6 times as large.
2. What it costs: the first of T symbols must be named after the last. Accuracy after 400 updates, for growing T; chance
   is 25 %.
3. Clipping: the RNN with the large weights learns to repeat the symbol of three steps before, with the norm of its
   gradient clipped at 1 and without. The mean loss over 20 updates; chance is 1.386.

Expected output, after 50 CPU seconds:

    gradient at distance           1         5        10        20        50       100
    rnn                      4.3e-01   1.9e-02   3.7e-04   1.2e-07   5.6e-18   0.0e+00
    gru                      5.4e-01   5.6e-02   4.4e-03   2.8e-05   7.2e-12   6.5e-23
    lstm                     6.9e-01   2.3e-01   7.2e-02   8.5e-03   1.5e-05   4.8e-10
    rnn, weights x 6         1.3e+00   4.6e+00   2.5e+01   8.4e+02   1.4e+07   5.8e+14

    first symbol named        T = 10    T = 20    T = 40    T = 80
    rnn                          48%       24%       25%       24%
    gru                         100%      100%       75%       24%
    lstm                        100%       74%       27%       24%

    loss before update            20       100       200       400
    clipped at 1               1.465     1.082     0.698     0.147
    not clipped                2.680     3.267     2.763     2.720

Reference: Bengio et al. 1994; Pascanu et al. 2013, arXiv:1211.5063; Hochreiter and Schmidhuber 1997.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.atomic import write_atomically
from seqkit.nn.recurrent_layer import RecurrentLayer

UNITS, SYMBOLS, BATCH = 64, 4, 64
CELLS = ("rnn", "gru", "lstm")
LARGE = 6.0


def reach(layer: RecurrentLayer, steps: int) -> Tensor:
    """[T] the gradient's norm from the last state to the input k steps before, over that at k = 0; mean of a batch."""
    x = torch.randn(BATCH, steps, UNITS, requires_grad=True)
    outputs, _ = layer(x)
    (grad,) = torch.autograd.grad((outputs[:, -1] * torch.randn(BATCH, UNITS)).sum(), x)
    norms = grad.norm(dim=2).mean(0).flip(0)
    return norms / norms[0]


def make_layer(cell: str, scale: float = 1.0) -> RecurrentLayer:
    layer = RecurrentLayer(cell, UNITS, UNITS)
    layer.weight_hidden.data *= scale
    return layer


class Reader(nn.Module):
    """Symbols in, one guess a step out."""

    def __init__(self, cell: str, scale: float = 1.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, UNITS)
        self.layer = make_layer(cell, scale)
        self.out = nn.Linear(UNITS, SYMBOLS)

    def forward(self, symbols: Tensor) -> Tensor:
        states, _ = self.layer(self.embed(symbols))
        logits: Tensor = self.out(states)
        return logits


def remember(cell: str, steps: int, updates: int) -> float:
    """The share of sequences whose first symbol is named after the last."""
    torch.manual_seed(1)
    reader = Reader(cell)
    adam = torch.optim.Adam(reader.parameters(), lr=3e-3)
    for _ in range(updates):
        symbols = torch.randint(SYMBOLS, (BATCH, steps))
        loss = F.cross_entropy(reader(symbols)[:, -1], symbols[:, 0])
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        adam.step()
    symbols = torch.randint(SYMBOLS, (1024, steps))
    with torch.no_grad():
        return (reader(symbols)[:, -1].argmax(-1) == symbols[:, 0]).float().mean().item()


def repeat(clip: float | None, updates: int, delay: int = 3, steps: int = 40) -> list[float]:
    """The loss before every update."""
    torch.manual_seed(1)
    reader = Reader("rnn", LARGE)
    sgd = torch.optim.SGD(reader.parameters(), lr=0.5)
    losses = []
    for _ in range(updates):
        symbols = torch.randint(SYMBOLS, (BATCH, steps))
        logits = reader(symbols)[:, delay:]
        loss = F.cross_entropy(logits.flatten(0, 1), symbols[:, :-delay].flatten())
        sgd.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(reader.parameters(), clip or float("inf"))
        losses.append(loss.item())
        sgd.step()
    return losses


def draw(
    path: Path,
    curves: dict[str, Tensor],
    distances: list[int],
    accuracy: dict[str, list[float]],
    losses: dict[str, list[float]],
) -> None:
    """Three panels, one a measurement."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.8), layout="constrained")
    gradient, memory, loss = figure.subplots(1, 3)
    for name, curve in curves.items():
        gradient.semilogy(curve.clamp_min(1e-30).tolist(), label=name)
    gradient.set(title="How far a gradient reaches", xlabel="steps back", ylabel="norm, relative", ylim=(1e-12, 1e6))
    for cell, shares in accuracy.items():
        memory.plot(distances, shares, marker="o", label=cell)
    memory.axhline(1 / SYMBOLS, color="grey", linestyle=":", label="chance")
    memory.set(title="The first symbol, named after T", xlabel="T", ylabel="accuracy", ylim=(0, 1.05))
    for name, each in losses.items():
        loss.plot(each, label=name, linewidth=1)
    loss.set(title=f"RNN with weights x {LARGE:g}", xlabel="update", ylabel="loss")
    for axes in (gradient, memory, loss):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=150)
    write_atomically(path, content.getvalue())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure vanishing and exploding gradients.")
    parser.add_argument("-o", "--output", type=Path, help="also draw them to a .png, .svg or .pdf file")
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--distances", type=int, nargs="+", default=[10, 20, 40, 80])
    options = parser.parse_args(arguments)
    if options.output and importlib.util.find_spec("matplotlib") is None:
        parser.error("a picture must have matplotlib; install it: pip install matplotlib")
    if options.output and options.output.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"output must end in .png, .svg or .pdf, got {options.output}")

    torch.manual_seed(0)
    kinds = {**{cell: (cell, 1.0) for cell in CELLS}, f"rnn, weights x {LARGE:g}": ("rnn", LARGE)}
    curves = {name: reach(make_layer(*kind), 101) for name, kind in kinds.items()}
    shown = (1, 5, 10, 20, 50, 100)
    print("gradient at distance  " + "".join(f"{k:>10}" for k in shown))
    for name, curve in curves.items():
        print(f"{name:22s}" + "".join(f"{curve[k].item():10.1e}" for k in shown))
    print("\nfirst symbol named    " + "".join(f"{f'T = {T}':>10}" for T in options.distances))
    accuracy = {cell: [remember(cell, T, options.updates) for T in options.distances] for cell in CELLS}
    for cell, shares in accuracy.items():
        print(f"{cell:22s}" + "".join(f"{share:>10.0%}" for share in shares))
    marks = [max(20, options.updates * part // 4) for part in (0, 1, 2, 4)]
    print("\nloss before update    " + "".join(f"{mark:>10}" for mark in marks))
    losses = {"clipped at 1": repeat(1.0, options.updates), "not clipped": repeat(None, options.updates)}
    for name, curve in losses.items():
        print(f"{name:22s}" + "".join(f"{statistics.mean(curve[max(0, mark - 20) : mark]):10.3f}" for mark in marks))
    if options.output:
        draw(options.output, curves, options.distances, accuracy, losses)


if __name__ == "__main__":
    main()
