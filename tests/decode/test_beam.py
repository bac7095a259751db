"""Beam search against brute force over all outputs of a toy model, and the promises of its options one by one."""

import dataclasses
import json
import math

import pytest
import torch

from seqkit.decode.beam import beam_search, beam_search_trees, prefix_table, repeating_tokens
from seqkit.decode.options import BeamOptions
from seqkit.decode.step import StepOutput
from seqkit.errors import InputError
from tests.decode.toy_model import HashModel, best_outputs, has_repeat, penalty

EOS = 0


def search(model, sentences, options, **others):
    inputs = torch.tensor(sentences, dtype=torch.int64)
    return beam_search(model, inputs, options, bos_id=model.vocab_size - 1, eos_id=EOS, **others)


def as_text(found):
    """Every bit of a result."""
    return [
        [(h.tokens, h.ended, h.logprob.hex(), h.score.hex(), [x.hex() for x in h.token_logprobs]) for h in hypotheses]
        for hypotheses in found
    ]


# Brute force


@pytest.mark.parametrize("count_eos", [False, True])
@pytest.mark.parametrize("penalised", ["none", "power:0.7", "power:1.6", "gnmt:0.6", "gnmt:2"])
@pytest.mark.parametrize("min_length", [0, 2])
def test_beam_search_with_every_beam_equals_brute_force(penalised, count_eos, min_length):
    V, T = 4, 4
    model = HashModel(V)
    options = BeamOptions(
        beam_size=V**T, n_best=5, length_penalty=penalised, count_eos=count_eos, stopping="exhaustive",
        max_length=T, min_length=min_length,
    )  # fmt: skip
    kind, _, alpha = penalised.partition(":")
    sentences = [3, 11, 64]
    for sentence, found in zip(sentences, search(model, sentences, options), strict=True):
        expected = best_outputs(
            model, sentence, n=5, kind=kind, alpha=float(alpha or 0), count_eos=count_eos, max_length=T,
            min_length=min_length,
        )  # fmt: skip
        assert [h.tokens for h in found] == [tokens for _, tokens, _, _ in expected]
        assert [h.ended for h in found] == [ended for _, _, ended, _ in expected]
        assert [h.score for h in found] == pytest.approx([score for score, _, _, _ in expected], rel=1e-5)
        assert [h.logprob for h in found] == pytest.approx([logp for _, _, _, logp in expected], rel=1e-5)


@pytest.mark.parametrize("penalised", ["none", "power:0.7", "gnmt:1.5"])
def test_exhaustive_stopping_gives_what_running_on_gives(penalised):
    model, T, K = HashModel(12, spread=9.0), 14, 4
    options = BeamOptions(beam_size=K, n_best=2, length_penalty=penalised, stopping="exhaustive", max_length=T)
    # With a pool of 100 K that never fills, no sentence stops before its maximum length.
    never = dataclasses.replace(options, stopping="patience", patience=100.0)
    sentences = list(range(40))
    early = search(model, sentences, options)
    steps = [shape[0] for shape in model.rows]
    assert steps[-1] < steps[0] or len(steps) < T  # some did stop early
    assert as_text(early) == as_text(search(model, sentences, never))


# What a result is made of


def test_hypotheses_add_up():
    model = HashModel(9, spread=6.0)
    options = BeamOptions(beam_size=5, n_best=5, max_length=9, length_penalty="power:0.7")
    for sentence, found in enumerate(search(model, [0, 1, 2, 3], options)):
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        for h in found:
            symbols = [*h.tokens, EOS] if h.ended else h.tokens
            assert h.token_logprobs == pytest.approx(model.token_logprobs(sentence, symbols), abs=1e-5)
            assert h.logprob == pytest.approx(sum(h.token_logprobs), abs=1e-5)
            assert h.score == pytest.approx(h.logprob / penalty("power", 0.7, len(symbols)), rel=1e-6)
            assert EOS not in h.tokens
            assert h.ended or len(h.tokens) == 9


def test_count_eos_changes_the_length_by_one():
    model = HashModel(5)
    options = BeamOptions(beam_size=3, max_length=8, length_penalty="power:1", count_eos=False)
    for (h,) in search(model, [1, 2, 3], options):
        assert h.score == pytest.approx(h.logprob / max(len(h.tokens), 1), rel=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stopping": "exhaustive", "n_best": 3},
        {"stopping": "patience", "patience": 2.0},
        {"diverse_groups": 2},
        {"no_repeat_ngram": 2},
        {"coverage_penalty": 0.2},
    ],
)
def test_beam_search_does_not_depend_on_the_batch(batch, changes):
    model = HashModel(50, spread=9.0, source_size=5)
    options = BeamOptions(**{"beam_size": 4, "n_best": 4, "max_length": 12} | changes)
    sentences = [5, 3, 8, 1, 13, 2, 21]
    limits = torch.tensor([12, 7, 12, 1, 9, 12, 4])
    lengths = torch.tensor([5, 3, 4, 1, 2, 5, 2])
    prefix = [[], [4, 5], [], [7], [], [9, 9, 9], []]

    def run(order):
        found = search(
            model, [sentences[i] for i in order], options, max_lengths=limits[order], source_lengths=lengths[order],
            prefix=[prefix[i] for i in order],
        )  # fmt: skip
        return as_text(found)

    whole = run(list(range(7)))
    order = [6, 2, 0, 5, 1, 4, 3]
    parts = [text for start in range(0, 7, batch) for text in run(order[start : start + batch])]
    assert [whole[i] for i in order] == parts


def test_beam_search_of_nothing():
    assert search(HashModel(5), [], BeamOptions()) == []


def test_sentences_leave_the_batch_when_they_are_done():
    model = HashModel(5, spread=1.0)
    search(model, [1, 2, 3], BeamOptions(beam_size=2, max_length=9), max_lengths=torch.tensor([1, 9, 2]))
    assert model.rows[0] == (3, 1)
    assert max(rows for rows, _ in model.rows[1:]) <= 2
    assert all(beams == 2 for _, beams in model.rows[1:])


# Stopping and length


def test_first_and_patience_count_ended_hypotheses():
    class EndsAtOnce(HashModel):
        def step(self, tokens, state):
            output = super().step(tokens, state)
            output.logits[..., EOS] = 3.9  # the best or nearly so, at every step
            return output

    steps = {}
    for name, options in {
        "first": BeamOptions(beam_size=4, max_length=20),
        "twice": BeamOptions(beam_size=4, max_length=20, stopping="patience", patience=2.0),
        "half": BeamOptions(beam_size=4, max_length=20, stopping="patience", patience=0.5),
        "same": BeamOptions(beam_size=4, max_length=20, stopping="patience", patience=1.0),
    }.items():
        model = EndsAtOnce(30)
        _, (tree,) = beam_search_trees(model, torch.tensor([1]), options, bos_id=1, eos_id=EOS)
        n_finished = [sum(n.fate == "finished" for n in tree.nodes if n.step <= step) for step in range(25)]
        enough = {"first": 4, "twice": 8, "half": 2, "same": 4}[name]
        steps[name] = len(model.rows)
        assert n_finished[len(model.rows)] >= enough > n_finished[len(model.rows) - 1]
    assert steps["half"] < steps["first"] < steps["twice"]
    assert steps["same"] == steps["first"]


def test_maximum_length_counts_the_end_symbol():
    model = HashModel(3, spread=0.1)
    options = BeamOptions(beam_size=9, n_best=9, max_length=1, stopping="exhaustive")
    (found,) = search(model, [4], options)
    assert sorted((h.tokens, h.ended) for h in found) == [([], True), ([1], False), ([2], False)]
    options = BeamOptions(beam_size=9, n_best=9, max_length=2, stopping="exhaustive")
    (found,) = search(model, [4], options)
    assert sorted(len(h.tokens) + h.ended for h in found) == [1, 2, 2, 2, 2, 2, 2]


def test_minimum_length_holds_back_the_end_symbol():
    for (h,) in search(HashModel(3, spread=9.0), list(range(20)), BeamOptions(beam_size=2, min_length=4, max_length=9)):
        assert len(h.tokens) >= 4


def test_a_model_that_cannot_go_on_is_closed_where_it_stands():
    class Silent(HashModel):
        def step(self, tokens, state):
            output = super().step(tokens, state)
            output.logits[..., 0] = -math.inf
            if len(self.rows) > 2:
                output.logits[:] = math.nan
            return output

    (found,) = search(Silent(6), [1], BeamOptions(beam_size=3, n_best=3))
    assert [len(h.tokens) for h in found] == [2, 2, 2]
    assert not any(h.ended for h in found)

    class Mute(HashModel):
        def step(self, tokens, state):
            output = super().step(tokens, state)
            output.logits[:] = -math.inf
            return output

    for options in (BeamOptions(beam_size=3, n_best=3), BeamOptions(beam_size=4, n_best=3, diverse_groups=2)):
        (found,) = search(Mute(6), [1], options)
        assert [(h.tokens, h.ended, h.logprob, h.score) for h in found] == [([], False, 0.0, 0.0)]


def test_vocabulary_of_the_end_symbol_alone():
    (found,) = beam_search(HashModel(1), torch.tensor([1]), BeamOptions(n_best=5), bos_id=0, eos_id=0)
    assert [(h.tokens, h.ended) for h in found] == [([], True)]


# Constraints


def test_prefixes_are_forced_and_scored():
    model = HashModel(30, spread=9.0)
    prefix = [[], [5], [5, 5, 6], [1, 2, 3, 4, 5, 6]]
    options = BeamOptions(beam_size=3, n_best=2, max_length=12, min_length=3)
    for sentence, found in enumerate(search(model, [0, 1, 2, 3], options, prefix=prefix)):
        for h in found:
            assert h.tokens[: len(prefix[sentence])] == prefix[sentence]
            symbols = [*h.tokens, EOS] if h.ended else h.tokens
            assert h.token_logprobs == pytest.approx(model.token_logprobs(sentence, symbols), abs=1e-5)
    assert as_text(search(model, [0], options, prefix=[[]])) == as_text(search(model, [0], options))


def test_prefix_as_long_as_the_maximum_length():
    ((h,),) = search(HashModel(5), [0], BeamOptions(max_length=2), prefix=[[3, 3]])
    assert (h.tokens, h.ended) == ([3, 3], False)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_repeat_ngram(n):
    model = HashModel(4, spread=1.0)
    options = BeamOptions(beam_size=3, n_best=3, max_length=16, min_length=10, no_repeat_ngram=n)
    found = search(model, list(range(10)), options)
    assert not any(has_repeat(h.tokens, n) for hypotheses in found for h in hypotheses)
    free = search(model, list(range(10)), dataclasses.replace(options, no_repeat_ngram=0))
    assert any(has_repeat(h.tokens, n) for hypotheses in free for h in hypotheses)


def test_repeating_tokens_by_hand():
    outputs = torch.tensor([[[1, 2, 1, 3, 1]]])
    assert repeating_tokens(outputs, 1).tolist() == [[[1, 2, 1, 3, 1]]]
    assert repeating_tokens(outputs, 2).tolist() == [[[2, -1, 3, -1]]]
    assert repeating_tokens(outputs, 3).tolist() == [[[-1, -1, -1]]]
    assert repeating_tokens(torch.tensor([[[4, 5, 6, 4, 5]]]), 3).tolist() == [[[6, -1, -1]]]
    assert repeating_tokens(outputs, 6).shape == (1, 1, 0)


def test_suppressed_tokens_never_come():
    found = search(
        HashModel(5, spread=1.0), list(range(9)), BeamOptions(beam_size=3, n_best=3, max_length=6), suppress=[2, 4]
    )
    assert {token for hypotheses in found for h in hypotheses for token in h.tokens} == {1, 3}


# Coverage, groups, ensembles


def test_coverage_penalty_is_added_to_the_score():
    model = HashModel(20, spread=9.0, source_size=6)
    lengths = torch.tensor([6, 3])
    options = BeamOptions(beam_size=4, n_best=4, max_length=7, coverage_penalty=0.3, return_attention=True)
    for sentence, found in enumerate(search(model, [2, 9], options, source_lengths=lengths)):
        for h in found:
            S = int(lengths[sentence])
            assert h.attention is not None
            assert h.attention.shape == (len(h.tokens), S)
            symbols = [*h.tokens, EOS] if h.ended else h.tokens
            state, previous, rows = model.start(torch.tensor([[2, 9][sentence]])), 19, []
            for token in symbols:
                output = model.step(torch.tensor([[previous]]), state)
                state, previous = output.state, token
                rows.append(output.attention[0, 0, :S])
            assert torch.equal(h.attention, torch.stack(rows)[: len(h.tokens)])
            cover = sum(math.log(min(float(total), 1.0)) for total in torch.stack(rows).sum(0))
            assert h.score == pytest.approx(h.logprob / penalty("power", 0.7, len(symbols)) + 0.3 * cover, rel=1e-5)


def test_coverage_and_attention_need_a_model_that_attends():
    with pytest.raises(InputError, match="coverage_penalty"):
        search(HashModel(5), [1], BeamOptions(coverage_penalty=0.1), source_lengths=torch.tensor([2]))
    with pytest.raises(InputError, match="return_attention"):
        search(HashModel(5), [1], BeamOptions(return_attention=True))


def test_diverse_groups_begin_with_different_words():
    model = HashModel(40, spread=9.0)
    options = BeamOptions(beam_size=4, n_best=4, max_length=8, min_length=3, diverse_groups=4, diversity=1000.0)
    for sentence, found in enumerate(search(model, [1, 2, 3], options)):
        assert len({h.tokens[0] for h in found}) == 4
        for h in found:  # the term ranks and is not in the log-probability
            symbols = [*h.tokens, EOS] if h.ended else h.tokens
            assert h.logprob == pytest.approx(sum(model.token_logprobs([1, 2, 3][sentence], symbols)), abs=1e-4)


def test_diverse_groups_without_diversity_repeat_one_search():
    model = HashModel(40, spread=9.0)
    alone = search(model, [1, 2, 3], BeamOptions(beam_size=2, n_best=2, max_length=8))
    options = BeamOptions(beam_size=6, n_best=6, max_length=8, diverse_groups=3, diversity=0.0)
    grouped = search(model, [1, 2, 3], options)
    for one, three in zip(as_text(alone), as_text(grouped), strict=True):
        assert three == [one[0]] * 3 + [one[1]] * 3


def test_ensemble_averages_probabilities():
    models = [HashModel(4, salt=1), HashModel(4, salt=2)]
    inputs = torch.tensor([5])
    options = BeamOptions(beam_size=64, n_best=3, max_length=3, stopping="exhaustive", length_penalty="none")
    (found,) = beam_search(models, inputs, options, bos_id=3, eos_id=EOS)

    def mean_logp(tokens):
        both = [model.token_logprobs(5, tokens) for model in models]
        return sum(math.log((math.exp(a) + math.exp(b)) / 2) for a, b in zip(*both, strict=True))

    outputs = [(tokens, ended) for tokens, ended, _ in models[0].all_outputs(5, max_length=3)]
    best = sorted(((mean_logp([*t, EOS] if e else t), list(t)) for t, e in outputs), reverse=True)[:3]
    assert [h.tokens for h in found] == [tokens for _, tokens in best]
    assert [h.score for h in found] == pytest.approx([logp for logp, _ in best], abs=1e-5)


def test_ensemble_of_one_model_twice_changes_nothing_but_rounding():
    model = HashModel(20, spread=9.0)
    options = BeamOptions(beam_size=3, max_length=9)
    twice = beam_search([model, model], torch.tensor([1, 2]), options, bos_id=19, eos_id=EOS)
    for (a,), (b,) in zip(twice, search(model, [1, 2], options), strict=True):
        assert a.tokens == b.tokens
        assert a.logprob == pytest.approx(b.logprob, abs=1e-5)


# The tree


@pytest.mark.parametrize("groups", [1, 2])
def test_search_tree_holds_every_output(groups):
    model = HashModel(15, spread=7.0)
    options = BeamOptions(beam_size=4, n_best=4, max_length=8, diverse_groups=groups)
    inputs = torch.tensor([1, 2, 3])
    found, trees = beam_search_trees(model, inputs, options, bos_id=14, eos_id=EOS)
    assert as_text(found) == as_text(search(model, [1, 2, 3], options))
    for hypotheses, tree in zip(found, trees, strict=True):
        json.dumps(dataclasses.asdict(tree))
        paths = {}
        for number, node in enumerate(tree.nodes):
            before = paths[node.parent] if node.parent >= 0 else []
            assert node.step == len(before) + 1
            assert node.parent < 0 or tree.nodes[node.parent].fate == "live"
            paths[number] = [*before, node.token]
        for h in hypotheses:
            path = [*h.tokens, EOS] if h.ended else h.tokens
            number = next(number for number, tokens in paths.items() if tokens == path)
            assert tree.nodes[number].fate == ("finished" if h.ended else "live")
            assert (tree.nodes[number].logprob, tree.nodes[number].score) == (h.logprob, h.score)
        for step in range(1, 9):
            fates = [node.fate for node in tree.nodes if node.step == step]
            assert len(fates) <= 8
            assert fates.count("live") <= 4


# What cannot be


@pytest.mark.parametrize(
    ("others", "argument"),
    [
        ({"prefix": [[1, EOS]]}, "`prefix`"),
        ({"prefix": [[1] * 9]}, "`prefix`"),
        ({"prefix": [[99]]}, "`prefix`"),
        ({"prefix": [[], []]}, "number of sentences"),
        ({"max_lengths": torch.tensor([0])}, "`max_lengths`"),
        ({"max_lengths": torch.tensor([3, 3])}, "number of sentences"),
    ],
)
def test_beam_search_says_what_cannot_be(others, argument):
    with pytest.raises(InputError, match=argument):
        search(HashModel(5), [1], BeamOptions(max_length=8), **others)


def test_beam_search_needs_the_number_of_sentences():
    class FromNothing(HashModel):
        def start(self, inputs):
            return super().start(torch.tensor([1, 2]))

    with pytest.raises(InputError, match="batch_size"):
        beam_search(FromNothing(5), None, BeamOptions(), bos_id=4, eos_id=0)
    assert len(beam_search(FromNothing(5), None, BeamOptions(), bos_id=4, eos_id=0, batch_size=2)) == 2
    with pytest.raises(InputError, match="`eos_id`"):
        beam_search(FromNothing(5), None, BeamOptions(), bos_id=4, eos_id=5, batch_size=2)


def test_prefix_table_pads_behind():
    assert prefix_table(2, [[3], [4, 5]], [9, 9], eos_id=0).tolist() == [[3, -1], [4, 5]]
    assert prefix_table(2, None, [9, 9], eos_id=0).shape == (2, 0)
    assert StepOutput(torch.zeros(1, 1, 2), None).attention is None
