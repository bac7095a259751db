"""Penalties in closed form, and forced decoding against the toy model by hand."""

import math

import pytest
import torch

from seqkit.decode.beam import beam_search
from seqkit.decode.options import BeamOptions
from seqkit.decode.scoring import coverage_penalty, device_of, force_decode, length_penalty
from seqkit.errors import InputError
from tests.decode.toy_model import HashModel


def test_length_penalty_in_closed_form():
    lengths = torch.tensor([1, 4, 9])
    assert length_penalty(lengths, kind="none", alpha=0.7).tolist() == [1, 1, 1]
    assert length_penalty(lengths, kind="power", alpha=0.5).tolist() == [1, 2, 3]
    expected = [math.sqrt((5 + n) / 6) for n in (1, 4, 9)]
    assert length_penalty(lengths, kind="gnmt", alpha=0.5).tolist() == pytest.approx(expected, rel=1e-6)


def test_coverage_penalty_in_closed_form():
    received = torch.tensor([[[0.5, 2.0, 0.25, 0.0]], [[1.0, 0.0, 9.0, 9.0]]])
    values = coverage_penalty(received, torch.tensor([3, 2]), beta=0.2)
    assert values[0, 0].item() == pytest.approx(0.2 * (math.log(0.5) + math.log(0.25)), rel=1e-6)
    assert values[1, 0].item() == pytest.approx(0.2 * math.log(1e-10), rel=1e-6)


def test_coverage_penalty_does_not_see_padding():
    received = torch.rand(3, 2, 5)
    wide = torch.cat([received, torch.rand(3, 2, 40)], dim=2)
    lengths = torch.tensor([5, 3, 1])
    assert torch.equal(coverage_penalty(received, lengths, beta=0.3), coverage_penalty(wide, lengths, beta=0.3))


def test_force_decode_by_hand():
    model = HashModel(9)
    targets = [[1, 2, 3], [], [4], [5, 5, 5, 5]]
    found = force_decode(model, torch.arange(4), targets, bos_id=8, eos_id=0)
    for sentence, target in enumerate(targets):
        assert found[sentence] == pytest.approx(model.token_logprobs(sentence, [*target, 0]), abs=1e-5)
    without = force_decode(model, torch.arange(4), targets, bos_id=8, eos_id=None)
    assert without == [row[:-1] for row in found]


def test_force_decode_gives_what_the_search_found():
    model = HashModel(20, spread=8.0)
    found = [h for (h,) in beam_search(model, torch.arange(9), BeamOptions(max_length=30), bos_id=19, eos_id=0)]
    ended = [index for index, h in enumerate(found) if h.ended]
    assert len(ended) > 3
    inputs = torch.tensor(ended)
    logp = force_decode(model, inputs, [found[index].tokens for index in ended], bos_id=19, eos_id=0)
    assert logp == [found[index].token_logprobs for index in ended]


def test_force_decode_of_nothing():
    nothing = torch.zeros(0, dtype=torch.int64)
    assert force_decode(HashModel(5), nothing, [], bos_id=4, eos_id=0) == []
    assert force_decode(HashModel(5), torch.tensor([1]), [[]], bos_id=4, eos_id=None) == [[]]


def test_force_decode_says_what_cannot_be():
    with pytest.raises(InputError, match="tokens must be from 0 to 4, got 5"):
        force_decode(HashModel(5), torch.tensor([1]), [[5]], bos_id=4, eos_id=0)


def test_device_of_a_module_is_that_of_its_parameters():
    assert device_of(torch.nn.Linear(1, 1, device="meta"), None).type == "meta"
    assert device_of(object(), torch.zeros(1, device="meta")).type == "meta"
    assert device_of(object(), None).type == "cpu"
