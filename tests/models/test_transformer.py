from typing import Any

import pytest
from families import TRANSFORMERS, build, learn

from seqkit.errors import InputError
from seqkit.models.transformer import Transformer, TransformerConfig


@pytest.mark.parametrize(("name", "task"), [("pre-norm", "copy"), ("post-norm", "copy"), ("pre-norm", "sort")])
def test_it_learns_a_toy_task(name: str, task: str) -> None:
    assert learn(build(TRANSFORMERS[name]), task=task, steps=400, rate=1e-2) > 0.95


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_dim": 10, "n_heads": 3}, "`model_dim` must be a multiple of `n_heads`"),
        ({"encoder_layers": 0}, "`encoder_layers` must be at least 1"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\)"),
    ],
)
def test_a_shape_that_makes_no_sense_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        TransformerConfig(**changes)


def test_tying_everything_needs_one_vocabulary() -> None:
    with pytest.raises(InputError, match="both vocabularies must be the same"):
        Transformer(TransformerConfig(tied_embeddings="all"), source_vocab_size=5, target_vocab_size=6)
