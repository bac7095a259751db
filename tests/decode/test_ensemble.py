"""An ensemble's probabilities and attention are means."""

import pytest
import torch

from seqkit.decode.ensemble import Ensemble
from seqkit.errors import InputError
from tests.decode.toy_model import HashModel


def test_ensemble_steps_are_means():
    models = [HashModel(6, source_size=3), HashModel(6, salt=3), HashModel(6, source_size=3, salt=5)]
    both = Ensemble(models)
    tokens = torch.tensor([[5], [5]])
    output = both.step(tokens, both.start(torch.tensor([1, 2])))
    own = [model.step(tokens, model.start(torch.tensor([1, 2]))) for model in models]
    mean = torch.stack([each.logits.softmax(-1) for each in own]).mean(0)
    torch.testing.assert_close(output.logits.exp(), mean)
    torch.testing.assert_close(output.attention, (own[0].attention + own[2].attention) / 2)


def test_ensemble_state_follows_its_models():
    models = [HashModel(6), HashModel(6, salt=3)]
    both = Ensemble(models)
    state = both.reorder(both.start(torch.tensor([1, 2, 3])), torch.zeros(3, 2, dtype=torch.int64))
    state = both.keep(state, torch.tensor([2]))
    for model, own in zip(models, state, strict=True):
        assert torch.equal(own.hashes, model.start(torch.tensor([3])).hashes.expand(1, 2))


def test_ensemble_of_none():
    with pytest.raises(InputError, match="one model"):
        Ensemble([])
