import pytest
import torch

from seqkit.errors import InputError
from seqkit.nn.sequence_encoder import SequenceEncoder

KINDS = [("none", {}), ("rnn", {}), ("gru", {"n_layers": 2}), ("lstm", {"peepholes": True}),
         ("lstm", {"bidirectional": False, "n_layers": 2}), ("transformer", {"n_layers": 2, "n_heads": 2})]  # fmt: skip


def made(kind: str, **options: object) -> SequenceEncoder:
    torch.manual_seed(0)
    return SequenceEncoder(kind, 5, 8, **options).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_sentence_is_encoded_as_if_it_were_alone(kind: str, options: dict[str, object]) -> None:
    encoder = made(kind, **options)
    x, lengths = torch.randn(3, 6, 5), torch.tensor([6, 1, 4])
    together = encoder(x, lengths)
    assert together.shape == (3, 6, encoder.output_dim)
    for row, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(together[row, :n], encoder(x[row : row + 1, :n], lengths[row : row + 1])[0])
        assert not together[row, n:].any()


def test_both_directions_equal_torchs_lstm() -> None:
    encoder = made("lstm", n_layers=2)
    theirs = torch.nn.LSTM(5, 8, 2, batch_first=True, bidirectional=True)
    for place, layer in enumerate(encoder.layers):
        suffix = f"_l{place // 2}" + ("_reverse" if place % 2 else "")
        for ours, name in (("weight_input", "weight_ih"), ("weight_hidden", "weight_hh"), ("bias_input", "bias_ih")):
            getattr(theirs, name + suffix).data = getattr(layer, ours).data
        getattr(theirs, "bias_hh" + suffix).data.zero_()
    x = torch.randn(2, 4, 5)
    torch.testing.assert_close(encoder(x, torch.tensor([4, 4])), theirs(x)[0])


def test_one_direction_does_not_see_what_follows() -> None:
    encoder, x = made("gru", bidirectional=False), torch.randn(1, 4, 5)
    before = encoder(x, torch.tensor([4]))
    x[:, 3] += 1.0
    torch.testing.assert_close(encoder(x, torch.tensor([4]))[:, :3], before[:, :3])


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="kind must be one of none, rnn, gru, lstm, transformer, got 'cnn'"):
        made("cnn")
    with pytest.raises(InputError, match="multiple of n_heads, got 8 and 3"):
        made("transformer", n_heads=3)
    with pytest.raises(InputError, match="peepholes must be an LSTM's"):
        made("gru", peepholes=True)
