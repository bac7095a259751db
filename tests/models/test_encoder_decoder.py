"""What the decoders ask of every encoder-decoder family."""

import pytest
import torch
from families import PLAIN, RECURRENTS, TRANSFORMERS, batch, build

from seqkit.models.encoder_decoder import Source, take_beams
from seqkit.nn.losses import cross_entropy

FAMILIES = TRANSFORMERS | RECURRENTS | PLAIN


def test_take_beams_gathers_within_each_sentence() -> None:
    x = torch.arange(2 * 3 * 4).reshape(2, 3, 4).float()
    parents = torch.tensor([[2, 2, 0, 1], [0, 1, 1, 1]])
    taken = take_beams(x, parents)
    assert taken.shape == (2, 4, 4)
    for sentence in range(2):
        for beam in range(4):
            assert torch.equal(taken[sentence, beam], x[sentence, parents[sentence, beam]])


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_steps_equal_teacher_forcing(name: str) -> None:
    model = build(FAMILIES[name])
    source, lengths, target = batch()
    whole = model(source, lengths, target)
    state = model.start(Source(source, lengths, want_attention=True))
    for position in range(target.shape[1]):
        output = model.step(target[:, position, None], state)
        state = output.state
        torch.testing.assert_close(output.logits[:, 0], whole[:, position], rtol=1e-4, atol=1e-5)
        if name in PLAIN:
            assert output.attention is None
            continue
        assert output.attention is not None
        torch.testing.assert_close(output.attention.sum(-1), torch.ones(3, 1))
        assert output.attention[1, 0, 1:].abs().sum() == 0


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_reorder_and_keep_follow_the_hypotheses(name: str) -> None:
    model = build(FAMILIES[name])
    source, lengths, target = batch()
    state = model.start(Source(source, lengths))
    state = model.step(target[:, :1], state).state
    state = model.reorder(state, torch.zeros(3, 2, dtype=torch.long))
    state = model.step(target[:, 1:3], state).state  # beam 0 continues with target 1, beam 1 with target 2
    state = model.reorder(state, torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 0]]))
    state = model.keep(state, torch.tensor([2, 0]))
    logits = model.step(torch.full((2, 3), 5), state).logits
    for row, (sentence, parents) in enumerate([(2, [1, 1, 0]), (0, [1, 0, 1])]):
        for beam, parent in enumerate(parents):
            prefix = torch.tensor([[target[sentence, 0], target[sentence, 1 + parent], 5]])
            alone = model(source[sentence, None, : lengths[sentence]], lengths[sentence, None], prefix)
            torch.testing.assert_close(logits[row, beam], alone[0, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_bits_do_not_depend_on_the_batch(name: str) -> None:
    model = build(FAMILIES[name])
    source, lengths, target = batch()
    together = model(source, lengths, target)
    for row, length in enumerate(lengths.tolist()):
        alone = model(source[row, None, :length], lengths[row, None], target[row, None])
        assert torch.equal(alone[0], together[row])
    beams = target[:, :5]  # five hypotheses a sentence
    state = model.reorder(
        model.start(Source(source, lengths, want_attention=True)), torch.zeros(3, 5, dtype=torch.long)
    )
    steps = model.step(beams, state)
    for row, length in enumerate(lengths.tolist()):
        single = model.start(Source(source[row, None, :length], lengths[row, None], want_attention=True))
        for beam in range(5):
            alone = model.step(beams[row, None, beam, None], single)
            assert torch.equal(alone.logits[0, 0], steps.logits[row, beam])
            if name in PLAIN:
                continue
            assert alone.attention is not None
            assert steps.attention is not None
            assert torch.equal(alone.attention[0, 0], steps.attention[row, beam, :length])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_trains(name: str, precision: torch.dtype) -> None:
    model = build(FAMILIES[name])
    source, lengths, target = batch()
    whole = cross_entropy(model(source, lengths, target), target, pad_id=0)
    with torch.autocast("cpu", precision):
        half = cross_entropy(model(source, lengths, target), target, pad_id=0)
    half.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(half, whole, rtol=0.02, atol=0.0)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_learns(name: str) -> None:
    model = build(FAMILIES[name])
    source, lengths, target = batch()
    cross_entropy(model(source, lengths, target), target, pad_id=0).backward()  # type: ignore[no-untyped-call]
    still = [name for name, value in model.named_parameters() if value.grad is None or value.grad.abs().max() == 0]
    assert still == []
