"""Recurrent layers over whole sequences: the kernels against the step-by-step reference and torch's own layers."""

import itertools
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqkit import ops
from seqkit.errors import InputError
from seqkit.ops import library

GATES = {"rnn": 1, "relu": 1, "gru": 3, "lstm": 4}
CELLS = list(GATES)


def weights_of(
    cell: str, D: int, H: int, *, dtype: torch.dtype = torch.float64, layer_norm: bool = False, peepholes: bool = False
) -> ops.RecurrentWeights:
    """Random weights of every kind that the cell can have."""

    def random(*shape: int) -> Tensor:
        return (torch.randn(*shape, dtype=dtype) * 0.4).requires_grad_()

    width = GATES[cell] * H
    normed_state = layer_norm and cell == "lstm"
    return ops.RecurrentWeights(
        random(width, D),
        random(width, H),
        random(width),
        random(width),
        random(3, H) if peepholes else None,
        random(width) if layer_norm else None,
        random(width) if layer_norm else None,
        random(H) if normed_state else None,
        random(H) if normed_state else None,
    )


def run(cell: str, x: Tensor, states: list[Tensor], weights: ops.RecurrentWeights, **options: Any) -> list[Tensor]:
    """The outputs and the last states of any cell; no states are zeros."""
    if cell == "lstm":
        outputs, last = ops.lstm(x, (states[0], states[1]) if states else None, weights, **options)
        return [outputs, *last]
    first = states[0] if states else None
    if cell == "gru":
        return list(ops.gru(x, first, weights, **options))
    return list(ops.rnn(x, first, weights, activation="relu" if cell == "relu" else "tanh", **options))


def inputs(
    cell: str, B: int, T: int, D: int, H: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, list[Tensor]]:
    x = torch.randn(B, T, D, dtype=dtype, requires_grad=True)
    return x, [torch.randn(B, H, dtype=dtype, requires_grad=True) for _ in range(2 if cell == "lstm" else 1)]


def leaves(x: Tensor, states: list[Tensor], weights: ops.RecurrentWeights) -> list[Tensor]:
    return [x, *states, *(w for w in weights if w is not None)]


def gradients(results: list[Tensor], wanted: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(7)
    grads = [torch.randn(y.shape, dtype=torch.float64).to(y.dtype) for y in results]
    return list(torch.autograd.grad(results, wanted, grads))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [3, 0, 5, 1, 5, 2, 4, 3, 5, 1, 0]])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_rnn_equals_its_reference(cell: str, layer_norm: bool, lengths: list[int] | None, reverse: bool) -> None:
    torch.manual_seed(0)
    x, states = inputs(cell, 11, 5, 7, 35)
    weights = weights_of(cell, 7, 35, layer_norm=layer_norm, peepholes=cell == "lstm")
    zoneout = (0.3, 0.2) if cell == "lstm" else 0.3
    options: dict[str, Any] = {"layer_norm": layer_norm, "zoneout": zoneout, "reverse": reverse}
    options["lengths"] = None if lengths is None else torch.tensor(lengths)
    results = run(cell, x, states, weights, **options)
    with ops.use_backend("reference"):
        expected = run(cell, x, states, weights, **options)
    torch.testing.assert_close(results, expected, rtol=1e-10, atol=1e-10)
    wanted = leaves(x, states, weights)
    torch.testing.assert_close(gradients(results, wanted), gradients(expected, wanted), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_rnn_is_as_exact_as_torchs_steps(cell: str, layer_norm: bool) -> None:
    torch.manual_seed(0)
    x, states = inputs(cell, 9, 12, 40, 50)
    weights = weights_of(cell, 40, 50, layer_norm=layer_norm)
    exact = run(cell, x, states, weights, layer_norm=layer_norm)
    exact_grads = gradients(exact, leaves(x, states, weights))
    halves = [y.detach().float().requires_grad_() for y in (x, *states)]
    floats = ops.RecurrentWeights(*(None if w is None else w.detach().float().requires_grad_() for w in weights))
    errors = []
    for backend in ("native", "reference"):
        with ops.use_backend(backend):
            results = run(cell, halves[0], halves[1:], floats, layer_norm=layer_norm)
        grads = gradients(results, leaves(halves[0], halves[1:], floats))
        pairs = zip([*results, *grads], [*exact, *exact_grads], strict=True)
        errors.append([(a.double() - b).square().mean().sqrt().item() for a, b in pairs])
    for ours, torchs in zip(*errors, strict=True):
        assert ours <= 3 * torchs + 1e-7


@pytest.mark.parametrize("cell", CELLS)
def test_rnn_equals_torchs_layer(cell: str) -> None:
    torch.manual_seed(0)
    x, _ = inputs(cell, 3, 6, 5, 8)
    kinds = {"rnn": torch.nn.RNN, "relu": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
    options = {"nonlinearity": "relu"} if cell == "relu" else {}
    layer = kinds[cell](5, 8, batch_first=True, dtype=torch.float64, **options)
    weights = ops.RecurrentWeights(*(p for p in layer.parameters()))
    lengths = torch.tensor([6, 4, 1])
    packed, last = layer(pack_padded_sequence(x, lengths, batch_first=True))
    expected = [
        pad_packed_sequence(packed, batch_first=True)[0],
        *(y[0] for y in (last if cell == "lstm" else (last,))),
    ]
    results = run(cell, x, [], weights, lengths=lengths)
    torch.testing.assert_close(results, expected)
    wanted = [x, *layer.parameters()]
    torch.testing.assert_close(gradients(results, wanted), gradients(expected, wanted))


def test_lstm_norms_as_layer_norm_does() -> None:
    """One step, written out."""
    torch.manual_seed(0)
    x, (hidden, state) = inputs("lstm", 2, 1, 3, 4)
    w = weights_of("lstm", 3, 4, layer_norm=True)
    norm = torch.nn.functional.layer_norm
    gates = norm(x[:, 0] @ w.weight_input.t(), (16,), w.gain_input, w.bias_input)
    gates = gates + norm(hidden @ w.weight_hidden.t(), (16,), w.gain_hidden, w.bias_hidden)
    i, f, g, o = gates.chunk(4, -1)
    after = torch.sigmoid(f) * state + torch.sigmoid(i) * torch.tanh(g)
    expected = torch.sigmoid(o) * torch.tanh(norm(after, (4,), w.gain_state, w.bias_state))
    _, (last, last_state) = ops.lstm(x, (hidden, state), w, layer_norm=True)
    torch.testing.assert_close((last, last_state), (expected, after))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_rnn_gradcheck(cell: str, layer_norm: bool, training: bool) -> None:
    torch.manual_seed(0)
    x, states = inputs(cell, 2, 3, 2, 3)
    weights = weights_of(cell, 2, 3, layer_norm=layer_norm, peepholes=cell == "lstm")
    present = [index for index, w in enumerate(weights) if w is not None]
    count = 1 + len(states)

    def layer(*given: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(3)  # the same units stay each time
        values: list[Tensor | None] = [None] * len(weights)
        for index, value in zip(present, given[count:], strict=True):
            values[index] = value
        built = ops.RecurrentWeights(*values)  # type: ignore[arg-type]
        lengths = torch.tensor([3, 2])
        return tuple(
            run(
                cell,
                given[0],
                list(given[1:count]),
                built,
                layer_norm=layer_norm,
                zoneout=0.4,
                training=training,
                lengths=lengths,
            )
        )

    assert torch.autograd.gradcheck(layer, leaves(x, states, weights))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_rnn_zoneout_keeps_units_at_its_rate(backend: str) -> None:
    torch.manual_seed(0)
    x, states = inputs("gru", 8, 40, 5, 30, torch.float32)
    weights = weights_of("gru", 5, 30, dtype=torch.float32)
    with ops.use_backend(backend):
        outputs, _ = run("gru", x, states, weights, zoneout=0.3, training=True)
        again, _ = run("gru", x, states, weights, zoneout=0.3, training=True)
    stayed = (outputs[:, 1:] == outputs[:, :-1]).double().mean().item()
    assert abs(stayed - 0.3) < 0.02
    assert not outputs.equal(again)


@pytest.mark.parametrize("training", [False, True])
def test_rnn_with_whole_zoneout_keeps_its_state(training: bool) -> None:
    x, states = inputs("lstm", 2, 3, 4, 5)
    outputs, hidden, state = run("lstm", x, states, weights_of("lstm", 4, 5), zoneout=1.0, training=training)
    torch.testing.assert_close((hidden, state), tuple(states))
    torch.testing.assert_close(outputs, states[0][:, None].expand(2, 3, 5))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_rnn_does_not_see_padding(backend: str) -> None:
    torch.manual_seed(0)
    x, states = inputs("lstm", 2, 4, 3, 5)
    weights = weights_of("lstm", 3, 5, layer_norm=True)
    broken = x.detach().clone()
    broken[1, 2:] = torch.nan
    broken.requires_grad_()
    lengths = torch.tensor([4, 2])
    with ops.use_backend(backend):
        both = [run("lstm", y, states, weights, lengths=lengths, layer_norm=True) for y in (x, broken)]
    torch.testing.assert_close(*both)
    grads = [gradients(y, leaves(z, states, weights)) for y, z in zip(both, (x, broken), strict=True)]
    for a, b in zip(grads[0][1:], grads[1][1:], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_rnn_sentence_does_not_depend_on_the_batch(cell: str, layer_norm: bool) -> None:
    torch.manual_seed(0)
    x, states = inputs(cell, 23, 4, 6, 37, torch.float32)
    weights = weights_of(cell, 6, 37, dtype=torch.float32, layer_norm=layer_norm)
    # What torch multiplies may depend on the batch: inputs that give exact products do not.
    exact = ops.RecurrentWeights(weights[0].detach().mul(8).round(), *weights[1:])
    x = x.detach().mul(8).round().div(64)
    with torch.no_grad():
        whole = run(cell, x, states, exact, layer_norm=layer_norm)
        for count in (1, 5, 12):
            part = run(cell, x[:count], [y[:count] for y in states], exact, layer_norm=layer_norm)
            assert all(a.equal(b[:count]) for a, b in zip(part, whole, strict=True))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("B", "T", "D", "H"), [(0, 3, 2, 4), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 2, 0), (1, 1, 1, 1)])
def test_rnn_of_nothing(cell: str, B: int, T: int, D: int, H: int) -> None:
    x, states = inputs(cell, B, T, D, H)
    weights = weights_of(cell, D, H)
    results = run(cell, x, states, weights)
    with ops.use_backend("reference"):
        expected = run(cell, x, states, weights)
    torch.testing.assert_close(results, expected)
    wanted = [x, *states, weights.weight_input, weights.weight_hidden]
    for a, b in zip(gradients(results, wanted), wanted, strict=True):
        assert a.shape == b.shape
        assert a.isfinite().all()


def test_rnn_leaves_no_output_unwritten() -> None:
    torch.manual_seed(0)
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for cell in CELLS:
            x, states = inputs(cell, 3, 4, 5, 33, torch.float32)
            weights = weights_of(cell, 5, 33, dtype=torch.float32, layer_norm=True)
            results = run(cell, x, states, weights, layer_norm=True, lengths=torch.tensor([4, 0, 2]))
            grads = gradients(results, leaves(x, states, weights))
            assert all(y.isfinite().all() for y in (*results, *grads))
    finally:
        torch.use_deterministic_algorithms(was)


def test_rnn_repeats_to_the_last_bit_whatever_the_threads() -> None:
    torch.manual_seed(0)
    x, states = inputs("lstm", 30, 6, 20, 70, torch.float32)
    weights = weights_of("lstm", 20, 70, dtype=torch.float32, layer_norm=True)
    threads = torch.get_num_threads()
    seen = []
    try:
        for count in (1, 2, 3, 1):
            torch.set_num_threads(count)
            results = run("lstm", x, states, weights, layer_norm=True)
            seen.append([*results, *gradients(results, [*states, weights.bias_input])])
    finally:
        torch.set_num_threads(threads)
    assert all(a.equal(b) for other in seen[1:] for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rnn_of_halves_is_that_of_floats_rounded(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "HAS_AMX", False)
    torch.manual_seed(0)
    x, states = inputs("gru", 2, 3, 4, 5, dtype)
    weights = weights_of("gru", 4, 5, dtype=dtype)
    floats = ops.RecurrentWeights(*(None if w is None else w.float() for w in weights))
    expected = run("gru", x.float(), [y.float() for y in states], floats)
    torch.testing.assert_close(run("gru", x, states, weights), [y.to(dtype) for y in expected], rtol=0, atol=0)


@pytest.mark.skipif(not library.is_built("lstm"), reason="no native kernel in this build")
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize(
    ("B", "T", "D", "H"), [(33, 6, 12, 20), (16, 3, 40, 64), (5, 4, 32, 33), (48, 3, 7, 96), (1, 5, 3, 7)]
)
@pytest.mark.parametrize("cell", CELLS)
def test_products_in_bfloat16_where_the_cpu_has_a_matrix_unit(
    cell: str, B: int, T: int, D: int, H: int, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs, states and gradients are those of float32 but for the rounding of what is multiplied."""
    allowed = 0.1 if cell == "relu" else 0.05  # a unit of relu may fall on the other side of zero
    torch.manual_seed(0)
    dtype = torch.float32 if autocast else torch.bfloat16
    x, states = inputs(cell, B, T, D, H, dtype)
    weights = weights_of(cell, D, H, dtype=dtype, layer_norm=True, peepholes=cell == "lstm")
    lengths = torch.randint(T + 1, (B,))

    def measured(has_amx: bool) -> list[Tensor]:
        monkeypatch.setattr(library, "HAS_AMX", has_amx)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            results = run(cell, x, states, weights, layer_norm=True, lengths=lengths)
        assert all(y.dtype == torch.bfloat16 for y in results)
        return [*results, *gradients(results, leaves(x, states, weights))]

    for rounded, ours in zip(measured(True), measured(False), strict=True):
        assert rounded.dtype == ours.dtype
        assert (rounded.float() - ours.float()).norm() <= allowed * ours.float().norm() + 1e-6


@pytest.mark.skipif(not library.is_built("lstm"), reason="no native kernel in this build")
def test_products_in_bfloat16_are_exact_sums_of_rounded_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small whole numbers are bfloat16: the products of a layer of relu units are then float32's, bit for bit."""
    monkeypatch.setattr(library, "HAS_AMX", True)
    for B, H in itertools.product((1, 15, 16, 17, 32, 33, 50), (1, 16, 31, 32, 48, 65)):
        x, state, matrix = (torch.randint(-2, 3, shape).bfloat16() for shape in ((B, 1, 3), (B, H), (H, H)))
        weights = ops.RecurrentWeights(torch.randint(-2, 3, (H, 3)).bfloat16(), matrix.requires_grad_())
        _, hidden = ops.rnn(x, state.requires_grad_(), weights, activation="relu")
        expected = (x[:, 0].float() @ weights.weight_input.float().t() + state.float() @ matrix.float().t()).relu()
        assert hidden.equal(expected.bfloat16())
        grad = torch.randint(-2, 3, (B, H)).bfloat16()
        through = grad.float() * (expected > 0)
        to_state, to_matrix = torch.autograd.grad(hidden, (state, matrix), grad)
        assert to_state.equal((through @ matrix.float()).bfloat16())
        assert to_matrix.equal((through.t() @ state.float()).bfloat16())


@pytest.mark.skipif(not library.is_built("lstm"), reason="no native kernel in this build")
def test_products_in_bfloat16_are_the_same_without_a_matrix_unit() -> None:
    """SEQKIT_ISA=1 takes the plain loop; the sums of both are float32's in another order."""
    code = """
import torch
from seqkit import ops
from seqkit.ops import library
library.HAS_AMX = True
torch.manual_seed(0)
x, w, u = (torch.randn(shape).bfloat16().requires_grad_() for shape in ((35, 4, 6), (4 * 40, 6), (4 * 40, 40)))
outputs, (hidden, state) = ops.lstm(x, None, ops.RecurrentWeights(w, u))
(outputs.float().sum() + state.float().sum()).backward()
print([round(y.float().norm().item(), 1) for y in (outputs, hidden, state, x.grad, w.grad, u.grad)])
"""
    seen = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "SEQKIT_ISA": level}, text=True)
        for level in "012"
    }
    assert len(seen) == 1


@pytest.mark.skipif(not library.is_built("lstm"), reason="no native kernel in this build")
def test_only_a_float_layer_on_the_cpu_has_bfloat16_weights() -> None:
    given = [torch.zeros(2, 3, 4, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64), None]
    rest = [*[None] * 9, 0, False, False, 0.0, 0.0, False]
    with pytest.raises(RuntimeError, match="weight must have the dtype of from_input unless that is Float on the CPU"):
        torch.ops.seqkit.rnn(*given, torch.zeros(4, 4, dtype=torch.bfloat16), *rest)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_rnn_trains_under_autocast(backend: str) -> None:
    x, states = inputs("lstm", 2, 3, 4, 5, torch.float32)
    weights = weights_of("lstm", 4, 5, dtype=torch.float32)
    with ops.use_backend(backend), torch.autocast("cpu", dtype=torch.bfloat16):
        results = run("lstm", x, states, weights)
    assert all(y.dtype == torch.bfloat16 for y in results)
    results[0].float().sum().backward()
    assert weights.weight_hidden.grad is not None
    assert weights.weight_hidden.grad.dtype == torch.float32


def test_rnn_refuses_what_does_not_fit() -> None:
    x, states = inputs("gru", 2, 3, 4, 5, torch.float32)
    weights = weights_of("gru", 4, 5, dtype=torch.float32)
    with pytest.raises(InputError, match="zoneout must be from 0 to 1"):
        ops.gru(x, states[0], weights, zoneout=1.5)
    with pytest.raises(InputError, match="bias_input must have the shape"):
        ops.gru(x, states[0], weights._replace(bias_input=torch.zeros(3)))
    with pytest.raises(InputError, match="must have the dtype of x"):
        ops.gru(x, states[0], weights._replace(bias_input=torch.zeros(15, dtype=torch.float64)))
    with pytest.raises(InputError, match="peepholes must be None"):
        ops.gru(x, states[0], weights._replace(peepholes=torch.zeros(3, 5)))
    with pytest.raises(InputError, match="activation must be tanh or relu"):
        ops.rnn(x, None, weights_of("rnn", 4, 5, dtype=torch.float32), activation="gelu")
    with pytest.raises((InputError, TypeError), match=r"lengths|type"):
        ops.gru(x, states[0], weights, lengths=torch.tensor([1]))


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("length", [-1, 4])
def test_rnn_refuses_a_length_outside_the_sequence(backend: str, length: int) -> None:
    x, states = inputs("gru", 2, 3, 4, 5)
    with ops.use_backend(backend), pytest.raises(RuntimeError, match=f"must be from 0 to 3, got {length}"):
        ops.gru(x, states[0], weights_of("gru", 4, 5), lengths=torch.tensor([3, length]))


def test_rnn_opcheck() -> None:
    torch.manual_seed(0)
    B, T, H = 2, 3, 4
    from_input, hidden, state = torch.randn(B, T, 4 * H), torch.randn(B, H), torch.randn(B, H)
    lengths, seed = torch.tensor([3, 1]), torch.tensor([5])
    weight, wide, row = torch.randn(4 * H, H), torch.randn(4 * H), torch.randn(H)
    given = (from_input, hidden, state, weight, wide, wide, wide, wide, row, row, torch.randn(3, H), lengths, seed)
    options = (2, False, True, 0.1, 0.2)
    torch.library.opcheck(torch.ops.seqkit.rnn.default, (*given, *options, True))
    outputs, _, _, *saved = torch.ops.seqkit.rnn(*given, *options, True)
    grads = (torch.randn(B, T, H), None, torch.randn(B, H))
    torch.library.opcheck(torch.ops.seqkit.rnn_backward.default, (*grads, *given, *options, outputs, *saved))


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_rnn_compiles_forward_and_backward(cell: str) -> None:
    torch.manual_seed(0)
    x, states = inputs(cell, 2, 3, 4, 5)
    weights = weights_of(cell, 4, 5, layer_norm=True)
    lengths = torch.tensor([3, 1])
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    both = [f(cell, x, states, weights, layer_norm=True, lengths=lengths) for f in (compiled, run)]
    torch.testing.assert_close(*both)
    wanted = leaves(x, states, weights)
    torch.testing.assert_close(gradients(both[0], wanted), gradients(both[1], wanted))


@pytest.mark.parametrize("level", ["0", "1"])
def test_rnn_at_lower_machine_levels(level: str) -> None:
    tests = [f"{__file__}::test_rnn_is_as_exact_as_torchs_steps", f"{__file__}::test_rnn_of_nothing"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, env={**os.environ, "SEQKIT_ISA": level}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
