"""Sampling: draws follow the probabilities, depend on nothing but the sentence, and greedy is a beam of one."""

import dataclasses
import math

import pytest
import torch

from seqkit.decode.beam import beam_search
from seqkit.decode.options import BeamOptions, LengthOptions, SampleOptions
from seqkit.decode.sampling import draw, first_best, greedy, sample, sample_streams, uniforms
from seqkit.errors import InputError
from tests.decode.toy_model import HashModel, has_repeat

EOS = 0


def run(model, sentences, options, **others):
    return sample(model, torch.tensor(sentences), options, bos_id=model.vocab_size - 1, eos_id=EOS, **others)


# Greedy


@pytest.mark.parametrize(
    "lengths", [{}, {"min_length": 3}, {"no_repeat_ngram": 2, "min_length": 6}, {"max_length": 1}, {"max_length": 5}]
)
@pytest.mark.parametrize("stopping", ["first", "patience"])
def test_greedy_equals_beam_of_one(lengths, stopping):
    model = HashModel(9, spread=5.0)
    sentences = list(range(60))
    settings = {"max_length": 12} | lengths
    options = BeamOptions(**settings, beam_size=1, stopping=stopping, length_penalty="none")
    inputs = torch.tensor(sentences)
    beams = beam_search(model, inputs, options, bos_id=8, eos_id=EOS)
    for best, (only,) in zip(
        greedy(model, inputs, LengthOptions(**settings), bos_id=8, eos_id=EOS), beams, strict=True
    ):
        assert (best.tokens, best.ended, best.token_logprobs) == (only.tokens, only.ended, only.token_logprobs)
        assert best.logprob == pytest.approx(only.logprob, abs=1e-5)


def test_greedy_takes_the_likeliest_symbol():
    model = HashModel(7)
    for sentence, best in enumerate(greedy(model, torch.arange(5), LengthOptions(max_length=6), bos_id=6, eos_id=EOS)):
        for step, token in enumerate([*best.tokens, EOS] if best.ended else best.tokens):
            others = [model.token_logprobs(sentence, [*best.tokens[:step], other])[-1] for other in range(7)]
            assert others[token] == max(others)


def test_first_best_takes_the_lower_of_equals():
    values = torch.tensor([[[1.0, 3.0, 3.0], [-math.inf] * 3]])
    assert first_best(values).tolist() == [[1, 0]]


# Draws


def test_draw_follows_the_probabilities():
    prob = torch.tensor([0.1, 0.2, 0.3, 0.4])
    uniform = (torch.arange(1000).double()[None] + 0.5) / 1000
    logp = prob.log().expand(1, 1000, 4)

    def shares(**cut):
        drawn = draw(logp, uniform, **({"temperature": 1.0, "top_k": 0, "top_p": 1.0} | cut))
        return [count / 1000 for count in torch.bincount(drawn[0], minlength=4).tolist()]

    assert shares() == [0.1, 0.2, 0.3, 0.4]
    assert shares(top_k=2) == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=1e-3)
    assert shares(top_k=9) == [0.1, 0.2, 0.3, 0.4]
    assert shares(top_p=0.65) == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=1e-3)
    assert shares(top_p=0.75) == pytest.approx([0, 2 / 9, 3 / 9, 4 / 9], abs=1e-3)
    assert shares(top_p=1e-9) == [0, 0, 0, 1]
    # The nucleus is that of the k likeliest: 3/7 + 4/7, of which 4/7 holds a half.
    assert shares(top_k=2, top_p=0.5) == [0, 0, 0, 1]
    squares = prob**2 / (prob**2).sum()
    assert shares(temperature=0.5) == pytest.approx(squares.tolist(), abs=1e-3)


def test_draw_never_takes_the_impossible():
    logp = torch.tensor([-math.inf, math.log(0.5), -math.inf, math.log(0.5), -math.inf]).expand(1, 3, 5)
    uniform = torch.tensor([[0.0, 0.5, 1 - 2**-53]]).double()
    for top_p in (0.9999, 1.0):
        assert draw(logp, uniform, temperature=1.0, top_k=0, top_p=top_p).tolist() == [[1, 3, 3]]


def test_uniforms_are_uniform_and_distinct():
    values = torch.cat([uniforms(sample_streams(1, torch.arange(100), 10), step).flatten() for step in range(50)])
    assert float(values.min()) >= 0.0
    assert float(values.max()) < 1.0
    assert len(set(values.tolist())) == values.numel()
    counts = torch.histc(values, bins=20, min=0.0, max=1.0)
    chi_square = float(((counts - 2500) ** 2 / 2500).sum())
    assert chi_square < 43.8  # 19 degrees of freedom, p = 0.001
    across = uniforms(sample_streams(1, torch.arange(1000), 1), 0)[:, 0]
    following = uniforms(sample_streams(1, torch.arange(1000), 1), 1)[:, 0]
    assert abs(float(torch.corrcoef(torch.stack([across, following]))[0, 1])) < 0.1


def test_uniforms_are_splitmix64():
    # The first output of SplitMix64 seeded with 0, from its reference implementation (S. Vigna, splitmix64.c).
    assert float(uniforms(torch.zeros(1, 1, dtype=torch.int64), 0)) == (0xE220A8397B1DCDAF >> 11) / 2**53


# Sampling


def test_samples_follow_the_model():
    model = HashModel(3, spread=2.0)
    (samples,) = run(model, [5], SampleOptions(n_samples=4000, max_length=2))
    outputs = {(tokens, ended): math.exp(logp) for tokens, ended, logp in model.all_outputs(5, max_length=2)}
    for (tokens, ended), probability in outputs.items():
        share = sum((tuple(h.tokens), h.ended) == (tokens, ended) for h in samples) / 4000
        assert share == pytest.approx(probability, abs=4 * math.sqrt(probability / 4000))


@pytest.mark.parametrize(
    "options",
    [
        SampleOptions(n_samples=3, seed=7, max_length=9),
        SampleOptions(n_samples=2, seed=7, max_length=9, top_k=5, top_p=0.9, temperature=1.3, no_repeat_ngram=2),
        SampleOptions(temperature=0.0, max_length=9),
    ],
)
def test_samples_do_not_depend_on_the_batch(options):
    model = HashModel(30, spread=6.0)
    sentences, limits = [4, 9, 2, 7, 5], torch.tensor([9, 1, 5, 9, 3])

    def some(order):
        return run(model, [sentences[i] for i in order], options, max_lengths=limits[order], indices=order)

    whole = some([0, 1, 2, 3, 4])
    assert some([3, 1]) == [whole[3], whole[1]]
    assert some([4]) == [whole[4]]


def test_samples_depend_on_seed_and_index():
    model = HashModel(30, spread=1.0)
    options = SampleOptions(n_samples=2, seed=1, max_length=9, min_length=5)
    ((a, b),) = run(model, [4], options)
    assert a != b
    assert run(model, [4], options) == [[a, b]]
    assert run(model, [4], dataclasses.replace(options, seed=2)) != [[a, b]]
    assert run(model, [4], options, indices=[1]) != [[a, b]]


def test_samples_keep_their_constraints():
    model = HashModel(6, spread=1.0)
    options = SampleOptions(n_samples=20, min_length=3, max_length=9, no_repeat_ngram=2)
    prefix = [[2, 3], []]
    for index, samples in enumerate(run(model, [1, 2], options, prefix=prefix, suppress=[4])):
        for h in samples:
            assert h.tokens[: len(prefix[index])] == prefix[index]
            assert len(h.tokens) >= 3
            assert 4 not in h.tokens
            assert not has_repeat(h.tokens, 2)
            symbols = [*h.tokens, EOS] if h.ended else h.tokens
            assert h.token_logprobs == pytest.approx(model.token_logprobs([1, 2][index], symbols), abs=1e-5)
            assert h.logprob == h.score == pytest.approx(sum(h.token_logprobs))
            assert h.ended or len(h.tokens) == 9


def test_sampling_of_nothing_and_of_the_impossible():
    assert sample(HashModel(4), torch.zeros(0, dtype=torch.int64), SampleOptions(), bos_id=3, eos_id=EOS) == []
    ((only,),) = run(HashModel(4), [1], SampleOptions(), suppress=[0, 1, 2, 3])
    assert (only.tokens, only.ended, only.logprob) == ([], False, 0.0)


def test_sample_says_what_cannot_be():
    with pytest.raises(InputError, match="`indices`"):
        run(HashModel(4), [1], SampleOptions(), indices=[1, 2])
    with pytest.raises(InputError, match="`eos_id`"):
        sample(HashModel(4), torch.tensor([1]), SampleOptions(), bos_id=3, eos_id=4)
