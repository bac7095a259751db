"""The protocol recognises models that follow it."""

from seqkit.decode import Ensemble, Hypothesis, StepModel
from tests.decode.toy_model import HashModel


def test_step_model_is_recognised_by_its_methods():
    assert isinstance(HashModel(3), StepModel)
    assert isinstance(Ensemble([HashModel(3)]), StepModel)
    assert not isinstance(object(), StepModel)


def test_hypothesis_has_no_attention_unless_given():
    assert Hypothesis(tokens=[], ended=True, logprob=0.0, score=0.0, token_logprobs=[0.0]).attention is None


def test_public_names_stay_what_they_are_whatever_was_imported_before():
    from seqkit import decode

    for name in decode._HOME:
        value = getattr(decode, name)
        assert value is getattr(decode, name)
        assert callable(value), name
    assert not set(decode._HOME) & set(decode._HOME.values())  # a module would take the place of its function
