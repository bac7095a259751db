"""The CUDA kernels of the recurrent layers on the host: forward and backward equal float64, whatever the schedule."""

from typing import Any

import pytest
import torch
from torch import Tensor

from seqkit import ops

OPS = torch.ops.seqkit_emulated
GATES = {"rnn": 1, "relu": 1, "gru": 3, "lstm": 4}
CELLS = list(GATES)


def draw(
    cell: str, B: int, T: int, H: int, *, layer_norm: bool = False, peepholes: bool = False
) -> list[Tensor | None]:
    """The input, the states and the weights, in the order of RecurrentWeights, in float32."""
    torch.manual_seed(B + T + H)
    D, width = 3, GATES[cell] * H
    lstm = cell == "lstm"
    numbers = [torch.randn(B, T, D), *(torch.randn(B, H) for _ in range(2 if lstm else 1))]
    shapes = [(width, D), (width, H), (width,), (width,), (3, H) if peepholes and lstm else None]
    shapes += [(width,) if layer_norm else None] * 2 + [(H,) if layer_norm and lstm else None] * 2
    return [*numbers, *(None if shape is None else 0.5 * torch.randn(*shape) for shape in shapes)]


def run(cell: str, given: list[Tensor | None], dtype: torch.dtype, **options: Any) -> list[Tensor]:
    """The outputs and the last states, then the gradients of all that is given."""
    leaves = [None if y is None else y.to(dtype).requires_grad_() for y in given]
    n_states = 2 if cell == "lstm" else 1
    x, states, weights = leaves[0], leaves[1 : 1 + n_states], ops.RecurrentWeights(*leaves[1 + n_states :])
    torch.manual_seed(5)  # of the zoneout
    if cell == "lstm":
        outputs, last = ops.lstm(x, tuple(states), weights, **options)
        results = [outputs, *last]
    elif cell == "gru":
        results = list(ops.gru(x, states[0], weights, **options))
    else:
        activation = "relu" if cell == "relu" else "tanh"
        results = list(ops.rnn(x, states[0], weights, activation=activation, **options))
    generator = torch.Generator().manual_seed(7)
    slopes = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(dtype) for y in results]
    grads = torch.autograd.grad(results, [y for y in leaves if y is not None], slopes)
    return [*(y.detach() for y in results), *grads]


def emulated(cell: str, given: list[Tensor | None], **options: Any) -> list[Tensor]:
    """`run` in float32 on the kernels for CUDA."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.ops, "seqkit", OPS)
        return run(cell, given, torch.float32, **options)


def check(cell: str, given: list[Tensor | None], **options: Any) -> None:
    """No result is more than three times as wrong as the CPU's kernels in float32, against their float64."""
    exact, peer = run(cell, given, torch.float64, **options), run(cell, given, torch.float32, **options)
    for mine, theirs, truth in zip(emulated(cell, given, **options), peer, exact, strict=True):
        assert mine.shape == truth.shape
        if truth.numel():
            error, allowed = ((y.double() - truth).abs().max().item() for y in (mine, theirs))
            assert error <= 3 * allowed + 3e-6 * max(truth.abs().max().item(), 1.0)


@pytest.fixture
def poisoned() -> object:
    torch.use_deterministic_algorithms(True)  # fills what is allocated with NaN
    yield
    torch.use_deterministic_algorithms(False)


LENGTHS = torch.tensor([3, 0, 4])
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm": {"layer_norm": True},
    "zoneout of lengths": {"lengths": LENGTHS, "zoneout": 0.25},
    "norm of lengths, reversed, drawn": {
        "layer_norm": True,
        "lengths": LENGTHS,
        "reverse": True,
        "zoneout": 0.25,
        "training": True,
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cell", CELLS)
def test_rnn_equals_float64(cell: str, variant: str, schedule: str, poisoned: None) -> None:
    options = VARIANTS[variant]
    given = draw(cell, 3, 4, 13, layer_norm=options.get("layer_norm", False), peepholes=variant != "plain")
    check(cell, given, **options)


@pytest.mark.parametrize("cell", CELLS)
def test_rnn_without_a_backward_pass(cell: str, schedule: str, poisoned: None) -> None:
    given = draw(cell, 3, 4, 13, layer_norm=True, peepholes=True)
    options: dict[str, Any] = {"layer_norm": True, "lengths": LENGTHS}
    wanted = emulated(cell, given, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "grad", lambda *_: [])
        patch.setattr(torch.Tensor, "requires_grad_", lambda x: x)
        results = emulated(cell, given, **options)
    for mine, before in zip(results, wanted, strict=False):
        assert torch.equal(mine, before)


@pytest.mark.parametrize(("B", "T", "H"), [(1, 1, 1), (9, 2, 8), (1, 2, 260)])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_rnn_of_other_sizes(cell: str, B: int, T: int, H: int, poisoned: None) -> None:
    check(cell, draw(cell, B, T, H, layer_norm=True, peepholes=True), layer_norm=True, reverse=True, zoneout=0.5)


@pytest.mark.parametrize("cell", CELLS)
def test_rnn_of_nothing(cell: str, poisoned: None) -> None:
    for B, T, H in [(0, 3, 5), (2, 0, 5), (2, 3, 0)]:
        check(cell, draw(cell, B, T, H), lengths=torch.zeros(B, dtype=torch.int64))


def test_rnn_keeps_whole_units_to_the_last_bit() -> None:
    given = draw("lstm", 2, 1, 40)
    options = {"zoneout": (0.25, 0.5), "training": True}
    mine, theirs = emulated("lstm", given, **options), run("lstm", given, torch.float32, **options)
    for place, share in ((1, 0.25), (2, 0.5)):
        stays = mine[place] == given[place]
        assert torch.equal(stays, theirs[place] == given[place])
        assert abs(stays.float().mean().item() - share) < 0.25


def test_rnn_cuts_lengths_and_reads_no_padding() -> None:
    x, h0, _, weight, *_ = draw("rnn", 2, 3, 5)
    assert x is not None

    def forward(x: Tensor, lengths: list[int]) -> list[Tensor]:
        from_input = x[:, :, :1].expand(-1, -1, 5).contiguous()
        counts = torch.tensor(lengths)
        return list(OPS.rnn(from_input, h0, None, weight, *[None] * 7, counts, None, 0, False, False, 0.0, 0.0, True))

    wanted = forward(x, [0, 3])
    x[0] = torch.nan
    for mine, before in zip(forward(x, [-3, 2**40]), wanted, strict=True):
        assert torch.equal(mine, before)
    with pytest.raises(RuntimeError, match="from_input must have the dtype Float"):
        OPS.rnn(x.double(), h0, None, weight, *[None] * 9, 0, False, False, 0.0, 0.0, True)


def test_rnn_repeats_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    given = draw("lstm", 3, 3, 9, layer_norm=True, peepholes=True)
    runs = []
    for schedule in ("forward", "reverse", "random:1", "random:2"):
        monkeypatch.setenv("SEQKIT_SCHEDULE", schedule)
        runs.append(emulated("lstm", given, layer_norm=True, lengths=torch.tensor([3, 1, 2])))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, runs[0], strict=True))
