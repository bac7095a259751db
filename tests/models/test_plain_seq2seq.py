from typing import Any

import pytest
import torch
from families import PLAIN, RECURRENT, batch, build, learn

from seqkit.decode.step import StepModel
from seqkit.errors import InputError
from seqkit.models.encoder_decoder import Source
from seqkit.models.plain_seq2seq import PlainSeq2Seq, PlainSeq2SeqConfig


@pytest.mark.parametrize(("cell", "task"), [("lstm", "sort"), ("gru", "copy")])
def test_it_learns_a_toy_task(cell: str, task: str) -> None:
    config = PlainSeq2SeqConfig(**(RECURRENT | {"hidden_dim": 64}), cell=cell)
    assert learn(build(config), task=task, steps=250, rate=1e-2) > 0.9


def test_hard_gates_learn() -> None:
    config = PlainSeq2SeqConfig(**(RECURRENT | {"hidden_dim": 32}), gates="hard_sigmoid")
    before, after = (learn(build(config), task="sort", steps=steps, rate=1e-2) for steps in (0, 60))
    assert after > before + 0.3


@torch.no_grad()
def test_the_state_is_the_encoders_last() -> None:
    model = build(PLAIN["plain-lstm"])
    assert isinstance(model, PlainSeq2Seq)
    assert isinstance(model, StepModel)
    source, lengths, _ = batch()
    state = model.start(Source(source, lengths))
    assert state.shape == (4, 3, 1, 12)  # h of both layers, then c
    outputs, (h, c) = model.encoder(model.source_embedding[source], lengths)
    assert torch.equal(state[:, :, 0], torch.cat((h, c)))
    assert torch.equal(state[1, 1, 0], outputs[1, 0])  # a source of one token


@torch.no_grad()
def test_padded_positions_are_read_as_zero_vectors() -> None:
    """In the embedding only the row of `<pad>` is made zero: pads of that network are then zero vectors too."""
    padded = build(PlainSeq2SeqConfig(**RECURRENT, padded_source=9))
    plain = build(PlainSeq2SeqConfig(**RECURRENT))
    assert isinstance(padded, PlainSeq2Seq)
    assert isinstance(plain, PlainSeq2Seq)
    plain.load_state_dict(padded.state_dict())
    plain.source_embedding[0] = 0.0
    source, lengths, _ = batch()
    inside = torch.arange(7) < lengths[:, None]
    zeros = torch.where(inside, source, 0)
    nine = torch.cat((zeros, torch.zeros(3, 2, dtype=torch.long)), dim=1)
    expected = plain.start(Source(nine, torch.full((3,), 9)))
    garbage = torch.where(inside, source, 5)  # what stands beyond a length is never read
    assert torch.equal(padded.start(Source(garbage, lengths)), expected)
    assert not torch.equal(plain.start(Source(source, lengths)), expected)
    # A source beyond the padding is read to its end.
    short = build(PlainSeq2SeqConfig(**RECURRENT, padded_source=3))
    short.load_state_dict(padded.state_dict())
    torch.testing.assert_close(short.start(Source(source, lengths))[:, 0], plain.start(Source(source, lengths))[:, 0])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_dim": 0}, "`hidden_dim` must be at least 1"),
        ({"n_layers": 0}, "`n_layers` must be at least 1"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\)"),
        ({"cell": "gru", "gates": "hard_sigmoid"}, "`gates` must be sigmoid for a gru"),
        ({"padded_source": -1}, "`padded_source` must be at least 0"),
    ],
)
def test_a_shape_that_makes_no_sense_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        PlainSeq2SeqConfig(**changes)
