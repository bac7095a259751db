import torch

from seqkit.nn.word_features import WordFeatures, Words


def words(*rows: list[int]) -> Words:
    """Sentences in which word n is spelled by n ones."""
    ids = torch.tensor(rows)
    spellings = (torch.arange(8) < torch.arange(8)[:, None]).long()
    return Words(ids, (ids > 0).sum(1), ids, spellings)


def made(**options: object) -> WordFeatures:
    torch.manual_seed(0)
    return WordFeatures(8, 4, n_trained=6, n_characters=3, character_filters=3, **options).eval()  # type: ignore[arg-type]


def test_rows_of_a_file_stand_where_they_belong() -> None:
    features = made()
    rows = torch.randn(3, 4)
    features.set_rows(torch.tensor([7, 4, 6]), rows)
    found = features(words([4, 6, 7, 1]))[0, :, :4]
    torch.testing.assert_close(found, torch.stack([rows[1], rows[2], rows[0], torch.zeros(4)]))
    assert {name for name, _ in features.named_parameters()} >= {"trained"}
    assert "kept" in features.state_dict()


def test_only_trained_rows_get_a_gradient() -> None:
    features = made()
    features(words([4, 6]))[0, :, :4].sum().backward()
    assert features.trained.grad is not None
    assert features.trained.grad.sum(1).tolist() == [0, 0, 0, 0, 4, 0]


def test_the_spelling_does_not_depend_on_the_padding() -> None:
    features = made()
    assert features.convolution is not None
    features.convolution.bias.data.fill_(-5.0)  # so that a zero of the padding would be the largest
    alone = Words(torch.tensor([[3]]), torch.tensor([1]), torch.tensor([[0]]), torch.ones(1, 3, dtype=torch.int64))
    torch.testing.assert_close(features(alone)[0, 0], features(words([3, 5]))[0, 0])


def test_a_word_without_letters_is_finite() -> None:
    features = made()
    assert bool(features(words([3, 0]))[0].isfinite().all())
    features(words([3, 0])).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in features.parameters() if p.grad is not None)


def test_dropped_words_are_unknown() -> None:
    features = made(word_dropout=0.999).train()
    found = features(words([4, 5, 6, 7] * 5))[0, :, :4]
    assert int((found == 0).all(1).sum()) > 15
    assert not bool((features.eval()(words([4, 5]))[0, :, :4] == 0).all(1).any())


def test_kept_vectors_leave_other_words_to_their_spelling() -> None:
    features = made(train_vectors=False)
    features.set_rows(torch.tensor([4, 7]), torch.ones(2, 4))
    found = features(words([4, 5, 7]))[0, :, :4]
    assert found.tolist() == [[1.0] * 4, [0.0] * 4, [1.0] * 4]
    assert not features.trained.requires_grad
