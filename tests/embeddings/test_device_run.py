"""Word vectors by way of `ops.word2vec_step`, on torch's CPU as on a card: what is learned, kept, refused."""

import itertools
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqkit import ops
from seqkit.embeddings import native
from seqkit.embeddings.corpus import Corpus
from seqkit.embeddings.device_run import DeviceRun, find_card, stretches
from seqkit.embeddings.word2vec import Checkpoint, Progress, Run, Word2Vec, save, train
from seqkit.errors import InputError

pytestmark = pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the trainer is not built")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words of two topics: those of one stand together. Several stretches."""
    generator = random.Random(1)
    path = tmp_path_factory.mktemp("text") / "a.txt"
    lines = []
    for _ in range(50_000):
        topic = generator.choice("ab")
        lines.append(" ".join(f"{topic}{generator.randint(0, 30):02d}" for _ in range(10)))
    path.write_text("\n".join(lines))
    return path


def device_run(trainer: Word2Vec, text: Any) -> DeviceRun:
    return DeviceRun(Corpus(text, min_count=trainer.min_count), trainer._options(), torch.device("cpu"))


@pytest.mark.parametrize("options", [{}, {"architecture": "cbow"}, {"negative": 9, "dim": 33}])
def test_a_device_learns_what_the_native_trainer_does(text: Path, options: dict[str, Any]) -> None:
    trainer = Word2Vec(**{"dim": 16, "epochs": 1, "sample": 0.0, **options})
    told: list[Progress] = []
    run = device_run(trainer, text)
    train(run, on_progress=told.append)
    vectors = trainer._vectors(run)
    unit = vectors.matrix / np.linalg.norm(vectors.matrix, axis=1, keepdims=True)
    topic = np.array([word[0] == "a" for word in vectors.words])
    same = topic[:, None] == topic
    assert (unit @ unit.T)[same].mean() > (unit @ unit.T)[~same].mean() + 0.5
    assert told[-1].words == told[-1].total_words == 500_000
    other: list[Progress] = []
    trainer.train(text, on_progress=other.append)
    # A word that is drawn twice for a window counts twice here, once in the native trainer's loss.
    assert told[-1].loss == pytest.approx(other[-1].loss, rel=0.1)


def test_the_device_draws_as_the_native_trainer_does() -> None:
    # Half of the words are ten times as frequent, and rows hardly move: the losses are those of what is drawn.
    generator = random.Random(2)
    words = [f"w{i}" for i in range(2000)]
    sentences = [generator.choices(words, weights=[1] * 1000 + [10] * 1000, k=40) for _ in range(4000)]
    trainer = Word2Vec(dim=8, epochs=1, min_count=1, alpha=1e-9, min_alpha=0.0, sample=1e-3)
    mine, native_run = device_run(trainer, sentences), Run(Corpus(sentences, min_count=1), trainer._options())
    for run in (mine, native_run):
        rows = np.random.default_rng(3).normal(size=(2000, 8)).astype(np.float32)
        counts = run.corpus.counts[:, None] / 100  # scores tell frequent words from others
        if isinstance(run, DeviceRun):
            run._inputs.copy_(torch.from_numpy(rows))
            run._outputs.copy_(torch.from_numpy(rows * counts))
        else:
            run.matrix(0)[:, :8], run.matrix(1)[:, :8] = rows, rows * counts
        run.run()
    assert mine.progress().words == native_run.progress().words == 160_000
    assert mine.progress().pairs == pytest.approx(native_run.progress().pairs, rel=0.01)
    losses = [run.progress().loss / run.progress().pairs for run in (mine, native_run)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_a_device_run_steps_through_its_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def step(*rows: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append({"ids": rows[2].tolist(), "radii": rows[3], "negatives": rows[4], **options})
        return torch.ones(len(rows[2])), torch.ones(len(rows[2]), dtype=torch.int32)

    monkeypatch.setattr(ops, "word2vec_step", step)
    monkeypatch.setattr("seqkit.embeddings.device_run.STRETCH", 6)
    trainer = Word2Vec(dim=4, epochs=2, min_count=1, sample=0.0, window=3, negative=9, alpha=0.9, min_alpha=0.0)
    run = device_run(trainer, [["a", "b"], ["a", "b", "c"], ["a"], ["c"] * 8])
    run.run()
    texts = [call["ids"] for call in calls]
    assert [len(ids) for ids in texts] == [3, 6, 6, 3] * 2  # a sentence that is longer than a stretch is cut
    assert list(itertools.chain(*texts[:4])) == run.corpus.ids().tolist()
    rates = [call["rate"] for call in calls]
    assert rates == sorted(rates, reverse=True)
    assert (rates[0], rates[-1]) == (pytest.approx(0.9 * (1 - 1 / 28)), pytest.approx(0.9 / 28))
    assert {(call["window"], call["negative_weight"], call["cbow"], call["concurrency"]) for call in calls} == {
        (3, 9 / 15, False, 1)
    }
    radii = torch.cat([call["radii"] for call in calls])
    assert (int(radii.min()), int(radii.max())) == (1, 3)
    assert calls[0]["negatives"].shape == (3, 15)
    assert run.progress().loss == run.progress().pairs == 36


def test_stretches_keep_sentences_whole() -> None:
    ids = np.array([1, 2, -1, 3, -1, -1, 4, 5, 6, 7, 8, -1, 9, -1], np.int32)
    assert stretches(ids, 4).tolist() == [0, 3, 6, 10, 14]
    assert stretches(ids, 100).tolist() == [0, 14]
    assert stretches(ids[:2], 1).tolist() == [0, 1, 2]


def test_an_interrupted_device_run_goes_on_to_the_same_bytes(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Word2Vec(dim=8, epochs=4)
    whole = device_run(trainer, text)
    train(whole)
    first = device_run(trainer, text)
    learn = first._train_stretch

    def learn_and_wait() -> None:  # in the middle, until the run is told to stop
        learn()
        while first.progress().position == 4 and not first._stopped:
            time.sleep(0.001)

    def interrupt(progress: Progress) -> None:
        if first.progress().position == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(first, "_train_stretch", learn_and_wait)
    with pytest.raises(KeyboardInterrupt):
        train(first, checkpoint=tmp_path / "state", on_progress=interrupt)
    again = device_run(trainer, text)
    again.restore(Checkpoint.load(tmp_path / "state"), "state")
    assert again.progress().position == 5 < whole.progress().position
    train(again)
    assert (again.matrix(0) == whole.matrix(0)).all()
    assert (again.matrix(1) == whole.matrix(1)).all()
    assert again.progress().loss == whole.progress().loss


def test_a_checkpoint_of_another_device_is_refused(text: Path, tmp_path: Path) -> None:
    trainer = Word2Vec(dim=8, epochs=1)
    run = device_run(trainer, text)
    run.device = "cuda"  # as it is on a card
    save(run, tmp_path / "state")
    with pytest.raises(InputError, match="state: device must be cpu, got cuda"):
        trainer.train(text, checkpoint=tmp_path / "state", resume=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "tpu"}, "device must be cpu or cuda, got 'tpu'"),
        ({"device": "cuda", "hierarchical": True}, "hierarchical must not be asked for on cuda"),
        ({"device": "cuda:1", "softmax": True}, "softmax must not be asked for on cuda:1"),
        ({"device": "cuda", "deterministic": True}, "deterministic must not be asked for on cuda"),
    ],
)
def test_options_that_a_device_has_not_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Word2Vec(**options)


def test_a_card_is_asked_for_before_the_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device cuda must be a card that torch sees, got none; cpu trains"):
        Word2Vec(device="cuda").train("no such text")
    with pytest.raises(InputError, match="grow_from must be None on cuda"):
        Word2Vec(device="cuda").train("no such text", grow_from="state")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="device cuda:1 must be a card that torch sees, got 1 of them"):
        find_card("cuda:1", dim=100, window=5)
    with ops.use_backend("reference"), pytest.raises(InputError, match="the kernel for cuda must be built and chosen"):
        find_card("cuda", dim=100, window=5)
    monkeypatch.setattr(ops, "backend", lambda *_: "native")
    with pytest.raises(InputError, match="dim and window must be smaller on cuda, got 300 and 40"):
        find_card("cuda", dim=300, window=40)
    assert find_card("cuda", dim=100, window=5) == torch.device("cuda")
