import time

import numpy as np
import pytest
import torch

from seqkit.errors import InputError
from seqkit.text.batch import Batch, TokenBatches, length_batches, length_mask

Pairs = list[tuple[list[int], list[int]]]
SPECIALS = {"pad_id": 0, "bos_id": 2, "eos_id": 3}


def some_pairs(n: int, *, longest: int = 30) -> Pairs:
    random = np.random.default_rng(5)
    sides = [
        [[int(x) for x in random.integers(4, 99, length)] for length in random.integers(0, longest, n)] for _ in "st"
    ]
    return list(zip(*sides, strict=True))


def batches_of(pairs: Pairs, *, batch_tokens: int = 64, seed: int = 7) -> TokenBatches:
    return TokenBatches(pairs, batch_tokens=batch_tokens, seed=seed, **SPECIALS)


def indices(batches: TokenBatches) -> list[list[int]]:
    return [batch.indices.tolist() for batch in batches]


def equal(left: Batch, right: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(vars(left).values(), vars(right).values(), strict=True))


def test_length_mask_is_true_where_a_position_counts() -> None:
    lengths = torch.tensor([2, 0, 3])
    assert length_mask(lengths).tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert length_mask(lengths, 4)[:, 3].tolist() == [False] * 3
    assert length_mask(lengths, 1).tolist() == [[True], [False], [True]]
    assert length_mask(torch.tensor([], dtype=torch.int64)).shape == (0, 0)


def test_batch_of_pads_right_and_shifts_the_target() -> None:
    batch = Batch.of([([5, 6, 7], [8]), ([], [9, 10])], **SPECIALS)
    assert batch.source.tolist() == [[5, 6, 7], [0, 0, 0]]
    assert batch.source_lengths.tolist() == [3, 0]
    assert batch.target_in.tolist() == [[2, 8, 0], [2, 9, 10]]
    assert batch.target_out.tolist() == [[8, 3, 0], [9, 10, 3]]
    assert batch.target_lengths.tolist() == [2, 3]
    assert batch.n_tokens == 5
    assert len(batch) == 2
    assert batch.to("meta").source.is_meta
    assert batch.source.dtype == torch.int64


def test_token_batches_hold_the_budget_and_cover_every_pair_once() -> None:
    pairs = some_pairs(300)
    seen = []
    for batch in batches_of(pairs):
        size = len(batch)
        assert size == 1 or size * max(batch.source.shape[1], batch.target_in.shape[1]) <= 64
        seen += batch.indices.tolist()
        for row, index in enumerate(batch.indices.tolist()):
            source, target = pairs[index]
            assert batch.source[row, : batch.source_lengths[row]].tolist() == source
            assert batch.target_out[row, : batch.target_lengths[row]].tolist() == [*target, 3]
    assert sorted(seen) == list(range(300))


def test_token_batches_fill_the_budget() -> None:
    batches = batches_of([([5] * 3, [6] * 3)] * 20, batch_tokens=32)
    assert sorted(len(batch) for batch in batches) == [4, 8, 8]
    assert len(batches) == 3


def test_token_batches_give_a_pair_over_the_budget_its_own_batch() -> None:
    pairs: Pairs = [([5] * 100, [6]), ([5], [6] * 100), ([5], [6]), ([5], [6])]
    groups = sorted(sorted(group) for group in indices(batches_of(pairs, batch_tokens=10)))
    assert groups == [[0], [1], [2, 3]]


def test_token_batches_are_a_function_of_seed_and_epoch() -> None:
    pairs = some_pairs(200)
    one, two = batches_of(pairs), batches_of(pairs)
    epochs = [indices(one), indices(one)]
    assert epochs == [indices(two), indices(two)]
    assert epochs[0] != epochs[1]
    assert {tuple(sorted(group)) for group in epochs[0]} != {tuple(sorted(group)) for group in epochs[1]}
    assert indices(batches_of(pairs, seed=8)) != epochs[0]


def test_token_batches_shuffle_the_batches_of_an_epoch() -> None:
    widths = [batch.target_in.shape[1] for batch in batches_of(some_pairs(400))]
    assert widths != sorted(widths)
    assert abs(float(np.corrcoef(np.arange(len(widths)), widths)[0, 1])) < 0.35


@pytest.mark.parametrize("n", [0, 7, 1000])
def test_token_batches_resume_where_they_stood(n: int) -> None:
    pairs = some_pairs(200)
    one = batches_of(pairs)
    n = min(n, len(one))
    list(one)  # the second epoch
    iterator = iter(one)
    for _ in range(n):
        next(iterator)
    state = one.state_dict()
    assert state == {"epoch": 1, "position": n}
    two = batches_of(pairs)
    two.load_state_dict(state)
    rest, again = list(iterator), list(two)
    assert len(rest) == len(again) == len(one._planned(1)) - n
    assert all(equal(a, b) for a, b in zip(rest, again, strict=True))
    assert one.state_dict() == two.state_dict() == {"epoch": 2, "position": 0}
    assert indices(one) == indices(two)


def test_token_batches_reject_a_position_of_other_data() -> None:
    with pytest.raises(InputError, match=r"position must be from 0 to \d+, got 999"):
        batches_of(some_pairs(20)).load_state_dict({"epoch": 0, "position": 999})


def test_token_batches_encode_hook_gets_epoch_and_index() -> None:
    pairs = some_pairs(30)
    calls: list[tuple[int, int]] = []

    def encode(epoch: int, index: int) -> tuple[list[int], list[int]]:
        calls.append((epoch, index))
        return [50 + epoch], [index + 4]

    batches = TokenBatches(pairs, batch_tokens=64, seed=1, encode=encode, **SPECIALS)
    for epoch in range(2):
        for batch in batches:
            assert batch.source.tolist() == [[50 + epoch]] * len(batch)
            assert (batch.target_in[:, 1] - 4).tolist() == batch.indices.tolist()
    assert sorted(calls) == [(epoch, index) for epoch in range(2) for index in range(30)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": []}, "pairs must hold at least one pair"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1, got 0"),
        ({"bucket": 0}, "bucket must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_token_batches_reject_wrong_arguments(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"pairs": some_pairs(3), "batch_tokens": 9, "seed": 1, "bucket": 2, **SPECIALS}
    with pytest.raises(InputError, match=message):
        TokenBatches(**(arguments | change))  # type: ignore[arg-type]


def test_token_batches_plan_200k_pairs_without_a_wait() -> None:
    token = [9]
    random = np.random.default_rng(1)
    pairs = [(token * s, token * t) for s, t in random.integers(1, 60, (200_000, 2)).tolist()]
    batches = batches_of(pairs, batch_tokens=8192)
    begin = time.perf_counter()
    n = len(batches)
    assert time.perf_counter() - begin < 2.0  # 0.05 s where it was measured
    assert n > 500


def test_length_batches_cover_once_longest_first() -> None:
    sources = [[4] * length for length in (3, 1, 9, 0, 3, 2, 40)]
    groups = length_batches(list(map(len, sources)), batch_tokens=12)
    assert groups == [[6], [2], [0, 4, 5, 1], [3]]
    for group in groups:
        assert len(group) == 1 or len(group) * max(len(sources[index]) for index in group) <= 12
    assert length_batches(list(map(len, sources)), batch_size=3) == [[6, 2, 0], [4, 5, 1], [3]]
    assert length_batches([], batch_size=3) == []


def test_length_batches_want_one_bound() -> None:
    with pytest.raises(InputError, match="one of batch_tokens and batch_size"):
        length_batches([1])
    with pytest.raises(InputError, match="one of batch_tokens and batch_size"):
        length_batches([1], batch_tokens=1, batch_size=1)
    with pytest.raises(InputError, match="at least 1, got 0"):
        length_batches([1], batch_size=0)
