"""`ops.additive_attention`: the definition, zero beyond the lengths, rows that do not see padding or the batch."""

import math

import pytest
import torch

from seqkit import ops
from seqkit.errors import InputError
from seqkit.ops import library

needs_native = pytest.mark.skipif(not library.is_built("additive_attention"), reason="the native library is not built")


def operands(B: int = 3, T: int = 2, S: int = 9, A: int = 21, D: int = 19) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = (B, T, A), (B, S, A), (B, S, D), (A,)
    return tuple(torch.randn(*shape, generator=generator) for shape in shapes)


def test_additive_attention_closed_form() -> None:
    query, keys = torch.zeros(1, 1, 1), torch.tensor([[[0.0], [1e9]]])  # tanh 0 and 1
    values, v = torch.tensor([[[0.0], [1.0]]]), torch.tensor([math.log(3.0)])
    context, weights = ops.additive_attention(query, keys, values, v)
    torch.testing.assert_close(weights, torch.tensor([[[0.25, 0.75]]]))
    torch.testing.assert_close(context, torch.tensor([[[0.75]]]))


@needs_native
@pytest.mark.parametrize("S", [1, 9, 40])
def test_additive_attention_equals_its_reference(S: int) -> None:
    given = operands(S=S)
    lengths = torch.tensor([S, 1, 0])
    for counts in (None, lengths):
        got = ops.additive_attention(*given, lengths=counts)
        doubles = (tensor.double() for tensor in given)
        wanted = ops.additive_attention_reference(*doubles, lengths=counts)
        torch.testing.assert_close(got, tuple(w.float() for w in wanted), rtol=1e-5, atol=1e-6)
    assert not got[0][2].any()
    assert not got[1][2].any()


@needs_native
def test_additive_attention_rows_do_not_see_padding_or_the_batch() -> None:
    query, keys, values, v = operands()
    lengths = torch.tensor([9, 5, 3])
    context, weights = ops.additive_attention(query, keys, values, v, lengths=lengths)
    for b, length in enumerate(lengths.tolist()):
        one = slice(b, b + 1)
        for t in range(2):
            alone = ops.additive_attention(query[one, t : t + 1], keys[one, :length], values[one, :length], v)
            assert torch.equal(alone[0][0, 0], context[b, t])
            assert torch.equal(alone[1][0, 0], weights[b, t, :length])
        keys[b, length:] = math.nan
        values[b, length:] = math.nan
    again = ops.additive_attention(query, keys, values, v, lengths=lengths)
    assert torch.equal(again[0], context)
    assert torch.equal(again[1], weights)
    with library.use_backend("reference"):
        assert ops.additive_attention(query, keys, values, v, lengths=lengths)[0].isfinite().all()


def test_additive_attention_has_gradients() -> None:
    given = tuple(tensor.double().requires_grad_() for tensor in operands(B=2, T=2, S=3, A=3, D=2))
    lengths = torch.tensor([3, 0])
    assert torch.autograd.gradcheck(lambda *x: ops.additive_attention(*x, lengths=lengths), given)


def test_additive_attention_refuses_what_does_not_fit() -> None:
    attend = getattr(ops.additive_attention, "__wrapped__", ops.additive_attention)  # past the shape types
    query, keys, values, v = operands()
    with pytest.raises(InputError, match=r"keys must have the shape \[3, S, 21\], got \[3, 9, 20\]"):
        attend(query, keys[..., :20], values, v)
    with pytest.raises(InputError, match=r"values must have the shape \[3, 9, D\]"):
        attend(query, keys, values[:, :8], v)
    with pytest.raises(InputError, match=r"v must have the shape \[21\]"):
        attend(query, keys, values, v[:3])
    with pytest.raises(InputError, match="three axes"):
        attend(query[0], keys, values, v)
    with pytest.raises(InputError, match=r"lengths must have the shape \[3\]"):
        attend(query, keys, values, v, lengths=torch.tensor([1, 2]))


@needs_native
@pytest.mark.parametrize("length", [-1, 10])
def test_additive_attention_refuses_a_length_outside_the_source(length: int) -> None:
    with pytest.raises(RuntimeError, match=f"lengths must be from 0 to 9, got {length}"):
        ops.additive_attention(*operands(), lengths=torch.tensor([1, length, 2]))


@needs_native
def test_additive_attention_opcheck() -> None:
    torch.library.opcheck(torch.ops.seqkit.additive_attention.default, (*operands(), torch.tensor([9, 0, 4])))


@needs_native
@pytest.mark.compile
def test_additive_attention_compiles() -> None:
    given = operands()
    compiled = torch.compile(ops.additive_attention, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*given), ops.additive_attention(*given))
