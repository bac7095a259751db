import itertools

import pytest
import torch
from torch import Tensor

from seqkit.errors import InputError
from seqkit.models import Tagger, TaggerConfig
from seqkit.models.tagger import MISSING, Chain
from seqkit.nn.word_features import Words


def made(n_labels: tuple[int, ...] = (3,), **changes: object) -> Tagger:
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "embedding_dim": 6, "hidden_dim": 8, "character_filters": 4, "dropout": 0.0, "word_dropout": 0.0,
    }  # fmt: skip
    config = TaggerConfig(**(settings | changes))  # type: ignore[arg-type]
    return Tagger(config, vocab_size=9, n_trained=9, n_characters=9, n_labels=n_labels)


def words(ids: Tensor, lengths: Tensor) -> Words:
    return Words(ids, lengths, ids, torch.arange(9)[:, None])


def chain(n: int) -> Chain:
    torch.manual_seed(1)
    made = Chain(n)
    for parameter in made.parameters():
        parameter.data.normal_()
        parameter.requires_grad_(False)
    return made


def paths(scores: Tensor, of: Chain) -> dict[tuple[int, ...], float]:
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


@pytest.mark.parametrize("output", ["crf", "softmax"])
@pytest.mark.parametrize("encoder", ["none", "rnn", "gru", "lstm", "transformer"])
def test_a_batch_gives_what_its_sentences_give(output: str, encoder: str) -> None:
    model = made(output=output, encoder=encoder).eval()
    ids, lengths = torch.randint(4, 9, (3, 5)), torch.tensor([5, 2, 3])
    labels = torch.randint(0, 3, (3, 5)).masked_fill(torch.arange(5) >= lengths[:, None], MISSING)
    total, count = model.loss(model(words(ids, lengths)), [labels], lengths)
    assert count == 10
    parts = [
        model.loss(model(words(ids[row : row + 1, :n], lengths[row : row + 1])), [labels[row : row + 1, :n]],
                   lengths[row : row + 1])[0]
        for row, n in enumerate(lengths.tolist())
    ]  # fmt: skip
    torch.testing.assert_close(total, torch.stack(parts).sum())


def test_a_column_without_labels_costs_nothing() -> None:
    model = made((3, 2)).eval()
    ids, lengths = torch.randint(4, 9, (2, 3)), torch.tensor([3, 3])
    none = torch.full((2, 3), MISSING)
    emissions = model(words(ids, lengths))
    wanted = torch.randint(0, 3, (2, 3))
    both, count = model.loss(emissions, [wanted, none], lengths)
    torch.testing.assert_close(both, -model.chains[0].log_likelihood(emissions[0], wanted, lengths).sum())  # type: ignore[operator]
    assert count == 6
    assert model.loss(emissions, [none, none], lengths)[1] == 0


def after_the_word(ids: Tensor) -> Tensor:
    """A label that the word's successor decides, which one direction alone cannot see."""
    return torch.cat([ids[:, 1:] % 2, torch.full((len(ids), 1), 2)], dim=1)


@pytest.mark.parametrize(
    "changes",
    [{}, {"output": "softmax"}, {"encoder": "gru", "n_layers": 2}, {"encoder": "rnn"},
     {"encoder": "transformer", "n_heads": 2, "n_layers": 2}],
)  # fmt: skip
def test_it_learns_a_label_that_the_next_word_decides(changes: dict[str, object]) -> None:
    model = made(**({"hidden_dim": 16} | changes)).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    lengths = torch.full((32,), 6)
    for _ in range(80):
        ids = torch.randint(4, 9, (32, 6))
        loss, count = model.loss(model(words(ids, lengths)), [after_the_word(ids)], lengths)
        optimizer.zero_grad()
        (loss / count).backward()
        optimizer.step()
    ids = torch.randint(4, 9, (32, 6))
    with torch.no_grad():
        found = model.eval().decode(model(words(ids, lengths)), lengths)[0]
    assert float((found == after_the_word(ids)).float().mean()) > 0.97


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_dim": 0}, "`hidden_dim` must be at least 1, got 0"),
        ({"character_filters": -1}, "`character_filters` must be at least 0, got -1"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_shapes_are_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        made(**changes)
