"""The CUDA kernels of decode_attention on the host: the definition, the promises about rows, and memory that lies."""

import math

import pytest
import torch
from torch import Tensor

from seqkit.ops.decode_attention import (
    cross_attention_decode_reference,
    decode_attention_reference,
    extend_ancestry_reference,
)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NARROWEST = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}  # half a unit in the last place


def decoding(
    B: int,
    K: int,
    H: int,
    Dh: int,
    capacity: int,
    step: int,
    *,
    C: int | None = None,
    dtype: torch.dtype,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, keys beside values in one allocation, an ancestry; what is not written is NaN, what is not read is wild."""
    draw = torch.Generator().manual_seed(seed)
    C = K if C is None else C
    cache = torch.randn(B, C, capacity, 2, H, Dh, generator=draw).to(dtype)
    cache[:, :, step + 1 :] = math.nan
    ancestry = torch.randint(0, C, (B, K, capacity), generator=draw)
    ancestry[:, :, step + 1 :] = 1 << 40
    q = (3 * torch.randn(B, K, H, Dh, generator=draw)).to(dtype)  # some positions weigh far more than others
    return q, cache[:, :, :, 0], cache[:, :, :, 1], ancestry


def source(
    K: int, H: int, S: int, Dh: int, lengths: list[int], *, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, keys beside values as a projection leaves them, NaN beyond each length."""
    draw = torch.Generator().manual_seed(seed)
    B = len(lengths)
    memory = torch.randn(B, S, 2, H, Dh, generator=draw).to(dtype)
    for sentence, length in enumerate(lengths):
        memory[sentence, max(length, 0) :] = math.nan
    q = (3 * torch.randn(B, K, H, Dh, generator=draw)).to(dtype)
    return q, memory[:, :, 0].transpose(1, 2), memory[:, :, 1].transpose(1, 2), torch.tensor(lengths)


def decode(q: Tensor, k: Tensor, v: Tensor, ancestry: Tensor, step: int | Tensor, scale: float | None = None) -> Tensor:
    scale = q.shape[3] ** -0.5 if scale is None else scale
    at, step = (step.reshape(1), 0) if isinstance(step, Tensor) else (None, step)
    out: Tensor = torch.ops.seqkit_emulated.decode_attention(q, k, v, ancestry, at, step, scale)
    return out


def cross(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
    out: Tensor = torch.ops.seqkit_emulated.cross_attention_decode(q, k, v, lengths, q.shape[3] ** -0.5, False)[0]
    return out


def cross_with_weights(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    out, weights = torch.ops.seqkit_emulated.cross_attention_decode(q, k, v, lengths, q.shape[3] ** -0.5, True)
    return out, weights


def extend(ancestry: Tensor, parents: Tensor, step: int | Tensor, out: Tensor) -> Tensor:
    at, step = (step.reshape(1), 0) if isinstance(step, Tensor) else (None, step)
    torch.ops.seqkit_emulated.extend_ancestry(ancestry, parents, at, step, out)
    return out


def assert_as_good(got: Tensor, torchs: Tensor, exact: Tensor) -> None:
    """At most twice torch's error in the same dtype, or its last place."""
    assert got.dtype == torchs.dtype
    assert got.isfinite().all()
    if got.numel() == 0:
        return
    bound = 2 * max(float((torchs.double() - exact).abs().max()), NARROWEST[got.dtype] * float(exact.abs().max()))
    assert float((got.double() - exact).abs().max()) <= bound


# Every number of lanes a row, rows off 16 bytes, chunks met exactly and missed by one, caches of more or fewer beams.
DECODING = [
    (1, 1, 1, 1, 1, 0, 1),
    (2, 3, 2, 64, 20, 16, 5),
    (1, 4, 3, 33, 140, 127, 4),
    (1, 5, 1, 8, 129, 128, 2),
    (2, 2, 1, 128, 50, 49, 2),
    (1, 2, 1, 100, 300, 255, 3),
    (1, 2, 2, 256, 130, 129, 2),
    (1, 3, 1, 250, 40, 17, 3),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("B", "K", "H", "Dh", "capacity", "step", "C"), DECODING)
def test_decode_attention_cuda_follows_the_ancestry(
    schedule: str, B: int, K: int, H: int, Dh: int, capacity: int, step: int, C: int, dtype: torch.dtype
) -> None:
    q, k, v, ancestry = decoding(B, K, H, Dh, capacity, step, C=C, dtype=dtype)
    exact = decode_attention_reference(q.double(), k.double(), v.double(), ancestry, step)
    got = decode(q, k, v, ancestry, step)
    assert_as_good(got, decode_attention_reference(q, k, v, ancestry, step), exact)
    # A step that only the device knows: the plan is made for the whole capacity.
    assert torch.equal(decode(q, k, v, ancestry, torch.tensor(step)), got)
    doubled = decode(q * 2, k, v, ancestry, step, scale=0.5 * Dh**-0.5)
    assert torch.equal(doubled, got)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("K", "H", "S", "Dh", "lengths"),
    [
        (1, 1, 1, 1, [1, 0]),
        (1, 2, 40, 64, [40, 17]),
        (4, 2, 33, 64, [33, 0, 1]),
        (5, 1, 257, 24, [257, 128, 129]),
        (3, 1, 20, 128, [20, 9]),
        (2, 1, 20, 37, [16, 20]),
        (9, 1, 12, 256, [12]),
        (64, 1, 17, 8, [17]),
    ],
)
def test_cross_attention_decode_cuda_equals_its_definition(
    schedule: str, K: int, H: int, S: int, Dh: int, lengths: list[int], dtype: torch.dtype
) -> None:
    q, k, v, counts = source(K, H, S, Dh, lengths, dtype=dtype)
    exact, exact_weights = cross_attention_decode_reference(q.double(), k.double(), v.double(), counts)
    torchs, torchs_weights = cross_attention_decode_reference(q, k, v, counts)
    out, weights = cross_with_weights(q, k, v, counts)
    assert_as_good(out, torchs, exact)
    assert_as_good(weights, torchs_weights, exact_weights)
    for sentence, length in enumerate(lengths):
        assert not weights[sentence, :, :, length:].any()
        assert length or not out[sentence].any()
    assert torch.equal(cross(q, k, v, counts), out)


@pytest.mark.parametrize("dtype", DTYPES)
def test_decode_attention_cuda_splits_a_long_cache(schedule: str, dtype: torch.dtype) -> None:
    q, k, v, ancestry = decoding(1, 3, 2, 16, 600, 599, dtype=dtype)
    for step in (599, 300, 128, 127, 3, 0):  # 5 chunks to 1; the blocks of the others find nothing
        k[:, :, step + 1 :], v[:, :, step + 1 :], ancestry[:, :, step + 1 :] = math.nan, math.nan, -9
        exact = decode_attention_reference(q.double(), k.double(), v.double(), ancestry, step)
        got = decode(q, k, v, ancestry, torch.tensor(step))
        assert_as_good(got, decode_attention_reference(q, k, v, ancestry, step), exact)
        assert torch.equal(decode(q, k, v, ancestry, step), got)


def test_decode_attention_cuda_rows_do_not_depend_on_beams_batch_capacity_or_splits(schedule: str) -> None:
    q, k, v, ancestry = decoding(2, 5, 2, 16, 300, 280, dtype=torch.float16)
    whole = decode(q, k, v, ancestry, 280)
    for sentence, beam in ((0, 0), (1, 4)):
        seen = torch.arange(281)
        own = [x[sentence, ancestry[sentence, beam, :281], seen][None, None] for x in (k, v)]
        table = torch.zeros(1, 1, 281, dtype=torch.int64)
        alone = decode(q[sentence : sentence + 1, beam : beam + 1], own[0], own[1], table, 280)
        assert torch.equal(alone[0, 0], whole[sentence, beam])


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_attention_decode_cuda_rows_do_not_depend_on_padding_beams_or_batch(
    schedule: str, dtype: torch.dtype
) -> None:
    q, k, v, lengths = source(6, 2, 270, 40, [140, 33], dtype=dtype)
    whole = cross_with_weights(q, k, v, lengths)
    for sentence, length in enumerate(lengths.tolist()):
        one = slice(sentence, sentence + 1)
        for beam in (0, 5):
            own = (q[one, beam : beam + 1], k[one, :, :length].contiguous(), v[one, :, :length].contiguous())
            out, weights = cross_with_weights(*own, lengths[one])
            assert torch.equal(out[0, 0], whole[0][sentence, beam])
            assert torch.equal(weights[0, 0], whole[1][sentence, beam, :, :length])
    # Rows off 16 bytes are summed in the same order.
    shifted = []
    for x in (k, v):
        memory = torch.empty(x.numel() + 1, dtype=dtype)[1:].view(x.shape)
        shifted.append(memory.copy_(x))
    assert torch.equal(cross(q, shifted[0], shifted[1], lengths), whole[0])


def test_decode_ops_cuda_rows_do_not_depend_on_what_shares_a_block() -> None:
    # So many rows that a block folds all its chunks itself, and serves two hypotheses or two fours of them.
    q, k, v, ancestry = decoding(2, 5, 2, 16, 300, 280, dtype=torch.float16)
    q_many, k_many, v_many, table = (torch.cat([x] * 26) for x in (q, k, v, ancestry))
    assert torch.equal(decode(q_many, k_many, v_many, table, 280)[24:26], decode(q, k, v, ancestry, 280))
    q, k, v, lengths = source(5, 1, 140, 8, [140, 4] * 128, dtype=torch.float32)
    out = cross(q, k, v, lengths)
    exact, _ = cross_attention_decode_reference(q.double(), k.double(), v.double(), lengths)
    assert_as_good(out, cross_attention_decode_reference(q, k, v, lengths)[0], exact)
    assert torch.equal(cross(q[4:6], k[4:6], v[4:6], lengths[4:6]), out[4:6])


def test_decode_ops_cuda_clamp_what_a_cpu_refuses(schedule: str) -> None:
    step = 9
    q, k, v, ancestry = decoding(2, 3, 1, 12, 20, step, dtype=torch.float32)
    ancestry[0, 1, 4], ancestry[1, 2, 9] = -5, 1 << 33
    clamped = ancestry.clamp(0, 2)
    assert torch.equal(decode(q, k, v, ancestry, step), decode(q, k, v, clamped, step))
    k, v = k.nan_to_num(0.5), v.nan_to_num(0.5)
    for wild, near in ((-4, 0), (20, 19), (1 << 40, 19), (-(1 << 62), 0)):
        assert torch.equal(decode(q, k, v, clamped, torch.tensor(wild)), decode(q, k, v, clamped, near))
    q, k, v, _ = source(2, 1, 6, 12, [6, 6, 6], dtype=torch.float32)
    got = cross_with_weights(q, k, v, torch.tensor([-3, 7, 1 << 60]))
    wanted = cross_with_weights(q, k, v, torch.tensor([0, 6, 6]))
    assert all(torch.equal(x, y) for x, y in zip(got, wanted, strict=True))
    ancestry, parents = torch.randint(0, 3, (2, 3, 40)), torch.tensor([[-1, 3, 1], [1 << 50, 0, -(1 << 50)]])
    wanted_table = extend_ancestry_reference(ancestry, parents.clamp(0, 2), 30)
    assert torch.equal(extend(ancestry, parents, 30, torch.full_like(ancestry, -1)), wanted_table)
    for wild, near in ((-7, -1), (40, 39), (1 << 62, 39)):
        got_table = extend(ancestry, parents, torch.tensor(wild), torch.full_like(ancestry, -1))
        assert torch.equal(got_table, extend_ancestry_reference(ancestry, parents.clamp(0, 2), near))


@pytest.mark.parametrize("step_is_tensor", [False, True])
@pytest.mark.parametrize(
    ("K", "K2", "capacity", "step"),
    [(1, 4, 33, 5), (4, 3, 64, 31), (3, 3, 70, 69), (5, 5, 33, -1), (64, 64, 40, 32), (1, 1, 1, 0), (1000, 1000, 9, 4)],
)
def test_extend_ancestry_cuda_moves_the_table(
    schedule: str, K: int, K2: int, capacity: int, step: int, step_is_tensor: bool
) -> None:
    draw = torch.Generator().manual_seed(step + 1)
    ancestry = torch.randint(0, 9, (2, K, capacity), generator=draw)
    ancestry[:, :, step + 1 :] = 1 << 40
    parents = torch.randint(0, K, (2, K2), generator=draw)
    wanted = extend_ancestry_reference(ancestry, parents, step)
    at = torch.tensor(step) if step_is_tensor else step
    assert torch.equal(extend(ancestry, parents, at, torch.full((2, K2, capacity), -1)), wanted)
    if K == K2:
        assert torch.equal(extend(ancestry, parents, at, ancestry), wanted)


def test_decode_ops_cuda_of_nothing(schedule: str) -> None:
    for B, K in ((0, 2), (2, 0)):
        q, k, v, ancestry = decoding(B, K, 2, 8, 5, 3, C=1, dtype=torch.float32)
        assert decode(q, k, v, ancestry, 3).shape == (B, K, 2, 8)
        assert extend(ancestry, torch.zeros(B, K, dtype=torch.int64), 3, torch.empty_like(ancestry)).shape == (B, K, 5)
    q, k, v, lengths = source(3, 2, 0, 8, [0, 0], dtype=torch.float32)
    out, weights = cross_with_weights(q, k, v, lengths)
    assert not out.any()
    assert weights.shape == (2, 3, 2, 0)


@pytest.mark.parametrize("width", [1, 20, 64, 200])
def test_decode_ops_cuda_leave_no_output_unwritten(width: int) -> None:
    given, memory = (
        decoding(1, 3, 1, width, 140, 12, dtype=torch.float16),
        source(5, 1, 30, width, [30, 0], dtype=DTYPES[0]),
    )
    torch.use_deterministic_algorithms(True)  # new memory is then filled with NaN
    try:
        results = decode(*given, 12), decode(*given, torch.tensor(12)), *cross_with_weights(*memory), cross(*memory)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(x.isfinite().all() for x in results)


def test_decode_attention_cuda_passes_nan_on(schedule: str) -> None:
    q, k, v, ancestry = decoding(1, 2, 1, 8, 200, 150, dtype=torch.float32)
    for at in (3, 140):
        poisoned = k.clone()
        poisoned[0, ancestry[0, 0, at], at, 0, 2] = math.nan
        assert decode(q, poisoned, v, ancestry, 150)[0, 0].isnan().all()


def test_decode_ops_cuda_refuse_a_wide_head() -> None:
    q, k, v, ancestry = decoding(1, 1, 1, 257, 2, 1, dtype=torch.float32)
    with pytest.raises(RuntimeError, match="the head width must be at most 256 on a GPU, got 257"):
        decode(q, k, v, ancestry, 1)
