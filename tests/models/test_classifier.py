import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seqkit.errors import InputError
from seqkit.models import Classifier, ClassifierConfig
from seqkit.nn.word_features import Words


def made(**changes: object) -> Classifier:
    torch.manual_seed(0)
    settings: dict[str, object] = {"embedding_dim": 6, "hidden_dim": 8, "dropout": 0.0, "word_dropout": 0.0}
    config = ClassifierConfig(**(settings | changes))  # type: ignore[arg-type]
    return Classifier(config, vocab_size=9, n_trained=9, n_characters=9, n_classes=2)


def words(ids: Tensor, lengths: Tensor) -> Words:
    return Words(ids, lengths, ids, torch.arange(9)[:, None])


@pytest.mark.parametrize("pool", ["max", "mean", "max-mean"])
def test_a_text_is_classified_as_if_it_were_alone(pool: str) -> None:
    model = made(pool=pool, character_filters=3).eval()
    ids, lengths = torch.randint(4, 9, (3, 5)), torch.tensor([5, 0, 3])
    together = model(words(ids, lengths))
    assert bool(together.isfinite().all())
    for row, n in ((0, 5), (2, 3)):
        alone = model(words(ids[row : row + 1, :n], lengths[row : row + 1]))
        torch.testing.assert_close(together[row : row + 1], alone)


def test_without_an_encoder_it_is_the_mean_of_the_vectors() -> None:
    model = made(encoder="none", pool="mean").eval()
    ids, lengths = torch.tensor([[4, 5, 0]]), torch.tensor([2])
    mean = model.features.trained[[4, 5]].mean(0, keepdim=True)
    torch.testing.assert_close(model(words(ids, lengths)), model.out(mean))


def test_it_learns_what_a_not_turns() -> None:
    model = made(hidden_dim=16).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    lengths = torch.full((64,), 5)

    def drawn() -> tuple[Tensor, Tensor]:
        ids = torch.randint(5, 9, (64, 5))
        ids[:, 2] = torch.randint(4, 6, (64,))  # 4 is the not
        ids[:, 3] = torch.randint(5, 7, (64,))
        return ids, ((ids[:, 2] == 4) ^ (ids[:, 3] == 5)).long()

    for _ in range(150):
        ids, wanted = drawn()
        loss = F.cross_entropy(model(words(ids, lengths)), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ids, wanted = drawn()
    assert float((model.eval()(words(ids, lengths)).argmax(1) == wanted).float().mean()) > 0.9


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="`n_layers` must be at least 1, got 0"):
        made(n_layers=0)
    with pytest.raises(InputError, match="`character_filters` must be at least 0"):
        made(character_filters=-1)
    with pytest.raises(InputError, match="`word_dropout` must be in"):
        made(word_dropout=-0.1)
