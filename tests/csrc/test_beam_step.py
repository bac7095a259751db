"""The CUDA kernels of the beam step on the host executor: against the reference, and where the order is delicate."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seqkit.ops.beam_step import KINDS, BeamState, beam_step_reference, mean_log_softmax_reference

EOS = 0
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def emulated_step(logits: Tensor, state: BeamState, **options: Any) -> BeamState:
    """What a program with a card gets from `beam_step`."""
    given = {"length_penalty": "power", "alpha": 0.7, "count_eos": True, "min_length": 0, "first_beam": 0}
    given |= {"offset": None, "forced": None, "banned": None, "penalised": None, "penalty": 0.0} | options
    masks = (given["offset"], given["forced"], given["banned"], given["penalised"], given["penalty"])
    kind = KINDS[given["length_penalty"]]
    numbers = (given["beam_size"], given["eos"], given["min_length"], kind, given["alpha"])
    outputs = torch.ops.seqkit_emulated.beam_step(
        logits, state.logp, state.lengths, *state[6:12], *masks, *numbers, given["count_eos"], given["first_beam"]
    )
    return BeamState(*outputs)


def assert_equal_states(ours: BeamState, theirs: BeamState) -> None:
    for name, mine, other in zip(BeamState._fields, ours, theirs, strict=True):
        if mine.dtype == torch.int64:
            assert torch.equal(mine, other), name
        else:
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5, msg=name)


def check(logits: Tensor, state: BeamState, **options: Any) -> BeamState:
    """The kernel's state, which must be the reference's."""
    options = {"eos": EOS, **options}
    ours = emulated_step(logits, state, **options)
    assert_equal_states(ours, beam_step_reference(logits, state, **options))
    return ours


def started(B: int, K: int = 1, *, pool: int = 3, logp: float = 0.0) -> BeamState:
    return BeamState.start(B, pool_size=pool)._replace(logp=torch.full((B, K), logp))


def random_logits(*shape: int, seed: int = 0, scale: float = 4.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.fixture
def poisoned():
    """Memory that nobody has written holds NaN or the largest integer."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("length_penalty", KINDS)
def test_beam_step_equals_the_reference_over_a_search(schedule: str, length_penalty: str, poisoned: None) -> None:
    state = BeamState.start(3, pool_size=4)
    for step in range(6):
        logits = random_logits(3, state.logp.shape[1], 300, seed=step)
        logits[:, :, EOS] = logits.amax(-1) - 0.3
        state = check(
            logits, state, beam_size=3, length_penalty=length_penalty, alpha=0.8, count_eos=step % 2 == 0, first_beam=2
        )
    assert bool((state.n_finished > 4).all())  # the pool has overflowed


@pytest.mark.parametrize("step", range(3))
def test_beam_step_equals_the_reference_with_every_mask(schedule: str, step: int, poisoned: None) -> None:
    B, K, V = 5, 4, 601
    logits = random_logits(B, K, V, seed=step)
    best = logits.topk(8, dim=-1).indices
    logits[:, :, EOS] = logits.amax(-1) - 0.2
    state = started(B, K)._replace(logp=-torch.rand(B, K).cumsum(1), lengths=torch.tensor([1, 2, 3, 4, 5]))
    state.logp[1, 2], state.logp[2] = -math.inf, -math.inf
    check(
        logits,
        state,
        beam_size=4,
        banned=torch.cat([best[:, :, :3], torch.tensor([-1, V, -7, 1 << 40]).expand(B, K, 4)], dim=2),
        penalised=torch.cat([best[:, 0, 2:6], best[:, 1, 2:5], torch.full((B, 2), -1)], dim=1),
        penalty=1.3,
        forced=torch.tensor([-1, -1, 100_000, 7, V])[torch.randperm(B, generator=torch.Generator().manual_seed(step))],
        offset=-torch.rand(B, K),
        min_length=3,
        first_beam=4,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [1, 2, 7, 255, 256, 257, 2047, 4099, 8200])
def test_beam_step_equals_the_reference_at_every_size(dtype: torch.dtype, V: int) -> None:
    logits = random_logits(2, 3, V, seed=V).to(dtype)
    check(logits, started(2, 3)._replace(logp=-torch.rand(2, 3).cumsum(1)), beam_size=3)


@pytest.mark.parametrize(("K", "beam_size"), [(1, 1), (1, 64), (17, 5), (64, 64), (2, 20)])
def test_beam_step_equals_the_reference_at_every_beam(schedule: str, K: int, beam_size: int, poisoned: None) -> None:
    logits = random_logits(2, K, 700, seed=K)
    state = started(2, K, pool=beam_size)._replace(logp=-torch.rand(2, K).cumsum(1))
    check(logits, state, beam_size=beam_size, eos=699)
    check(logits[:, :, :9].contiguous(), state, beam_size=beam_size)  # fewer tokens than candidates


@pytest.mark.parametrize("V", [3, 400, 9001])
def test_beam_step_equal_logits_go_by_beam_then_token(schedule: str, V: int) -> None:
    after = check(torch.zeros(1, 2, V), started(1, 2), beam_size=6, eos=V - 1)
    n = min(V, 12)
    assert after.candidate_tokens[0, :n].tolist() == list(range(n))
    assert after.candidate_parents[0, :n].tolist() == [0] * n
    logits = torch.zeros(1, 2, 9001)
    logits[:, :, [8700, 150, 5000]] = 1.0
    after = check(logits, started(1, 2), beam_size=4)
    assert after.candidate_tokens[0].tolist() == [150, 5000, 8700, 150, 5000, 8700, 0, 1]
    assert after.candidate_parents[0].tolist() == [0, 0, 0, 1, 1, 1, 0, 0]


def test_beam_step_ties_after_rounding_go_to_the_lower_token(schedule: str) -> None:
    # At a log-probability of -2^20 the spacing is 1/16: logits that differ by 1/1000 give equal totals.
    state = started(1, logp=-(2.0**20))
    logits = torch.zeros(1, 1, 300)
    logits[0, 0, 200], logits[0, 0, 20] = 5.001, 5.0
    assert emulated_step(logits, state, eos=299, beam_size=1).candidate_tokens[0].tolist() == [20, 200]
    # All of a large row rise by less than the spacing, so that the largest logits are the last ones.
    logits = torch.linspace(0.0, 0.001, 5000).view(1, 1, -1)
    logits[0, 0, 4321] = 9.0
    after = emulated_step(logits, state, eos=4999, beam_size=4)
    assert after.candidate_tokens[0].tolist() == [4321, 0, 1, 2, 3, 4, 5, 6]
    # A lower token whose rank a penalty has brought down to that of a higher one.
    logits = torch.zeros(1, 1, 700)
    logits[0, 0, [30, 40, 50]] = torch.tensor([4.0, 6.0, 4.0])
    listed = torch.tensor([[40, -1]])
    after = emulated_step(logits, started(1), eos=0, beam_size=2, penalised=listed, penalty=2.0)
    assert after.candidate_tokens[0].tolist() == [30, 40, 50, 0]


def test_beam_step_not_a_number_and_infinite_logits(schedule: str) -> None:
    logits = random_logits(4, 2, 600)
    logits[0, 0, 5:500] = math.nan
    logits[1, :, [7, 300, 599]] = math.inf
    logits[2] = -math.inf
    logits[3, 0] = math.nan
    logits[3, 1, 200:] = -math.inf
    after = check(logits, started(4, 2), beam_size=3)
    assert after.tokens[1].tolist() == [7, 300, 599]
    assert after.logp[2].tolist() == [-math.inf] * 3
    extremes = torch.tensor([3.4e38, -3.4e38, 0.0, -math.inf]).repeat(100).view(1, 1, -1)
    check(extremes, started(1), beam_size=60)


def test_beam_step_of_no_sentences(schedule: str) -> None:
    after = emulated_step(torch.zeros(0, 1, 7), started(0), eos=EOS, beam_size=3)
    assert after.tokens.shape == (0, 3)
    assert after.candidate_logp.shape == (0, 6)


def test_beam_step_finds_what_stands_behind_many_masked_tokens(schedule: str) -> None:
    logits = random_logits(1, 1, 5000, scale=0.1)
    high = torch.arange(1, 5000, 30)  # more than the tiles, and than the maxima that the bound is sought among
    logits[0, 0, high] = 9.0
    check(logits, started(1), beam_size=2, banned=high[None, None])
    check(logits, started(1), beam_size=2, penalised=high[None], penalty=9.0)
    check(logits, started(1), beam_size=2, banned=high[None, None, :6], min_length=1)
    few = torch.arange(256, 5000, 256)  # the first of each tile but one
    logits = torch.zeros(1, 1, 5000)
    logits[0, 0, few] = 9.0
    logits[0, 0, [7, 4990]] = torch.tensor([2.0, 1.0])
    after = check(logits, started(1), beam_size=1, banned=few[None, None])
    assert after.candidate_tokens.tolist() == [[7, 4990]]
    logits = torch.zeros(1, 1, 900)
    logits[0, 0, [EOS, 300, 600]] = torch.tensor([9.0, 5.0, 4.0])  # three tiles; the end symbol is not allowed
    after = check(logits, started(1), beam_size=1, min_length=1)
    assert after.candidate_tokens.tolist() == [[300, 600]]


@pytest.mark.parametrize("beam_size", [2, 50])
def test_beam_step_takes_sorted_logits(schedule: str, beam_size: int) -> None:
    rising = torch.linspace(-8.0, 8.0, 9000).view(1, 1, -1)
    check(rising, started(1), beam_size=beam_size)
    check(rising.flip(-1), started(1), beam_size=beam_size)


def test_beam_step_takes_a_vocabulary_of_half_a_million() -> None:
    V = 500_000
    for logits, beam_size in ((random_logits(1, 1, V), 4), (random_logits(1, 1, V).bfloat16(), 64)):
        after = emulated_step(logits, started(1), eos=EOS, beam_size=beam_size)
        ordered, tokens = logits[0, 0].double().sort(descending=True, stable=True)
        exact = (ordered - logits.double().logsumexp(-1)[0, 0])[: 2 * beam_size]
        assert torch.equal(after.candidate_tokens[0], tokens[: 2 * beam_size])
        assert float((after.candidate_logp[0] - exact).abs().max()) < 2e-6  # torch's own float32: 5e-5
    after = emulated_step(torch.zeros(1, 1, V), started(1), eos=EOS, beam_size=4)
    assert after.candidate_tokens[0].tolist() == list(range(8))


def test_beam_step_pool_keeps_the_best_and_the_earlier_of_equals(schedule: str) -> None:
    logits = torch.tensor([[[9.0, 0.0, 0.0]]]).expand(2, 1, 3).contiguous()
    options = {"beam_size": 1, "length_penalty": "none"}
    score = emulated_step(logits, started(2, pool=2), eos=EOS, **options).finished_scores[0, 0]
    state = started(2, pool=2)._replace(
        lengths=torch.tensor([4, 4]),
        finished_scores=torch.stack([torch.stack([score, score - 1]), torch.stack([score - 1, score - 2])]),
        finished_lengths=torch.tensor([[1, 2], [1, 2]]),
        n_finished=torch.tensor([2, 7]),
    )
    after = check(logits, state, **options)
    assert after.finished_lengths.tolist() == [[1, 4], [4, 1]]
    assert after.n_finished.tolist() == [3, 8]


@pytest.mark.parametrize("pool", [0, 1, 70])
def test_beam_step_takes_pools_of_any_size(schedule: str, pool: int, poisoned: None) -> None:
    logits = random_logits(2, 5, 40)
    logits[:, :, EOS] = 20.0  # every beam ends
    state = started(2, 5, pool=pool)._replace(lengths=torch.tensor([3, 8]))
    full = -torch.arange(pool).float().mul(0.01).expand(2, pool).contiguous()
    state = state._replace(finished_scores=full, finished_logp=full * 2, finished_lengths=full.long() + 1)
    check(logits, state, beam_size=5, offset=random_logits(2, 5, seed=1, scale=0.2))
    if pool:  # a score that is no number stays outside
        offset = torch.full((2, 5), math.nan)
        after = emulated_step(logits, state, eos=EOS, beam_size=5, offset=offset)
        assert torch.equal(after.finished_scores, state.finished_scores)
        assert after.n_finished.tolist() == [5, 5]


@pytest.mark.parametrize("dtype", DTYPES)
def test_beam_step_row_depends_on_nothing_but_itself(dtype: torch.dtype) -> None:
    # Neither on the batch, nor on where its memory begins, nor on the kind of number that holds the same values.
    logits = random_logits(7, 3, 1003, seed=3).to(dtype)
    state = started(7, 3)._replace(logp=-torch.rand(7, 3).cumsum(1), lengths=torch.arange(7))
    whole = emulated_step(logits, state, eos=EOS, beam_size=3)
    order = torch.tensor([6, 2, 5])
    part = BeamState(*(field[order] for field in state))
    for few in (logits[order], logits[order].float()):
        for shift in range(4):
            moved = few.new_empty(few.numel() + shift)[shift:].view_as(few).copy_(few)
            after = emulated_step(moved, part, eos=EOS, beam_size=3)
            for name, mine, other in zip(BeamState._fields, after, whole, strict=True):
                assert torch.equal(mine, other[order]), name


def test_beam_step_log_softmax_is_as_exact_as_torch() -> None:
    V = 32000
    logits = random_logits(2, 2, V, seed=4, scale=5.0)
    after = emulated_step(logits, started(2, 2), eos=EOS, beam_size=8)
    index = after.parents * V + after.tokens
    exact = logits.double().log_softmax(-1).flatten(1).gather(1, index)
    theirs = logits.log_softmax(-1).flatten(1).gather(1, index)
    error = float((after.token_logp - exact).abs().max())
    assert error <= 2 * max(float((theirs - exact).abs().max()), 2e-7)


def test_beam_step_refuses_what_cannot_be() -> None:
    logits, state = torch.zeros(1, 1, 5), started(1)
    for options, message in (
        ({"beam_size": 0}, "beam_size must be at least 1, got 0"),
        ({"beam_size": 65}, "beam_size on CUDA must be at most 64, got 65"),
        ({"beam_size": 1 << 62}, "beam_size must be at most 65536"),
        ({"beam_size": 1, "eos": 5}, "eos must be a token below 5"),
        ({"beam_size": 1, "penalty": math.nan}, "penalty must be finite"),
        ({"beam_size": 1, "banned": torch.zeros(1, 2, 3, dtype=torch.long)}, "banned must have the shape"),
        ({"beam_size": 1, "forced": torch.zeros(1)}, "forced must have the dtype Long"),
    ):
        with pytest.raises(RuntimeError, match=message):
            emulated_step(logits, state, **({"eos": EOS} | options))
    with pytest.raises(RuntimeError, match="number of beams on CUDA must be at most 64, got 65"):
        emulated_step(torch.zeros(1, 65, 5), started(1, 65), eos=EOS, beam_size=1)
    with pytest.raises(RuntimeError, match="logits must have the dtype Float, Half or BFloat16"):
        emulated_step(logits.double(), state, eos=EOS, beam_size=1)
    with pytest.raises(RuntimeError, match="eos must be a token below 0"):
        emulated_step(torch.zeros(1, 1, 0), state, eos=EOS, beam_size=1)


def reference_mean(logits: list[Tensor]) -> Tensor:
    return mean_log_softmax_reference([model.float()[None] for model in logits])[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("models", "V"), [(1, 1), (2, 257), (3, 2100), (11, 40)])
def test_mean_log_softmax_is_the_log_of_the_mean(
    schedule: str, dtype: torch.dtype, models: int, V: int, poisoned: None
) -> None:
    logits = [random_logits(3, V, seed=seed, scale=6.0).to(dtype) for seed in range(models)]
    mean = torch.ops.seqkit_emulated.mean_log_softmax(logits)
    exact = torch.stack([model.double().softmax(-1) for model in logits]).mean(0).log()
    theirs = reference_mean(logits)
    error = float((mean - exact).abs().max())
    assert error <= 2 * max(float((theirs - exact).abs().max()), 1e-6)


def test_mean_log_softmax_where_there_is_no_probability(schedule: str) -> None:
    logits = [random_logits(4, 300, seed=seed) for seed in range(3)]
    logits[0][0, 5], logits[1][0, 5], logits[2][0, 5] = -math.inf, -math.inf, math.nan  # of none
    logits[1][1] = -math.inf  # a model without an opinion counts with nothing
    for model in logits:
        model[2] = -math.inf
    logits[0][3, [1, 299]] = math.inf
    mean = torch.ops.seqkit_emulated.mean_log_softmax(logits)
    torch.testing.assert_close(mean, reference_mean(logits), rtol=1e-5, atol=1e-5)
    assert float(mean[0, 5]) == -math.inf
    assert bool((mean[2] == -math.inf).all())


def test_mean_log_softmax_row_depends_on_nothing_but_itself() -> None:
    logits = [random_logits(5, 2051, seed=seed) for seed in range(2)]
    whole = torch.ops.seqkit_emulated.mean_log_softmax(logits)
    assert torch.equal(torch.ops.seqkit_emulated.mean_log_softmax([model[3:4] for model in logits]), whole[3:4])
    assert torch.ops.seqkit_emulated.mean_log_softmax([model[:0] for model in logits]).shape == (0, 2051)
    assert torch.ops.seqkit_emulated.mean_log_softmax([torch.zeros(2, 0)]).shape == (2, 0)


def test_mean_log_softmax_refuses_what_cannot_be() -> None:
    row = torch.zeros(1, 3)
    for logits, message in (
        ([row] * 33, "number of models on CUDA must be at most 32, got 33"),
        ([row, row[:, :2].contiguous()], "logits must have the shape"),
        ([row, row.half()], "logits must have the dtype Float, got Half"),
        ([row[0]], "logits must have the shape"),
    ):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.seqkit_emulated.mean_log_softmax(logits)
