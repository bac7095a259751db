"""One step of attention in a beam search: the definition, a copied cache as oracle, rows that see only their own."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seqkit import ops
from seqkit.errors import InputError
from seqkit.ops import library

needs_native = pytest.mark.skipif(not library.is_built("decode_attention"), reason="the native library is not built")
NATIVE = pytest.param("native", marks=needs_native)


@pytest.fixture(params=["reference", NATIVE])
def backend(request):
    with library.use_backend(request.param):
        yield request.param


def decoding(B=3, K=4, H=2, Dh=20, capacity=40, C=None, step=30, seed=0, dtype=torch.float32):
    """q, the caches as views of one allocation, an ancestry of random choices, and what is not written is NaN."""
    draw = torch.Generator().manual_seed(seed)
    C = K if C is None else C
    cache = torch.randn(B, C, capacity, 2, H, Dh, generator=draw).to(dtype)
    cache[:, :, step + 1 :] = math.nan
    ancestry = torch.randint(0, C, (B, K, capacity), generator=draw)
    ancestry[:, :, step + 1 :] = -7  # never read
    q = torch.randn(B, K, H, Dh, generator=draw).to(dtype)
    return q, cache[:, :, :, 0], cache[:, :, :, 1], ancestry, step


def source(B=3, K=4, H=2, S=9, Dh=20, seed=0):
    draw = torch.Generator().manual_seed(seed)
    q = torch.randn(B, K, H, Dh, generator=draw)
    memory = torch.randn(B, S, 2, H, Dh, generator=draw).transpose(1, 3)  # B H 2 S Dh
    lengths = torch.tensor([S, 1, 0, *torch.randint(0, S + 1, (B,), generator=draw).tolist()][:B])
    return q, memory[:, :, 0], memory[:, :, 1], lengths


def copied(q, k_cache, v_cache, ancestry, step):
    """The same by following the ancestry in loops, and torch's own attention over what it copied."""
    out = torch.empty_like(q)
    for b in range(q.shape[0]):
        for k in range(q.shape[1]):
            writers = ancestry[b, k, : step + 1].tolist()
            keys, values = (torch.stack([x[b, c, t] for t, c in enumerate(writers)]) for x in (k_cache, v_cache))
            weights = torch.softmax(torch.einsum("hd,thd->ht", q[b, k], keys) * q.shape[3] ** -0.5, dim=-1)
            out[b, k] = torch.einsum("ht,thd->hd", weights, values)
    return out


@pytest.mark.parametrize("step_is_tensor", [False, True])
@pytest.mark.parametrize(
    ("K", "C", "Dh", "step"),
    [(4, 4, 20, 30), (1, 1, 64, 0), (3, 5, 1, 15), (5, 2, 64, 16), (2, 2, 33, 39), (64, 64, 8, 3)],
)
def test_decode_attention_follows_the_ancestry(backend, K, C, Dh, step, step_is_tensor):
    given = decoding(K=K, C=C, Dh=Dh, step=step)
    wanted = copied(*(x.double() for x in given[:3]), *given[3:])
    at = torch.tensor(step) if step_is_tensor else step
    got = ops.decode_attention(*given[:4], at)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-6)
    scaled = ops.decode_attention(given[0] * 2, *given[1:4], at, scale=0.5 * Dh**-0.5)
    torch.testing.assert_close(scaled, got, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("K", "S", "Dh"), [(4, 9, 20), (1, 1, 64), (3, 40, 7), (64, 17, 8)])
def test_cross_attention_decode_equals_its_definition(backend, K, S, Dh):
    q, k, v, lengths = source(K=K, S=S, Dh=Dh)
    if S == 1:
        lengths = torch.tensor([1, 1, 0])
    out, weights = ops.cross_attention_decode(q, k, v, lengths, return_weights=True)
    for b, length in enumerate(lengths.tolist()):
        seen, values = k[b, :, :length].double(), v[b, :, :length].double()
        wanted = torch.softmax(torch.einsum("khd,hsd->khs", q[b].double(), seen) * Dh**-0.5, dim=-1)
        torch.testing.assert_close(weights[b, :, :, :length].double(), wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(out[b].double(), torch.einsum("khs,hsd->khd", wanted, values), rtol=1e-5, atol=1e-6)
        assert not weights[b, :, :, length:].any()
    assert not out[2].any()  # length 0
    assert torch.equal(ops.cross_attention_decode(q, k, v, lengths), out)


def test_ops_of_no_sentences_beams_or_positions(backend):
    assert ops.decode_attention(*decoding(B=0)).shape == (0, 4, 2, 20)
    assert ops.decode_attention(*decoding(K=0, C=1)).shape == (3, 0, 2, 20)
    q, k, v, _ = source(S=0)
    out, weights = ops.cross_attention_decode(q, k, v, torch.zeros(3, dtype=torch.int64), return_weights=True)
    assert not out.any()
    assert weights.shape == (3, 4, 2, 0)


@needs_native
def test_decode_attention_rows_do_not_depend_on_beams_batch_capacity_or_threads():
    q, k, v, ancestry, step = decoding(B=5, K=6, H=3, Dh=40, capacity=70, step=52)
    ancestry[:, 3] = ancestry[:, 2]  # a shared past
    whole = ops.decode_attention(q, k, v, ancestry, step)
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        assert torch.equal(ops.decode_attention(q, k, v, ancestry, step), whole)
    torch.set_num_threads(threads)
    many = [torch.cat([x] * 40) for x in (q, k, v, ancestry)]  # enough for every thread
    assert torch.equal(ops.decode_attention(*many, step)[40:45], whole)
    for b in range(5):
        for beam in range(6):
            # The hypothesis alone, on a cache that was copied to one beam, no larger than what is seen.
            seen = torch.arange(step + 1)
            writers = ancestry[b, beam, : step + 1]
            own = [x[b, writers, seen][None, None] for x in (k, v)]
            table = torch.zeros(1, 1, step + 1, dtype=torch.int64)
            alone = ops.decode_attention(q[b : b + 1, beam : beam + 1], *own, table, step)
            assert torch.equal(alone[0, 0], whole[b, beam])
            for head in range(3):
                one = slice(head, head + 1)
                alone = ops.decode_attention(
                    q[b : b + 1, beam : beam + 1, one], *(x[:, :, :, one] for x in own), table, step
                )
                assert torch.equal(alone[0, 0], whole[b, beam, one])


@needs_native
def test_cross_attention_decode_rows_do_not_depend_on_padding_beams_batch_or_threads():
    q, k, v, _ = source(B=4, K=5, H=3, S=50, Dh=40)
    lengths = torch.tensor([50, 33, 16, 1])
    whole = ops.cross_attention_decode(q, k, v, lengths, return_weights=True)
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        assert torch.equal(ops.cross_attention_decode(q, k, v, lengths), whole[0])
    torch.set_num_threads(threads)
    for b, length in enumerate(lengths.tolist()):
        one = slice(b, b + 1)
        for beam in range(5):
            own = (q[one, beam : beam + 1], k[one, :, :length].contiguous(), v[one, :, :length].contiguous())
            alone = ops.cross_attention_decode(*own, lengths[one], return_weights=True)
            assert torch.equal(alone[0][0, 0], whole[0][b, beam])
            assert torch.equal(alone[1][0, 0], whole[1][b, beam, :, :length])
        k[b, :, length:] = math.nan
        v[b, :, length:] = math.nan
    again = ops.cross_attention_decode(q, k, v, lengths, return_weights=True)
    assert all(torch.equal(x, y) for x, y in zip(again, whole, strict=True))
    with library.use_backend("reference"):
        assert ops.cross_attention_decode(q, k, v, lengths).isfinite().all()


@pytest.mark.parametrize("step_is_tensor", [False, True])
@pytest.mark.parametrize(("K", "K2", "step"), [(1, 4, 0), (4, 4, 2), (4, 3, 6), (3, 3, 7), (2, 2, -1)])
def test_extend_ancestry_by_hand(backend, K, K2, step, step_is_tensor):
    draw = torch.Generator().manual_seed(step)
    ancestry = torch.randint(0, 9, (2, K, 8), generator=draw)
    parents = torch.randint(0, K, (2, K2), generator=draw)
    wanted = torch.zeros(2, K2, 8, dtype=torch.int64)
    for b in range(2):
        for j in range(K2):
            wanted[b, j, : step + 1] = ancestry[b, parents[b, j], : step + 1]
            if step + 1 < 8:
                wanted[b, j, step + 1] = j
    at = torch.tensor([step]) if step_is_tensor else step
    assert torch.equal(ops.extend_ancestry(ancestry, parents, at), wanted)
    out = torch.full((2, K2, 8), -1)
    assert ops.extend_ancestry(ancestry, parents, at, out=out) is out
    assert torch.equal(out, wanted)
    if K2 == K:
        assert ops.extend_ancestry(ancestry, parents, at, out=ancestry) is ancestry
        assert torch.equal(ancestry, wanted)


def test_a_search_over_the_ancestry_equals_one_that_copies_its_cache(backend):
    B, K, H, Dh, steps = 2, 3, 2, 8, 9
    draw = torch.Generator().manual_seed(5)
    caches = torch.zeros(2, B, K, steps, H, Dh)
    moved = caches.clone()  # follows the parents, as others do
    ancestry = torch.zeros(B, 1, steps, dtype=torch.int64)
    beams = 1
    for step in range(steps):
        new = torch.randn(2, B, beams, H, Dh, generator=draw)
        caches[:, :, :beams, step] = new
        moved[:, :, :beams, step] = new
        q = torch.randn(B, beams, H, Dh, generator=draw)
        own = torch.arange(beams)[None, :, None].expand(B, beams, steps)
        got = ops.decode_attention(q, *caches, ancestry, step)
        assert torch.equal(got, ops.decode_attention(q, *moved, own, step))
        parents = torch.randint(0, beams, (B, K), generator=draw)
        ancestry = ops.extend_ancestry(ancestry, parents, step)
        moved = moved.gather(2, parents[None, :, :, None, None, None].expand_as(moved))
        beams = K


def test_decode_attention_has_gradients():
    q, k, v, ancestry, _ = decoding(B=1, K=2, H=1, Dh=2, capacity=3, step=2)
    given = tuple(x.detach().double().requires_grad_() for x in (q, k, v))
    assert torch.autograd.gradcheck(lambda *x: ops.decode_attention(*x, ancestry, 2), given)
    q, k, v, lengths = source(B=2, K=2, H=1, S=3, Dh=2)
    given = tuple(x.detach().double().requires_grad_() for x in (q, k, v))
    assert torch.autograd.gradcheck(lambda *x: ops.cross_attention_decode(*x, lengths, return_weights=True), given)
    leaf = torch.randn(2, 2, 1, 2, requires_grad=True)  # float32 runs the reference too
    ops.cross_attention_decode(leaf, k, v, lengths).sum().backward()
    assert leaf.grad is not None


def test_decode_ops_under_autocast_and_in_half_precision(backend):
    given = decoding()
    exact = ops.decode_attention(*given)
    q, k, v, lengths = source()
    exact_cross = ops.cross_attention_decode(q, k, v, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.decode_attention(*given), exact.bfloat16())
        assert torch.equal(ops.cross_attention_decode(q, k, v, lengths), exact_cross.bfloat16())
    for dtype in (torch.bfloat16, torch.float16):
        half = ops.decode_attention(*(x.to(dtype) for x in given[:3]), *given[3:])
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), exact, rtol=3e-2, atol=3e-2)
        half, weights = ops.cross_attention_decode(q.to(dtype), k.to(dtype), v.to(dtype), lengths, return_weights=True)
        assert half.dtype == weights.dtype == dtype
        torch.testing.assert_close(half.float(), exact_cross, rtol=3e-2, atol=3e-2)


@needs_native
def test_decode_ops_leave_no_output_unwritten():
    for width in (1, 20, 64):
        given, (q, k, v, lengths) = decoding(Dh=width), source(Dh=width)
        torch.use_deterministic_algorithms(True)  # new memory is then filled with NaN
        try:
            out = ops.decode_attention(*given), *ops.cross_attention_decode(q, k, v, lengths, return_weights=True)
        finally:
            torch.use_deterministic_algorithms(False)
        assert all(x.isfinite().all() for x in out)


def test_decode_ops_refuse_what_does_not_fit():
    attend = getattr(ops.decode_attention, "__wrapped__", ops.decode_attention)  # past the shape types
    cross = getattr(ops.cross_attention_decode, "__wrapped__", ops.cross_attention_decode)
    extend = getattr(ops.extend_ancestry, "__wrapped__", ops.extend_ancestry)
    q, k, v, ancestry, step = decoding()
    refused = [
        ((q[0], k, v, ancestry, step), "q must have four axes and k_cache five, got 3 and 5"),
        ((q, k[:2], v, ancestry, step), r"k_cache must have the shape \[3, C, capacity, 2, 20\]"),
        ((q, k, v[:, :, :5], ancestry, step), r"v_cache must have the shape \[3, 4, 40, 2, 20\]"),
        ((q, k, v, ancestry[:, :2], step), r"ancestry must have the shape \[3, 4, 40\], got \[3, 2, 40\]"),
        ((q, k.double(), v, ancestry, step), "must have one dtype, got torch.float32, torch.float64"),
        ((q, k, v, ancestry, 40), "step must be from 0 to 39, got 40"),
        ((q, k, v, ancestry, -1), "step must be from 0 to 39, got -1"),
        ((q, k, v, ancestry, torch.tensor([1, 2])), "step must be one integer"),
        ((q, k, v, ancestry, torch.tensor(1.0)), "step must be one integer"),
        ((q, k, v, ancestry, torch.tensor(True)), "step must be one integer"),
        ((q, k, v, ancestry, 1.5), "step must be from 0 to 39, got 1.5"),
        ((q, None, v, ancestry, step), "k_cache must be a tensor, got NoneType"),
        ((q, k, v, ancestry.float(), step), "ancestry must be integers, got torch.float32"),
        ((q, k, v, ancestry.to("meta"), step), "ancestry must be on the device of the others, cpu, got meta"),
    ]
    for given, message in refused:
        with pytest.raises(InputError, match=message):
            attend(*given)
    q, k, v, lengths = source()
    for given, message in (
        ((q, k[0], v, lengths), "q and k must have four axes, got 4 and 3"),
        ((q, k[:, :1], v, lengths), r"k must have the shape \[3, 2, S, 20\]"),
        ((q, k, v[:, :, :3], lengths), r"v must have the shape \[3, 2, 9, 20\]"),
        ((q, k, v, lengths[:2]), r"lengths must have the shape \[3\], got \[2\]"),
        ((q, k, v, [1, 2, 3]), "lengths must be a tensor, got list"),
        ((q, k, v, lengths.bool()), "lengths must be integers, got torch.bool"),
        ((q, k, v.to("meta"), lengths), "v must be on the device of the others, cpu, got meta"),
    ):
        with pytest.raises(InputError, match=message):
            cross(*given)
    parents = torch.zeros(3, 4, dtype=torch.int64)
    with pytest.raises(InputError, match=r"the shapes must be \[B, K, capacity\] and \[B, K2\]"):
        extend(ancestry, parents[:2], 0)
    with pytest.raises(InputError, match="step must be from -1 to 39, got 40"):
        extend(ancestry, parents, 40)
    with pytest.raises(InputError, match=r"out must be contiguous int64 of shape \[3, 4, 40\]"):
        extend(ancestry, parents, 0, out=ancestry[:, :2])
    with pytest.raises(InputError, match=r"parents must be integers, got torch\.float32"):
        extend(ancestry, parents.float(), 0)
    with pytest.raises(InputError, match="parents must be on the device of the others, cpu, got meta"):
        extend(ancestry, parents.to("meta"), 0)
    with pytest.raises(InputError, match="out must be a tensor or None, got str"):
        extend(ancestry, parents, 0, out="out")


def test_decode_ops_refuse_values_out_of_range(backend):
    q, k, v, ancestry, step = decoding()
    for wrong in (-1, 4):
        ancestry[1, 2, 30] = wrong
        with pytest.raises(RuntimeError, match=f"ancestry must be from 0 to 3, got {wrong}"):
            ops.decode_attention(q, k, v, ancestry, step)
        ops.decode_attention(q, k, v, ancestry, step - 1)  # that one is not read
    for wrong in (-1, 40):
        with pytest.raises(RuntimeError, match=f"step must be from 0 to 39, got {wrong}"):
            ops.decode_attention(q, k, v, ancestry, torch.tensor(wrong))
    q, k, v, _ = source()
    for wrong in (-1, 10):
        with pytest.raises(RuntimeError, match=f"lengths must be from 0 to 9, got {wrong}"):
            ops.cross_attention_decode(q, k, v, torch.tensor([1, wrong, 2]))
    for wrong in (-1, 4):
        parents = torch.tensor([[0, 1], [wrong, 2], [0, 0]])
        with pytest.raises(RuntimeError, match=f"parents must be from 0 to 3, got {wrong}"):
            ops.extend_ancestry(ancestry, parents, 0)
    with pytest.raises(RuntimeError, match="step must be from -1 to 39, got 40"):
        ops.extend_ancestry(ancestry, torch.zeros(3, 4, dtype=torch.int64), torch.tensor(40))


@needs_native
def test_extend_ancestry_refuses_memory_that_it_reads():
    memory = torch.zeros(64, dtype=torch.int64)
    ancestry, parents, step = memory[:24].view(2, 3, 4), memory[32:36].view(2, 2), memory[40]
    ops.extend_ancestry(ancestry, parents, step, out=memory[44:60].view(2, 2, 4))
    for start, message in (
        (0, "out must be ancestry itself or share no memory with it"),
        (9, "out must be ancestry itself or share no memory with it"),
        (24, "out must share no memory with parents and step"),
        (36, "out must share no memory with parents and step"),
    ):
        with pytest.raises(RuntimeError, match=message):
            ops.extend_ancestry(ancestry, parents, step, out=memory[start : start + 16].view(2, 2, 4))


@needs_native
def test_decode_kernels_refuse_what_the_face_would_not_send():
    q, k, v, ancestry, _ = decoding()
    with pytest.raises(InputError, match="v_cache must be on the device of the others, cpu, got meta"):
        torch.ops.seqkit.decode_attention(q, k, v.to("meta"), ancestry, None, 3, 1.0)
    with pytest.raises(InputError, match="lengths must be on the device of the others, cpu, got meta"):
        torch.ops.seqkit.cross_attention_decode(*source()[:3], torch.zeros(3).long().to("meta"), 1.0, False)
    at = torch.zeros(1, dtype=torch.int64, device="meta")
    with pytest.raises(InputError, match="step must be on the device of the others, cpu, got meta"):
        torch.ops.seqkit.extend_ancestry(ancestry, ancestry[:, :, 0].contiguous(), at, 0, ancestry.clone())
    with pytest.raises(RuntimeError, match="q must have the dtype Float, got Double"):
        torch.ops.seqkit.decode_attention(*(x.double() for x in decoding()[:3]), ancestry, None, 3, 1.0)


@needs_native
def test_decode_ops_opcheck():
    q, k, v, ancestry, step = decoding()
    ops_native = torch.ops.seqkit
    torch.library.opcheck(ops_native.decode_attention.default, (q, k, v, ancestry, None, step, 0.5))
    torch.library.opcheck(ops_native.decode_attention.default, (q, k, v, ancestry, torch.tensor([step]), 0, 0.5))
    for return_weights in (False, True):
        torch.library.opcheck(ops_native.cross_attention_decode.default, (*source(), 0.5, return_weights))
    parents, out = torch.zeros(3, 2, dtype=torch.int64), torch.empty(3, 2, 40, dtype=torch.int64)
    ancestry = ancestry.clamp(min=0)
    torch.library.opcheck(ops_native.extend_ancestry.default, (ancestry, parents, None, 3, out))
    torch.library.opcheck(ops_native.extend_ancestry.default, (ancestry, parents, torch.tensor([3]), 0, out))


@needs_native
@pytest.mark.compile
@pytest.mark.parametrize("step_is_tensor", [False, True])
def test_decode_ops_compile(step_is_tensor):
    q, k, v, ancestry, step = decoding()
    memory = source()[1:]
    parents = torch.tensor([[0, 2, 1, 1]] * 3)

    def both(q, ancestry, step):
        y = ops.decode_attention(q, k, v, ancestry, step)
        y = y + ops.cross_attention_decode(q, *memory)
        return y, ops.extend_ancestry(ancestry, parents, step)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for at in (step, step - 1, step - 2):
            at = torch.tensor([at]) if step_is_tensor else at
            for got, wanted in zip(compiled(q, ancestry, at), both(q, ancestry, at), strict=True):
                assert torch.equal(got, wanted)


@needs_native
@pytest.mark.parametrize("level", ["0", "1"])
def test_decode_attention_at_lower_machine_levels(level):
    code = """
import torch
from seqkit import ops
torch.manual_seed(0)
for Dh in (20, 64, 150):
    q, k, v = torch.randn(2, 3, 2, Dh), torch.randn(2, 3, 40, 2, Dh), torch.randn(2, 3, 40, 2, Dh)
    ancestry = torch.randint(0, 3, (2, 3, 40))
    got = ops.decode_attention(q, k, v, ancestry, 36)
    wanted = ops.decode_attention_reference(q.double(), k.double(), v.double(), ancestry, 36)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-6)
    seen = torch.arange(37)
    own = [x[1, ancestry[1, 2, :37], seen][None, None] for x in (k, v)]
    alone = ops.decode_attention(q[1:, 2:], *own, torch.zeros(1, 1, 37, dtype=torch.int64), 36)
    assert torch.equal(alone[0, 0], got[1, 2])
print("same")
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env={**os.environ, "SEQKIT_ISA": level}
    )
    assert done.stdout.strip() == "same", done.stderr
