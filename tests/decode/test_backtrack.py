"""Walking back through two steps written by hand."""

import torch

from seqkit.decode.backtrack import Ending, History
from seqkit.ops.beam_step import BeamState


def by_hand(parents, tokens, logp, *, length):
    floats = torch.tensor([logp])
    return BeamState.start(1, pool_size=2)._replace(
        logp=floats.cumsum(1),
        scores=floats,
        parents=torch.tensor([parents]),
        tokens=torch.tensor([tokens]),
        token_logp=floats,
        lengths=torch.tensor([length]),
    )


def test_history_walks_back_from_pool_and_live_beams():
    history = History(with_tree=False)
    first = by_hand([0, 0], [5, 6], [-1.0, -2.0], length=1)
    second = by_hand([1, 0], [7, 8], [-3.0, -4.0], length=2)._replace(
        finished_scores=torch.tensor([[-2.5, -9.0]]),
        finished_logp=torch.tensor([[-2.5, -9.0]]),
        finished_eos_logp=torch.tensor([[-0.5, -7.0]]),
        finished_lengths=torch.tensor([[1, 1]]),
        finished_beams=torch.tensor([[1, 0]]),
    )
    history.record({0: 0}, [first], None)
    history.record({0: 0}, [second], None)
    history.end([Ending(0, 0, 2, closed=True)], [second])
    (found,) = history.hypotheses(1, n_best=9, source_lengths=None)
    assert [(h.tokens, h.ended, h.token_logprobs) for h in found] == [
        ([6], True, [-2.0, -0.5]),
        ([6, 7], False, [-2.0, -3.0]),
        ([5, 8], False, [-1.0, -4.0]),
        ([5], True, [-1.0, -7.0]),
    ]


def test_history_leaves_live_beams_out_unless_closed():
    history = History(with_tree=False)
    state = by_hand([0, 0], [5, 6], [-1.0, -2.0], length=1)
    history.record({0: 0}, [state], None)
    history.end([Ending(0, 0, 1, closed=False)], [state])
    assert history.hypotheses(1, n_best=9, source_lengths=None) == [[]]
