import gzip
import math
import random
from pathlib import Path

import numpy as np
import pytest

from seqkit.errors import InputError
from seqkit.text import NgramModel
from seqkit.text.backoff_table import BackoffTable
from seqkit.text.kneser_ney import estimate

draw = random.Random(3)
TEXT = [draw.choices("abcdef", [9, 5, 3, 2, 1, 1], k=draw.randrange(12)) for _ in range(80)]
UNSEEN = [draw.choices("abcdefxy", k=draw.randrange(12)) for _ in range(40)]


@pytest.fixture(params=[1, 2, 4])
def model(request: pytest.FixtureRequest) -> BackoffTable:
    return estimate(TEXT, order=request.param)


def test_scores_are_those_of_the_automaton(model: BackoffTable, tmp_path: Path) -> None:
    """The reader of ARPA files that walks one word at a time is an independent count."""
    model.save(tmp_path / "m.arpa")
    walker = NgramModel.from_arpa(tmp_path / "m.arpa")
    for sentence, found in zip(TEXT + UNSEEN, model.score(TEXT + UNSEEN), strict=True):
        assert found.tolist() == pytest.approx(walker.score(sentence), abs=1e-5)


@pytest.mark.parametrize("name", ["m.arpa", "m.arpa.gz"])
def test_files_give_the_model_back(model: BackoffTable, tmp_path: Path, name: str) -> None:
    model.save(tmp_path / name)
    back = BackoffTable.load(tmp_path / name)
    assert back.words == model.words
    for mine, its in zip(model.orders, back.orders, strict=True):
        assert np.array_equal(mine.keys, its.keys)
        np.testing.assert_allclose(its.logp, np.maximum(mine.logp, -99 * math.log(10)), atol=1e-5)
        np.testing.assert_allclose(its.backoff, mine.backoff, atol=1e-5)
    text = (tmp_path / name).read_bytes()
    model.save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == text  # packed files hold no time
    if name.endswith(".gz"):
        assert gzip.decompress(text).startswith(b"\\data\\\nngram 1=9\n")


def test_the_distribution_is_that_of_the_scores(model: BackoffTable) -> None:
    for sentence in TEXT[:10]:
        (logp,) = model.score([sentence])
        numbers = [model.begin, *(model.ids[word] for word in sentence), model.end]
        for place in range(1, len(numbers)):
            assert model.distribution(numbers[:place])[numbers[place]] == pytest.approx(logp[place - 1])


def test_samples_follow_the_distribution() -> None:
    model = estimate(TEXT, order=3)
    drawn = model.sample(2000, seed=1, max_length=50)
    assert drawn == model.sample(2000, seed=1, max_length=50)
    assert drawn[:5] != model.sample(5, seed=2, max_length=50)
    first = np.exp(model.distribution([model.begin]))
    share = sum(sentence[:1] == ["a"] for sentence in drawn) / 2000
    assert share == pytest.approx(first[model.ids["a"]], abs=0.03)
    assert all("<unk>" not in sentence for sentence in drawn)
    assert model.sample(1, seed=1, max_length=1)[0] in ([], *([word] for word in "abcdef"))
    best = model.sample(2, seed=1, max_length=9, temperature=0.0)
    assert best[0] == best[1]


def test_no_sentences_have_no_scores(model: BackoffTable) -> None:
    assert model.score([]) == []
    assert [len(logp) for logp in model.score([[], ["a"]])] == [1, 2]


def test_an_ngram_without_its_beginning_is_refused() -> None:
    with pytest.raises(InputError, match="'b a' must extend an n-gram of the model, got none"):
        BackoffTable.of([{("a",): (-1.0, 0.0)}, {("b", "a"): (-1.0, 0.0)}])
    with pytest.raises(InputError, match="the vocabulary must hold <s>, got none"):
        BackoffTable(["<unk>"], [])
