import math

import pytest
import torch
from torch import nn

from seqkit.errors import InputError
from seqkit.nn.transformer import DecoderLayer, EncoderLayer, LearnedPositions, SinusoidalPositions, sinusoids


def copy_attention(theirs: nn.MultiheadAttention, weight: torch.Tensor, bias: torch.Tensor, output: nn.Linear) -> None:
    theirs.in_proj_weight.copy_(weight)
    theirs.in_proj_bias.copy_(bias)
    theirs.out_proj.load_state_dict(output.state_dict())


@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_encoder_layer_is_torchs(pre_norm: bool, activation: str) -> None:
    torch.manual_seed(0)
    ours = EncoderLayer(16, 4, 40, activation=activation, pre_norm=pre_norm)
    theirs = nn.TransformerEncoderLayer(
        16, 4, 40, dropout=0.0, activation=activation, batch_first=True, norm_first=pre_norm
    )
    with torch.no_grad():
        copy_attention(theirs.self_attn, ours.attention.qkv.weight, ours.attention.qkv.bias, ours.attention.output)
        theirs.linear1.load_state_dict(ours.feed_forward.inner.state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward.outer.state_dict())
    x, lengths = torch.randn(2, 5, 16), torch.tensor([5, 3])
    expected = theirs(x, src_key_padding_mask=torch.arange(5) >= lengths[:, None])
    inside = torch.arange(5) < lengths[:, None]
    torch.testing.assert_close(ours(x, lengths)[inside], expected[inside])


@pytest.mark.parametrize("pre_norm", [True, False])
def test_a_decoder_layer_is_torchs_whole_and_step_by_step(pre_norm: bool) -> None:
    torch.manual_seed(0)
    ours = DecoderLayer(16, 2, 24, pre_norm=pre_norm)
    theirs = nn.TransformerDecoderLayer(16, 2, 24, dropout=0.0, batch_first=True, norm_first=pre_norm)
    with torch.no_grad():
        copy_attention(theirs.self_attn, ours.attention.qkv.weight, ours.attention.qkv.bias, ours.attention.output)
        weight = torch.cat((ours.cross.query.weight, ours.cross.key_value.weight))
        bias = torch.cat((ours.cross.query.bias, ours.cross.key_value.bias))
        copy_attention(theirs.multihead_attn, weight, bias, ours.cross.output)
        theirs.linear1.load_state_dict(ours.feed_forward.inner.state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward.outer.state_dict())
    y, encoded, lengths = torch.randn(2, 4, 16), torch.randn(2, 6, 16), torch.tensor([6, 1])
    causal = nn.Transformer.generate_square_subsequent_mask(4)
    expected = theirs(
        y, encoded, tgt_mask=causal, tgt_is_causal=True, memory_key_padding_mask=torch.arange(6) >= lengths[:, None]
    )
    torch.testing.assert_close(ours(y, encoded, lengths), expected)
    with torch.no_grad():
        memory, cache = ours.cross.memory(encoded), torch.zeros(2, 1, 4, 32)
        ancestry = torch.zeros(2, 1, 4, dtype=torch.int64)
        steps = [ours.step(y[:, t, None], cache, ancestry, t, memory, lengths)[0][:, 0] for t in range(4)]
    torch.testing.assert_close(torch.stack(steps, dim=1), expected)


def test_sinusoids_are_the_papers_formula() -> None:
    table = sinusoids(50, 10)
    for position, i in ((0, 0), (3, 0), (7, 2), (49, 4)):
        angle = position / 10000 ** (2 * i / 10)
        assert table[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
        assert table[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_sinusoids_reach_any_position_with_the_same_bits() -> None:
    positions = SinusoidalPositions(6)
    assert torch.equal(positions(1000, 1003), sinusoids(5000, 6)[1000:1003])
    assert not list(positions.state_dict())


def test_learned_positions_end_somewhere() -> None:
    positions = LearnedPositions(4, 8)
    assert torch.equal(positions(1, 4), positions.weight[1:4])
    with pytest.raises(InputError, match="at most 4 positions, got 5"):
        positions(4, 5)
