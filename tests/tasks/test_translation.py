"""Training a translation model: its run folder, and what is refused before and after there is one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqkit.config import read_toml
from seqkit.errors import InputError
from seqkit.tasks.translation import train_translation
from seqkit.tasks.translator import Translator
from seqkit.training.loop import Outcome


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
    with pytest.raises(InputError, match="must have a usable pair"):
        train(data={"max_length": 1})
    assert (tmp_path / "run" / "source.chars.tsv").exists()
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
        {"kind": "plain_seq2seq", "embedding_dim": 8, "hidden_dim": 8},
        {"kind": "plain_seq2seq", "hidden_dim": 8, "n_layers": 2, "gates": "hard_sigmoid", "padded_source": 5},
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
