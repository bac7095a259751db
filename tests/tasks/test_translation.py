"""Configs, run folders and the translator, on the tiny model of `tests/conftest.py`."""

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seqkit.config import read_toml
from seqkit.decode.options import BeamOptions
from seqkit.decode.sampling import greedy
from seqkit.errors import InputError
from seqkit.models.encoder_decoder import Source
from seqkit.tasks.translation import Translation, TranslationConfig, Translator, train_translation
from seqkit.text.batch import pad
from seqkit.training.loop import Outcome

LINES = ["abc", "d", "éa b", "", "zzz", "aaaaaaaaaaaaaaaaaaaa", "dcba", "b d"]


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def progress(self, step: int, total: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def train(tiny_config: Path, tmp_path: Path) -> Callable[..., tuple[Outcome, Notes]]:
    """Trains one epoch of the tiny config, with some values of it changed, in the folder `run`."""

    def train(*, resume: bool = False, **changes: dict[str, Any]) -> tuple[Outcome, Notes]:
        tables = read_toml(tiny_config)
        tables["training"]["max_epochs"] = 1
        for section, values in changes.items():
            tables.setdefault(section, {}).update(values)
        notes = Notes()
        outcome = train_translation(
            tables, tmp_path / "run", where="c", base=tiny_config.parent, resume=resume, report=notes
        )
        return outcome, notes

    return train


@pytest.fixture(scope="module")
def translator(tiny_run: Path) -> Translator:
    return Translator.load(tiny_run)


def test_config_survives_its_tables(tiny_config: Path) -> None:
    config = TranslationConfig.from_tables(read_toml(tiny_config), where="c")
    tables = config.to_tables()
    assert TranslationConfig.from_tables(tables, where="c") == config
    assert tables["model"]["kind"] == "transformer"
    assert tables["search"]["length_penalty"] == "power:0.7"  # defaults are written out


@pytest.mark.parametrize(
    ("section", "values", "sentence"),
    [
        ("training", {"max_epoch": 3}, r"c \[training\]: `max_epoch` must be .* \(did you mean `max_epochs`\?\)"),
        ("serch", {"beam_size": 3}, r"c: `serch` must be a known table \(did you mean `search`\?\)"),
        ("model", {"kind": "transfomer"}, r"`kind` must be one of transformer, seq2seq.*did you mean `transformer`"),
        ("tokenizer", {"kind": "unigrm"}, r"`kind` must be one of unigram, .*did you mean `unigram`"),
        ("search", {"beam_size": 0}, r"`beam_size` must be at least 1, got 0"),
        ("model", {"model_dim": "wide"}, r"`model_dim` must be a whole number, got 'wide'"),
        ("data", {"train": []}, r"`train` must be a source and a target file, or one .tsv, got 0 paths"),
        ("data", {"train": ["none.tsv"]}, r"none.tsv: corpus must be a file that can be read"),
        ("data", {"valid": ["$SEQKIT_NO_SUCH/valid.tsv"]}, r"environment variable SEQKIT_NO_SUCH must be set"),
    ],
)
def test_a_wrong_config_is_named_before_anything_is_written(
    train: Any, tmp_path: Path, section: str, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        train(**{section: values})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("key", "value"), [("task", "parsing"), ("training", 3)])
def test_a_task_or_table_of_another_kind_is_refused(tiny_config: Path, key: str, value: object) -> None:
    with pytest.raises(InputError, match=f"`{key}` must be"):
        TranslationConfig.from_tables({**read_toml(tiny_config), key: value}, where="c")


def test_missing_model_kind_is_named() -> None:
    tables = {"data": {"train": ["a.tsv"], "valid": ["a.tsv"]}}
    with pytest.raises(InputError, match=r"c \[model\]: `kind` must be one of transformer, seq2seq, got None"):
        TranslationConfig.from_tables(tables, where="c")


def test_an_empty_corpus_is_refused(train: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(InputError, match="`train` must have at least one pair, got none"):
        train(data={"train": [str(tmp_path / "empty.tsv")]})


def test_pairs_with_an_empty_or_long_side_are_left_out_and_told(train: Any, tmp_path: Path) -> None:
    (tmp_path / "odd.tsv").write_text("ab\tba\n\tba\nab\t\n" + "a" * 50 + "\tb\n")
    outcome, notes = train(data={"train": [str(tmp_path / "odd.tsv")], "max_length": 20})
    assert outcome.step == 1
    assert any(note.startswith("left out 3 of 4 training pairs") for note in notes.notes)
    (tmp_path / "odd.tsv").write_text("\ta\n")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(InputError, match="`train` must have a usable pair, got none"):
        train(data={"train": [str(tmp_path / "odd.tsv")]})


def test_a_run_folder_is_not_overwritten(train: Any, tmp_path: Path) -> None:
    train()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"run folder must be new, .* go on with --resume"):
        train()
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_resume_refuses_another_config_by_its_key_but_allows_a_longer_one(train: Any) -> None:
    first, _ = train()
    with pytest.raises(InputError, match=r"`training.learning_rate` must be 0\.01 as when .*, to resume, got 0\.5"):
        train(resume=True, training={"learning_rate": 0.5})
    with pytest.raises(InputError, match=r"`model.ffn_dim` must be 32 as when"):
        train(resume=True, model={"ffn_dim": 64})
    longer, notes = train(resume=True, training={"max_epochs": 2})
    assert longer.step > first.step
    assert f"resuming from step {first.step}" in notes.notes


def test_tokenizers_left_by_another_config_are_not_used(train: Any, tmp_path: Path) -> None:
    """A first try that fails after its tokenizers were written leaves a folder that is free to be used again."""
    with pytest.raises(InputError, match="`sampling` must be 0 for char tokens"):
        train(tokenizer={"sampling": 0.1})
    (tmp_path / "run" / "source.txt").write_text("mine")
    train(tokenizer={"kind": "word"})
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"source.words.tsv", "target.words.tsv", "source.txt"} <= names
    assert "source.chars.tsv" not in names


def test_a_run_folder_that_cannot_be_made_is_told(train: Any, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match="run folder must be one that can be made, got: File exists"):
        train()


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "transformer", "tied_embeddings": "none", "positions": "learned", "max_positions": 30},
        {"kind": "seq2seq", "embedding_dim": 8, "hidden_dim": 8},
    ],
)
def test_each_family_trains_saves_and_translates(tiny_config: Path, tmp_path: Path, model: dict[str, Any]) -> None:
    tables = read_toml(tiny_config)
    tables |= {"model": model, "validation": {"bleu": True}}
    tables["training"] |= {"max_epochs": 1, "metric": "bleu"}
    train_translation(tables, tmp_path / "run", where="c", base=tiny_config.parent, resume=False, report=Notes())
    translations = Translator.load(tmp_path / "run").translate(["abc", "d"])
    assert all(isinstance(translation.texts[0], str) for translation in translations)


def test_subword_sampling_trains_with_a_shared_tokenizer(train: Any, tmp_path: Path) -> None:
    train(
        tokenizer={"kind": "bpe", "shared": True, "vocab_size": 20, "sampling": 0.2},
        model={"tied_embeddings": "all"},
        validation={"bleu": False},
    )
    assert (tmp_path / "run" / "tokenizer.spm").exists()
    translator = Translator.load(tmp_path / "run")
    assert translator.source is translator.target
    assert len(translator.translate(["abc"])) == 1


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


def test_an_ensemble_of_other_tokens_is_refused(train: Any, tmp_path: Path, tiny_run: Path) -> None:
    train(tokenizer={"kind": "word"})
    with pytest.raises(InputError, match=r"must have the tokens of .* to vote, got others"):
        Translator.load(tiny_run).add_to_ensemble(Translator.load(tmp_path / "run"))


def test_learned_positions_bound_source_and_target(train: Any, tmp_path: Path, translator: Translator) -> None:
    train(model={"positions": "learned", "max_positions": 8})
    bounded = Translator.load(tmp_path / "run")
    assert bounded.max_positions == 8
    with torch.no_grad():  # a model that never ends
        bounded.model.target_embedding[bounded.target.eos_id] = -100.0 * torch.ones(16)
    (found,) = bounded.translate(["ab"], BeamOptions(beam_size=2, max_length=500))
    assert len(found.hypotheses[0].tokens) <= 8
    assert translator.max_positions > 10**9


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
