from typing import Any

import pytest

from seqkit.errors import InputError
from seqkit.models import ClassifierConfig, TaggerConfig
from seqkit.models.word_encoder import WordEncoderConfig, features_and_encoder


def test_the_layers_have_the_widths_of_the_config() -> None:
    config = WordEncoderConfig(embedding_dim=6, character_filters=4, hidden_dim=5, n_layers=2)
    features, encoder = features_and_encoder(config, vocab_size=9, n_trained=9, n_characters=7)
    assert features.output_dim == 10
    assert encoder.output_dim == 10
    one_way = WordEncoderConfig(hidden_dim=5, bidirectional=False)
    assert features_and_encoder(one_way, vocab_size=9, n_trained=9, n_characters=7)[1].output_dim == 5


@pytest.mark.parametrize(("config", "name"), [(ClassifierConfig, "classifier"), (TaggerConfig, "tagger")])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_dim": 0}, "`hidden_dim` must be at least 1, got 0"),
        ({"character_filters": -1}, "`character_filters` must be at least 0, got -1"),
        ({"word_dropout": 1.0}, r"`word_dropout` must be in \[0, 1\), got 1.0"),
    ],
)
def test_a_wrong_shape_is_told_with_the_models_name(
    config: Any, name: str, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=f"^{name}: {sentence}$"):
        config(**changes)
