import numpy as np
import pytest
import torch

from seqkit.errors import InputError
from seqkit.text.stream import StreamBatches, Window


def windows(batches: StreamBatches) -> list[Window]:
    return list(batches)


@pytest.mark.parametrize(("n", "streams", "window"), [(2, 1, 2), (21, 2, 3), (100, 7, 4)])
def test_streams_give_each_token_once_and_the_one_after_it(n: int, streams: int, window: int) -> None:
    batches = StreamBatches(np.arange(n), n_streams=streams, window=window, seed=3)
    for epoch in range(3):
        found = windows(batches)
        assert len(found) == len(batches)
        tokens = torch.cat([each.tokens for each in found], dim=1)
        targets = torch.cat([each.targets for each in found], dim=1)
        assert torch.equal(targets, (tokens + 1) % n)
        assert tokens.unique().numel() == tokens.numel() == streams * ((n - 1) // streams)
        assert torch.equal(tokens.flatten().diff() % n, torch.ones(tokens.numel() - 1, dtype=torch.int64))
        assert [each.first for each in found] == [True] + [False] * (len(found) - 1)
        if epoch == 0:
            assert tokens[0, 0] == 0


def test_epochs_begin_at_other_places() -> None:
    batches = StreamBatches(np.arange(1000), n_streams=2, window=100, seed=3)
    assert len({int(windows(batches)[0].tokens[0, 0]) for _ in range(4)}) == 4


def test_a_position_resumes_within_an_epoch() -> None:
    whole = StreamBatches(np.arange(100), n_streams=3, window=5, seed=1)
    expected = [*windows(whole), *windows(whole)]
    for cut in range(2 * len(whole)):
        first, second = (StreamBatches(np.arange(100), n_streams=3, window=5, seed=1) for _ in range(2))
        given: list[Window] = []
        while len(given) < cut:
            for each in first:
                given.append(each)
                if len(given) == cut:
                    break
        second.load_state_dict(first.state_dict())
        rest = [*second, *second][: len(expected) - cut]
        assert len(rest) == len(expected) - cut
        for got, want in zip(rest, expected[cut:], strict=True):
            assert torch.equal(got.tokens, want.tokens)
            assert torch.equal(got.targets, want.targets)
            assert got.first == want.first


def test_a_text_too_short_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 tokens for each of 3 streams, got 5"):
        StreamBatches(np.arange(5), n_streams=3, window=2, seed=1)
