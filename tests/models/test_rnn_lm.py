import pytest
import torch

from seqkit.decode import StepModel, greedy
from seqkit.errors import InputError
from seqkit.models import RNNLM, RNNLMConfig


def made(vocab_size: int = 11, **changes: object) -> RNNLM:
    torch.manual_seed(0)
    settings: dict[str, object] = {"embedding_dim": 6, "hidden_dim": 8, "dropout": 0.0}
    return RNNLM(RNNLMConfig(**(settings | changes)), vocab_size=vocab_size).eval()  # type: ignore[arg-type]


SHAPES = [{}, {"cell": "gru"}, {"cell": "rnn", "n_layers": 1}, {"tied": True}, {"cutoffs": [5]},
          {"peepholes": True, "layer_norm": True, "zoneout": 0.1}]  # fmt: skip


@pytest.mark.parametrize("changes", SHAPES)
def test_steps_give_what_the_whole_sequence_gives(changes: dict[str, object]) -> None:
    model = made(**changes)
    assert isinstance(model, StepModel)
    tokens = torch.randint(0, 11, (3, 5))
    with torch.no_grad():
        hidden, last = model(tokens, model.initial_state(3))
        expected = model.logits(hidden)
        state = model.start(torch.arange(3))
        for t in range(5):
            output = model.step(tokens[:, t : t + 1], state)
            torch.testing.assert_close(output.logits[:, 0], expected[:, t])
            state = output.state
        torch.testing.assert_close(state[:, :, 0], last)
        torch.testing.assert_close(model.keep(state, torch.tensor([2, 0]))[:, :, 0], last[:, [2, 0]])
        doubled = model.reorder(state, torch.tensor([[0, 0]] * 3))
        torch.testing.assert_close(doubled[:, :, 1], last)


@pytest.mark.parametrize("changes", SHAPES)
def test_the_loss_is_that_of_the_logits(changes: dict[str, object]) -> None:
    model = made(**changes)
    tokens, targets = torch.randint(0, 11, (2, 4)), torch.randint(1, 11, (2, 4))
    targets[1, 2:] = 0
    hidden, _ = model(tokens)
    logp = model.logits(hidden).log_softmax(-1).gather(2, targets[..., None])[..., 0]
    torch.testing.assert_close(model.loss(hidden, targets, pad_id=0), -logp[targets != 0].sum())


def test_the_tied_model_has_one_matrix() -> None:
    model = made(tied=True)
    assert model.output_weight is None
    assert model.widths == [8, 6]
    assert [name for name, _ in model.named_parameters() if "weight" not in name or "output" in name] == [
        "embedding", "output_bias", "layers.0.bias_input", "layers.1.bias_input",
    ]  # fmt: skip


def test_it_learns_to_count() -> None:
    model = made(dropout=0.1, word_dropout=0.05, weight_dropout=0.1).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    starts = torch.arange(8).repeat(8)[:, None]
    for _ in range(150):
        tokens = (starts[torch.randperm(64)] + torch.arange(7)) % 8 + 3
        hidden, _ = model(tokens[:, :-1])
        loss = model.loss(hidden, tokens[:, 1:], pad_id=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = greedy(model.eval(), torch.arange(1), bos_id=5, eos_id=0, max_lengths=torch.tensor([6]), suppress=(0,))
    assert found[0].tokens == [6, 7, 8, 9, 10, 3]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_dim": 0}, "`hidden_dim` must be at least 1, got 0"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\), got 1.0"),
        ({"tied": True, "cutoffs": [3]}, "`tied` must be false with an adaptive softmax"),
        ({"cutoffs": [7, 4]}, r"`cutoffs` must rise and be below the 11 tokens, got \[7, 4\]"),
        ({"cutoffs": [11]}, "`cutoffs` must rise and be below the 11 tokens"),
    ],
)
def test_wrong_shapes_are_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        made(**changes)
