"""The audit calls each measure with what belongs to it, and says None where there is nothing to measure."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from seqkit.embeddings import WordVectors
from seqkit.embeddings.attribute import AssociationTest, Attribute
from seqkit.embeddings.audit import audit, probe
from seqkit.embeddings.bias import bias_direction, biased_analogies, direct_bias, ripa, weat
from seqkit.embeddings.debias import hard_debias

WORDS = ["she", "he", "woman", "man", *(f"w{n}" for n in range(60))]
PAIRS = (("she", "he"), ("woman", "man"))
ATTRIBUTE = Attribute(
    name="gender",
    definitional=PAIRS,
    targets=("w0", "w1", "w2", "unknown", "woman"),
    analogy=("she", "he"),
    weat=(
        AssociationTest(name="one", x=("w3", "w4"), y=("w5", "w6"), a=("she",), b=("he",)),
        AssociationTest(name="none", x=("unknown",), y=("w5",), a=("she",), b=("he",)),
    ),
)
SPECIFIC = ("she", "he", "woman", "man")
DIM = 6  # OpenBLAS 0.3.31 reads unwritten stack beside rows of 5 numbers, and numpy then warns now and then


@pytest.fixture
def vectors() -> WordVectors:
    drawn = np.random.default_rng(0).standard_normal((len(WORDS), DIM)).astype(np.float32)
    drawn[:4, 0] += [3, -3, 3, -3]
    return WordVectors(WORDS, drawn)


def test_before_is_what_each_measure_says(vectors: WordVectors, tmp_path: Path) -> None:
    (tmp_path / "q").write_text("she he woman man\n")
    (tmp_path / "s").write_text("w0 w1 3\nw2 w3 1\n")
    by = probe(vectors, ATTRIBUTE, specific=SPECIFIC)
    found = audit(vectors, by, analogy_file=tmp_path / "q", similarity_files=[str(tmp_path / "s")])
    targets = ["w0", "w1", "w2"]
    assert by.targets == tuple(targets)
    direction = bias_direction(vectors, PAIRS)
    assert found.direct_bias == found.direct_bias_anew == pytest.approx(direct_bias(vectors, direction, targets))
    assert found.ripa == pytest.approx(float(np.abs(ripa(vectors, targets, PAIRS)).mean()))
    assert found.told_apart is not None
    assert found.told_apart > 0.5
    np.testing.assert_allclose(found.projections, vectors.unit[4:7] @ direction, atol=1e-6)
    assert found.weat == (weat(vectors, ["w3", "w4"], ["w5", "w6"], ["she"], ["he"]), None)
    assert found.biased_analogies == tuple(biased_analogies(vectors, "she", "he", without=SPECIFIC))
    assert found.analogies is not None
    assert (found.analogies.section, found.analogies.asked) == ("all", 1)
    assert [each.asked for each in found.similarity] == [2]


def test_after_is_measured_by_what_was_there_before(vectors: WordVectors) -> None:
    by = probe(vectors, ATTRIBUTE, specific=SPECIFIC)
    corrected = hard_debias(vectors, definitional=PAIRS, equalize=PAIRS, specific=SPECIFIC)
    found = audit(corrected, by)
    assert found.direct_bias == pytest.approx(0, abs=1e-6)
    assert found.projections == pytest.approx([0, 0, 0], abs=1e-6)
    assert found.ripa == pytest.approx(0, abs=1e-5)  # equalised pairs differ along the direction alone
    assert (found.analogies, found.similarity) == (None, ())


def test_the_direction_of_before_is_not_that_found_anew(vectors: WordVectors) -> None:
    by = probe(vectors, ATTRIBUTE, specific=SPECIFIC)
    other = WordVectors(WORDS, np.random.default_rng(1).standard_normal((len(WORDS), DIM)).astype(np.float32))
    found = audit(other, by)
    assert found.direct_bias == pytest.approx(direct_bias(other, bias_direction(vectors, PAIRS), by.targets))
    assert found.direct_bias_anew == pytest.approx(direct_bias(other, bias_direction(other, PAIRS), by.targets))


def test_ripa_counts_targets_as_long_as_they_came(vectors: WordVectors) -> None:
    by = probe(vectors, ATTRIBUTE, specific=SPECIFIC)
    shorter = vectors.matrix.copy()
    shorter[4:] *= 0.01  # another length, the same direction
    assert audit(WordVectors(WORDS, shorter), by).ripa == pytest.approx(audit(vectors, by).ripa, rel=1e-5)


def test_what_is_not_there_is_none(vectors: WordVectors) -> None:
    by = probe(vectors, Attribute(name="x", definitional=PAIRS), specific=())
    found = audit(vectors, by)
    assert (found.direct_bias, found.direct_bias_anew, found.ripa, found.analogies) == (None,) * 4
    assert (found.projections, found.weat, found.biased_analogies) == ((), (), ())
    uneven = dataclasses.replace(ATTRIBUTE, definitional=(("she", "he"), ("woman", "man", "w9")), analogy=("she", "no"))
    found = audit(vectors, probe(vectors, uneven, specific=SPECIFIC))
    assert (found.told_apart, found.ripa, found.biased_analogies) == (None, None, ())
    assert found.direct_bias is not None
    # A correction may leave no direction to find anew.
    flat = WordVectors(WORDS, np.ones((len(WORDS), DIM), np.float32))
    found = audit(flat, probe(vectors, dataclasses.replace(ATTRIBUTE, analogy=()), specific=SPECIFIC))
    assert (found.direct_bias_anew, found.ripa) == (None, None)
