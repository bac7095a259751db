"""Run folders from and to CTranslate2's format; its files themselves are the matter of `tests/models`."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from seqkit.config import read_toml, write_toml
from seqkit.errors import InputError
from seqkit.tasks.ctranslate2 import export_run, import_run
from seqkit.tasks.translator import Translator

LINES = ["abc", "dd a", "éab", "c", "zz", "bcdab"]


def trained(seqkit: Any, config: Path, folder: Path, *changes: str) -> Path:
    flags = [part for change in ("training.max_epochs=3", *changes) for part in ("--set", change)]
    ran = seqkit("train", config, "-o", folder, "--threads", "1", *flags)
    assert ran.code == 0, ran.err
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        ("model.tied_embeddings=none", "model.pre_norm=false"),
        ("tokenizer.shared=true", "model.tied_embeddings=all", "model.activation=gelu"),
        ("model.positions=learned", "model.max_positions=20", "tokenizer.source_eos=false"),
    ],
)
def test_export_and_import_keep_every_translation(
    seqkit: Any, tiny_config: Path, tmp_path: Path, changes: tuple[str, ...]
) -> None:
    pytest.importorskip("ctranslate2")
    run = trained(seqkit, tiny_config, tmp_path / "run", *changes)
    export_run(run, tmp_path / "ct2")
    import_run(tmp_path / "ct2", tmp_path / "back", tokens="char")
    before, after = Translator.load(run), Translator.load(tmp_path / "back")
    assert [after.encode(line) for line in LINES] == [before.encode(line) for line in LINES]
    for one, two in zip(before.translate(LINES), after.translate(LINES, before.search), strict=True):
        assert two.texts == one.texts
        assert two.hypotheses[0].score == pytest.approx(one.hypotheses[0].score, abs=1e-4)


def test_words_are_imported_as_words(seqkit: Any, tiny_config: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    run = trained(seqkit, tiny_config, tmp_path / "run", "tokenizer.kind=word")
    export_run(run, tmp_path / "ct2")
    import_run(tmp_path / "ct2", tmp_path / "back", tokens="word")
    line = (tiny_config.parent / "train.tsv").read_text().split("\t")[0]
    (one,), (two,) = (Translator.load(each).translate([line]) for each in (run, tmp_path / "back"))
    assert one.source_pieces == two.source_pieces
    assert read_toml(tmp_path / "back" / "config.toml")["tokenizer"]["kind"] == "word"


def test_an_imported_run_searches_as_ctranslate2_does(tiny_run: Path, tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    export_run(tiny_run, tmp_path / "ct2")
    import_run(tmp_path / "ct2", tmp_path / "back", tokens="char")
    translator = Translator.load(tmp_path / "back")
    lines = [line for line in LINES if "z" not in line]
    found = translator.translate(lines)
    results = ctranslate2.Translator(str(tmp_path / "ct2"), intra_threads=1).translate_batch(
        [list(line) for line in lines], beam_size=translator.search.beam_size, return_scores=True,
        min_decoding_length=0, max_decoding_length=translator.search.max_length,
    )  # fmt: skip
    for ours, theirs in zip(found, results, strict=True):
        assert ours.texts[0] == "".join(theirs.hypotheses[0])
        assert ours.hypotheses[0].score == pytest.approx(theirs.scores[0], abs=1e-3)


def test_only_a_transformer_is_exported(seqkit: Any, tiny_config: Path, tmp_path: Path) -> None:
    tables = read_toml(tiny_config)
    tables["model"] = {"kind": "seq2seq", "embedding_dim": 8, "hidden_dim": 8}
    shutil.copytree(tiny_config.parent, tmp_path / "data", ignore=shutil.ignore_patterns("run"))
    (tmp_path / "data" / "config.toml").write_text(write_toml(tables))
    run = trained(seqkit, tmp_path / "data" / "config.toml", tmp_path / "run")
    with pytest.raises(InputError, match="model must be a transformer to be exported, got another"):
        export_run(run, tmp_path / "ct2")
    assert not (tmp_path / "ct2").exists()


def test_import_leaves_nothing_half_written(tiny_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    export_run(tiny_run, tmp_path / "ct2")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")
    with pytest.raises(InputError, match="folder must be new or empty"):
        import_run(tmp_path / "ct2", tmp_path / "full", tokens="char")
    (tmp_path / "ct2" / "model.bin").write_bytes((tmp_path / "ct2" / "model.bin").read_bytes()[:-9])
    with pytest.raises(InputError, match="cut short"):
        import_run(tmp_path / "ct2", tmp_path / "back", tokens="char")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct2", "full"]
