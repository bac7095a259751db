import torch

from seqkit.models.encoder_decoder import take_beams


def test_take_beams_gathers_within_each_sentence() -> None:
    x = torch.arange(2 * 3 * 4).reshape(2, 3, 4).float()
    parents = torch.tensor([[2, 2, 0, 1], [0, 1, 1, 1]])
    taken = take_beams(x, parents)
    assert taken.shape == (2, 4, 4)
    for sentence in range(2):
        for beam in range(4):
            assert torch.equal(taken[sentence, beam], x[sentence, parents[sentence, beam]])
