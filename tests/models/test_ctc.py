"""CTC models: a batch gives what each gives alone, they learn, and decoding by the best path merges as it should."""

import math

import pytest
import torch

from seqkit.errors import InputError
from seqkit.models import CTCConfig, CTCModel
from seqkit.models.ctc import HalfRate, best_path


def made(**changes: object) -> CTCModel:
    torch.manual_seed(0)
    settings: dict[str, object] = {"subsampling_dim": 8, "hidden_dim": 8, "n_layers": 2, "n_heads": 2, "dropout": 0.0}
    return CTCModel(CTCConfig(**(settings | changes)), input_dim=5, n_labels=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("subsampling", [1, 2, 4])
@pytest.mark.parametrize("encoder", ["lstm", "gru"])
def test_a_result_depends_on_its_own_frames_alone_to_the_last_bit(encoder: str, subsampling: int) -> None:
    model = made(encoder=encoder, subsampling=subsampling).eval()
    lengths = torch.tensor([23, 0, 1, 8, 17])
    features = torch.randn(5, 23, 5)
    features[3, 8:] = math.nan
    with torch.no_grad():
        together, counts = model(features, lengths)
        assert counts.tolist() == [-(-n // subsampling) for n in lengths.tolist()] == model.n_frames(lengths).tolist()
        for row, n in enumerate(lengths.tolist()):
            alone, count = model(features[row : row + 1, :n], lengths[row : row + 1])
            assert torch.equal(together[row, : counts[row]], alone[0, : int(count)])
    torch.testing.assert_close(together[0].exp().sum(-1), torch.ones(counts[0]))


def test_a_transformer_is_an_encoder_too() -> None:
    model = made(encoder="transformer").eval()
    lengths, features = torch.tensor([9, 4]), torch.randn(2, 9, 5)
    together, counts = model(features, lengths)
    alone, _ = model(features[1:, :4], lengths[1:])
    torch.testing.assert_close(together[1, : counts[1]], alone[0])


def test_half_rate_is_a_strided_convolution() -> None:
    layer, lengths = HalfRate(3, 4), torch.tensor([7, 6])
    x = torch.randn(2, 7, 3)
    x[1, 6] = 0.0
    found, halved = layer(x, lengths)
    weight = layer.affine.weight.view(4, 3, 3).transpose(1, 2)
    expected = torch.nn.functional.conv1d(x.transpose(1, 2), weight, layer.affine.bias, stride=2, padding=1).relu()
    assert halved.tolist() == [4, 3]
    torch.testing.assert_close(found[0], expected[0].T)
    torch.testing.assert_close(found[1, :3], expected[1].T[:3])
    assert not found[1, 3:].any()
    assert layer(x[:, :0], torch.tensor([0, 0]))[0].shape == (2, 0, 4)


def test_the_loss_is_torchs_and_has_its_gradient() -> None:
    model, lengths = made(), torch.tensor([12, 9])
    features, targets, counts = torch.randn(2, 12, 5), torch.tensor([[1, 1, 2], [3, 0, 0]]), torch.tensor([3, 1])
    found = model.loss(features, lengths, targets, counts)
    log_probs, frames = model(features, lengths)
    expected = torch.nn.functional.ctc_loss(log_probs.transpose(0, 1), targets, frames, counts, reduction="none")
    torch.testing.assert_close(found, expected)
    gradients = [
        torch.autograd.grad(loss.sum(), list(model.parameters()), retain_graph=True) for loss in (found, expected)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_a_target_that_does_not_fit_costs_nothing() -> None:
    loss = made().loss(torch.randn(1, 3, 5), torch.tensor([3]), torch.tensor([[1, 1, 1]]), torch.tensor([3]))
    loss.sum().backward()
    assert loss.tolist() == [0.0]


def test_it_learns_where_labels_stand() -> None:
    torch.manual_seed(1)
    model = made(subsampling=2, n_layers=1, hidden_dim=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    targets = torch.randint(1, 4, (16, 3))
    features = torch.nn.functional.one_hot(targets, 5).float().repeat_interleave(6, 1)
    features[:, ::6] = 0.0
    lengths, counts = torch.full((16,), 18), torch.full((16,), 3)
    for _ in range(80):
        optimizer.zero_grad()
        model.loss(features, lengths, targets, counts).sum().backward()
        optimizer.step()
    labels, times, _ = best_path(*model.eval()(features, lengths))
    assert labels == targets.tolist()
    assert all(row == sorted(set(row)) for row in times)


def test_the_best_path_merges_repeats_and_drops_blanks() -> None:
    path = torch.tensor([[0, 1, 1, 0, 1, 2, 2, 0], [3, 3, 1, 1, 1, 1, 1, 1], [1, 2, 3, 1, 2, 3, 1, 2]])
    log_probs = torch.nn.functional.one_hot(path, 4).float().mul(5).log_softmax(-1)
    labels, times, logp = best_path(log_probs, torch.tensor([8, 2, 0]))
    assert labels == [[1, 1, 2], [3], []]
    assert times == [[1, 4, 5], [0], []]
    torch.testing.assert_close(logp, log_probs.max() * torch.tensor([8.0, 2.0, 0.0]))
    assert best_path(torch.zeros(1, 0, 4), torch.tensor([0]))[:2] == ([[]], [[]])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"subsampling": 3}, "`subsampling` must be 1, 2 or 4, got 3"),
        ({"hidden_dim": 0}, "`hidden_dim` must be at least 1, got 0"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_options_are_told(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        made(**given)
