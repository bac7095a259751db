"""`ops.linear`: a row's bits depend on that row alone; values equal torch's; wrong arguments raise."""

import math

import pytest
import torch
from torch.nn import functional as F

from seqkit import ops
from seqkit.errors import InputError
from seqkit.ops import library

needs_native = pytest.mark.skipif(not library.is_built("linear"), reason="the native library is not built")


def operands(rows: int, columns: int, depth: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(*shape, generator=generator) for shape in ((rows, depth), (columns, depth), (columns,))]
    return draw[0], draw[1], draw[2]


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "tanh"])
@pytest.mark.parametrize(
    ("columns", "depth"), [(1, 1), (31, 7), (33, 300), (47, 3), (63, 2), (64, 513), (100, 0), (0, 5)]
)
def test_linear_equals_torch(activation: str, columns: int, depth: int) -> None:
    x, weight, bias = operands(13, columns, depth)
    wanted = F.linear(x.double(), weight.double(), bias.double())
    functions = {"none": lambda y: y, "relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh}
    wanted = functions[activation](wanted).float()
    torch.testing.assert_close(ops.linear(x, weight, bias, activation=activation), wanted, rtol=1e-5, atol=2e-5)


@needs_native
@pytest.mark.parametrize("columns", [1, 40, 96])
def test_linear_rows_do_not_depend_on_their_number_or_order(columns: int) -> None:
    x, weight, bias = operands(201, columns, 517)
    packed = ops.pack_linear_weight(weight)
    whole = ops.linear(x, weight, bias, activation="gelu", packed=packed)
    for rows in range(1, 71):
        part = ops.linear(x[:rows], weight, bias, activation="gelu", packed=packed)
        assert torch.equal(part, whole[:rows]), rows
    order = torch.randperm(201, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ops.linear(x[order], weight, bias, activation="gelu", packed=packed), whole[order])


@needs_native
def test_linear_does_not_depend_on_threads() -> None:
    x, weight, bias = operands(200, 300, 256)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ops.linear(x, weight, bias)
        torch.set_num_threads(2)
        two = ops.linear(x, weight, bias)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one, two)


def test_linear_gelu_is_relatively_exact_in_its_tail() -> None:
    x = torch.linspace(-6.0, 6.0, 2401).unsqueeze(1)
    got = ops.linear(x, torch.ones(1, 1), activation="gelu").double().squeeze(1)
    wanted = torch.tensor([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.double().squeeze(1).tolist()])
    torch.testing.assert_close(got, wanted.double(), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "tanh"])
def test_linear_passes_nan_and_infinity_as_torch_does(activation: str) -> None:
    x = torch.tensor([[math.nan], [math.inf], [-math.inf], [0.0], [200.0], [-200.0]])
    got = ops.linear(x, torch.ones(1, 1), activation=activation)
    with library.use_backend("reference"):
        wanted = ops.linear(x, torch.ones(1, 1), activation=activation)
    if activation == "gelu":  # torch gives NaN for infinities; these are the limits
        wanted[1], wanted[2] = math.inf, 0.0
    torch.testing.assert_close(got, wanted, equal_nan=True)


def test_linear_shapes_with_no_rows_or_more_axes() -> None:
    x, weight, bias = operands(12, 5, 4)
    assert ops.linear(x[:0], weight, bias).shape == (0, 5)
    assert torch.equal(ops.linear(x.view(3, 4, 4), weight, bias).view(12, 5), ops.linear(x, weight, bias))
    assert ops.linear(x[0], weight, bias).shape == (5,)
    assert torch.equal(ops.linear(x.T.contiguous().T, weight, bias), ops.linear(x, weight, bias))


def test_linear_covers_other_dtypes_by_the_reference() -> None:
    x, weight, bias = operands(3, 5, 4)
    doubles = ops.linear(x.double(), weight.double(), bias.double())
    assert doubles.dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.linear(x, weight, bias).dtype == torch.bfloat16


def test_pack_linear_weight_is_the_same_in_both_backends() -> None:
    weight = operands(1, 70, 9)[1]
    native = ops.pack_linear_weight(weight)
    with library.use_backend("reference"):
        assert torch.equal(native, ops.pack_linear_weight(weight))
    assert native.shape == (3, 9, 32)


def test_linear_refuses_what_does_not_fit() -> None:
    linear = getattr(ops.linear, "__wrapped__", ops.linear)  # past the shape types, which users do not run
    x, weight, bias = operands(3, 5, 4)
    with pytest.raises(InputError, match="x must have the last size 4"):
        linear(x[:, :3], weight)
    with pytest.raises(InputError, match=r"bias must have the shape \[5\]"):
        linear(x, weight, bias[:4])
    with pytest.raises(InputError, match="packed must have the shape"):
        linear(x, weight, bias, packed=torch.zeros(2, 4, 32))
    with pytest.raises(InputError, match="x must be a tensor, got list"):
        linear([1.0], weight)
    with pytest.raises(InputError, match="bias must be a tensor or None, got float"):
        linear(x, weight, 1.0)
    with pytest.raises(InputError, match="packed must be on the device of the others, cpu, got meta"):
        linear(x, weight, packed=torch.zeros(1, 4, 32, device="meta"))
    with pytest.raises(InputError, match="weight must be a tensor, got NoneType"):
        getattr(ops.pack_linear_weight, "__wrapped__", ops.pack_linear_weight)(None)
    with pytest.raises(InputError, match="activation must be one of"):
        linear(x, weight, bias, activation="swish")
    with pytest.raises(RuntimeError, match="no gradient"):
        linear(x, weight.requires_grad_(), bias)


@needs_native
def test_linear_kernel_refuses_what_the_face_would_not_send() -> None:
    x, weight, bias = operands(3, 5, 4)
    packed = ops.pack_linear_weight(weight)
    kernel = torch.ops.seqkit.linear
    with pytest.raises(RuntimeError, match="packed must have the shape"):
        kernel(x, packed, bias, 33, 0)
    with pytest.raises(RuntimeError, match="x must have the dtype Float"):
        kernel(x.double(), packed, bias, 5, 0)
    with pytest.raises(RuntimeError, match="activation must be 0 to 3"):
        kernel(x, packed, bias, 5, 4)
    with pytest.raises(RuntimeError, match="contiguous"):
        kernel(torch.zeros(4, 3).T, packed, bias, 5, 0)
    with pytest.raises(InputError, match="linear: packed must be on the device of the others, cpu, got meta"):
        kernel(x, packed.to("meta"), bias, 5, 0)


@pytest.mark.parametrize("choice", ["auto", "reference"])
def test_pack_linear_weight_takes_a_weight_without_inputs(choice: str) -> None:
    with library.use_backend(choice):
        assert ops.pack_linear_weight(torch.zeros(33, 0)).shape == (2, 0, 32)
        assert ops.pack_linear_weight(torch.zeros(0, 5)).shape == (0, 5, 32)


@needs_native
def test_linear_opcheck() -> None:
    x, weight, bias = operands(3, 5, 4)
    torch.library.opcheck(torch.ops.seqkit.linear_pack.default, (weight,))
    torch.library.opcheck(torch.ops.seqkit.linear.default, (x, ops.pack_linear_weight(weight), bias, 5, 2))


@needs_native
@pytest.mark.compile
def test_linear_compiles() -> None:
    x, weight, bias = operands(3, 5, 4)
    compiled = torch.compile(lambda *given: ops.linear(*given, activation="tanh"), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, weight, bias), ops.linear(x, weight, bias, activation="tanh"))
