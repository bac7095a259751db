import itertools

import pytest
import torch
from torch import Tensor

from seqkit.nn.label_chain import MISSING, LabelChain


def chain(n: int) -> LabelChain:
    torch.manual_seed(1)
    made = LabelChain(n)
    for parameter in made.parameters():
        parameter.data.normal_()
        parameter.requires_grad_(False)
    return made


def paths(scores: Tensor, of: LabelChain) -> dict[tuple[int, ...], float]:
    """The score of every sequence of one sentence's labels."""
    T, C = scores.shape
    found = {}
    for path in itertools.product(range(C), repeat=T):
        total = of.start[path[0]] + of.end[path[-1]] + sum(scores[t, label] for t, label in enumerate(path))
        found[path] = float(total + sum(of.transitions[a, b] for a, b in itertools.pairwise(path)))
    return found


@pytest.mark.parametrize("known", [(0, 2, 1), (MISSING, 2, 1), (0, MISSING, MISSING), (MISSING,) * 3])
def test_missing_labels_are_summed_over(known: tuple[int, ...]) -> None:
    """Brute force: the share of all sequences' weight that agrees with the known labels."""
    of, scores = chain(3), torch.randn(1, 3, 3)
    every = paths(scores[0], of)
    agree = [s for path, s in every.items() if all(w in (MISSING, got) for w, got in zip(known, path, strict=True))]
    expected = torch.logsumexp(torch.tensor(agree), 0) - torch.logsumexp(torch.tensor(list(every.values())), 0)
    found = of.log_likelihood(scores, torch.tensor([known]), torch.tensor([3]))
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


def test_padding_is_not_a_missing_label() -> None:
    of, scores = chain(3), torch.randn(2, 4, 3)
    labels = torch.tensor([[0, 1, 2, 0], [2, MISSING, MISSING, MISSING]])
    found = of.log_likelihood(scores, labels, torch.tensor([4, 2]))
    alone = of.log_likelihood(scores[1:, :2], labels[1:, :2], torch.tensor([2]))
    torch.testing.assert_close(found[1:], alone)


def test_probabilities_are_those_of_all_sequences() -> None:
    of, scores = chain(3), torch.randn(1, 3, 3)
    every = paths(scores[0], of)
    weights = torch.tensor(list(every.values())).softmax(0)
    expected = torch.zeros(3, 3)
    for path, weight in zip(every, weights, strict=True):
        for t, label in enumerate(path):
            expected[t, label] += weight
    torch.testing.assert_close(of.probabilities(scores, torch.tensor([3]))[0], expected, atol=1e-5, rtol=1e-5)


def test_the_best_sequence_is_that_of_all() -> None:
    of, scores = chain(3), torch.randn(1, 4, 3)
    every = paths(scores[0], of)
    assert tuple(of.decode(scores, torch.tensor([4]))[0].tolist()) == max(every, key=lambda path: every[path])
