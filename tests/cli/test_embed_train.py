"""`seqkit embed train`: what it writes, says and refuses."""

import argparse
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from seqkit.cli.embed_train import MODELS, OPTIONS, _bytes, _trainer, add_arguments
from seqkit.embeddings import FastText, GloVe, Word2Vec, WordVectors, native
from seqkit.embeddings.fasttext import SubwordVectors
from seqkit.embeddings.quantized import Int8Rows

built = pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the trainer is not built")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    generator = random.Random(1)
    topics = [["walk", "talk", "jump", "swim"], ["stone", "brick", "glass", "wood"]]
    lines = [" ".join(generator.choices(generator.choice(topics), k=8)) + "\n" for _ in range(500)]
    (tmp_path / "text").write_text("".join(lines))
    return tmp_path / "text"


@built
@pytest.mark.parametrize("model", MODELS)
def test_vectors_of_each_model_are_written(seqkit: Any, text: Path, tmp_path: Path, model: str) -> None:
    more = ["--epochs", "30"] if model == "glove" else ["--epochs", "3", "--sample", "0"]
    ran = seqkit("embed", "train", text, "-o", tmp_path / "v.safetensors", "--model", model, "--dim", "8", *more)
    assert (ran.code, ran.out) == (0, b"")
    assert "100.0 %" in ran.err
    assert ("pairs/s" if model == "glove" else "words/s") in ran.err
    assert "8 words of 8 numbers written to" in ran.err
    vectors = WordVectors.load(tmp_path / "v.safetensors")
    assert vectors.matrix.shape == (8, 8)
    assert isinstance(vectors, SubwordVectors) == (model == "fasttext")
    if model != "glove":  # nothing drives words apart that never stand together
        assert vectors.odd_one_out(["walk", "talk", "jump", "brick"]) == "brick"


@built
def test_vectors_in_eight_bits(seqkit: Any, text: Path, tmp_path: Path) -> None:
    options = ("--dim", "8", "--epochs", "1", "--model", "fasttext")
    assert seqkit("embed", "train", text, "-o", tmp_path / "v.safetensors", *options, "--dtype", "int8").code == 0
    vectors = WordVectors.load(tmp_path / "v.safetensors")
    assert isinstance(vectors, SubwordVectors)
    assert isinstance(vectors.rows, Int8Rows)
    ran = seqkit("embed", "train", text, "-o", tmp_path / "v.bin", *options, "--dtype", "int8")
    assert ran.code == 2
    assert "dtype must be float32, or int8 in the format safetensors, got int8 in word2vec" in ran.err
    assert not (tmp_path / "v.bin").exists()


@built
def test_the_options_reach_the_trainer(seqkit: Any, text: Path, tmp_path: Path) -> None:
    ran = seqkit(
        "embed", "train", text, text, "-o", tmp_path / "v.bin", "--dim", "4", "--epochs", "1", "--hierarchical",
        "--deterministic", "--threads", "2", "--memory", "100M", "--min-count", "2", "--seed", "7",
    )  # fmt: skip
    assert ran.code == 0
    trainer = Word2Vec(
        dim=4, epochs=1, hierarchical=True, deterministic=True, threads=1, memory=100 << 20, min_count=2, seed=7
    )
    assert (WordVectors.load(tmp_path / "v.bin").matrix == trainer.train([text, text]).matrix).all()


@built
def test_json_checkpoint_and_resume(seqkit: Any, text: Path, tmp_path: Path) -> None:
    arguments = (
        "embed",
        "train",
        text,
        "-o",
        tmp_path / "v.txt",
        "--dim",
        "4",
        "--checkpoint",
        tmp_path / "c",
        "--json",
    )
    first = seqkit(*arguments)
    assert first.code == 0
    last = json.loads(first.lines[-1])
    assert (last["kind"], last["vocabulary"], last["dim"], last["words"]) == ("done", 8, 4, 5 * 4000)
    assert 0 < last["loss"] < 5
    written = (tmp_path / "v.txt").read_bytes()
    again = seqkit(*arguments, "--resume")  # nothing is left to do
    assert again.code == 0
    assert (tmp_path / "v.txt").read_bytes() == written
    other = seqkit(*arguments, "--resume", "--window", "3")
    assert (other.code, "window must be 3, got 5" in other.err) == (2, True)


@built
def test_stdin_is_a_corpus_and_stdout_takes_vectors(seqkit: Any, text: Path) -> None:
    ran = seqkit(
        "embed", "train", "-", "-o", "-", "--format", "word2vec-text", "--dim", "3", "--epochs", "1",
        stdin=text.read_bytes(),
    )  # fmt: skip
    assert ran.code == 0
    assert ran.lines[0] == "8 3"
    assert len(ran.lines) == 9


def test_sigterm_is_said_and_ends_with_its_code(
    seqkit: Any, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Word2Vec, "train", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    ran = seqkit("embed", "train", text, "-o", tmp_path / "v.bin", "--checkpoint", tmp_path / "c")
    assert ran.code == 143
    assert ran.err == f"seqkit embed: terminated; the run is kept in {tmp_path / 'c'}\n"
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "v.bin").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-o", "v.npz"), "format must be one of"),
        (("-o", "none/v.bin"), "path must be in a folder that can be written"),
        (("-o", "v.bin", "--min-n", "3"), "--min-n: model must have this option, got skipgram"),
        (("-o", "v.bin", "--dim", "0"), "dim must be from 1"),
        (("-o", "v.bin", "--memory", "many"), "argument --memory"),
        (("-o", "-", "--format", "glove", "--json"), "vectors must go to a file"),
        (("-o", "v.bin", "--model", "fasttext", "--device", "cuda"), "FastText: device must be cpu, got cuda"),
        (("-o", "v.bin", "--model", "glove", "--device", "cuda"), "--device: model must have this option, got glove"),
    ],
)
def test_bad_options_end_with_2_before_any_work(
    seqkit: Any, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = seqkit("embed", "train", text, *arguments)
    assert (ran.code, ran.out) == (2, b"")
    assert says in ran.err
    assert not (tmp_path / "v.bin").exists()


def test_a_gpu_that_torch_does_not_see_ends_with_2(
    seqkit: Any, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ran = seqkit("embed", "train", text, "-o", tmp_path / "v.bin", "--device", "cuda")
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.count("\n") == 1
    assert "device cuda must be a card that torch sees, got none; cpu trains without one" in ran.err
    assert not (tmp_path / "v.bin").exists()


def test_every_option_is_a_trainers_and_sizes_have_units() -> None:
    fields = set(FastText.__dataclass_fields__) | set(GloVe.__dataclass_fields__)
    assert {name for name, _, _ in OPTIONS} <= fields
    assert [_bytes(each) for each in ("10", "2K", "1.5m", "1G")] == [10, 2048, 3 << 19, 1 << 30]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for model, kind in [
        ("skipgram", Word2Vec()),
        ("cbow", Word2Vec(architecture="cbow")),
        ("fasttext", FastText()),
        ("glove", GloVe()),
    ]:
        assert _trainer(parser.parse_args(["x", "-o", "y", "--model", model])) == kind
