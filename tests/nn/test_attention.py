import pytest
import torch
from torch import nn

from seqkit.nn.attention import CrossAttention, SelfAttention


def as_torch(weight: torch.Tensor, bias: torch.Tensor, output: nn.Linear, n_heads: int) -> nn.MultiheadAttention:
    """torch's multi-head attention with our weights."""
    theirs = nn.MultiheadAttention(weight.shape[1], n_heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(weight)
        theirs.in_proj_bias.copy_(bias)
        theirs.out_proj.weight.copy_(output.weight)
        theirs.out_proj.bias.copy_(output.bias)
    return theirs


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_torchs_with_a_mask(causal: bool) -> None:
    torch.manual_seed(0)
    ours = SelfAttention(24, 3)
    nn.init.normal_(ours.qkv.bias)
    theirs = as_torch(ours.qkv.weight, ours.qkv.bias, ours.output, 3)
    x, lengths = torch.randn(4, 6, 24), torch.tensor([6, 3, 1, 5])
    padding = torch.arange(6) >= lengths[:, None]
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1) if causal else None
    expected, _ = theirs(x, x, x, key_padding_mask=padding, attn_mask=mask, need_weights=False)
    torch.testing.assert_close(ours(x, lengths, causal=causal), expected)


def test_cross_attention_and_its_map_are_torchs() -> None:
    torch.manual_seed(0)
    ours = CrossAttention(24, 3)
    weight = torch.cat((ours.query.weight, ours.key_value.weight))
    bias = torch.cat((ours.query.bias, ours.key_value.bias))
    theirs = as_torch(weight, bias, ours.output, 3)
    x, encoded, lengths = torch.randn(2, 4, 24), torch.randn(2, 7, 24), torch.tensor([7, 2])
    padding = torch.arange(7) >= lengths[:, None]
    expected, expected_map = theirs(x, encoded, encoded, key_padding_mask=padding)
    context, weights = ours(x, ours.memory(encoded), lengths, return_weights=True)
    torch.testing.assert_close(context, expected)
    torch.testing.assert_close(weights, expected_map)
    with torch.no_grad():
        stepped, stepped_weights = ours.step(x, ours.memory(encoded), lengths, return_weights=True)
    torch.testing.assert_close(stepped, expected)
    torch.testing.assert_close(stepped_weights, expected_map)


def test_a_step_at_a_time_equals_the_whole_sequence() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(16, 2)
    x = torch.randn(3, 5, 16)
    cache, ancestry = torch.full((3, 1, 8, 32), float("nan")), torch.zeros(3, 1, 8, dtype=torch.int64)
    with torch.no_grad():
        whole = attention(x, causal=True)
        steps = [attention.step(x[:, t, None], cache, ancestry, t) for t in range(5)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)
