"""The options check themselves and need no torch."""

import dataclasses
import subprocess
import sys

import pytest

from seqkit.decode.options import BeamOptions, LengthOptions, SampleOptions, parse_length_penalty
from seqkit.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("none", ("none", 0.0)), ("power", ("power", 0.7)), ("power:1", ("power", 1.0)), ("gnmt:0.25", ("gnmt", 0.25))],
)
def test_parse_length_penalty(text, expected):
    assert parse_length_penalty(text) == expected


@pytest.mark.parametrize("text", ["", "wu", "none:1", "power:", "power:-1", "gnmt:x", "gnmt:nan", "gnmt:inf"])
def test_parse_length_penalty_says_what_cannot_be(text):
    with pytest.raises(InputError, match="length_penalty"):
        parse_length_penalty(text)


def test_step_limit_is_the_smaller_of_both():
    assert LengthOptions(max_length=50).step_limit(1000) == 50
    options = LengthOptions(max_length=50, max_length_ratio=2.0, max_length_extra=3)
    assert [options.step_limit(n) for n in (0, 5, 100)] == [3, 13, 50]
    assert LengthOptions(max_length_ratio=0.1, max_length_extra=0).step_limit(1) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"beam_size": 0},
        {"n_best": 6},
        {"n_best": 0},
        {"length_penalty": "x"},
        {"stopping": "never"},
        {"patience": 0.0},
        {"diverse_groups": 2},
        {"diversity": -1.0},
        {"coverage_penalty": float("nan")},
        {"max_length": 0},
        {"min_length": -1},
        {"max_length_ratio": -1.0},
        {"no_repeat_ngram": -1},
    ],
)
def test_beam_options_say_what_cannot_be(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        BeamOptions(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"n_samples": 0}, {"seed": -1}]
)
def test_sample_options_say_what_cannot_be(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SampleOptions(**wrong)


def test_every_option_has_help_and_the_rules_that_peers_differ_in_are_said():
    for options in (BeamOptions, SampleOptions):
        for field in dataclasses.fields(options):
            assert field.metadata["help"], field.name
    helps = {field.name: field.metadata["help"] for field in dataclasses.fields(BeamOptions)}
    assert "CTranslate2" in helps["count_eos"]
    assert "fairseq" in helps["stopping"]


def test_options_do_not_import_torch():
    code = "import sys, seqkit.decode.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
