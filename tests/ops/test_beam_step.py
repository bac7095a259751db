"""One step of the search: closed forms, a step in plain Python, the reference against the kernel, order and masks."""

import itertools
import math

import pytest
import torch

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.beam_step import (
    BeamState,
    beam_step,
    length_divisor,
    mean_log_softmax,
    mean_log_softmax_reference,
)

EOS = 0
NATIVE = pytest.param("native", marks=pytest.mark.skipif(not library.is_built("beam_step"), reason="not built"))


@pytest.fixture(params=["reference", NATIVE])
def backend(request):
    with library.use_backend(request.param):
        yield request.param


def random_state(B, K, *, pool=3, seed=0, dead=()):
    draw = torch.Generator().manual_seed(seed)
    logp = -torch.rand(B, K, generator=draw).cumsum(1)
    for beam in dead:
        logp[:, beam] = -math.inf
    finished = -torch.rand(B, pool, generator=draw).cumsum(1)
    start = BeamState.start(B, pool_size=pool)
    ended = torch.randint(1, 4, (B, pool), generator=draw)
    return start._replace(
        logp=logp,
        lengths=torch.randint(1, 6, (B,), generator=draw),
        finished_scores=finished,
        finished_logp=finished * 2,
        finished_eos_logp=finished / 2,
        finished_lengths=ended,
        finished_beams=ended % K,
        n_finished=torch.full((B,), pool),
    )


def plain_step(logits, logp, *, beam_size, eos=EOS):
    """The candidates of one sentence by sorting all of them: (total, beam, token), best first, and their fates."""
    step = logits.double().log_softmax(-1)
    cells = itertools.product(range(logits.shape[0]), range(logits.shape[1]))
    ranked = sorted(((float(logp[k]) + float(step[k, v]), k, v) for k, v in cells), key=lambda c: (-c[0], c[1], c[2]))
    candidates = [c for c in ranked if c[0] > -math.inf][: 2 * beam_size]
    ended = [c for c in candidates[:beam_size] if c[2] == eos]
    live = [c for c in candidates if c[2] != eos][:beam_size]
    return candidates, ended, live


@pytest.mark.parametrize(("K", "V", "beam_size"), [(1, 2, 1), (1, 300, 4), (3, 5, 3), (4, 1000, 4), (2, 129, 5)])
def test_beam_step_equals_sorting_all_continuations(backend, K, V, beam_size):
    logits = torch.randn(3, K, V, generator=torch.Generator().manual_seed(V)) * 3
    logits[:, :, EOS] += 4  # often among the best
    state = BeamState.start(3, pool_size=20)._replace(logp=random_state(3, K).logp)
    after = beam_step(logits, state, eos=EOS, beam_size=beam_size, length_penalty="none")
    for b in range(3):
        candidates, ended, live = plain_step(logits[b], state.logp[b], beam_size=beam_size)
        n = len(candidates)
        assert after.candidate_tokens[b, :n].tolist() == [c[2] for c in candidates]
        assert after.candidate_parents[b, :n].tolist() == [c[1] for c in candidates]
        assert after.candidate_logp[b, n:].tolist() == [-math.inf] * (2 * beam_size - n)
        assert after.tokens[b, : len(live)].tolist() == [c[2] for c in live]
        assert after.parents[b, : len(live)].tolist() == [c[1] for c in live]
        torch.testing.assert_close(after.logp[b, : len(live)], torch.tensor([c[0] for c in live]))
        assert after.logp[b, len(live) :].tolist() == [-math.inf] * (beam_size - len(live))
        assert int(after.n_finished[b]) == len(ended)
        torch.testing.assert_close(
            after.finished_scores[b, : len(ended)].double(), torch.tensor([c[0] for c in ended]).double()
        )


@pytest.mark.parametrize("length_penalty", ["none", "power", "gnmt"])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.skipif(not library.is_built("beam_step"), reason="not built")
def test_beam_step_native_equals_reference(length_penalty, masks):
    B, K, V = 4, 3, 700
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(B, K, V, generator=draw) * 4
    logits[:, :, EOS] = logits.amax(-1) - 0.3
    options = {"eos": EOS, "beam_size": 4, "length_penalty": length_penalty, "alpha": 0.8, "count_eos": False}
    if masks:
        best = logits.topk(6, dim=-1).indices
        options |= {
            "banned": torch.cat([best[:, :, :2], torch.full((B, K, 1), -1)], dim=2),
            "penalised": torch.cat([best[:, 0, 2:4], best[:, 0, 2:3], torch.full((B, 1), -1)], dim=1),
            "penalty": 1.5,
            "forced": torch.tensor([-1, 5, -1, 7]),
            "offset": -torch.rand(B, K, generator=draw),
            "min_length": 3,
            "first_beam": 3,
        }
    state = random_state(B, K, dead=[1])
    with library.use_backend("native"):
        native = beam_step(logits, state, **options)
    with library.use_backend("reference"):
        reference = beam_step(logits, state, **options)
    for name, ours, theirs in zip(BeamState._fields, native, reference, strict=True):
        assert ours.dtype == theirs.dtype, name
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=2e-6, msg=name)


def test_beam_step_finds_what_stands_behind_many_masked_tokens(backend):
    # The best of many far blocks are banned, or ranked low; what remains is far below them.
    logits = torch.zeros(1, 1, 4000)
    high = torch.arange(100, 4000, 400)
    logits[0, 0, high] = 9.0
    logits[0, 0, [7, 3999]] = torch.tensor([2.0, 1.0])
    state = BeamState.start(1, pool_size=1)
    after = beam_step(logits, state, eos=EOS, beam_size=1, banned=high[None, None])
    assert after.candidate_tokens.tolist() == [[7, 3999]]
    after = beam_step(logits, state, eos=EOS, beam_size=1, penalised=high[None], penalty=8.5)
    assert after.candidate_tokens.tolist() == [[7, 3999]]
    logits[0, 0, EOS] = 9.0
    after = beam_step(logits, state, eos=EOS, beam_size=1, banned=high[None, None], min_length=1)
    assert after.candidate_tokens.tolist() == [[7, 3999]]


def test_beam_step_breaks_ties_by_beam_then_token(backend):
    logits = torch.zeros(1, 2, 400)
    state = BeamState.start(1, pool_size=1)._replace(logp=torch.zeros(1, 2))
    after = beam_step(logits, state, eos=399, beam_size=3)
    assert after.candidate_tokens[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert after.candidate_parents[0].tolist() == [0] * 6
    logits[:, :, 150] = logits[:, :, 300] = 1.0  # two equal best in each row, in other blocks
    after = beam_step(logits, state, eos=399, beam_size=3)
    assert after.candidate_tokens[0].tolist() == [150, 300, 150, 300, 0, 1]
    assert after.candidate_parents[0].tolist() == [0, 0, 1, 1, 0, 0]


def test_beam_step_ties_after_rounding_go_to_the_lower_token(backend):
    # At a log-probability of -2^20 the spacing is 1/16: logits that differ by 1/1000 give equal totals.
    logits = torch.zeros(1, 1, 300)
    logits[0, 0, 200], logits[0, 0, 20] = 5.001, 5.0
    state = BeamState.start(1, pool_size=1)._replace(logp=torch.full((1, 1), -(2.0**20)))
    after = beam_step(logits, state, eos=299, beam_size=1)
    assert after.candidate_tokens[0].tolist() == [20, 200]


def test_beam_step_accepts_an_end_symbol_only_among_the_best_k(backend):
    # Rank 2 of K = 2 is the end symbol: dropped; at rank 1 it ends its hypothesis.
    dropped = torch.tensor([[[1.0, 3.0, 2.0, 0.0]]])
    after = beam_step(dropped, BeamState.start(1, pool_size=2), eos=EOS, beam_size=2)
    assert after.n_finished.tolist() == [0]
    assert after.candidate_tokens[0].tolist() == [1, 2, 0, 3]
    accepted = torch.tensor([[[2.5, 3.0, 2.0, 0.0]]])
    after = beam_step(accepted, BeamState.start(1, pool_size=2), eos=EOS, beam_size=2)
    assert after.n_finished.tolist() == [1]
    assert after.tokens[0].tolist() == [1, 2]  # the beam stays full


def test_beam_step_pool_keeps_the_best_and_the_earlier_of_equals(backend):
    logits = torch.tensor([[[9.0, 0.0, 0.0]], [[9.0, 0.0, 0.0]]])
    state = BeamState.start(2, pool_size=2)
    first = beam_step(logits, state, eos=EOS, beam_size=1, length_penalty="none")
    score = first.finished_scores[0, 0]
    state = state._replace(
        lengths=torch.tensor([4, 4]),
        finished_scores=torch.stack([torch.stack([score, score - 1]), torch.stack([score - 1, score - 2])]),
        finished_lengths=torch.tensor([[1, 2], [1, 2]]),
        n_finished=torch.tensor([2, 7]),
    )
    after = beam_step(logits, state, eos=EOS, beam_size=1, length_penalty="none")
    assert after.finished_lengths.tolist() == [[1, 4], [4, 1]]
    assert after.n_finished.tolist() == [3, 8]


@pytest.mark.parametrize("count_eos", [False, True])
def test_beam_step_scores_by_length(backend, count_eos):
    logits = torch.tensor([[[2.0, 1.0]]])
    state = BeamState.start(1, pool_size=1)._replace(logp=torch.tensor([[-1.0]]), lengths=torch.tensor([3]))
    eos_logp, word_logp = torch.tensor([2.0, 1.0]).log_softmax(0).tolist()
    for kind, divisor in {
        "none": lambda n: 1.0,
        "power": lambda n: n**0.7,
        "gnmt": lambda n: ((5 + n) / 6) ** 0.7,
    }.items():
        after = beam_step(logits, state, eos=EOS, beam_size=1, length_penalty=kind, alpha=0.7, count_eos=count_eos)
        assert float(after.finished_scores) == pytest.approx((-1 + eos_logp) / divisor(3 + count_eos), rel=1e-6)
        assert float(after.scores) == pytest.approx((-1 + word_logp) / divisor(4), rel=1e-6)


def test_length_divisor_of_nothing_is_that_of_one():
    lengths = torch.tensor([0, 1, 4])
    assert length_divisor(lengths, length_penalty="power", alpha=0.5).tolist() == [1.0, 1.0, 2.0]


def test_beam_step_without_possible_continuations(backend):
    for value in (-math.inf, math.nan):
        after = beam_step(torch.full((2, 2, 5), value), random_state(2, 2), eos=EOS, beam_size=2)
        assert bool((after.logp == -math.inf).all())
        assert after.tokens.tolist() == [[EOS, EOS], [EOS, EOS]]
        assert after.n_finished.tolist() == [3, 3]


def test_beam_step_infinite_and_nan_logits(backend):
    logits = torch.tensor([[[math.nan, 1.0, math.nan, 0.0]], [[0.0, math.inf, 1.0, math.inf]]])
    after = beam_step(logits, BeamState.start(2, pool_size=1), eos=EOS, beam_size=2)
    assert after.candidate_tokens[0, :2].tolist() == [1, 3]
    assert after.candidate_logp[0, 2:].tolist() == [-math.inf, -math.inf]
    torch.testing.assert_close(after.logp[0], torch.tensor([1.0, 0.0]).log_softmax(0))
    assert after.tokens[1].tolist() == [1, 3]
    torch.testing.assert_close(after.logp[1], torch.full((2,), math.log(0.5)))


@pytest.mark.parametrize("level", [-3e38, -1e31, -2000.0, 2000.0, 9e4, 2e5, 1e31, 3e38])
def test_beam_step_does_not_depend_on_the_level_of_the_logits(backend, level):
    logits = torch.full((1, 1, 300), -math.inf)
    step = 2.0 ** math.ceil(math.log2(abs(level)) - 23)  # the distance of floats there
    logits[0, 0, [7, 150, 299]] = torch.tensor([level, level - step, level])
    after = beam_step(logits, BeamState.start(1, pool_size=1), eos=EOS, beam_size=2)
    exact = logits.double().log_softmax(-1)[0, 0]
    assert after.candidate_tokens[0, :3].tolist() == [7, 299, 150]
    torch.testing.assert_close(after.candidate_logp[0, :2].double(), exact[[7, 299]], rtol=1e-6, atol=1e-7)


def test_beam_step_vocabulary_smaller_than_two_beams(backend):
    after = beam_step(torch.zeros(1, 1, 2), BeamState.start(1, pool_size=4), eos=1, beam_size=4)
    assert after.tokens.tolist() == [[0, 1, 1, 1]]
    assert after.logp[0, 1:].tolist() == [-math.inf] * 3
    assert after.n_finished.tolist() == [1]


def test_beam_step_of_no_sentences(backend):
    after = beam_step(torch.zeros(0, 1, 7), BeamState.start(0, pool_size=2), eos=EOS, beam_size=3)
    assert after.tokens.shape == (0, 3)
    assert after.candidate_logp.shape == (0, 6)


def test_beam_step_row_does_not_depend_on_the_batch(backend):
    logits = torch.randn(9, 3, 1003, generator=torch.Generator().manual_seed(3)) * 3
    state = random_state(9, 3)
    whole = beam_step(logits, state, eos=EOS, beam_size=3)
    order = torch.tensor([8, 2, 5])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        part = beam_step(logits[order], BeamState(*(field[order] for field in state)), eos=EOS, beam_size=3)
    finally:
        torch.set_num_threads(threads)
    for name, few, many in zip(BeamState._fields, part, whole, strict=True):
        assert torch.equal(few, many[order]), name


def test_beam_step_log_softmax_is_as_exact_as_torch(backend):
    logits = torch.randn(2, 2, 32000, generator=torch.Generator().manual_seed(4)) * 5
    state = BeamState.start(2, pool_size=1)._replace(logp=torch.zeros(2, 2))
    after = beam_step(logits, state, eos=EOS, beam_size=8)
    exact = logits.double().log_softmax(-1).flatten(1).gather(1, after.parents * 32000 + after.tokens)
    theirs = logits.log_softmax(-1).flatten(1).gather(1, after.parents * 32000 + after.tokens)
    error = (after.token_logp - exact).abs().max()
    assert float(error) <= 2 * max(float((theirs - exact).abs().max()), 2e-7)


def test_beam_step_takes_half_precision(backend):
    logits = torch.randn(1, 1, 50, dtype=torch.bfloat16)
    state = BeamState.start(1, pool_size=1)
    half = beam_step(logits, state, eos=EOS, beam_size=2)
    assert torch.equal(half.logp, beam_step(logits.float(), state, eos=EOS, beam_size=2).logp)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"eos": 9}, "`eos`"),
        ({"beam_size": 0}, "`beam_size`"),
        ({"length_penalty": "wu"}, "`length_penalty`"),
        ({"alpha": -1.0}, "`alpha`"),
    ],
)
def test_beam_step_says_what_cannot_be(options, argument):
    with pytest.raises(InputError, match=argument):
        beam_step(torch.zeros(1, 1, 5), BeamState.start(1, pool_size=1), **({"eos": EOS, "beam_size": 1} | options))


def test_mean_log_softmax_is_the_log_of_the_mean(backend):
    draw = torch.Generator().manual_seed(5)
    logits = [torch.randn(2, 3, 37, generator=draw) * 6 for _ in range(3)]
    logits[0][0, 0, 5], logits[1][0, 0, 5], logits[2][0, 0, 5] = -math.inf, -math.inf, math.nan
    clean = [model.double().nan_to_num(nan=-math.inf, neginf=-math.inf) for model in logits]
    expected = torch.stack([model.softmax(-1) for model in clean]).mean(0).log()
    torch.testing.assert_close(mean_log_softmax(logits).double(), expected, rtol=1e-5, atol=1e-6)


def test_mean_log_softmax_row_does_not_depend_on_the_batch(backend):
    logits = [torch.randn(5, 2, 203, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    few = mean_log_softmax([model[3:4] for model in logits])
    if backend == "native":
        assert torch.equal(few, mean_log_softmax(logits)[3:4])
    torch.testing.assert_close(few, mean_log_softmax_reference(logits)[3:4])


def test_mean_log_softmax_says_what_cannot_be():
    with pytest.raises(InputError, match="one shape"):
        mean_log_softmax([torch.zeros(1, 1, 3), torch.zeros(1, 1, 4)])
    with pytest.raises(InputError, match="one model"):
        mean_log_softmax([])


def _flat_arguments(B=2, K=2, V=200):
    state = random_state(B, K)
    logits = torch.randn(B, K, V)
    pool = state[6:12]
    banned = torch.randint(0, V, (B, K, 2))
    return (logits, state.logp, state.lengths, *pool, None, None, banned, None, 0.0, 2, EOS, 0, 1, 0.7, True, 0)


@pytest.mark.skipif(not library.is_built("beam_step"), reason="not built")
def test_beam_step_opcheck():
    torch.library.opcheck(torch.ops.seqkit.beam_step.default, _flat_arguments())
    torch.library.opcheck(torch.ops.seqkit.mean_log_softmax.default, ([torch.randn(3, 20), torch.randn(3, 20)],))


@pytest.mark.skipif(not library.is_built("beam_step"), reason="not built")
def test_beam_step_kernel_checks_its_arguments():
    logits, *others = _flat_arguments()
    with pytest.raises(RuntimeError, match=r"beam_step: logits must have the dtype"):
        torch.ops.seqkit.beam_step(logits.double(), *others)
    with pytest.raises(RuntimeError, match=r"beam_step: logp must have the shape"):
        torch.ops.seqkit.beam_step(logits[:, :1].contiguous(), *others)


@pytest.mark.compile
def test_beam_step_compiles(backend):
    def step(logits, state):
        return beam_step(logits * 2.0, state, eos=EOS, beam_size=2).logp

    logits, state = torch.randn(2, 2, 40), random_state(2, 2)
    torch.testing.assert_close(
        torch.compile(step, fullgraph=True, backend="aot_eager")(logits, state), step(logits, state)
    )
