import pytest
import torch

from seqkit.decode import StepModel
from seqkit.errors import InputError
from seqkit.models import TransformerLM, TransformerLMConfig


def made(**changes: object) -> TransformerLM:
    torch.manual_seed(0)
    settings: dict[str, object] = {"model_dim": 16, "ffn_dim": 24, "n_heads": 2, "n_layers": 2, "dropout": 0.0}
    return TransformerLM(TransformerLMConfig(**(settings | changes)), vocab_size=11).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("tied", [True, False])
def test_steps_give_what_the_whole_sequence_gives(tied: bool) -> None:
    model = made(tied=tied)
    assert isinstance(model, StepModel)
    tokens = torch.randint(0, 11, (3, 20))
    with torch.no_grad():
        expected = model.logits(model(tokens)[0])
        state = model.start(torch.arange(3))
        for t in range(20):
            output = model.step(tokens[:, t : t + 1], state)
            torch.testing.assert_close(output.logits[:, 0], expected[:, t], rtol=1e-4, atol=1e-5)
            state = output.state
        state = model.reorder(model.keep(state, torch.tensor([2, 0])), torch.zeros(2, 3, dtype=torch.int64))
        more = model.step(torch.full((2, 3), 4), state).logits
        whole = torch.cat([tokens[[2, 0]], torch.full((2, 1), 4)], 1)
        wanted = model.logits(model(whole)[0])[:, -1]
        torch.testing.assert_close(more, wanted[:, None].expand_as(more), rtol=1e-4, atol=1e-5)


def test_a_token_sees_nothing_behind_it() -> None:
    model = made()
    tokens = torch.randint(0, 11, (1, 9))
    changed = tokens.clone()
    changed[0, 5:] = (changed[0, 5:] + 1) % 11
    a, b = model(tokens)[0], model(changed)[0]
    assert torch.equal(a[:, :5], b[:, :5])
    assert not torch.allclose(a[:, 5:], b[:, 5:])


def test_the_loss_is_that_of_the_logits() -> None:
    model = made()
    tokens, targets = torch.randint(0, 11, (2, 4)), torch.randint(1, 11, (2, 4))
    targets[1, 2:] = 0
    hidden, _ = model(tokens)
    logp = model.logits(hidden).log_softmax(-1).gather(2, targets[..., None])[..., 0]
    torch.testing.assert_close(model.loss(hidden, targets, pad_id=0), -logp[targets != 0].sum())


def test_it_learns_to_copy_what_stood_two_before() -> None:
    model = made(dropout=0.1).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        tokens = torch.randint(3, 11, (32, 2)).repeat(1, 4)
        loss = model.loss(model(tokens[:, :-1])[0][:, 1:], tokens[:, 2:], pad_id=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() / (32 * 6) < 0.3


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="`model_dim` must be a multiple of `n_heads`, got 16 and 3"):
        made(n_heads=3)
    with pytest.raises(InputError, match="`n_layers` must be at least 1, got 0"):
        made(n_layers=0)
