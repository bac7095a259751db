from typing import Any

import pytest
from families import RECURRENTS, build, learn

from seqkit.errors import InputError
from seqkit.models.seq2seq import Seq2Seq, Seq2SeqConfig


@pytest.mark.parametrize(("name", "task"), [("bahdanau", "copy"), ("luong-general", "copy"), ("bahdanau", "sort")])
def test_it_learns_a_toy_task(name: str, task: str) -> None:
    assert learn(build(RECURRENTS[name]), task=task, steps=400, rate=1e-2) > 0.95


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_dim": 7}, "`hidden_dim` must be even"),
        ({"decoder_layers": 0}, "`decoder_layers` must be at least 1"),
        ({"dropout": -0.1}, r"`dropout` must be in \[0, 1\)"),
    ],
)
def test_a_shape_that_makes_no_sense_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Seq2SeqConfig(**changes)


def test_tying_everything_needs_one_vocabulary() -> None:
    with pytest.raises(InputError, match="both vocabularies must be the same"):
        Seq2Seq(Seq2SeqConfig(tied_embeddings="all"), source_vocab_size=5, target_vocab_size=6)
