"""The example of debiasing: its steps by hand are seqkit's, and the bias goes."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from seqkit.embeddings import WordVectors, native

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/embeddings/debiasing.py"


def figures(out: str) -> tuple[float, float, float, float]:
    """The cosine of the directions, the largest difference, the direct bias before and after."""
    cosine = re.search(r"direction: .* (\S+)\n", out)
    difference = re.search(r"seqkit's (\S+) over", out)
    bias = re.search(r": (\S+) before, (\S+) after", out)
    assert cosine
    assert difference
    assert bias
    return float(cosine[1]), float(difference[1]), float(bias[1]), float(bias[2])


@pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the trainer is not built")
def test_the_small_text_has_a_bias_that_goes(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE))["main"]([])
    out = capsys.readouterr().out
    cosine, difference, before, after = figures(out)
    assert cosine == pytest.approx(1, abs=1e-5)
    assert difference < 1e-5
    assert before > 0.05
    assert after == 0
    parts = dict(re.findall(r"^(\w+) +(-?\d\.\d+) +\d\.\d+$", out, flags=re.MULTILINE))
    assert float(parts["engineer"]) < 0 < float(parts["nurse"])
    same = re.search(r"after: cosine of \w+ with queen (\S+), with king (\S+)", out)
    assert same
    assert same[1] == same[2]


def test_given_vectors_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["she", "he", "woman", "man", "queen", "king", "nurse", "doctor", "guard"]
    drawn = np.random.default_rng(1).normal(size=(len(words), 6)).astype(np.float32)
    drawn[::2, 0] += 2
    WordVectors(words, drawn).save(tmp_path / "v.bin")
    for name, content in {
        "definitional_pairs": [["she", "he"], ["woman", "man"], ["not", "there"]],
        "equalize_pairs": [["queen", "king"], ["no", "one"]],
        "gender_specific_full": ["she", "he", "woman", "man", "queen", "king"],
        "professions": [["nurse", -1.0, 0.2], ["doctor", 0.3, 0.1], ["king", 1.0, 1.0]],
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    runpy.run_path(str(EXAMPLE))["main"](["--vectors", str(tmp_path / "v.bin"), "--lists", str(tmp_path)])
    out = capsys.readouterr().out
    cosine, difference, before, after = figures(out)
    assert cosine == pytest.approx(1, abs=1e-5)
    assert difference < 1e-5
    assert after == 0 < before
    assert "direct bias of 2 professions" in out
