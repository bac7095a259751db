import pytest
import torch
from torch import Tensor

from seqkit.errors import InputError
from seqkit.models import Tagger, TaggerConfig
from seqkit.nn.label_chain import MISSING
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
