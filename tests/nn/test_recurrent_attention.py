import pytest
import torch

from seqkit.errors import InputError
from seqkit.nn.recurrent_attention import RecurrentAttention


@pytest.mark.parametrize("kind", ["bahdanau", "luong_dot", "luong_general"])
def test_the_papers_formula(kind: str) -> None:
    torch.manual_seed(0)
    attention = RecurrentAttention(kind, 6, 6)
    state, encoded, lengths = torch.randn(2, 3, 6), torch.randn(2, 5, 6), torch.tensor([5, 2])
    context, weights = attention(state, attention.keys(encoded), encoded, lengths)
    for b in range(2):
        for t in range(3):
            energies = []
            for s in range(int(lengths[b])):
                q, h = state[b, t], encoded[b, s]
                if kind == "bahdanau":
                    energies.append(attention.v @ torch.tanh(attention.query(q) + attention.key.weight @ h))
                else:
                    energies.append(q @ (attention.key.weight @ h if kind == "luong_general" else h))
            alpha = torch.stack(energies).softmax(0)
            torch.testing.assert_close(weights[b, t, : len(alpha)], alpha)
            assert weights[b, t, len(alpha) :].abs().sum() == 0
            torch.testing.assert_close(context[b, t], alpha @ encoded[b, : len(alpha)])


def test_luong_dot_needs_equal_sizes() -> None:
    with pytest.raises(InputError, match="both sizes must be equal for luong_dot, got 4 and 6"):
        RecurrentAttention("luong_dot", 4, 6)
