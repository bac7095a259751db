"""The translator, on the tiny model of `tests/conftest.py`."""

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqkit.decode.options import BeamOptions
from seqkit.decode.sampling import greedy
from seqkit.errors import InputError
from seqkit.models.encoder_decoder import Source
from seqkit.tasks.translator import Translation, Translator
from seqkit.text.batch import pad

LINES = ["abc", "d", "éa b", "zzz", "aaaaaaaaaaaaaaaaaaaa", "dcba", "b d"]


@pytest.fixture
def train(seqkit: Any, tiny_config: Path, tmp_path: Path) -> Callable[..., Path]:
    """Trains one epoch of the tiny config, with some values of it changed."""

    def train(*changes: str) -> Path:
        flags = [part for change in ("training.max_epochs=1", *changes) for part in ("--set", change)]
        ran = seqkit("train", tiny_config, "-o", tmp_path / "run", "--threads", "1", *flags)
        assert ran.code == 0, ran.err
        return tmp_path / "run"

    return train


@pytest.fixture(scope="module")
def translator(tiny_run: Path) -> Translator:
    return Translator.load(tiny_run)


def same(first: list[Translation], second: list[Translation]) -> bool:
    return [dataclasses.astuple(each) for each in first] == [dataclasses.astuple(each) for each in second]


def test_translate_is_the_same_for_any_batch_and_order(translator: Translator) -> None:
    options = BeamOptions(beam_size=4, n_best=4, max_length=12)
    together = translator.translate(LINES, options)
    for size in (1, 2, 7, 64):
        assert same(translator.translate(LINES, options, batch_size=size), together)
    assert same(translator.translate(LINES, options, batch_tokens=1), together)
    assert same(translator.translate(LINES[::-1], options, batch_size=3)[::-1], together)
    assert translator.translate([]) == []


def test_beam_of_one_is_greedy(translator: Translator) -> None:
    found = translator.translate(LINES, BeamOptions(beam_size=1, max_length=12))
    sources = [translator.encode(line) for line in LINES]
    tokens, lengths = pad(sources, pad_id=translator.source.pad_id)
    target = translator.target
    likeliest = greedy(
        translator.model, Source(tokens, lengths, False), BeamOptions(beam_size=1, max_length=12),
        bos_id=target.bos_id, eos_id=target.eos_id, suppress=(target.pad_id, target.bos_id),
    )  # fmt: skip
    assert [each.hypotheses[0].tokens for each in found] == [each.tokens for each in likeliest]
    for one, two in zip(found, likeliest, strict=True):
        assert one.hypotheses[0].logprob == pytest.approx(two.logprob, rel=1e-6)  # added up in another precision


def test_translate_begins_with_the_prefix(translator: Translator) -> None:
    found = translator.translate(["abc", "dd"], prefixes=["ca", ""])
    assert found[0].texts[0].startswith("ca")
    assert found[1].texts == translator.translate(["dd"])[0].texts


def test_score_is_the_log_probability_of_a_translation(translator: Translator) -> None:
    found = translator.translate(LINES, BeamOptions(beam_size=3, max_length=40))
    ended = [(line, each) for line, each in zip(LINES, found, strict=True) if each.hypotheses[0].ended]
    assert len(ended) > 4
    pairs = [(line, each.texts[0]) for line, each in ended]
    for (_, each), (_, text), scores in zip(ended, pairs, translator.score(pairs), strict=True):
        assert translator.target.encode(text) == each.hypotheses[0].tokens
        assert math.fsum(scores) == pytest.approx(each.hypotheses[0].logprob, abs=1e-4)
        assert scores == pytest.approx(each.hypotheses[0].token_logprobs, abs=1e-4)


def test_score_does_not_depend_on_the_batch(translator: Translator) -> None:
    pairs = [("abc", "cba"), ("d", ""), ("", "a"), ("aaaaaaaaaa", "b")]
    alone = [translator.score([pair])[0] for pair in pairs]
    for scores, one, (_, target) in zip(translator.score(pairs), alone, pairs, strict=True):
        assert scores == pytest.approx(one, abs=1e-5)
        assert len(scores) == len(target) + 1
    assert translator.score([]) == []


def test_an_ensemble_of_a_model_with_itself_is_the_model(tiny_run: Path, translator: Translator) -> None:
    both = Translator.load(tiny_run)
    both.add_to_ensemble(Translator.load(tiny_run))
    alone = translator.translate(LINES)
    together = both.translate(LINES)
    assert [each.texts for each in together] == [each.texts for each in alone]
    for one, two in zip(alone, together, strict=True):
        assert two.hypotheses[0].score == pytest.approx(one.hypotheses[0].score, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("tokenizer.kind=word", r"must have the tokens of .* to vote, got others"),
        ("tokenizer.source_bos=true", r"must frame sources as .* does to vote"),
    ],
)
def test_an_ensemble_of_other_tokens_is_refused(train: Any, tiny_run: Path, change: str, sentence: str) -> None:
    other = Translator.load(train(change))
    with pytest.raises(InputError, match=sentence):
        Translator.load(tiny_run).add_to_ensemble(other)


def test_learned_positions_bound_source_and_target(train: Any, translator: Translator) -> None:
    bounded = Translator.load(train("model.positions=learned", "model.max_positions=8"))
    assert bounded.max_positions == 8
    (found,) = bounded.translate(["ab"], BeamOptions(beam_size=2, min_length=300, max_length=500))
    assert len(found.hypotheses[0].tokens) == 8
    assert translator.max_positions > 10**9
    with pytest.raises(InputError, match=r"pair 2: a side must have at most .*8 tokens, got 9"):
        bounded.score([("ab", "a"), ("ab", "a" * 8)])


def test_a_line_without_tokens_has_an_empty_translation(translator: Translator) -> None:
    found = translator.translate(["", "abc", ""])
    assert [each.texts for each in found[::2]] == [[""], [""]]
    assert [each.hypotheses for each in found[::2]] == [[], []]
    assert same(found[1:2], translator.translate(["abc"]))


def test_load_names_what_is_wrong_with_a_run_folder(tmp_path: Path, tiny_run: Path) -> None:
    with pytest.raises(InputError, match=r"must be a run folder with a config\.toml, got none"):
        Translator.load(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    weights = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"must have been trained up to a validation, got no model\.safetensors yet"):
        Translator.load(run)
    (run / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(InputError, match=r"must be a readable safetensors file"):
        Translator.load(run)
    (run / "model.safetensors").write_bytes(weights)
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("ffn_dim = 32", "ffn_dim = 31"))
    with pytest.raises(InputError, match=r"weights must fit the model of its config\.toml, got other names or shapes"):
        Translator.load(run)
    (run / "config.toml").write_text(config)
    (run / "source.chars.tsv").unlink()
    with pytest.raises(InputError, match=r"tokenizer must be one of the files .*source\.chars\.tsv.*, got 0 of them"):
        Translator.load(run)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", ""])
def test_load_refuses_a_device_that_is_not_there(tiny_run: Path, device: str) -> None:
    with pytest.raises(InputError, match="device must be one that this torch can use"):
        Translator.load(tiny_run, device=device)
