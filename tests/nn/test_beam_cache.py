"""`BeamCache`: what a hypothesis sees is what its ancestors wrote, however the search reorders."""

import pytest
import torch
from torch import Tensor

from seqkit import ops
from seqkit.nn.beam_cache import FIRST_CAPACITY, BeamCache


def past(cache: BeamCache, sentence: int, beam: int) -> list[float]:
    """The first number of each position that a hypothesis sees."""
    writers = cache.ancestry[sentence, beam, : cache.length].tolist()
    return [float(cache.layers[0][sentence, writer, t, 0]) for t, writer in enumerate(writers)]


def written(cache: BeamCache, numbers: Tensor) -> BeamCache:
    cache = cache.open(numbers.shape[1])
    for layer in cache.layers:
        layer[:, : numbers.shape[1], cache.length - 1] = numbers[:, :, None]
    return cache


def test_beam_cache_follows_the_hypotheses() -> None:
    generator = torch.Generator().manual_seed(0)
    cache = BeamCache.empty(2, 3, torch.zeros(1, 4))
    assert cache.layers[0].shape == (2, 1, FIRST_CAPACITY, 8)
    pasts: list[list[list[float]]] = [[[]], [[]]]
    for step in range(2 * FIRST_CAPACITY + 3):  # past two enlargements
        n_beams = len(pasts[0])
        numbers = torch.arange(2 * n_beams).view(2, n_beams) + 100.0 * step
        cache = written(cache, numbers)
        for b in range(2):
            for k in range(n_beams):
                pasts[b][k] = [*pasts[b][k], float(numbers[b, k])]
                assert past(cache, b, k) == pasts[b][k]
        parents = torch.randint(n_beams, (2, (3, 5, 2)[step % 3]), generator=generator)
        cache = cache.reorder(parents)
        pasts = [[pasts[b][j] for j in parents[b].tolist()] for b in range(2)]


def test_beam_cache_keeps_sentences_and_what_is_filled() -> None:
    cache = BeamCache.empty(3, 1, torch.zeros(1, 2))
    for step in range(2):
        cache = written(cache, torch.tensor([[1.0], [2.0], [3.0]]) + 10 * step)
    kept = cache.keep(torch.tensor([2, 0]))
    assert [past(kept, b, 0) for b in range(2)] == [[3.0, 13.0], [1.0, 11.0]]
    kept = written(kept, torch.tensor([[7.0], [8.0]]))
    assert past(kept, 0, 0) == [3.0, 13.0, 7.0]


def test_beam_cache_steps_without_a_reorder_read_their_own_row() -> None:
    cache = BeamCache.empty(1, 1, torch.zeros(1, 2)).reorder(torch.zeros(1, 3, dtype=torch.int64))
    for step in range(3):
        cache = written(cache, torch.tensor([[1.0, 2.0, 3.0]]) * 10**step)
    assert past(cache, 0, 2) == [3.0, 30.0, 300.0]


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_beam_cache_never_reads_what_is_not_written(backend: str) -> None:
    cache = BeamCache.empty(1, 1, torch.zeros(1, 2))
    cache.layers[0].fill_(float("nan"))
    cache = written(cache, torch.ones(1, 1))
    key, value = cache.layers[0].unflatten(-1, (2, 1, 2)).unbind(3)
    with ops.use_backend(backend):
        out = ops.decode_attention(torch.ones(1, 1, 1, 2), key, value, cache.ancestry, 0)
    assert torch.equal(out, torch.ones(1, 1, 1, 2))
